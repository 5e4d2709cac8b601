"""Is everything in a store what was written? Every record by its CRC, every hint file against one made anew.

Reads only, and beside a running gateway too. The torn end of the last segment is no damage: it is being written, or
nobody was answered for it. A hint file that is missing is none either: the next start makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from gateway.errors import StoreError
from gateway.store import checkpoint as checkpoints
from gateway.store import hint
from gateway.store.exposure import exposed
from gateway.store.files import Files
from gateway.store.reading import Header, Lost, read_header
from gateway.store.rebuild import Rebuilder
from gateway.store.recovery import is_ours, segment_name
from gateway.store.segment import Segment
from gateway.store.survey import Sight, header_of, look, read_steadily, segment_of, steadily

_UNKNOWN_END = "what stands at its end is no record"


@attrs.define
class Verdict:
    """What was looked at, what is damaged, and what is worth a word."""

    segments: int = 0
    records: int = 0
    messages: int = 0
    hints: int = 0
    lost: list[Lost] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)


def size_of(directory: Path) -> int:
    """Bytes that `verify` is going to read, about; 0 where there is no directory."""
    return sum(path.stat().st_size for path in directory.glob("*.log") if path.is_file())


def verify(files: Files, directory: Path, progress: Callable[[int], None]) -> Verdict:
    """Read everything; `progress` is told of so many bytes more. Blocks. StoreError: there is no store."""
    sight = steadily(directory, lambda: look(files, directory))
    verdict = Verdict(lost=list(sight.problems))
    verification = _Verification(files, directory, sight, verdict)
    for number in sight.numbers:
        path = directory / segment_name(number)
        if number <= verification.covered:
            verdict.notes.append(f"{path}: was merged into the segment before; it goes with a checkpoint")
            continue
        try:
            progress(verification.segment(path, number))
        except FileNotFoundError:
            verdict.notes.append(f"{path}: was let go by the gateway meanwhile")
        except StoreError as error:
            reason = str(error).removeprefix(f"{path}: ")
            verdict.lost.append(Lost(str(path), 0, path.stat().st_size if path.exists() else 0, 0, 0, reason))
    verdict.lost += missing(files, directory)
    verdict.notes += strangers(directory)
    return verdict


def strangers(directory: Path) -> list[str]:
    """Names in the directory that are not the store's, and files of the store that others have rights to."""
    paths = sorted(directory.iterdir())
    known = [path.name for path in paths if is_ours(path)]
    notes = [f"{path}: is not a file of the store" for path in paths if path.name not in known]
    return notes + [
        f"{directory / name}: others than the owner have rights to it" for name in exposed(directory, known)
    ]


def missing(files: Files, directory: Path) -> list[Lost]:
    """Segments that the checkpoint, or the row of numbers behind it, knows of, and that are not there."""
    before = None
    while True:  # until no checkpoint came in between, which lets go of segments
        sight = steadily(directory, lambda: look(files, directory))
        if before is not None and sight.checkpoint == before.checkpoint:
            break
        before = sight
    return [*_without_checkpoint(directory, sight), *_gone(files, directory, sight)]


def _without_checkpoint(directory: Path, sight: Sight) -> list[Lost]:
    if sight.checkpoint is not None or not sight.numbers or sight.numbers[0] == 1:
        return []
    path = directory / checkpoints.NAME
    return [Lost(str(path), 0, 0, 0, 0, "is missing, and the segments that it would stand for are gone")]


def _gone(files: Files, directory: Path, sight: Sight) -> list[Lost]:
    known = sight.checkpoint.segments if sight.checkpoint else ()
    wanted = {kept.number: (kept.base, kept.end, kept.last) for kept in known}
    first = sight.place[0] + 1 if sight.checkpoint else min(sight.numbers, default=1)
    for number in range(first, max(sight.numbers, default=0) + 1):
        wanted.setdefault(number, (0, 0, number))
    covered: set[int] = set()
    for number in sight.numbers:
        path = directory / segment_name(number)
        if path.exists() and (header := header_of(files, sight, path, number)) is not None:
            covered.update(range(number, header.last + 1))
    return [
        Lost(str(directory / segment_name(number)), 0, 0, base, end, "is missing")
        for number, (base, end, _) in sorted(wanted.items())
        if number not in covered and number not in sight.numbers
    ]


@attrs.define
class _Verification:
    """One segment after the other, oldest first."""

    files: Files
    directory: Path
    sight: Sight
    verdict: Verdict
    covered: int = 0
    """Segments up to this number were merged into one that was looked at."""
    _epoch: str = ""
    _end: int = 0  # of the segment before

    def segment(self, path: Path, number: int) -> int:
        """Look at one segment, and at its hint file; the bytes of it."""
        header, data = read_steadily(self.files, self.sight, path, number)
        if header is None:
            raise StoreError(f"{path}: its header is damaged")
        self._check_header(path, number, header)
        segment = segment_of(header, path, number)
        segment.size = len(data)
        last = number == self.sight.numbers[-1]
        rebuilder = Rebuilder(segment, header, (0, 0), None)
        rebuilder.read(data, self.sight.place[1] if last and number == self.sight.place[0] else 0)
        lost = rebuilder.finish(self._end_of(segment, header, last))
        torn = len(data) - rebuilder.torn_at
        if torn and not lost:
            if last:
                self.verdict.notes.append(f"{path}: ends in {torn} bytes that are no whole record; a start cuts them")
            else:
                lost = [Lost(str(path), rebuilder.torn_at, torn, rebuilder.end, rebuilder.end, _UNKNOWN_END)]
        self.verdict.lost += lost
        self.verdict.segments += 1
        self.verdict.records += rebuilder.records
        self.verdict.messages += rebuilder.messages
        self._end, self.covered = rebuilder.end, header.last
        if not last and not lost:  # the hint file of a damaged segment cannot be told from what it was
            self._hint(segment, header, rebuilder)
        return len(data)

    def _check_header(self, path: Path, number: int, header: Header) -> None:
        if header.segment != number:
            raise StoreError(f"{path}: says that it is segment {header.segment}; it was renamed")
        self._epoch = self._epoch or (self.sight.checkpoint.epoch if self.sight.checkpoint else header.epoch)
        if header.epoch != self._epoch:
            raise StoreError(f"{path}: belongs to another store (epoch {header.epoch}, not {self._epoch})")
        known = self.sight.kept(number)
        if known is not None and header.uid != known.uid and header.end is None:  # a merge's checkpoint follows it
            raise StoreError(f"{path}: is another file than the checkpoint names (uid {header.uid}, not {known.uid})")
        if header.base < self._end:
            raise StoreError(f"{path}: begins at position {header.base}, the segment before ends at {self._end}")

    def _end_of(self, segment: Segment, header: Header, last: bool) -> int | None:
        """One past the last position that must be there, from others than the segment itself."""
        known = self.sight.kept(segment.number)
        if header.end is not None or (known is not None and (last or segment.number < self.sight.place[0])):
            return header.end if header.end is not None or known is None else known.end
        following = self.directory / segment_name(segment.last + 1)
        if last or not following.exists():
            return None
        try:
            after = read_header(self.files, following)
        except StoreError:
            return None  # it is named when its turn comes
        return after.base if after else None

    def _hint(self, segment: Segment, header: Header, rebuilder: Rebuilder) -> None:
        path = hint.path_of(segment.path)
        found = hint.read(self.files, path)
        if found == "it is missing":
            self.verdict.notes.append(f"{path}: is missing; the next start makes it")
            return
        problem = found if isinstance(found, str) else hint.mismatch(found, header.epoch, segment)
        if problem is None and isinstance(found, hint.Directory):
            said = path.read_bytes()
            expected = hint.encode(segment, segment.growing, header.epoch, rebuilder.end, found.format)
            problem = None if hint.is_same(said, expected) else "it does not say what the segment says"
        if problem is None:
            self.verdict.hints += 1
        elif header_of(self.files, self.sight, segment.path, segment.number) != header:
            self.verdict.notes.append(f"{segment.path}: was merged meanwhile")
        elif header.end is not None and isinstance(found, hint.Directory) and found.uid != segment.uid:
            self.verdict.notes.append(f"{path}: is that of a segment before it was merged; it is about to be replaced")
        else:
            reason = f"{problem}; delete it, and start again: it is made anew"
            self.verdict.lost.append(Lost(str(path), 0, path.stat().st_size, segment.base, rebuilder.end, reason))
