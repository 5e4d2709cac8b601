"""Is there room on the disk? Two marks: below the low one the gateway warns, below the high one it takes no publishes.

Reads and acks go on at either: an ack is what makes room. The file system is asked once a second, in a thread of its
own, so that neither the hot path nor a disk that hangs has anything to do with it. A mark is left again by itself, a
little above where it was reached, so that the state does not flutter.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from typing import Final

import attrs
import structlog
import trio

from gateway.config import Disk
from gateway.errors import GatewayError
from gateway.model import Batch

_log = structlog.get_logger("gateway.disk")
PERIOD_S: Final = 1.0
_LEAVING: Final = 1.1
"""A mark is left at this many times the room at which it was reached."""
_RETRY_AFTER_S: Final = 10


class Mark(enum.StrEnum):
    """How much room there is."""

    NONE = "none"
    LOW = "low"
    """Warned of."""
    HIGH = "high"
    """Nothing is published any more."""


@attrs.frozen
class Room:
    """A file system as it was last seen, in bytes."""

    free: int
    size: int


def look(directory: str) -> Room:
    """What is free to this user. Blocks: the file system may be far away. Raises OSError."""
    found = os.statvfs(directory)
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def judge(room: Room, settings: Disk, before: Mark) -> Mark:
    """The mark that is reached now, where it was `before`."""
    for mark, least, share in (
        (Mark.HIGH, settings.high_free_bytes, settings.high_free_share),
        (Mark.LOW, settings.low_free_bytes, settings.low_free_share),
    ):
        wanted = max(least, share * room.size)
        if before is Mark.HIGH or before is mark:
            wanted *= _LEAVING
        if room.free < wanted:
            return mark
    return Mark.NONE


class DiskMarks:
    """The state of the store's file system; `check` is asked at the door of publishing."""

    def __init__(self, directory: str, settings: Disk, look: Callable[[str], Room] = look) -> None:
        self.mark = Mark.NONE
        self.room: Room | None = None
        """None before the first look, and where the last one failed."""
        self.error = ""
        """Why it failed."""
        self.reached = {Mark.LOW: 0, Mark.HIGH: 0}
        """Times a mark was reached."""
        self._directory = directory
        self._settings = settings
        self._look = look

    async def run(self) -> None:
        while True:
            await self.look_now()
            await trio.sleep(PERIOD_S)

    async def look_now(self) -> None:
        """Ask the file system, and act where a mark was reached or left."""
        try:
            self.room = await trio.to_thread.run_sync(self._look, self._directory, abandon_on_cancel=True)
        except OSError as error:
            if not self.error:
                _log.warning("cannot see how much room there is", directory=self._directory, error=str(error))
            self.room, self.error = None, str(error)
            return
        self.error = ""
        mark = judge(self.room, self._settings, self.mark)
        if mark is not self.mark:
            self._reach(mark, self.room)

    def _reach(self, mark: Mark, room: Room) -> None:
        self.mark = mark
        if mark is Mark.NONE:
            _log.info("there is room on the disk again", directory=self._directory, free_bytes=room.free)
            return
        self.reached[mark] += 1
        told = "nothing is published any more" if mark is Mark.HIGH else "make room"
        _log.warning(f"the disk fills: {told}", directory=self._directory, free_bytes=room.free, mark=mark.value)

    def check(self, batch: Batch) -> None:
        """A door of `admit`: GatewayError `disk_full` at the high mark."""
        if self.mark is Mark.HIGH:
            free = "unknown" if self.room is None else f"{self.room.free:,}"
            raise GatewayError(
                "disk_full",
                f"the disk of the store has {free} bytes free, too few to take more (disk.high_free_bytes, "
                f"disk.high_free_share); make room or settle what is stored, then try again",
                retry_after_s=_RETRY_AFTER_S,
            )
