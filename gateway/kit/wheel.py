"""A wheel of ticks: what is due is found without a scan, and what is done leaves without a trace.

Deadlines are rounded up to a tick; each tick has a bucket, and an item knows its bucket, so that removal is one
dictionary operation. Buckets exist only where something is due, so the horizon (a lease of seconds, a delay of a month)
costs nothing. Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 6, with a dictionary as hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Wheel(Generic[T]):
    """Items with deadlines in milliseconds; an item stands in it at most once."""

    __slots__ = ("_buckets", "_ticks", "next_tick", "tick_ms")

    def __init__(self, tick_ms: int, now_ms: int) -> None:
        self.tick_ms = tick_ms
        self.next_tick = now_ms // tick_ms + 1
        """The first tick that `advance` has not passed yet."""
        self._buckets: dict[int, dict[T, None]] = {}
        self._ticks: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._ticks)

    def __iter__(self) -> Iterator[T]:
        """What stands in it, in no promised order; it may change meanwhile."""
        return iter(list(self._ticks))

    def __contains__(self, item: T) -> bool:
        return item in self._ticks

    def add(self, item: T, deadline_ms: int) -> None:
        """Make `item` due at the first tick at or after `deadline_ms`; moves it where it is already due."""
        self.discard(item)
        tick = max(-(-deadline_ms // self.tick_ms), self.next_tick)
        self._ticks[item] = tick
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {item: None}
        else:
            bucket[item] = None

    def discard(self, item: T) -> None:
        """Take `item` out; nothing happens where it is not in."""
        tick = self._ticks.pop(item, None)
        if tick is None:
            return
        bucket = self._buckets[tick]
        del bucket[item]
        if not bucket:
            del self._buckets[tick]

    def deadline_ms(self, item: T) -> int | None:
        """When `item` is due, rounded up to its tick; None where it is not in."""
        tick = self._ticks.get(item)
        return None if tick is None else tick * self.tick_ms

    def advance(self, now_ms: int) -> list[T]:
        """Take out everything whose tick has come by `now_ms`, oldest tick first."""
        last = now_ms // self.tick_ms
        if last < self.next_tick:
            return []
        due: list[T] = []
        for tick in passed(self._buckets, self.next_tick, last):
            due.extend(self._buckets.pop(tick))
        for item in due:
            del self._ticks[item]
        self.next_tick = last + 1
        return due

    def clear(self) -> list[T]:
        """Take out everything, in no promised order."""
        items = list(self._ticks)
        self._ticks.clear()
        self._buckets.clear()
        return items


def passed(buckets: Mapping[int, object], start: int, last: int) -> list[int]:
    """The keys of `buckets` in [start, last], ascending."""
    if last - start < len(buckets):
        return [tick for tick in range(start, last + 1) if tick in buckets]
    return sorted(tick for tick in buckets if start <= tick <= last)  # the clock jumped: fewer buckets than ticks
