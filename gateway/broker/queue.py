"""Walking a subscription's queue through the segments' index."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter

from gateway.kit.ranges import RangeSet
from gateway.store.segment import Segment

_BASE = attrgetter("base")


def walk(
    segments: Sequence[Segment],
    number: int,
    front: int,
    limit: int,
    settled: RangeSet,
    count_max: int,
    size_max: int,
) -> tuple[Sequence[int], int]:
    """The next messages of subscription `number` from position `front` on, below `limit`, and the front behind them.

    All from one segment, at most `count_max`, at most `size_max` bytes on disk (but at least one). No positions: there
    is nothing below the front that is returned. Positions in `settled` are passed over.
    """
    front = max(front, settled.floor)  # after a restart the floor may pass what has not been walked yet
    at = max(bisect_right(segments, front, key=_BASE) - 1, 0)
    while at < len(segments):
        segment = segments[at]
        positions = _within(segment, number, max(front, segment.base), limit, settled, count_max)
        if positions:
            positions = _fit(segment, positions, size_max)
            return positions, positions[-1] + 1
        if segment.end >= limit:
            break
        front = segment.end
        at += 1
    return (), max(front, limit)


def fit(segments: Sequence[Segment], positions: Sequence[int], size_max: int) -> Sequence[int]:
    """The first of `positions`, all of one segment, that have at most `size_max` bytes on disk; at least one."""
    return _fit(_segment_of(segments, positions), positions, size_max)


def measure(segments: Sequence[Segment], positions: Sequence[int]) -> int:
    """Bytes on disk of `positions`, all of one segment."""
    segment = _segment_of(segments, positions)
    if isinstance(positions, range):
        return segment.spread(positions[0], positions[-1] + 1)
    return sum(segment.spread(position, position + 1) for position in positions)


def end_of(segments: Sequence[Segment], position: int) -> int:
    """The first position behind the segment that holds `position`."""
    return _segment_of(segments, (position,)).end


def _segment_of(segments: Sequence[Segment], positions: Sequence[int]) -> Segment:
    return segments[bisect_right(segments, positions[0], key=_BASE) - 1]


def _within(segment: Segment, number: int, front: int, limit: int, settled: RangeSet, count_max: int) -> Sequence[int]:
    queue = segment.queues.get(number)
    if not queue:
        return ()
    pair = bisect_left(queue, front) & ~1
    size = len(queue)
    low = front
    found: list[int] = []
    skip = bool(settled)
    while pair < size:
        low = max(queue[pair], front)
        high = min(queue[pair + 1], limit - 1)
        pair += 2
        if low > high:
            if low >= limit:
                break
            continue
        if not found and not skip and (high - low + 1 >= count_max or pair >= size or queue[pair] >= limit):
            return range(low, min(high + 1, low + count_max))  # the usual case: one contiguous run
        for gap_low, gap_high in settled.gaps(low, high) if skip else ((low, high),):
            found.extend(range(gap_low, min(gap_high + 1, gap_low + count_max - len(found))))
            if len(found) >= count_max:
                return _compact(found)
    return _compact(found)


def _compact(positions: list[int]) -> Sequence[int]:
    """A range where the positions are contiguous: cheaper to keep, to cut and to look up."""
    if positions and positions[-1] - positions[0] == len(positions) - 1:
        return range(positions[0], positions[-1] + 1)
    return positions


def _fit(segment: Segment, positions: Sequence[int], size_max: int) -> Sequence[int]:
    if segment.spread(positions[0], positions[-1] + 1) <= size_max:
        return positions
    if isinstance(positions, range):
        return positions[: segment.fitting(positions[0], size_max) - positions[0]]
    size = 0
    for index, position in enumerate(positions):
        size += segment.spread(position, position + 1)
        if size > size_max and index:
            return positions[:index]
    return positions


def keys_of(segments: Sequence[Segment], positions: Sequence[int]) -> list[int]:
    """The hash of the key of each of `positions`, all of one segment; 0 where a message has none."""
    keys = _segment_of(segments, positions).keys
    return [keys.get(position, 0) for position in positions]
