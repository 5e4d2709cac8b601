"""The sealed segments that are open now: their hint files and themselves, mapped, a bounded number of each.

What falls off the shelf is unmapped once nobody holds a slice of it any more: a frame on its way to a socket keeps its
bytes. A record is served only after its CRC was found right once since its file was mapped.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from gateway.errors import StoreError
from gateway.store import hint
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.index import Index, Piece
from gateway.store.segment import Segment

_log = structlog.get_logger("gateway.store")
_RESIDENT_BYTES: Final = 8 * 1024 * 1024
"""Bytes served from one map before its pages are given back: they stay in the page cache, but are not ours."""


class DamagedError(StoreError):
    """A record of a segment cannot be read or is not what was written; `reason` says which."""

    def __init__(self, segment: Segment, index: Index, record: int, reason: str) -> None:
        offset = index.offsets[record]
        super().__init__(
            f"{segment.path}: the record at byte {offset} {reason}; what it holds is set aside: "
            f"restore the file from a backup, and start again"
        )
        self.reason = reason


class Opened:
    """One segment file, mapped."""

    __slots__ = ("data", "file", "lent", "map", "off_the_shelf", "served", "verified")

    def __init__(self, files: Files, segment: Segment) -> None:
        self.file = _open(files, segment)
        try:
            self.map = files.map(self.file)
        except OSError:
            files.close(self.file)
            raise
        self.data = memoryview(self.map)
        self.verified = bytearray(len(segment.index.firsts))
        self.served = 0
        self.lent = 0  # to so many who read from `file` now
        self.off_the_shelf = False

    def view(self, piece: Piece) -> memoryview:
        """The bytes of a verified piece: a slice of the map."""
        self.served += piece.stop - piece.start
        if self.served > _RESIDENT_BYTES:
            self.served = 0
            self.map.madvise(mmap.MADV_DONTNEED)
        return self.data[piece.start : piece.stop]


def _open(files: Files, segment: Segment) -> int:
    """Another thread may be putting a merged file in its place: where it is not here it is there."""
    if segment.moving_from is not None:
        with suppress(FileNotFoundError):
            return files.open(segment.moving_from)
    return files.open(segment.path)


class Shelf:
    """`index` and `view` of any sealed segment; on the run loop, but for `verify`, which blocks and runs beside it."""

    def __init__(self, files: Files, indexes_max: int, maps_max: int) -> None:
        self._files = files
        self._indexes_max = indexes_max
        self._maps_max = maps_max
        self._indexes: dict[Segment, None] = {}
        self._opened: dict[Segment, Opened] = {}
        self.verified_bytes = 0
        self.served_bytes = 0

    def index(self, segment: Segment) -> Index:
        """The index of a sealed segment, mapped; kept on the segment itself until others push it off the shelf."""
        index = self.read_index(segment)
        self._indexes[segment] = None
        while len(self._indexes) > self._indexes_max:
            oldest = next(iter(self._indexes))
            del self._indexes[oldest]
            oldest.let_go()
        return index

    def read_index(self, segment: Segment) -> Index:
        """The same, and not kept; from any thread. Raises StoreError where the hint file is gone."""
        path = hint.path_of(segment.path)
        try:
            file = self._files.open(path)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; start again, and it is made anew") from error
        try:
            return hint.index_of(self._files.map(file))
        finally:
            self._files.close(file)

    def is_verified(self, segment: Segment, pieces: Sequence[Piece]) -> bool:
        """Whether all of `pieces` may be served without a look at the disk."""
        opened = self._opened.get(segment)
        return opened is not None and all(opened.verified[piece.record] for piece in pieces)

    def view(self, segment: Segment, piece: Piece) -> memoryview:
        """The bytes of a piece that `is_verified`: a slice of the map."""
        return self.view_in(self._opened[segment], piece)

    def view_in(self, opened: Opened, piece: Piece) -> memoryview:
        """The same, of a segment that is lent."""
        self.served_bytes += piece.stop - piece.start
        return opened.view(piece)

    def lend(self, segment: Segment) -> Opened:
        """The segment file, mapped, for `verify`; to be given back. Raises DamagedError where it cannot be opened."""
        opened = self._opened.pop(segment, None)
        if opened is None:
            try:
                opened = Opened(self._files, segment)
            except OSError as error:
                raise DamagedError(segment, segment.index, 0, f"cannot be opened ({error.strerror})") from error
        self._opened[segment] = opened  # the youngest
        opened.lent += 1
        while len(self._opened) > self._maps_max:
            self._take_down(next(iter(self._opened)))
        return opened

    def give_back(self, opened: Opened) -> None:
        opened.lent -= 1
        if opened.off_the_shelf and not opened.lent:
            self._files.close(opened.file)

    def verify(self, opened: Opened, index: Index, numbers: Sequence[int]) -> dict[int, str]:
        """Read those records, check their CRC, and say why which of them are damaged. Blocks; from any thread."""
        wanted = [number for number in numbers if not opened.verified[number]]
        damaged: dict[int, str] = {}
        for number, data in self._read_records(opened.file, index, wanted).items():
            if isinstance(data, str):
                damaged[number] = data
            else:
                opened.verified[number] = 1
        return damaged

    def read_unmapped(
        self, path: Path, index: Index, numbers: Sequence[int], *, fresh: bool = False
    ) -> dict[int, bytes | str]:
        """Whole records, or why they cannot be had. `fresh`: from the disk itself. Blocks; from any thread."""
        try:
            file = self._files.open(path)
        except OSError as error:
            return dict.fromkeys(numbers, f"cannot be read ({error.strerror})")
        try:
            if fresh:
                offset = index.offsets[numbers[0]]
                self._files.forget(file, offset, index.ends[numbers[-1]] - offset)
            return self._read_records(file, index, numbers)
        finally:
            self._files.close(file)

    def _read_records(self, file: int, index: Index, numbers: Sequence[int]) -> dict[int, bytes | str]:
        return {number: self._read_record(file, index.offsets[number], index.ends[number]) for number in numbers}

    def _read_record(self, file: int, offset: int, end: int) -> bytes | str:
        try:
            data = self._files.read(file, offset, end - offset)  # not from the map: a page fault would hold everything
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        self.verified_bytes += len(data)
        record = records.decode(data)
        if record is None or record.end != end - offset:
            return "is damaged (its CRC does not match)"
        return data

    def doubt(self, segment: Segment, record: int) -> None:
        """That record was found damaged: it is checked again before it is served."""
        if segment in self._opened:
            self._opened[segment].verified[record] = 0

    def forget(self, segment: Segment) -> None:
        """The segment is about to go."""
        if segment in self._indexes:
            del self._indexes[segment]
            segment.let_go()
        if segment in self._opened:
            self._take_down(segment)

    def close(self) -> None:
        for segment in list(self._opened):
            self._take_down(segment)

    def _take_down(self, segment: Segment) -> None:
        """Close the file; the map goes with the last slice of it."""
        opened = self._opened.pop(segment)
        opened.off_the_shelf = True
        if not opened.lent:
            self._files.close(opened.file)
