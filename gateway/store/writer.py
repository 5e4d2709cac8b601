"""What the disk thread does in one turn: write, sync, seal, checkpoint, delete. Everything here blocks.

The order of its steps is what every promise of the store stands on: a segment is synced before anything is written to
the next; names are synced before anything in a new file is answered for; what was settled is synced before a merged
segment that leaves it out is put in its place; a checkpoint is synced before what it no longer needs is deleted, and
what the checkpoint before it still names stays until the one after.

What was accepted is never without room, if that can be helped. Where the file system reserves blocks (fallocate), the
segment in use and the next one have theirs. Where it does not, a file as large lies there filled, and is given up for
the sake of a write that finds the disk full. Only where that is not enough, since others took the room, a turn has to
wait: what it wrote in part is cut off again, and it is carried out later from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from errno import EDQUOT, ENOSPC
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import attrs
import structlog

from gateway.store import checkpoint as checkpoints
from gateway.store import hint
from gateway.store.checkpoint import Checkpoint
from gateway.store.files import Files
from gateway.store.merge import Merge
from gateway.store.segment import Segment

T = TypeVar("T")
_log = structlog.get_logger("gateway.store")
SPARE_NAME: Final = "spare"
_SLACK_BYTES_MAX: Final = 8 * 1024 * 1024
_FILLING_BYTES: Final = 1024 * 1024
_NO_ROOM: Final = (ENOSPC, EDQUOT)


class NoRoomError(OSError):
    """A turn could not be carried out for want of room. It may be tried again, and goes on where it stopped."""


@attrs.define(slots=True)
class Work:
    """What one turn makes durable."""

    chunks: list[tuple[Segment, list[bytes]]] = attrs.field(factory=list)  # those that are not written as yet
    created: bool = False  # a file, whose name is to be synced
    unsure: bool = False  # an append has ended early: there may be more in the file than is known to be
    size: int = 0
    records: int = 0
    entries: list[object] = attrs.field(factory=list)  # reported once synced
    written: list[object] = attrs.field(factory=list)  # reported once written
    routed: dict[int, None] = attrs.field(factory=dict)  # subscriptions that get something new
    in_file: bool = False  # all of it has been written
    end: int = 0  # positions below this are durable afterwards
    seal: list[Segment] = attrs.field(factory=list)  # to get their hint files
    sealed: list[Segment] = attrs.field(factory=list)  # have got them
    adopted: Merge | None = None  # its file is to be put in its place
    checkpoint: Checkpoint | None = None
    released: list[Segment] = attrs.field(factory=list)  # no checkpoint needs them behind this one
    spare_wanted: bool = False

    @property
    def waiting(self) -> int:
        """How many wait to be reported."""
        return len(self.entries) + len(self.written)


@attrs.define(slots=True)
class WriterStatistics:
    """Counters since the start."""

    checkpoints: int = 0
    checkpoints_postponed: int = 0
    segments_released: int = 0
    hints_written: int = 0


class Writer:
    """Carries out one `Work` after the other, on the disk thread."""

    def __init__(self, files: Files, directory: Path, segment_bytes: int, tell: Callable[[], None]) -> None:
        self.files = files
        self.directory = directory
        self.epoch = ""
        self.statistics = WriterStatistics()
        self.has_spare = False
        """The file of the next segment is there, with its bytes reserved."""
        self.is_full = False
        """There is no room for it."""
        self.is_reserved = False
        """What is written to now has room of its own, whether or not there is any for the next."""
        self.slack_bytes = min(_SLACK_BYTES_MAX, segment_bytes)
        """A segment may grow beyond its size by one turn's appends, and by acks while there is no room for another."""
        self._reserved_bytes = segment_bytes + self.slack_bytes
        self._spare_is_filled = False  # since its bytes cannot be reserved
        self._tell = tell  # says that all has been written, before it is synced

    def carry_out(self, work: Work) -> None:
        """All of `work`. Raises OSError, and then nothing more may be written; but for NoRoomError."""
        files = self.files
        before: Segment | None = None
        while work.chunks:
            segment, parts = work.chunks[0]
            if before is not None:  # or a power cut could leave a torn segment that is not the last
                files.sync(before.file)
            if segment.file < 0:
                segment.file = self._with_room(partial(self._create, segment))
                work.created = True
            if work.unsure:
                files.truncate(segment.file, segment.written)
                work.unsure = False
            self._with_room(partial(self._write, segment, b"".join(parts)))
            before = segment
            del work.chunks[0]
        work.in_file = True
        if work.written:
            self._tell()
        if before is not None:
            files.sync(before.file)
        if work.created:
            files.sync_directory(self.directory)
        if work.adopted:
            self._put_in_place(work.adopted.segment)
        if work.seal or work.checkpoint or work.spare_wanted:
            self._keep_house(work)

    def bytes_alone(self, work: Work) -> tuple[int, bytes] | None:
        """An open file and the bytes for it, of a turn that is nothing else; None of any other."""
        if len(work.chunks) != 1 or work.written or work.created or work.adopted:
            return None
        if work.seal or work.checkpoint or work.spare_wanted:
            return None
        segment, parts = work.chunks[0]
        if segment.file < 0:
            return None
        data = b"".join(parts)
        work.chunks[0] = (segment, [data])
        return segment.file, data

    def appended(self, work: Work, size: int) -> None:
        """So many bytes of those are on the disk; the rest is for `carry_out`."""
        segment, (data,) = work.chunks[0]
        segment.written += size
        work.chunks[0] = (segment, [data[size:]])
        work.unsure = size < len(data)
        if not work.unsure:
            del work.chunks[0]

    def _write(self, segment: Segment, data: bytes) -> None:
        """Put `data` behind what the segment's file holds: all of it, or nothing where there is no room."""
        try:
            self.files.write(segment.file, data)
        except OSError as error:
            if error.errno in _NO_ROOM:
                self.files.truncate(segment.file, segment.written)
            raise
        segment.written += len(data)

    def _with_room(self, act: Callable[[], T]) -> T:
        """What `act` returns; where it finds no room, once more in that of the spare. Raises NoRoomError."""
        try:
            return act()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
        self.is_reserved = False
        self._note_full(True)
        try:
            self._give_up_spare()
            return act()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise NoRoomError(error.errno, error.strerror) from error

    def _give_up_spare(self) -> None:
        if self.has_spare:
            self.has_spare = False
            self.files.unlink(self.directory / SPARE_NAME)

    def _keep_house(self, work: Work) -> None:
        """What may be put off where there is no room for it: nothing is lost by that."""
        for segment in work.seal:
            if self._seal(segment):
                work.sealed.append(segment)
        if work.checkpoint and self._save(work.checkpoint):
            for segment in work.released:
                self._delete(segment)
        elif work.checkpoint:
            work.checkpoint = None
        if work.spare_wanted:
            self.make_spare()

    def _put_in_place(self, segment: Segment) -> None:
        """A merged segment's file, over that of its first source. What it leaves out was settled, and that is synced.

        From here on a start finds the merged segment, and removes those that it covers. The checkpoints that such a
        start may begin with have their places behind all of them.
        """
        assert segment.moving_from is not None
        self.files.replace(segment.moving_from, segment.path)
        self.files.sync_directory(self.directory)

    def _create(self, segment: Segment) -> int:
        if not self.has_spare or self._spare_is_filled:
            return self.files.create(segment.path)
        self.files.replace(self.directory / SPARE_NAME, segment.path)
        self.has_spare = False
        self.is_reserved = True
        return self.files.open(segment.path, append=True)

    def make_spare(self) -> None:
        """Reserve the room of the segment after this one, so that what was accepted is never without."""
        path = self.directory / SPARE_NAME
        if self.has_spare:
            return
        try:
            if path.exists():
                self.files.unlink(path)
            file = self.files.create(path)
            try:
                self._spare_is_filled = not self.files.reserve(file, self._reserved_bytes)
                if self._spare_is_filled:
                    self._fill(file)
            finally:
                self.files.close(file)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            if path.exists():
                self.files.unlink(path)
            self._note_full(True)
            return
        self.has_spare = True
        self._note_full(False)

    def _fill(self, file: int) -> None:
        """Take the room by writing, once: the file stays while segments come and go. Synced, or it might be nowhere.

        With what cannot be made smaller, for a file system that would.
        """
        left = self._reserved_bytes
        if self.files.free(self.directory) < left:  # do not take from others what will not do
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        while left > 0:
            self.files.write(file, os.urandom(min(left, _FILLING_BYTES)))
            left -= _FILLING_BYTES
        self.files.sync(file)

    def _note_full(self, is_full: bool) -> None:
        if is_full and not self.is_full:
            what = "no room for another segment; once this one is full nothing is published"
            _log.warning(what if self.is_reserved else "no room; nothing is published", directory=str(self.directory))
        elif self.is_full and not is_full:
            _log.info("there is room for another segment again", directory=str(self.directory))
        self.is_full = is_full

    def reopen(self, active: Segment) -> None:
        """At the start: reserve what the active segment may still take, and the room of the next."""
        try:
            self.is_reserved = self.files.reserve(active.file, self._reserved_bytes)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._note_full(True)
            return
        self.make_spare()

    def put_to_rest(self, active: Segment) -> None:
        """At the end: give back what was reserved. Where that fails it stays reserved, and nothing else."""
        with suppress(OSError):
            if active.file >= 0:
                self.files.truncate(active.file, active.written)
            self._give_up_spare()

    def _seal(self, segment: Segment) -> bool:
        try:
            self.files.truncate(segment.file, segment.size)  # to the size it has: gives back what was reserved
            hint.write(self.files, segment, segment.growing, self.epoch, segment.end)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _log.warning("no room for a hint file; it is tried again", segment=str(segment.path))
            return False
        self.files.close(segment.file)
        segment.file = -1
        self.statistics.hints_written += 1
        return True

    def _save(self, checkpoint: Checkpoint) -> bool:
        try:
            checkpoints.save(self.files, self.directory, checkpoint)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _log.warning("no room for a checkpoint; it is tried again", directory=str(self.directory))
            self.statistics.checkpoints_postponed += 1
            return False
        self.statistics.checkpoints += 1
        return True

    def _delete(self, segment: Segment) -> None:
        """A segment in which nothing is due to anybody."""
        if segment.file >= 0:
            self.files.close(segment.file)
            segment.file = -1
        self.files.unlink(segment.path)
        path = hint.path_of(segment.path)
        if path.exists():
            self.files.unlink(path)
        self.statistics.segments_released += 1
