"""Recent message bodies, kept in memory under a byte cap; older ones are read back from the log.

Positions are consecutive, so a block of 256 of them is found by a shift, and a run of them is a slice of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_SHIFT: Final = 8
_BLOCK: Final = 1 << _SHIFT
_MASK: Final = _BLOCK - 1
_OVERHEAD_BYTES: Final = 41  # a bytes object's header and its place in a list


class Bodies:
    """The bodies of the last positions appended. `low` is the first still here."""

    __slots__ = ("_blocks", "_sizes", "bytes_max", "end", "hits", "low", "misses", "size")

    def __init__(self, bytes_max: int, end: int) -> None:
        self.bytes_max = bytes_max
        self.low = end
        self.end = end
        self.size = 0
        self.hits = 0
        self.misses = 0
        self._blocks: dict[int, list[bytes]] = {}
        self._sizes: dict[int, int] = {}

    def restart(self, end: int) -> None:
        """Forget all; the next position to come is `end`."""
        self._blocks.clear()
        self._sizes.clear()
        self.size = 0
        self.low = self.end = end

    def append(self, bodies: Sequence[bytes]) -> None:
        """The bodies of the next positions; the oldest blocks go where the cap is passed."""
        start, count = 0, len(bodies)
        while start < count:
            number, place = self.end >> _SHIFT, self.end & _MASK
            block = self._blocks.get(number)
            if block is None:
                block = self._blocks[number] = [b""] * place  # `low` keeps the padding from being read
                self._sizes[number] = 0
            piece = bodies[start : start + _BLOCK - place]
            block.extend(piece)
            size = sum(map(len, piece)) + _OVERHEAD_BYTES * len(piece)
            self._sizes[number] += size
            self.size += size
            start += len(piece)
            self.end += len(piece)
        while self.size > self.bytes_max and self._blocks:
            number = next(iter(self._blocks))
            del self._blocks[number]
            self.size -= self._sizes.pop(number)
            self.low = min((number + 1) << _SHIFT, self.end)

    def get(self, positions: Sequence[int]) -> list[bytes] | None:
        """The bodies of ascending `positions`; None where any of them is not here."""
        if not positions or positions[0] < self.low or positions[-1] >= self.end:
            self.misses += len(positions)
            return None
        self.hits += len(positions)
        blocks = self._blocks
        if not isinstance(positions, range):
            return [blocks[position >> _SHIFT][position & _MASK] for position in positions]
        low, stop = positions.start, positions.stop
        place = low & _MASK
        bodies = blocks[low >> _SHIFT][place : place + stop - low]
        low += len(bodies)
        while low < stop:
            bodies += blocks[low >> _SHIFT][: stop - low]
            low = (low | _MASK) + 1
        return bodies
