"""Sets of integers kept as closed ranges.

The settled state of a subscription is such a set: everything below `floor`, and a few ranges above it. Acks arrive
nearly in order, so an add usually only moves the floor.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class RangeSet:
    """A set of integers >= 0: all below `floor`, plus disjoint, non-adjacent closed ranges above it."""

    __slots__ = ("_highs", "_lows", "floor")

    def __init__(self, floor: int = 0, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.floor = floor
        self._lows: list[int] = []
        self._highs: list[int] = []
        for low, high in ranges:
            self.add(low, high)

    def add(self, low: int, high: int) -> None:
        """Add every integer of the closed range [low, high]."""
        if low <= self.floor:
            if high >= self.floor:
                self.floor = high + 1
                self._absorb()
            return
        lows, highs = self._lows, self._highs
        first = bisect_left(highs, low - 1)  # the first range that touches or follows
        last = bisect_right(lows, high + 1)  # one past the last range that touches
        if first < last:
            low = min(low, lows[first])
            high = max(high, highs[last - 1])
        lows[first:last] = [low]
        highs[first:last] = [high]

    def _absorb(self) -> None:
        """Take ranges that the floor has reached into it."""
        count = bisect_right(self._lows, self.floor)
        if count:
            self.floor = max(self.floor, self._highs[count - 1] + 1)
            del self._lows[:count], self._highs[:count]

    def __contains__(self, value: int) -> bool:
        if value < self.floor:
            return True
        index = bisect_right(self._lows, value) - 1
        return index >= 0 and value <= self._highs[index]

    def __bool__(self) -> bool:
        """Whether there is anything above the floor."""
        return bool(self._lows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The ranges above the floor, ascending."""
        return zip(self._lows, self._highs, strict=True)

    def __len__(self) -> int:
        """The number of ranges above the floor."""
        return len(self._lows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return (self.floor, self._lows, self._highs) == (other.floor, other._lows, other._highs)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def gaps(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """The closed ranges of [low, high] that are not in the set, ascending."""
        low = max(low, self.floor)
        index = bisect_left(self._highs, low)
        while low <= high:
            if index == len(self._lows) or self._lows[index] > high:
                yield low, high
                return
            if low < self._lows[index]:
                yield low, self._lows[index] - 1
            low = self._highs[index] + 1
            index += 1


def normalise(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort closed ranges and join those that overlap or touch, so that no position is named twice."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            if high > out[-1][1]:
                out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out


def count(ranges: Iterable[tuple[int, int]]) -> int:
    """How many integers disjoint closed ranges hold."""
    return sum(high - low + 1 for low, high in ranges)
