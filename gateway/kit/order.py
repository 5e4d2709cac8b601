"""Values in the order of their keys, for a few and for a million of them.

Chunks of at most 512 keys, so that an insertion moves half a chunk and not half of everything: a flat list of a million
leases would move 4 MB for each that is settled. Keys are an array, 8 bytes each and nothing for the garbage collector;
values may be one too.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, MutableSequence
from itertools import islice
from typing import Final, Generic, TypeVar

V = TypeVar("V")
CHUNK_MAX: Final = 512


class Order(Generic[V]):
    """Keys are integers from 0 to 2^64 - 1, each at most once. `make` makes what a chunk keeps its values in."""

    __slots__ = ("_chunks", "_lows", "_make", "_size")

    def __init__(self, make: Callable[[], MutableSequence[V]] = list) -> None:
        self._make = make
        self._lows: list[int] = []  # the first key of each chunk
        self._chunks: list[tuple[array[int], MutableSequence[V]]] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[V]:
        """The values in the order of their keys."""
        for _, values in self._chunks:
            yield from values

    @property
    def first(self) -> int:
        """The smallest key. IndexError where there is none."""
        return self._lows[0]

    def add(self, key: int, value: V) -> None:
        self._size += 1
        if self._chunks:
            keys, values = self._chunks[-1]
            if key > keys[-1] and len(keys) < CHUNK_MAX:  # as most do
                keys.append(key)
                values.append(value)
                return
        if not self._chunks or key > keys[-1]:
            values = self._make()
            values.append(value)
            self._chunks.append((array("Q", (key,)), values))
            self._lows.append(key)
            return
        index = max(bisect_right(self._lows, key) - 1, 0)
        keys, values = self._chunks[index]
        at = bisect_left(keys, key)
        keys.insert(at, key)
        values.insert(at, value)
        self._lows[index] = keys[0]
        if len(keys) > CHUNK_MAX:
            self._split(index)

    def _split(self, index: int) -> None:
        keys, values = self._chunks[index]
        half = len(keys) // 2
        others = self._make()
        others.extend(values[half:])
        self._chunks.insert(index + 1, (keys[half:], others))
        self._lows.insert(index + 1, keys[half])
        del keys[half:], values[half:]

    def find(self, key: int) -> V | None:
        """The value of `key`; None where it is not in."""
        index = bisect_right(self._lows, key) - 1
        if index < 0:
            return None
        keys, values = self._chunks[index]
        at = 0 if keys[0] == key else bisect_left(keys, key)
        return values[at] if at < len(keys) and keys[at] == key else None

    def remove(self, key: int) -> V:
        """Take out the value of `key`. KeyError where it is not in."""
        if self._lows and self._lows[0] == key:  # what came first goes first, as a rule
            return self._pop(0, 0)
        index = bisect_right(self._lows, key) - 1
        if index < 0:
            raise KeyError(key)
        keys = self._chunks[index][0]
        at = bisect_left(keys, key)
        if at == len(keys) or keys[at] != key:
            raise KeyError(key)
        return self._pop(index, at)

    def pop_first(self) -> V:
        """Take out the value of the smallest key. IndexError where there is none."""
        return self._pop(0, 0)

    def _pop(self, index: int, at: int) -> V:
        keys, values = self._chunks[index]
        value = values.pop(at)
        del keys[at]
        self._size -= 1
        if not keys:
            del self._chunks[index], self._lows[index]
        elif at == 0:
            self._lows[index] = keys[0]
        return value

    def reaching(self, low: int, high: int) -> list[V]:
        """The values whose keys are in [low, high], and the one before them; a copy."""
        found: list[V] = []
        index = max(bisect_right(self._lows, low) - 1, 0)
        while index < len(self._chunks) and self._lows[index] <= high:
            keys, values = self._chunks[index]
            found.extend(values[max(bisect_right(keys, low) - 1, 0) : bisect_right(keys, high)])
            index += 1
        return found

    def reach(self, low: int, high: int, count_max: int) -> tuple[int, int | None]:
        """How many keys are in [low, high], counted up to `count_max`; and the one behind those, where there is one."""
        counted = 0
        index = max(bisect_right(self._lows, low) - 1, 0)
        while index < len(self._chunks) and self._lows[index] <= high:
            keys = self._chunks[index][0]
            start = bisect_left(keys, low)
            here = bisect_right(keys, high) - start
            if counted + here > count_max:
                return count_max, keys[start + count_max - counted]
            counted += here
            index += 1
        return counted, None

    def some(self, count_max: int) -> list[V]:
        """The first values, at most so many; a copy."""
        return list(islice(self, count_max))

    def clear(self) -> None:
        self._lows.clear()
        self._chunks.clear()
        self._size = 0
