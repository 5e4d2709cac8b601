"""A store looked at from outside, while a gateway may be writing to it: nothing is locked, changed or cut.

The order makes it right: the checkpoint is read first, then the names. What a checkpoint names stays until the one
after the next, so a file that is gone by the time it is opened was let go, and the look is taken anew. The last
segment may end in the middle of a record: that is being written, or was torn by a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import attrs

from gateway.errors import StoreError
from gateway.store import checkpoint as checkpoints
from gateway.store import hint
from gateway.store.checkpoint import Checkpoint, Kept
from gateway.store.files import Files
from gateway.store.index import Index
from gateway.store.reading import Header, Lost, read_all, read_header
from gateway.store.rebuild import Rebuilder, Replay
from gateway.store.recovery import segment_name, segment_number
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf

T = TypeVar("T")
_LOOKS_MAX: Final = 8


@attrs.frozen
class Sight:
    """What is in the directory of a store: its newest checkpoint that can be read, and its segments, ascending."""

    checkpoint: Checkpoint | None
    problems: tuple[Lost, ...]
    """Checkpoints that cannot be read."""
    numbers: tuple[int, ...]

    def kept(self, number: int) -> Kept | None:
        """What the checkpoint says of a segment."""
        known = self.checkpoint.segments if self.checkpoint else ()
        return next((kept for kept in known if kept.number == number), None)

    @property
    def place(self) -> tuple[int, int]:
        """(segment, offset) up to which the checkpoint knows everything."""
        return (self.checkpoint.segment, self.checkpoint.offset) if self.checkpoint else (0, 0)


@attrs.define
class Seen:
    """One segment. Its index is read when it is asked for; `let_go` of it afterwards."""

    segment: Segment
    last: bool
    """Nothing stands behind it: it is being written, or will be."""
    hint_problem: str | None
    """Why its hint file is not believed; None where it is, and for the last segment, which needs none."""
    replayed: bool = False

    @property
    def hint(self) -> bool:
        return not self.last and self.hint_problem is None

    def let_go(self) -> None:
        if not self.replayed:  # what was replayed stays as it was then: its file may have grown
            self.segment.let_go()


def look(files: Files, directory: Path) -> Sight:
    """Raises StoreError where there is no store."""
    checkpoint, problems = _newest(files, directory)
    try:
        names = files.names(directory)
    except OSError as error:
        raise StoreError(f"{directory}: {error.strerror}; name the directory of a store with --data") from error
    numbers = [number for name in names if (number := segment_number(name)) is not None]
    if checkpoint is None and not numbers and not problems:
        raise StoreError(f"{directory}: there is no store in it; name the directory of one with --data")
    if numbers and not _is_begun(files, directory / segment_name(numbers[-1])):
        numbers.pop()
    return Sight(checkpoint, tuple(problems), tuple(numbers))


def steadily(directory: Path, read: Callable[[], T]) -> T:
    """What `read` finds; it is called anew where a file went away under it."""
    for _ in range(_LOOKS_MAX):
        try:
            return read()
        except FileNotFoundError:
            continue
    raise StoreError(
        f"{directory}: files that its checkpoint names go away faster than they can be read, or are missing: "
        f"try again when there is less load, and see what `gateway store verify` says"
    )


def survey(files: Files, directory: Path, sight: Sight, replay: Replay, shelf: Shelf) -> list[Seen]:
    """Every segment. `replay` is told what a start of the gateway would be told. FileNotFoundError: look again."""
    if sight.checkpoint:
        replay.restore(sight.checkpoint.state)
    found: list[Seen] = []
    for number in sight.numbers:
        if not found or number > found[-1].segment.last:  # else it was merged, and its file goes with a checkpoint
            found.append(_see(files, directory, sight, number, replay, shelf))
    return found


def check_unchanged(files: Files, sight: Sight, seen: Sequence[Seen]) -> None:
    """FileNotFoundError where a segment was merged, or let go, since it was seen: look again."""
    for each in seen:
        header = header_of(files, sight, each.segment.path, each.segment.number)
        if header is None or header.uid != each.segment.uid:
            raise FileNotFoundError(each.segment.path)


def header_of(files: Files, sight: Sight, path: Path, number: int) -> Header | None:
    """The header, or where it is damaged what the checkpoint knows of it; None where that knows nothing."""
    header = read_header(files, path)
    known = sight.kept(number)
    if header is not None or known is None or sight.checkpoint is None:
        return header
    return Header(sight.checkpoint.epoch, number, known.last, known.uid, known.base, known.end, 0, 0)


def read_steadily(files: Files, sight: Sight, path: Path, number: int) -> tuple[Header | None, bytes]:
    """The header and the whole of a segment file; of the same file, though merging may put another in its place."""
    while True:
        header = header_of(files, sight, path, number)
        data = read_segment(files, path)
        if header_of(files, sight, path, number) == header:
            return header, data


def epoch_of(files: Files, directory: Path, sight: Sight) -> str:
    """What the store is told from others by; empty where no file can tell."""
    if sight.checkpoint:
        return sight.checkpoint.epoch
    for number in sight.numbers:
        header = read_header(files, directory / segment_name(number))
        if header is not None:
            return header.epoch
    return ""


def segment_of(header: Header, path: Path, number: int) -> Segment:
    merged = header.end is not None
    return Segment(number, path, header.base, header.created_ms, header.uid, header.last, merged=merged)


def read_segment(files: Files, path: Path) -> bytes:
    """A whole segment file as it is now."""
    file = files.open(path)
    try:
        return read_all(files, file, path)
    finally:
        files.close(file)


# ------------------------------------------------------------------------------------------------------- inside


def _newest(files: Files, directory: Path) -> tuple[Checkpoint | None, list[Lost]]:
    """The newest checkpoint; for a moment, while another is put in place, that is the old one."""
    problems: list[Lost] = []
    found: Checkpoint | None = None
    for name in (checkpoints.NAME, checkpoints.OLD_NAME):
        path = directory / name
        try:
            checkpoint = checkpoints.load(files, path)
        except StoreError as error:
            problems.append(Lost(str(path), 0, path.stat().st_size, 0, 0, str(error).removeprefix(f"{path}: ")))
            continue
        except NotADirectoryError:
            break
        found = found or checkpoint
    return found, problems


def _is_begun(files: Files, path: Path) -> bool:
    """Whether anything has been written to a last segment: its file is there before its first byte."""
    file = files.open(path)
    try:
        return files.size(file) > 0 and bool(files.read(file, 0, files.size(file)).strip(b"\0"))
    finally:
        files.close(file)


def _see(files: Files, directory: Path, sight: Sight, number: int, replay: Replay, shelf: Shelf) -> Seen:
    path = directory / segment_name(number)
    header = header_of(files, sight, path, number)
    if header is None:
        raise StoreError(f"{path}: its header is damaged; `gateway store verify` says what else is")
    segment = segment_of(header, path, number)
    last = number == sight.numbers[-1]
    if number >= sight.place[0]:
        return _replayed(files, segment, header, sight, replay, last)
    segment.size = path.stat().st_size
    found = hint.read(files, hint.path_of(path))
    problem = found if isinstance(found, str) else hint.mismatch(found, header.epoch, segment)
    if problem is None and isinstance(found, hint.Directory):
        segment.seal(shelf.read_index, end=found.end, count=found.count)
    else:
        rebuilder = _rebuilt(files, segment, header)
        segment.seal(partial(_index, files, header), end=rebuilder.end, count=rebuilder.messages)
    segment.let_go()
    return Seen(segment, last, problem)


def _replayed(files: Files, segment: Segment, header: Header, sight: Sight, replay: Replay, last: bool) -> Seen:
    """A segment that holds what the checkpoint does not know."""
    rebuilder = _rebuilt(files, segment, header, sight.place, replay)
    segment.seal(lambda segment: segment.growing, end=rebuilder.end, count=rebuilder.messages)
    found = None if last else hint.read(files, hint.path_of(segment.path))
    problem = found if isinstance(found, str) else None
    if isinstance(found, hint.Directory):
        problem = hint.mismatch(found, header.epoch, segment)
    return Seen(segment, last, problem, replayed=True)


def _rebuilt(
    files: Files, segment: Segment, header: Header, place: tuple[int, int] = (0, 0), replay: Replay | None = None
) -> Rebuilder:
    rebuilder = Rebuilder(segment, header, place, replay)
    data = read_segment(files, segment.path)
    segment.size = len(data)
    rebuilder.read(data)
    return rebuilder


def _index(files: Files, header: Header, segment: Segment) -> Index:
    """The index of a segment without a hint file, from the segment."""
    anew = segment_of(header, segment.path, segment.number)
    _rebuilt(files, anew, header)
    return anew.growing
