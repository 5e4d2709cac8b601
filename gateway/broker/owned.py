"""Which of the stored positions are a subscription's, in numbers.

A segment's queue is pairs of closed ranges. Whole segments are counted from the sums of their pairs; only where some of
a segment is settled and some is not are its pairs looked at one by one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter

from gateway.kit.ranges import RangeSet
from gateway.store.segment import Segment

_BASE = attrgetter("base")


def is_owned(segments: Sequence[Segment], number: int, position: int) -> bool:
    """Whether the message at `position` is subscription `number`'s."""
    return any(True for _ in owned(segments, number, position, position))


def owned(segments: Sequence[Segment], number: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    """The closed ranges of [low, high] that are subscription `number`'s, ascending."""
    for segment in segments[max(bisect_right(segments, low, key=_BASE) - 1, 0) :]:
        if segment.base > high:
            return
        yield from _pairs(segment, number, low, high)


def tally(segments: Sequence[Segment], number: int, settled: RangeSet, low: int) -> tuple[int, int]:
    """(messages, those of them that are not settled) of subscription `number` from position `low` on."""
    messages = unsettled = 0
    above = max((high for _, high in settled), default=-1)  # nothing is settled beyond it
    for segment in segments:
        if segment.end <= low:
            continue
        count = _count(segment, number, low)
        messages += count
        if settled.floor <= max(low, segment.base) and above < segment.base:
            unsettled += count
        elif segment.end > settled.floor:
            pairs = _pairs(segment, number, low, segment.end - 1)
            unsettled += sum(b - a + 1 for pair in pairs for a, b in settled.gaps(*pair))
    return messages, unsettled


def timed(segments: Sequence[Segment], positions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """position -> (due_ms, expires_ms) of those of `positions` that have a delay or a TTL."""
    found: dict[int, tuple[int, int]] = {}
    for segment in reversed(segments):
        if segment.timed and segment.base <= positions[-1] and positions[0] < segment.end:
            found.update({p: segment.timed[p] for p in positions if p in segment.timed})
        if segment.base <= positions[0]:
            break
    return found


def times_of(segments: Sequence[Segment], position: int) -> tuple[int, int]:
    """(due_ms, expires_ms) of the message; zeros where it has none."""
    return timed(segments, (position,)).get(position, (0, 0))


def _pairs(segment: Segment, number: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    queue = segment.queues.get(number, ())
    for at in range(bisect_left(queue, low) & ~1, len(queue), 2):
        if queue[at] > high:
            return
        if queue[at + 1] >= low:
            yield max(queue[at], low), min(queue[at + 1], high)


def _count(segment: Segment, number: int, low: int) -> int:
    queue = segment.queues.get(number, ())
    at = bisect_left(queue, low) & ~1
    if at >= len(queue):
        return 0
    whole = sum(queue[at + 1 :: 2]) - sum(queue[at::2]) + (len(queue) - at) // 2
    return whole - max(min(low, queue[at + 1] + 1) - queue[at], 0)
