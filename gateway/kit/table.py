"""Records of one fixed size, outside the interpreter's heap: no object each, and nothing for the garbage collector.

A record is a slot, a number from 1 on; 0 stands for none, so that links read from fresh memory lead nowhere. Slots lie
in extents, each a mapping of its own, made when it is first needed and given back when it is empty (but for one that is
kept, so that a load around the edge does not map and unmap). The lowest extent with room is filled first, so the memory
that is used stays where it began. What a record holds is its user's affair: `place` says where it lies.
"""

from __future__ import annotations

import heapq
import mmap
from struct import Struct
from typing import Final

NONE: Final = 0
"""No slot."""
_LINK: Final = Struct("<I")  # a free record begins with the slot that was freed before it
PAGE_BYTES: Final = mmap.PAGESIZE


def anonymous(size: int) -> mmap.mmap:
    """`size` bytes of memory, zero until they are written, and costing nothing before."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class Extents:
    """Where a table's mappings come from: anonymous memory, here. `number` counts from 0."""

    def open(self, number: int, size: int) -> mmap.mmap:
        """`size` zero bytes for the extent `number`."""
        return anonymous(size)

    def close(self, number: int, mapping: mmap.mmap) -> None:
        """The extent `number` is empty."""
        mapping.close()


class _Extent:
    """A mapping and what is free in it."""

    __slots__ = ("free", "fresh", "live", "mapping")

    def __init__(self) -> None:
        self.mapping: mmap.mmap | None = None
        self.live = 0
        self.fresh = 0  # records from here on were never used
        self.free = NONE  # the slot freed last


class Table:
    """`record_bytes`: at least 4. `extent_records`: a power of two; an extent is whole pages."""

    __slots__ = ("_extents", "_room", "_size", "_spare", "mappings", "mask", "record_bytes", "shift", "source")

    def __init__(self, record_bytes: int, extent_records: int, source: Extents | None = None) -> None:
        self.record_bytes = record_bytes
        self.shift = extent_records.bit_length() - 1
        self.mask = extent_records - 1
        if extent_records != 1 << self.shift or record_bytes < _LINK.size or record_bytes * extent_records % PAGE_BYTES:
            raise ValueError(f"{extent_records} records of {record_bytes} bytes do not make whole pages")
        self.source = Extents() if source is None else source
        self.mappings: list[mmap.mmap | None] = []
        """By extent: the hot paths of users read records here themselves, as `place` does."""
        self._extents: list[_Extent] = []
        self._room: list[int] = []  # a heap of the extents that are not full
        self._spare = -1  # the extent that is mapped and empty
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def extent_bytes(self) -> int:
        return self.record_bytes << self.shift

    @property
    def extents(self) -> int:
        """Mappings that are open."""
        return sum(mapping is not None for mapping in self.mappings)

    def records_in(self, start: int, stop: int | None = None) -> int:
        """Records in the extents [start, stop)."""
        return sum(extent.live for extent in self._extents[start:stop])

    def place(self, slot: int) -> tuple[mmap.mmap, int]:
        """The mapping in which `slot` lies, and its first byte there."""
        mapping = self.mappings[(slot - 1) >> self.shift]
        assert mapping is not None  # it holds a record
        return mapping, ((slot - 1) & self.mask) * self.record_bytes

    def take(self) -> int:
        """A slot for a record; what it holds is undefined. OSError where there is no room, and nothing has changed."""
        number = self._room[0] if self._room else self._add_extent()
        extent = self._extents[number]
        mapping = extent.mapping
        if mapping is None:
            mapping = extent.mapping = self.mappings[number] = self.source.open(number, self.extent_bytes)
        if number == self._spare:
            self._spare = -1
        slot = extent.free
        if slot:
            (extent.free,) = _LINK.unpack_from(mapping, ((slot - 1) & self.mask) * self.record_bytes)
        else:
            extent.fresh += 1
            slot = (number << self.shift) + extent.fresh
        extent.live += 1
        if extent.live > self.mask:
            heapq.heappop(self._room)
        self._size += 1
        return slot

    def give(self, slot: int) -> None:
        """Take back a slot that `take` gave."""
        number = (slot - 1) >> self.shift
        extent = self._extents[number]
        assert extent.mapping is not None
        if extent.live > self.mask:
            heapq.heappush(self._room, number)
        extent.live -= 1
        self._size -= 1
        if extent.live:
            _LINK.pack_into(extent.mapping, ((slot - 1) & self.mask) * self.record_bytes, extent.free)
            extent.free = slot
            return
        extent.fresh, extent.free = 0, NONE
        if self._spare >= 0:
            self._close(max(number, self._spare))
        self._spare = number if self._spare < 0 else min(number, self._spare)

    def clear(self) -> None:
        """Forget every record, and unmap all."""
        for number, extent in enumerate(self._extents):
            if extent.mapping is not None:
                self.source.close(number, extent.mapping)
        self._extents.clear()
        self.mappings.clear()
        self._room.clear()
        self._spare, self._size = -1, 0

    def _add_extent(self) -> int:
        number = len(self._extents)
        self._extents.append(_Extent())
        self.mappings.append(None)
        self._room.append(number)
        return number

    def _close(self, number: int) -> None:
        extent = self._extents[number]
        assert extent.mapping is not None
        self.source.close(number, extent.mapping)
        extent.mapping = self.mappings[number] = None
