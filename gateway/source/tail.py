"""Reads the lines that are added to a file, across its rotation. Synchronous; every call may wait for the disk.

Two ways of rotating are known. *Rename and create*: the file that was read stays open, and is read to its end although
it has another name by now; writers go on writing to it until they notice, so it is left only once it has rested for a
while. Then comes the file that was begun after it, which need not be the newest one where there were several rotations.
*Copy and truncate*: the file is shorter than what was read of it, or no longer has it; it begins anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import attrs

from gateway.source.place import Place

TAIL_BYTES: Final = 64
_READ_BYTES: Final = 256 * 1024
_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")


@attrs.frozen
class Line:
    """One line without its end. `text` is None where it is longer than may be."""

    text: bytes | None
    offset: int
    number: int
    """1 is the first of its file."""


class Tail:
    """One file name, followed. `place` is where the next `read` goes on."""

    def __init__(self, path: Path, line_bytes_max: int, rest_s: float) -> None:
        self.place = Place(0, 0)
        self._path = path
        self._line_bytes_max = line_bytes_max
        self._rest_s = rest_s
        self._file = -1
        self._rests_since: float | None = None
        self._searched = 0  # no line end before this offset

    # ------------------------------------------------------------------------------------------------ opening

    def open(self, place: Place | None, *, at_end: bool = False) -> str | None:
        """Go on from `place`; without one begin, at the end where that is asked. A sentence where something is lost.

        OSError where there is no such file yet, or it cannot be read.
        """
        if place is None:
            self._begin(self._path, 1)
            if at_end:
                self._skip_to_end()
            return None
        found = self._find(place.inode)
        if found is not None:
            self._open(found, place)
            if self._is_whole():
                return None
            self._begin(self._path, place.generation + 1)
            return "it is not the file that was read before, or was cut; it is begun anew"
        self._begin(self._next(place), place.generation + 1)
        return "the file that was read before is gone, with what may have been unread in it"

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self, path: Path, place: Place | None = None) -> None:
        self.close()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us
        self.place = place or self.place
        self._rests_since, self._searched = None, 0

    def _begin(self, path: Path, generation: int) -> None:
        self._open(path)
        found = os.fstat(self._file)
        self.place = Place(found.st_ino, generation, changed_ns=found.st_mtime_ns)

    def _skip_to_end(self) -> None:
        """Behind the last complete line."""
        offset = behind = lines = 0
        while chunk := os.pread(self._file, _READ_BYTES, offset):
            lines += chunk.count(b"\n")
            if b"\n" in chunk:
                behind = offset + chunk.rindex(b"\n") + 1
            offset += len(chunk)
        self._go_to(behind, lines)

    def _go_to(self, offset: int, line: int) -> None:
        found, tail = os.fstat(self._file), self._tail_before(offset)
        self.place = attrs.evolve(self.place, offset=offset, line=line, tail=tail, changed_ns=found.st_mtime_ns)

    def _siblings(self) -> list[tuple[int, int, Path]]:
        """Rotated files that can be read as they are: (last change, number, path), the oldest first."""
        found = []
        for entry in os.scandir(self._path.parent):
            rest = entry.name.removeprefix(self._path.name)
            if rest == entry.name or rest[:1] not in (".", "-", "_") or rest.endswith(_COMPRESSED):
                continue
            try:
                if entry.is_file():
                    found.append((entry.stat().st_mtime_ns, entry.stat().st_ino, Path(entry.path)))
            except OSError:
                continue  # it went away meanwhile
        return sorted(found)

    def _find(self, inode: int) -> Path | None:
        """The file of that number, under whatever name."""
        if self._path.exists() and self._path.stat().st_ino == inode:
            return self._path
        return next((path for _, number, path in self._siblings() if number == inode), None)

    def _next(self, place: Place) -> Path:
        """The file that was begun after that one: the oldest that was written to later, else the path itself."""
        later = (path for changed, number, path in self._siblings() if changed > place.changed_ns)
        return next(later, self._path)

    # ------------------------------------------------------------------------------------------------ reading

    def read(self, lines_max: int, now: float) -> list[Line]:
        """The next complete lines; `place` stands behind them then. None where there is nothing new.

        Notices rotation and truncation by itself. `now` in seconds, of a clock that never goes back.
        """
        if not self._is_whole():
            self.place = Place(self.place.inode, self.place.generation + 1)
            self._searched = 0
        lines = self._take(lines_max)
        if lines:
            self._rests_since = None
        elif self._is_rotated():
            if self._rests_since is None:
                self._rests_since = now
            if now - self._rests_since >= self._rest_s:
                lines = self._take_rest() or self._move_on()
        return lines

    def behind(self) -> int:
        """Bytes of the open file that are not read yet."""
        return max(os.fstat(self._file).st_size - self.place.offset, 0)

    def _is_whole(self) -> bool:
        """Whether the open file still has what was read of it."""
        return self._tail_before(self.place.offset) == self.place.tail

    def _tail_before(self, offset: int) -> str:
        low = max(offset - TAIL_BYTES, 0)
        return os.pread(self._file, offset - low, low).hex()

    def _is_rotated(self) -> bool:
        try:
            return os.stat(self._path).st_ino != self.place.inode
        except FileNotFoundError:
            return False  # between the renaming and the creating

    def _take(self, lines_max: int) -> list[Line]:
        data = os.pread(self._file, _READ_BYTES, self.place.offset)
        while b"\n" not in data[-_READ_BYTES:] and len(data) <= self._line_bytes_max:
            more = os.pread(self._file, _READ_BYTES, self.place.offset + len(data))
            if not more:
                return []  # the last line is still being written
            data += more
        if b"\n" not in data:
            return self._pass_over()
        return self._cut(data.split(b"\n", lines_max)[:-1])

    def _cut(self, texts: list[bytes]) -> list[Line]:
        offset, lines = self.place.offset, []
        for number, text in enumerate(texts, self.place.line + 1):
            lines.append(Line(text if len(text) <= self._line_bytes_max else None, offset, number))
            offset += len(text) + 1
        self._go_to(offset, self.place.line + len(texts))
        return lines

    def _pass_over(self) -> list[Line]:
        """A line that is too long to be kept: look for its end, without keeping it."""
        place = self.place
        offset = max(self._searched, place.offset)
        while chunk := os.pread(self._file, _READ_BYTES, offset):
            found = chunk.find(b"\n")
            if found >= 0:
                self._go_to(offset + found + 1, place.line + 1)
                return [Line(None, place.offset, place.line + 1)]
            offset += len(chunk)
            self._searched = offset
        return []

    def _take_rest(self) -> list[Line]:
        """What stands at the end of a file that is left, without a line end."""
        data = os.pread(self._file, self._line_bytes_max + 1, self.place.offset)
        if not data:
            return []
        line = Line(data if len(data) <= self._line_bytes_max else None, self.place.offset, self.place.line + 1)
        self._go_to(os.fstat(self._file).st_size, line.number)
        return [line]

    def _move_on(self) -> list[Line]:
        """To the file that was begun after this one."""
        changed = attrs.evolve(self.place, changed_ns=os.fstat(self._file).st_mtime_ns)
        self._begin(self._next(changed), self.place.generation + 1)
        return []
