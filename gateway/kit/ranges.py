"""Sets of integers kept as closed ranges.

The settled state of a subscription is such a set: everything below `floor`, and a few ranges above it. Acks arrive
nearly in order, so an add usually only moves the floor.

Where they do not, the set stays small: above the floor it is made of chunks of 65,536 integers (chunk.py), and none of
them takes more than one bit for each integer. Ten million positions settled in the worst of orders take 1.25 MB.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from gateway.kit.chunk import BITMAP_BYTES, BITS, LOCAL_MAX, Bits, Chunk, Runs

_FORMAT: Final = 1
_HEAD: Final = struct.Struct("<BQI")  # format, floor, chunks
_CHUNK: Final = struct.Struct("<QH")  # its number, its ranges; or _BITMAP: bits follow, not ranges
_BITMAP: Final = 0xFFFF


class RangeSet:
    """A set of integers >= 0: all below `floor`, plus disjoint, non-adjacent closed ranges above it."""

    __slots__ = ("_chunks", "_keys", "floor")

    def __init__(self, floor: int = 0, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self.floor = floor
        self._keys: list[int] = []  # which chunks there are, ascending; none of them is empty, or has the floor
        self._chunks: list[Chunk] = []
        for low, high in ranges:
            self.add(low, high)

    # ------------------------------------------------------------------------------------------------ changing

    def add(self, low: int, high: int) -> None:
        """Add every integer of the closed range [low, high]."""
        if low <= self.floor:
            if high >= self.floor:
                self.floor = high + 1
                if self._keys:
                    self._absorb()
        elif low <= high:
            self._add_above(low, high)

    def _add_above(self, low: int, high: int) -> None:
        keys, chunks = self._keys, self._chunks
        key, last = low >> BITS, high >> BITS
        index = len(keys) - 1 if keys and keys[-1] == key else bisect_left(keys, key)
        if key != last:
            self._add_across(index, low, high)
        elif index < len(keys) and keys[index] == key:
            chunks[index] = chunks[index].add(low & LOCAL_MAX, high & LOCAL_MAX)
        else:
            keys.insert(index, key)
            chunks.insert(index, Runs(array("H", (low & LOCAL_MAX, high & LOCAL_MAX))))

    def _add_across(self, index: int, low: int, high: int) -> None:
        """A range of several chunks: it fills those between its ends."""
        key, last = low >> BITS, high >> BITS
        stop = bisect_left(self._keys, last + 1)
        before = dict(zip(self._keys[index:stop], self._chunks[index:stop], strict=True))
        self._keys[index:stop] = range(key, last + 1)
        self._chunks[index:stop] = [
            before.get(key, Runs(array("H"))).add(low & LOCAL_MAX, LOCAL_MAX),
            *(Runs(array("H", (0, LOCAL_MAX))) for _ in range(key + 1, last)),
            before.get(last, Runs(array("H"))).add(0, high & LOCAL_MAX),
        ]

    def _absorb(self) -> None:
        """Take what the floor has reached into it."""
        keys, chunks, floor, done = self._keys, self._chunks, self.floor, 0
        while done < len(keys) and keys[done] <= floor >> BITS:
            if keys[done] == floor >> BITS:
                floor = (floor & ~LOCAL_MAX) + chunks[done].take_front(floor & LOCAL_MAX)
                if floor >> BITS == keys[done] and chunks[done]:
                    break
            done += 1
        self.floor = floor
        if done:
            del keys[:done], chunks[:done]

    def remove(self, low: int, high: int) -> None:
        """Take every integer of the closed range [low, high] out; the floor goes down to `low` where it is above."""
        if low > high:
            return
        floor = self.floor
        if high > floor:
            self._remove_above(max(low, floor + 1), high)
        if low < floor:
            self.floor = low
            self.add(high + 1, floor - 1)

    def _remove_above(self, low: int, high: int) -> None:
        keys, chunks = self._keys, self._chunks
        start, stop = bisect_left(keys, low >> BITS), bisect_left(keys, (high >> BITS) + 1)
        for index in range(start, stop):
            first = low & LOCAL_MAX if keys[index] == low >> BITS else 0
            last = high & LOCAL_MAX if keys[index] == high >> BITS else LOCAL_MAX
            if (first, last) == (0, LOCAL_MAX):
                chunks[index] = Runs(array("H"))
            else:
                chunks[index] = chunks[index].remove(first, last)
        kept = [(key, chunk) for key, chunk in zip(keys[start:stop], chunks[start:stop], strict=True) if chunk]
        keys[start:stop] = [key for key, _ in kept]
        chunks[start:stop] = [chunk for _, chunk in kept]

    # -------------------------------------------------------------------------------------------------- asking

    def __contains__(self, value: int) -> bool:
        if value < self.floor:
            return True
        index = bisect_left(self._keys, value >> BITS)
        return (
            index < len(self._keys)
            and self._keys[index] == value >> BITS
            and (value & LOCAL_MAX) in self._chunks[index]
        )

    def __bool__(self) -> bool:
        """Whether there is anything above the floor."""
        return bool(self._keys)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The ranges above the floor, ascending."""
        low, high = 0, -2  # the range before, if there is one: the next chunk may go on with it
        for key, chunk in zip(self._keys, self._chunks, strict=True):
            base = key << BITS
            for first, last in chunk.runs(0, LOCAL_MAX):
                if base + first == high + 1:
                    high = base + last
                    continue
                if low <= high:
                    yield low, high
                low, high = base + first, base + last
        if low <= high:
            yield low, high

    def __len__(self) -> int:
        """The number of ranges above the floor."""
        keys, chunks = self._keys, self._chunks
        joined = sum(
            keys[i] == keys[i - 1] + 1 and 0 in chunks[i] and LOCAL_MAX in chunks[i - 1] for i in range(1, len(keys))
        )
        return sum(map(len, chunks)) - joined

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self.floor == other.floor and self._keys == other._keys and self.encode() == other.encode()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"RangeSet({self.floor}, {list(self)})"

    def gaps(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """The closed ranges of [low, high] that are not in the set, ascending; found as they are asked for."""
        low = max(low, self.floor)
        keys = self._keys
        for index in range(bisect_left(keys, low >> BITS), bisect_left(keys, (high >> BITS) + 1)):
            base = keys[index] << BITS
            for first, last in self._chunks[index].runs(max(low - base, 0), min(high - base, LOCAL_MAX)):
                if low < base + first:
                    yield low, base + first - 1
                low = base + last + 1
        if low <= high:
            yield low, high

    def count_in(self, low: int, high: int) -> int:
        """How many integers of [low, high] are in the set."""
        below = max(min(high + 1, self.floor) - low, 0)
        low = max(low, self.floor)
        if low > high:
            return below
        keys, chunks = self._keys, self._chunks
        start, stop = bisect_left(keys, low >> BITS), bisect_left(keys, (high >> BITS) + 1)
        return below + sum(
            chunks[index].count(
                low & LOCAL_MAX if keys[index] == low >> BITS else 0,
                high & LOCAL_MAX if keys[index] == high >> BITS else LOCAL_MAX,
            )
            for index in range(start, stop)
        )

    # ---------------------------------------------------------------------------------------------- as bytes

    def encode(self) -> bytes:
        """The set as bytes, the same for equal sets; at most 8 KiB and 10 bytes a chunk."""
        self._chunks = [chunk.packed() for chunk in self._chunks]
        parts = [_HEAD.pack(_FORMAT, self.floor, len(self._keys))]
        for key, chunk in zip(self._keys, self._chunks, strict=True):
            if isinstance(chunk, Bits):
                parts += (_CHUNK.pack(key, _BITMAP), bytes(chunk.bitmap))
            else:
                parts += (_CHUNK.pack(key, len(chunk)), _little(chunk.bounds).tobytes())
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> RangeSet:
        """The set that `encode` made `data` of. ValueError where it is nothing of the kind."""
        if len(data) < _HEAD.size or data[0] != _FORMAT:
            raise ValueError(f"no set of ranges in format {_FORMAT}: {data[:16]!r}")
        _, floor, chunks = _HEAD.unpack_from(data)
        found = cls(floor)
        at = _HEAD.size
        for _ in range(chunks):
            if len(data) < at + _CHUNK.size:
                break
            key, runs = _CHUNK.unpack_from(data, at)
            at += _CHUNK.size
            size = BITMAP_BYTES if runs == _BITMAP else 4 * runs
            body = data[at : at + size]
            at += size
            if len(body) == size:
                found._keys.append(key)
                found._chunks.append(Bits(bytearray(body)) if runs == _BITMAP else Runs(_little(array("H", body))))
        if at != len(data) or len(found._keys) != chunks:
            raise ValueError(f"a set of ranges of {chunks} chunks cannot have {len(data)} bytes")
        return found


def _little(bounds: array[int]) -> array[int]:
    """The same numbers with their bytes in little-endian order, or back."""
    if sys.byteorder == "big":
        bounds = bounds[:]
        bounds.byteswap()
    return bounds


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
