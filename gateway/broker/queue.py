"""Walking a subscription's queue through the segments' indexes."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

import attrs

from gateway.kit.ranges import RangeSet
from gateway.store.index import Index
from gateway.store.segment import Segment

_BASE = attrgetter("base")


@attrs.frozen(eq=False)
class Past:
    """Positions that were routed to a subscription after they were stored, all of them below `end`."""

    positions: RangeSet
    end: int


NO_PAST: Final = Past(RangeSet(), 0)


def walk(
    segments: Sequence[Segment],
    number: int,
    front: int,
    limit: int,
    settled: RangeSet,
    count_max: int,
    size_max: int,
    past: Past = NO_PAST,
) -> tuple[Sequence[int], int]:
    """The next messages of subscription `number` from position `front` on, below `limit`, and the front behind them.

    All from one segment, at most `count_max`, at most `size_max` bytes on disk (but at least one). No positions: there
    is nothing below the front that is returned. Positions in `settled` are passed over. `past`: see `queue_of`.
    """
    front = max(front, settled.floor)  # after a restart the floor may pass what has not been walked yet
    at = max(bisect_right(segments, front, key=_BASE) - 1, 0)
    while at < len(segments):
        segment = segments[at]
        if front < segment.end:
            positions = _within(segment, number, max(front, segment.base), limit, settled, count_max, past)
            if positions:
                positions = _fit(segment.index, positions, size_max)
                return positions, positions[-1] + 1
        if segment.end >= limit:
            break
        front = max(front, segment.end)
        at += 1
    return (), max(front, limit)


def queue_of(segment: Segment, number: int, past: Past) -> Sequence[int] | None:
    """Pairs lo, hi of positions less the segment's base: those routed to subscription `number`; None where none are.

    No segment file knows of `past`, so it is joined here, once for as long as the index stays.
    """
    queues = segment.index.queues
    queue = queues.get(number)
    if segment.base < past.end and (queue is None or queue[0] + segment.base >= past.end):
        joined = _join(segment, queue, past)
        if joined:
            queue = queues[number] = joined
    return queue


def _join(segment: Segment, queue: Sequence[int] | None, past: Past) -> array[int]:
    bounds = array("I")
    base = segment.base
    for first, last in segment.index.runs():
        low, stop = base + first, min(base + last + 1, past.end)
        for gap_low, gap_high in (*past.positions.gaps(low, stop - 1), (stop, stop)):
            if low < gap_low:
                bounds.extend((low - base, gap_low - 1 - base))
            low = gap_high + 1
    return bounds + array("I", queue or ())


def fit(segments: Sequence[Segment], positions: Sequence[int], size_max: int) -> Sequence[int]:
    """The first of `positions`, all of one segment, that have at most `size_max` bytes on disk; at least one."""
    return _fit(_segment_of(segments, positions[0]).index, positions, size_max)


def measure(segments: Sequence[Segment], positions: Sequence[int]) -> int:
    """Bytes on disk of `positions`, all of one segment."""
    index = _segment_of(segments, positions[0]).index
    return sum(
        piece.stop - piece.start for first, last in _runs(index, positions) for piece in index.pieces(first, last)
    )


def end_of(segments: Sequence[Segment], position: int) -> int:
    """The first position behind the segment that holds `position`."""
    return _segment_of(segments, position).end


def times_of(segments: Sequence[Segment], positions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """position -> (due_ms, expires_ms) of those of `positions` that have a delay or a TTL."""
    found: dict[int, tuple[int, int]] = {}
    at = max(bisect_right(segments, positions[0], key=_BASE) - 1, 0)
    while at < len(segments) and segments[at].base <= positions[-1]:
        if segments[at].due_ms or segments[at].expires_ms:
            found |= _times_in(segments[at].index, positions)
        at += 1
    return found


def _times_in(index: Index, positions: Sequence[int]) -> dict[int, tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    at = bisect_left(index.timed_at, index.ordinal(positions[0]))
    for place in range(at, len(index.timed_at)):
        position = index.position(index.timed_at[place])
        if position > positions[-1]:
            break
        if isinstance(positions, range) or _holds(positions, position):
            found[position] = (index.due_ms[place], index.expires_ms[place])
    return found


def keys_of(segments: Sequence[Segment], positions: Sequence[int]) -> list[int]:
    """The hash of the key of each of `positions`, all of one segment; 0 where a message has none."""
    index = _segment_of(segments, positions[0]).index
    if not len(index.keyed_at):
        return [0] * len(positions)
    return [index.key_of(index.ordinal(position)) for position in positions]


def unsettled(segment: Segment, number: int, settled: RangeSet, past: Past = NO_PAST) -> Iterator[tuple[int, int]]:
    """Closed ranges of the positions of `segment` that are still due to subscription `number`, ascending."""
    if settled.floor >= segment.end:
        return
    queue = queue_of(segment, number, past) or ()
    base = segment.base
    start = bisect_left(queue, max(settled.floor - base, 0)) & ~1
    for pair in range(start, len(queue), 2):
        yield from settled.gaps(queue[pair] + base, queue[pair + 1] + base)


# ------------------------------------------------------------------------------------------------------- inside


def _segment_of(segments: Sequence[Segment], position: int) -> Segment:
    return segments[bisect_right(segments, position, key=_BASE) - 1]


def _within(
    segment: Segment, number: int, front: int, limit: int, settled: RangeSet, count_max: int, past: Past
) -> Sequence[int]:
    queue = queue_of(segment, number, past)
    if not queue:
        return ()
    base = segment.base
    front, limit = front - base, limit - base
    pair = bisect_left(queue, front) & ~1
    size = len(queue)
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
            return range(base + low, base + min(high + 1, low + count_max))  # the usual case: one contiguous run
        low, high = base + low, base + high
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


def _runs(index: Index, positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Closed ranges of the ordinals of ascending `positions`."""
    if isinstance(positions, range):
        first = index.ordinal(positions[0])
        yield first, first + len(positions) - 1
        return
    low = high = index.ordinal(positions[0])
    for position in positions[1:]:
        ordinal = index.ordinal(position)
        if ordinal != high + 1:
            yield low, high
            low = ordinal
        high = ordinal
    yield low, high


def _holds(positions: Sequence[int], position: int) -> bool:
    at = bisect_left(positions, position)
    return at < len(positions) and positions[at] == position


def _fit(index: Index, positions: Sequence[int], size_max: int) -> Sequence[int]:
    if len(positions) == 1:
        return positions
    first, last = index.ordinal(positions[0]), index.ordinal(positions[-1])
    if index.spread(first, last) <= size_max:
        return positions
    if isinstance(positions, range):
        return positions[: index.fitting(first, size_max) - first]
    size = 0
    for at, position in enumerate(positions):
        ordinal = index.ordinal(position)
        size += index.spread(ordinal, ordinal)
        if size > size_max and at:
            return positions[:at]
    return positions
