"""Where in a trace file events about a position may stand: a few numbers for each 64 KiB of it.

Publishing is at the front of the log and consumers are somewhere behind it, so a block has a range of positions for
each of the two; one for both would hold everything in between, and a search would read every block.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Final

from gateway.store.record import HEAD_BYTES

BLOCK_BYTES: Final = 64 * 1024
_ROW: Final = 5  # offset, lowest and highest position of publishing, lowest and highest of the rest
_NONE: Final = 2**64 - 1
_COUNTS: Final = struct.Struct("<III")
_OFFSET: Final = struct.Struct("<Q")
TRAILER_BYTES: Final = _OFFSET.size


class Index:
    """One file's. Rows ascend by offset and begin at records; `names[n - 1]` is where NAME or ROUTE n stands, `losses`
    where LOST records do."""

    __slots__ = ("_next", "blocks", "losses", "names")

    def __init__(self) -> None:
        self.blocks = array("Q")
        self.names = array("I")
        self.losses = array("I")
        self._next = 0

    def note(self, offset: int, publishing: bool, low: int, high: int) -> None:
        """An event about positions low..high, 0 where it is about none, is written at `offset`, behind all before."""
        blocks = self.blocks
        if offset >= self._next:
            blocks.extend((offset, _NONE, 0, _NONE, 0))
            self._next = offset + BLOCK_BYTES
        if not high:
            return
        at = len(blocks) - (4 if publishing else 2)
        if low < blocks[at]:
            blocks[at] = low
        if high > blocks[at + 1]:
            blocks[at + 1] = high

    def name(self, offset: int) -> int:
        """A NAME or ROUTE is written at `offset`; the number it defines."""
        self.names.append(offset)
        return len(self.names)

    def spans(self, end: int) -> Iterator[tuple[int, int]]:
        """Every block as [offset, end), up to `end` of the file."""
        blocks = self.blocks
        for at in range(0, len(blocks), _ROW):
            stop = blocks[at + _ROW] if at + _ROW < len(blocks) else end
            if blocks[at] < end:
                yield blocks[at], min(stop, end)

    def about(self, position: int, end: int) -> Iterator[tuple[int, int]]:
        """The blocks that may hold an event about `position`."""
        blocks = self.blocks
        for row, span in enumerate(self.spans(end)):
            at = row * _ROW
            if blocks[at + 1] <= position <= blocks[at + 2] or blocks[at + 3] <= position <= blocks[at + 4]:
                yield span

    def encode(self, offset: int) -> bytes:
        """The body of an INDEX record that stands at `offset`."""
        counts = _COUNTS.pack(len(self.blocks) // _ROW, len(self.names), len(self.losses))
        return b"".join((counts, self.blocks, self.names, self.losses, _OFFSET.pack(offset)))

    @staticmethod
    def decode(body: bytes) -> Index:
        """Raises ValueError where the body is none."""
        index = Index()
        if len(body) < _COUNTS.size:
            raise ValueError("the index is cut short")
        blocks, names, losses = _COUNTS.unpack_from(body)
        first = _COUNTS.size
        second = first + blocks * _ROW * 8
        third = second + names * 4
        end = third + losses * 4
        if len(body) != end + TRAILER_BYTES:
            raise ValueError("the index has not the length that it says")
        index.blocks = array("Q", body[first:second])
        index.names = array("I", body[second:third])
        index.losses = array("I", body[third:end])
        return index

    @staticmethod
    def offset_of(file_end: bytes) -> int:
        """Where the INDEX record of a sealed file stands, read off its last bytes."""
        return int(_OFFSET.unpack(file_end[-TRAILER_BYTES:])[0])


SEALED_BYTES_MIN: Final = HEAD_BYTES + _COUNTS.size + TRAILER_BYTES
