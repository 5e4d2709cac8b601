"""Which of the stored positions are a subscription's, in numbers.

A segment's queue is pairs of closed ranges. Whole segments are counted from the sums of their pairs; only where some of
a segment is settled and some is not are its pairs looked at one by one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter

from gateway.broker.queue import Past, queue_of
from gateway.kit.ranges import RangeSet
from gateway.store.segment import Segment

_BASE = attrgetter("base")


def is_owned(segments: Sequence[Segment], number: int, position: int, past: Past) -> bool:
    """Whether the message at `position` is subscription `number`'s."""
    return any(True for _ in owned(segments, number, position, position, past))


def owned(segments: Sequence[Segment], number: int, low: int, high: int, past: Past) -> Iterator[tuple[int, int]]:
    """The closed ranges of [low, high] that are subscription `number`'s, ascending. `past`: see `queue_of`."""
    for segment in segments[max(bisect_right(segments, low, key=_BASE) - 1, 0) :]:
        if segment.base > high:
            return
        yield from _pairs(segment, number, low, high, past)


def tally(segments: Sequence[Segment], number: int, settled: RangeSet, low: int, past: Past) -> tuple[int, int]:
    """(messages, those of them that are not settled) of subscription `number` from position `low` on."""
    messages = unsettled = 0
    above = max((high for _, high in settled), default=-1)  # nothing is settled beyond it
    for segment in segments:
        if segment.end <= low:
            continue
        count = _count(segment, number, low, past)
        messages += count
        if settled.floor <= max(low, segment.base) and above < segment.base:
            unsettled += count
        elif segment.end > settled.floor:
            pairs = _pairs(segment, number, low, segment.end - 1, past)
            unsettled += sum(b - a + 1 for pair in pairs for a, b in settled.gaps(*pair))
    return messages, unsettled


def _pairs(segment: Segment, number: int, low: int, high: int, past: Past) -> Iterator[tuple[int, int]]:
    queue, base = queue_of(segment, number, past) or (), segment.base
    low, high = low - base, high - base
    for at in range(bisect_left(queue, low) & ~1, len(queue), 2):
        if queue[at] > high:
            return
        if queue[at + 1] >= low:
            yield max(queue[at], low) + base, min(queue[at + 1], high) + base


def _count(segment: Segment, number: int, low: int, past: Past) -> int:
    queue = queue_of(segment, number, past) or ()
    low -= segment.base
    at = bisect_left(queue, low) & ~1
    if at >= len(queue):
        return 0
    whole = sum(queue[at + 1 :: 2]) - sum(queue[at::2]) + (len(queue) - at) // 2
    return whole - max(min(low, queue[at + 1] + 1) - queue[at], 0)
