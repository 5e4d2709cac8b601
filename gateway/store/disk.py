"""The disk, off the run loop: one thing at a time, and a descriptor that a run loop can wait for.

An append that does nothing else is the kernel's own work, where it lets us have io_uring (see uring.py). Everything
else, and appends too elsewhere, is a job of one thread. A job costs two wake-ups. trio's `to_thread` costs more of them
and half a dozen Python frames: 560 us for a small write and fdatasync where this takes 295, measured on a virtual
machine where waking a thread is dear.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from gateway.store.uring import Uring

Job = Callable[[], None]
_NOT_HERE: Final = (errno.EINVAL, errno.EOPNOTSUPP)
"""What a file system says that syncs no single write."""
_NOTHING_DONE: Final = (*_NOT_HERE, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR)


class Disk:
    """`begin` something, wait until `descriptor` is readable, `acknowledge`; then ask `finished` and `error`.

    `uring`: have appends carried out by the kernel, where it can.
    """

    def __init__(self, *, uring: bool = False) -> None:
        self.finished = True
        self.error: Exception | None = None
        """What went wrong with what has finished."""
        self.appended = 0
        """Bytes of the last append that are on the disk; where they are not all, the rest is a job for the thread."""
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._begin = os.eventfd(0, os.EFD_CLOEXEC)
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._ring: Uring | None = None
        self._appending = False
        if uring:
            with suppress(OSError):
                self._ring = Uring(self.descriptor)

    @property
    def appends(self) -> bool:
        """Whether `append` can be tried."""
        return self._ring is not None

    def append(self, file: int, data: bytes) -> bool:
        """Begin to write `data` at the end of `file`, and through to the disk. False where that is for the thread."""
        if self._ring is None:
            return False
        try:
            self._ring.append(file, data)
        except OSError:
            self._give_up_ring()
            return False
        self.finished, self.error, self.appended, self._appending = False, None, 0, True
        return True

    def begin(self, job: Job) -> None:
        """Start `job`; what was begun before must have finished."""
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
        with suppress(BlockingIOError):  # there was none
            os.eventfd_read(self.descriptor)
        if self._appending and self._ring is not None:
            result = self._ring.result()
            if result is not None:
                self._appended(result)

    def _appended(self, result: int) -> None:
        self.finished, self._appending = True, False
        if result >= 0:
            self.appended = result
        elif -result not in _NOTHING_DONE:
            self.error = OSError(-result, os.strerror(-result))
        elif -result in _NOT_HERE:
            self._give_up_ring()

    def _give_up_ring(self) -> None:
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def close(self) -> None:
        """End the thread; nothing may be under way."""
        if self._thread is not None:
            self._job = None
            os.eventfd_write(self._begin, 1)
            self._thread.join()
            self._thread = None
        self._give_up_ring()
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
