"""From the files of a directory to segments, and a replay of what happened since the checkpoint.

Of a sealed segment only the beginning of the file and its hint file are looked at; the segments behind the checkpoint's
place are read. A torn tail of the last segment is cut: it was never answered for. Damage anywhere else is named and
passed over, never cut and never served. Everything here blocks and runs before the first connection is accepted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs
import structlog

from gateway.errors import StoreError
from gateway.store import checkpoint as checkpoints
from gateway.store import hint
from gateway.store import record as records
from gateway.store.checkpoint import Checkpoint
from gateway.store.exposure import exposed
from gateway.store.files import Files
from gateway.store.reading import HEADER_BYTES_MAX, Header, Lost, read_all, read_front, read_header
from gateway.store.rebuild import Rebuilder, Replay
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf
from gateway.store.small import NEIGHBOURS
from gateway.store.writer import SPARE_NAME

LOCK_NAME: Final = "lock"
TRACE_NAME: Final = "trace"
_SEGMENT: Final = re.compile(r"(\d{10})\.log")
_OURS: Final = re.compile(r"\d{10}\.(?:hint|hint\.tmp|log\.tmp)")
_NAMES: Final = (LOCK_NAME, TRACE_NAME, SPARE_NAME, checkpoints.NAME, checkpoints.OLD_NAME, checkpoints.TEMPORARY_NAME)
_NAMED_MAX: Final = 10
_log = structlog.get_logger("gateway.store")


@attrs.define
class Recovered:
    """What was found. `epoch` is empty where the store is new."""

    epoch: str
    segments: list[Segment]
    cut_bytes: int = 0
    """Bytes of a torn tail that were cut."""
    foreign: list[str] = attrs.field(factory=list)
    """Names in the directory that are not ours."""
    lost: list[Lost] = attrs.field(factory=list)
    """What is damaged."""
    rebuilt: list[str] = attrs.field(factory=list)
    """Hint files that were made anew."""
    checkpoint_segment: int = 0
    """Where the checkpoint has its place; 0 without one."""
    next_base: int | None = None
    """The last segment takes no more; the next begins at this position."""


def segment_name(number: int) -> str:
    return f"{number:010d}.log"


def segment_number(name: str) -> int | None:
    """The number of the segment whose file has this name; None where it is no segment's."""
    match = _SEGMENT.fullmatch(name)
    return int(match.group(1)) if match else None


def is_ours(path: Path) -> bool:
    """Whether what lies in a store's directory is of the store, by its name and kind."""
    name = path.name
    if name in _NAMES or name in NEIGHBOURS:
        return True
    if path.is_symlink() or not path.is_file():
        return False
    return _SEGMENT.fullmatch(name) is not None or _OURS.fullmatch(name) is not None


def recover(files: Files, directory: Path, replay: Replay, shelf: Shelf) -> Recovered:
    """Read the store. Raises StoreError where it cannot be trusted."""
    numbers, foreign = _classify(files, directory)
    _report_exposed(directory, [name for name in files.names(directory) if name not in foreign])
    checkpoint = _load_checkpoint(files, directory, numbers)
    found = Recovered(checkpoint.epoch if checkpoint else "", [], 0, foreign)
    _remove_unbegun(files, directory, numbers, checkpoint, found)
    if checkpoint:
        _check_merged(files, directory, numbers, checkpoint)
        _remove_let_go(files, directory, numbers, checkpoint)
    _check_complete(files, directory, numbers, checkpoint)
    if checkpoint:
        found.checkpoint_segment = checkpoint.segment
        replay.restore(checkpoint.state)
    recovery = _Recovery(files, directory, checkpoint, replay, shelf, found)
    for number in numbers:
        recovery.read(number, number == numbers[-1])
    return found


# -------------------------------------------------------------------------------------------------- directory


def _classify(files: Files, directory: Path) -> tuple[list[int], list[str]]:
    """The numbers of the segments, and what is not ours; what an interrupted run left half made is removed."""
    numbers: list[int] = []
    foreign: list[str] = []
    for name in files.names(directory):
        path = directory / name
        match = _SEGMENT.fullmatch(name)
        if name in _NAMES or name in NEIGHBOURS:
            continue
        if not is_ours(path):
            foreign.append(name)
        elif match:
            numbers.append(int(match.group(1)))
        elif name.endswith(".tmp"):
            files.unlink(path)
    for name in foreign:
        _log.warning("not a file of the store; it is left alone", file=str(directory / name))
        if _SEGMENT.fullmatch(name):
            raise StoreError(f"{directory / name}: is not a regular file; put the segment itself in its place")
    return numbers, foreign


def _report_exposed(directory: Path, known: list[str]) -> None:
    names = exposed(directory, known)
    if names:
        _log.warning(
            "others than the owner have rights to files of the store; take them away with chmod go=",
            directory=str(directory),
            files=names[:_NAMED_MAX],
            count=len(names),
        )


def _load_checkpoint(files: Files, directory: Path, numbers: list[int]) -> Checkpoint | None:
    """The newest checkpoint that can be read; None where the log alone tells everything."""
    problem = ""
    for name in (checkpoints.NAME, checkpoints.OLD_NAME):
        try:
            checkpoint = checkpoints.load(files, directory / name)
        except StoreError as error:
            problem = f"{error}; "
            _log.error("a checkpoint is unusable; the one before it is looked for", error=str(error))
            continue
        if checkpoint is not None:
            return checkpoint
    if not numbers:
        return None
    merged = [number for number in numbers if numbers[0] == 1 and _is_merged(files, directory, number)]
    if numbers[0] == 1 and not merged:
        return None
    raise StoreError(
        f"{directory / checkpoints.NAME}: {problem or 'is missing; '}segments before "
        f"{segment_name(merged[-1] + 1 if merged else numbers[0])} are gone, "
        f"so the log alone does not tell what was settled: "
        f"restore the checkpoint from a backup"
    )


def _is_merged(files: Files, directory: Path, number: int) -> bool:
    """Whether records of others than messages may be missing from a segment."""
    header = read_header(files, directory / segment_name(number))
    return header is not None and header.end is not None


def _remove_unbegun(
    files: Files, directory: Path, numbers: list[int], checkpoint: Checkpoint | None, found: Recovered
) -> None:
    """Remove a last segment that a crash kept from being begun: nothing in it was answered for."""
    if not numbers or (checkpoint and numbers[-1] <= checkpoint.segment):
        return
    path = directory / segment_name(numbers[-1])
    file = files.open(path)
    try:
        size = files.size(file)
        beginning = read_front(files, file, path, HEADER_BYTES_MAX)
        unbegun = _is_unbegun(beginning, size)
        if not beginning.strip(b"\0"):  # a file may have grown before its data came
            unbegun = not read_front(files, file, path, size).strip(b"\0")
    finally:
        files.close(file)
    if unbegun:
        _log.warning("removed a segment that was never begun", file=str(path), size=size)
        files.unlink(path)
        found.cut_bytes += size
        numbers.pop()


def _is_unbegun(data: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins with `data` is too short for the header that it begins with."""
    if not data.startswith(records.MAGIC[: len(data)]):
        return False
    if size < len(records.MAGIC) + records.HEAD_BYTES:
        return True
    return size < min(records.end_of(data, len(records.MAGIC)), HEADER_BYTES_MAX)


def _check_merged(files: Files, directory: Path, numbers: list[int], checkpoint: Checkpoint) -> None:
    """Refuse where a segment that the checkpoint knows as merged is what it was before: a merge is durable before that.

    Asked before anything is removed: what stands in the way may be the rest of it.
    """
    for kept in checkpoint.segments:
        path = directory / segment_name(kept.number)
        if kept.last == kept.number or kept.number not in numbers:
            continue
        header = read_header(files, path)
        if header is not None and header.last < kept.last:
            raise StoreError(
                f"{path}: is older than the checkpoint, which knows it merged with those up to "
                f"{segment_name(kept.last)}; restore both from one backup"
            )


def _remove_let_go(files: Files, directory: Path, numbers: list[int], checkpoint: Checkpoint) -> None:
    """Finish what a crash interrupted: files that the checkpoint does not name any more were about to be deleted."""
    kept = {segment.number for segment in checkpoint.segments}
    for number in [number for number in numbers if number < checkpoint.segment and number not in kept]:
        path = directory / segment_name(number)
        _log.info("removed a segment that had been let go", file=str(path))
        _unlink(files, path)
        numbers.remove(number)


def _unlink(files: Files, path: Path) -> None:
    """A segment file, and its hint file."""
    files.unlink(path)
    if hint.path_of(path).exists():
        files.unlink(hint.path_of(path))


def _check_complete(files: Files, directory: Path, numbers: list[int], checkpoint: Checkpoint | None) -> None:
    """Refuse where a segment is missing that the checkpoint, or the row of numbers behind it, knows of."""
    known = checkpoint.segments if checkpoint else ()
    wanted = [kept.number for kept in known]
    wanted += range(checkpoint.segment + 1 if checkpoint else 1, (numbers[-1] if numbers else 0) + 1)
    for number in sorted(set(wanted) - set(numbers)):
        if not _is_covered(files, directory, numbers, number):
            raise StoreError(f"{directory / segment_name(number)}: is missing; restore it from a backup")


def _is_covered(files: Files, directory: Path, numbers: list[int], number: int) -> bool:
    """Whether a segment that is not there was merged into the one before."""
    before = max((there for there in numbers if there < number), default=None)
    header = None if before is None else read_header(files, directory / segment_name(before))
    return header is not None and header.last >= number


# --------------------------------------------------------------------------------------------------- segments


@attrs.define
class _Recovery:
    """One segment after the other, oldest first."""

    files: Files
    directory: Path
    checkpoint: Checkpoint | None
    replay: Replay
    shelf: Shelf
    found: Recovered
    _covered: int = 0  # segments up to this number were merged into one that was read

    def read(self, number: int, last: bool) -> None:
        path = self.directory / segment_name(number)
        if number <= self._covered:
            _log.info("removed a segment that was merged into another", file=str(path))
            _unlink(self.files, path)
            return
        header = self._header(path, number)
        merged = header.end is not None
        segment = Segment(number, path, header.base, header.created_ms, header.uid, header.last, merged=merged)
        self._covered = header.last
        self._check_place(segment)
        if last:
            self._read_active(segment, header)
        else:
            self._read_sealed(segment, header)
        self.found.segments.append(segment)

    def _header(self, path: Path, number: int) -> Header:
        header = read_header(self.files, path)
        if header is None:
            known = self._kept(number)
            if known is None:
                raise StoreError(f"{path}: its header is damaged; restore it from a backup")
            assert self.checkpoint is not None
            _log.error("the header of a segment is damaged", file=str(path))
            return Header(self.checkpoint.epoch, number, known.last, known.uid, known.base, known.end, 0, 0)
        if header.segment != number:
            raise StoreError(f"{path}: says that it is segment {header.segment}; it was renamed: give it back its name")
        if self.found.epoch and header.epoch != self.found.epoch:
            raise StoreError(
                f"{path}: belongs to another store (epoch {header.epoch}, not {self.found.epoch}); move it away"
            )
        self.found.epoch = header.epoch
        return header

    def _kept(self, number: int) -> checkpoints.Kept | None:
        known = self.checkpoint.segments if self.checkpoint else ()
        return next((kept for kept in known if kept.number == number), None)

    def _check_place(self, segment: Segment) -> None:
        before = self.found.segments[-1].end if self.found.segments else segment.base
        if (self.checkpoint is None and segment.base != before) or segment.base < before:
            raise StoreError(
                f"{segment.path}: begins at position {segment.base} but the segment before ends at {before}: "
                f"a segment is missing or foreign; restore it from a backup"
            )

    @property
    def _place(self) -> tuple[int, int]:
        return (self.checkpoint.segment, self.checkpoint.offset) if self.checkpoint else (0, 0)

    def _read_sealed(self, segment: Segment, header: Header) -> None:
        files, path = self.files, segment.path
        file = files.open(path)
        try:
            segment.size = files.size(file)
        finally:
            files.close(file)
        found = hint.read(files, hint.path_of(path))
        problem = found if isinstance(found, str) else hint.mismatch(found, self.found.epoch, segment)
        if problem is None and isinstance(found, hint.Directory):
            end, count = found.end, found.count
            segment.last_ms, segment.ids_ms = found.last_ms, found.ids_ms
            segment.due_ms, segment.expires_ms = found.due_ms, found.expires_ms
        if problem is not None or segment.number >= self._place[0]:
            end, count = self._rebuild(segment, header)
        if problem is not None:
            _log.warning("a hint file is made anew", file=str(hint.path_of(path)), reason=problem)
            self.found.rebuilt.append(path.name)
            hint.write(files, segment, segment.growing, self.found.epoch, end)
        segment.seal(self.shelf.index, end=end, count=count)
        segment.let_go()
        if segment.ids_ms > self.replay.ids_since_ms:
            self.replay.remember_ids(segment, segment.index)

    def _rebuild(self, segment: Segment, header: Header) -> tuple[int, int]:
        """Read a sealed segment whole, telling what stands behind the checkpoint; its end, and its messages."""
        rebuilder = Rebuilder(segment, header, self._place, self.replay)
        file = self.files.open(segment.path)
        try:
            rebuilder.read(read_all(self.files, file, segment.path))
        finally:
            self.files.close(file)
        lost = rebuilder.finish(self._end_of(segment, header))
        if rebuilder.torn_at < segment.size and not lost:
            size = segment.size - rebuilder.torn_at
            why = "what stands at its end is no record"
            lost = [Lost(str(segment.path), rebuilder.torn_at, size, rebuilder.end, rebuilder.end, why)]
        self._note_lost(lost)
        return rebuilder.end, rebuilder.messages

    def _end_of(self, segment: Segment, header: Header) -> int | None:
        """One past the last position of a sealed segment, from others than itself."""
        if header.end is not None:
            return header.end
        known = self._kept(segment.number)
        if known is not None and segment.number < self._place[0]:
            return known.end
        following = read_header(self.files, self.directory / segment_name(segment.last + 1))
        return following.base if following else None

    def _read_active(self, segment: Segment, header: Header) -> None:
        """The last segment: what is torn at its end is cut. Where it is damaged otherwise, nothing is added to it."""
        file = self.files.open(segment.path, append=True)
        segment.file = file
        data = read_all(self.files, file, segment.path)
        segment.size = len(data)
        rebuilder = Rebuilder(segment, header, self._place, self.replay)
        known = self._kept(segment.number)
        rebuilder.read(data, self._place[1] if segment.number == self._place[0] else 0)
        lost = rebuilder.finish(known.end if known else None)
        self._note_lost(lost)
        if rebuilder.torn_at < len(data):
            size = len(data) - rebuilder.torn_at
            _log.warning("cut a torn tail", file=str(segment.path), offset=rebuilder.torn_at, size=size)
            self.files.truncate(file, rebuilder.torn_at)
            self.found.cut_bytes += size
        segment.size = segment.written = rebuilder.torn_at
        self.files.sync(file)  # what was written but perhaps not synced is now relied upon
        if segment.ids_ms > self.replay.ids_since_ms:
            self.replay.remember_ids(segment, segment.growing)
        if lost or header.end is not None:
            self.found.next_base = rebuilder.end

    def _note_lost(self, lost: list[Lost]) -> None:
        for item in lost:
            _log.error("a part of the store is damaged and is passed over", **attrs.asdict(item))
        self.found.lost += lost
