"""One thread for the disk: does one job at a time, and says so through a descriptor that a run loop can wait for.

A job costs two wake-ups. trio's `to_thread` costs more of them and half a dozen Python frames: 560 us for a small write
and fdatasync where this takes 295, measured on a virtual machine where waking a thread is dear.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

Job = Callable[[], None]


class Disk:
    """`begin` a job, wait until `descriptor` is readable, `acknowledge`; then ask `finished` and `error`."""

    def __init__(self) -> None:
        self.finished = True
        self.error: Exception | None = None
        """What the last job raised."""
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._begin = os.eventfd(0, os.EFD_CLOEXEC)
        self._job: Job | None = None
        self._thread: threading.Thread | None = None

    def begin(self, job: Job) -> None:
        """Start `job`; the one before must have finished."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
            self._thread.start()
        self._job, self.finished, self.error = job, False, None
        os.eventfd_write(self._begin, 1)

    def tell(self) -> None:
        """Called by a job: make the descriptor readable before the job is over."""
        os.eventfd_write(self.descriptor, 1)

    def acknowledge(self) -> None:
        """Make the descriptor wait for the next word."""
        os.eventfd_read(self.descriptor)

    def close(self) -> None:
        """End the thread; no job may be under way."""
        if self._thread is not None:
            self._job = None
            os.eventfd_write(self._begin, 1)
            self._thread.join()
            self._thread = None
        os.close(self._begin)
        os.close(self.descriptor)

    def _run(self) -> None:
        while True:
            os.eventfd_read(self._begin)
            if self._job is None:
                return
            try:
                self._job()
            except Exception as error:  # whatever it is, whoever waits must hear of it
                self.error = error
            self.finished = True
            os.eventfd_write(self.descriptor, 1)
