"""Integers of [0, 65536), kept in whichever of two forms is the smaller. `ranges.RangeSet` is made of these.

After Roaring bitmaps (Lemire et al., "Consistently faster and smaller compressed bitmaps with Roaring", 2016): a few
closed ranges in an array of 16-bit numbers, or 8 KiB of bits once ranges would take more. Whatever the pattern, a chunk
never takes more than about one bit for each of its integers.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

BITS: Final = 16
SIZE: Final = 1 << BITS
LOCAL_MAX: Final = SIZE - 1
BITMAP_BYTES: Final = SIZE // 8
RUNS_MAX: Final = BITMAP_BYTES // 4
"""Ranges a chunk may have before bits are smaller: two numbers of two bytes each."""

_LOWEST: Final = bytes((byte & -byte).bit_length() - 1 if byte else 0 for byte in range(256))
_find_set: Final = re.compile(rb"[^\x00]", re.DOTALL).search  # the first byte that is not so, found in C
_find_clear: Final = re.compile(rb"[^\xff]", re.DOTALL).search


class Runs:
    """`bounds` is lo, hi, lo, hi, ... of closed ranges, ascending, disjoint and not adjacent."""

    __slots__ = ("bounds",)

    def __init__(self, bounds: array[int]) -> None:
        self.bounds = bounds

    def __bool__(self) -> bool:
        return bool(self.bounds)

    def __contains__(self, value: int) -> bool:
        index = bisect_right(self.bounds, value)
        return index & 1 == 1 or (index > 0 and self.bounds[index - 1] == value)

    def __len__(self) -> int:
        """The number of ranges."""
        return len(self.bounds) >> 1

    def add(self, low: int, high: int) -> Chunk:
        """Add [low, high]; what the chunk is from now on."""
        bounds = self.bounds
        if bounds and low == bounds[-1] + 1:  # the usual cases first: next to the last range, or behind it
            bounds[-1] = high
            return self
        if not bounds or low > bounds[-1]:
            bounds.append(low)
            bounds.append(high)
            return self if len(bounds) <= 2 * RUNS_MAX else self._as_bits()
        first = bisect_left(bounds, low - 1) & ~1  # the first range that touches or follows
        last = (bisect_right(bounds, high + 1) + 1) & ~1  # one past the last range that touches
        if first < last:
            low = min(low, bounds[first])
            high = max(high, bounds[last - 1])
        bounds[first:last] = array("H", (low, high))
        return self if len(bounds) <= 2 * RUNS_MAX else self._as_bits()

    def remove(self, low: int, high: int) -> Chunk:
        """Take [low, high] out; what the chunk is from now on."""
        bounds = self.bounds
        first = bisect_left(bounds, low) & ~1
        last = (bisect_right(bounds, high) + 1) & ~1
        if first >= last:
            return self
        left = (bounds[first], low - 1) if bounds[first] < low else ()
        right = (high + 1, bounds[last - 1]) if bounds[last - 1] > high else ()
        bounds[first:last] = array("H", left + right)
        return self if len(bounds) <= 2 * RUNS_MAX else self._as_bits()

    def take_front(self, value: int) -> int:
        """Take out all below `value` and what goes on from there; the first integer from `value` on that was not in."""
        bounds = self.bounds
        index = bisect_right(bounds, value)
        if index & 1:
            value = bounds[index] + 1
            index += 1
        elif index and bounds[index - 1] == value:
            value += 1
        del bounds[:index]
        return value

    def runs(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """The ranges that meet [low, high], whole or from `low` on, ascending."""
        bounds = self.bounds
        first = bisect_left(bounds, low) & ~1
        last = (bisect_right(bounds, high) + 1) & ~1
        return zip(bounds[first:last:2], bounds[first + 1 : last : 2], strict=True)

    def count(self, low: int, high: int) -> int:
        """How many integers of [low, high] are in the chunk."""
        bounds = self.bounds
        first = bisect_left(bounds, low) & ~1
        last = (bisect_right(bounds, high) + 1) & ~1
        if first >= last:
            return 0
        whole = sum(bounds[first + 1 : last : 2]) - sum(bounds[first:last:2]) + (last - first) // 2
        return whole - max(low - bounds[first], 0) - max(bounds[last - 1] - high, 0)

    def packed(self) -> Runs:
        return self

    def _as_bits(self) -> Bits:
        bits = Bits(bytearray(BITMAP_BYTES))
        for low, high in zip(self.bounds[::2], self.bounds[1::2], strict=True):
            bits.add(low, high)
        return bits


class Bits:
    """Bit `value & 7` of `bitmap[value >> 3]` says whether a value is in the chunk."""

    __slots__ = ("bitmap",)

    def __init__(self, bitmap: bytearray) -> None:
        self.bitmap = bitmap

    def __bool__(self) -> bool:
        return _find_set(self.bitmap) is not None

    def __contains__(self, value: int) -> bool:
        return self.bitmap[value >> 3] >> (value & 7) & 1 == 1

    def __len__(self) -> int:
        """The number of ranges: of bits whose left neighbour is not set."""
        number = int.from_bytes(self.bitmap, "little")
        return (number & ~(number << 1)).bit_count()

    def add(self, low: int, high: int) -> Chunk:
        bitmap, first, last = self.bitmap, low >> 3, high >> 3
        head, tail = 0xFF << (low & 7) & 0xFF, 0xFF >> (7 - (high & 7))
        if first == last:
            bitmap[first] |= head & tail
        else:
            bitmap[first] |= head
            bitmap[first + 1 : last] = b"\xff" * (last - first - 1)
            bitmap[last] |= tail
        return self

    def remove(self, low: int, high: int) -> Chunk:
        bitmap, first, last = self.bitmap, low >> 3, high >> 3
        head, tail = 0xFF << (low & 7) & 0xFF, 0xFF >> (7 - (high & 7))
        if first == last:
            bitmap[first] &= ~(head & tail)
        else:
            bitmap[first] &= ~head
            bitmap[first + 1 : last] = bytes(last - first - 1)
            bitmap[last] &= ~tail
        return self

    def take_front(self, value: int) -> int:
        value = self._next_out(value)
        if value:
            self.remove(0, value - 1)
        return value

    def runs(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        low = self._next_in(low)
        while low <= high:
            end = self._next_out(low)
            yield low, end - 1
            low = self._next_in(end)

    def count(self, low: int, high: int) -> int:
        number = int.from_bytes(self.bitmap[low >> 3 : (high >> 3) + 1], "little")
        number >>= low & 7
        return (number & (1 << (high - low + 1)) - 1).bit_count()

    def packed(self) -> Chunk:
        """The smaller of the two forms: bits that were filled up have become a few ranges again."""
        if len(self) > RUNS_MAX:
            return self
        return Runs(array("H", [bound for run in self.runs(0, LOCAL_MAX) for bound in run]))

    def _next_in(self, value: int) -> int:
        """The first integer from `value` on that is in the chunk; SIZE where there is none."""
        if value == SIZE:
            return SIZE
        byte = self.bitmap[value >> 3] >> (value & 7)
        if byte:
            return value + _LOWEST[byte]
        found = _find_set(self.bitmap, (value >> 3) + 1)
        if found is None:
            return SIZE
        at = found.start()
        return at << 3 | _LOWEST[self.bitmap[at]]

    def _next_out(self, value: int) -> int:
        """The first integer from `value` on that is not in the chunk; SIZE where there is none."""
        if value == SIZE:
            return SIZE
        byte = (self.bitmap[value >> 3] ^ 0xFF) >> (value & 7)
        if byte:
            return value + _LOWEST[byte]
        found = _find_clear(self.bitmap, (value >> 3) + 1)
        if found is None:
            return SIZE
        at = found.start()
        return at << 3 | _LOWEST[self.bitmap[at] ^ 0xFF]


Chunk = Runs | Bits
