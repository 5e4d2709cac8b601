"""Delayed messages: a cursor over the due times that stand in the segments' indexes. None of them is kept in memory.

A sealed segment's hint file has its due times in order, the active segment's index a heap of its own few. The cursor is
one pair (due_ms, position): every message up to it has come due, none behind it has. Its place is all that is known of
a million delays, whatever they wait for, and a start needs no more than the clock to set it.

A subscription's front passes over what is not due yet, and forgets it. When the cursor comes to such a message, the
subscription is told to go back for it; where the front has still to come to it, nothing is to be done. Front and cursor
ask the same pair, so a message is never missed and never met twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.broker.owned import owned
from gateway.kit.ranges import count
from gateway.model import POSITION_MAX
from gateway.store.index import Index
from gateway.store.segment import Segment

if TYPE_CHECKING:
    from gateway.broker.subscription import Subscription

STEP: Final = 256
"""Messages that come due in one step, and half of what they are told to subscriptions: at 5 to 10 us each, two ms."""


class Due(NamedTuple):
    """Consecutive positions of one segment that came due, and the numbers of the subscriptions they were routed to."""

    segment: Segment
    first: int
    last: int
    numbers: tuple[int, ...]


class Delays:
    """The cursor. `now` is in milliseconds since the epoch."""

    __slots__ = ("behind", "passed")

    def __init__(self, now_ms: int) -> None:
        self.passed = (now_ms, POSITION_MAX)
        """(due_ms, position) of the last that has come due."""
        self.behind = False
        """Whether there is more to come than the last step took."""

    def is_due(self, position: int, due_ms: int) -> bool:
        """Whether the cursor has passed the message; one without a delay has `due_ms` 0."""
        return (due_ms, position) <= self.passed

    def advance(self, segments: Sequence[Segment], now_ms: int) -> list[Due]:
        """One step: what comes due by `now_ms`.

        Of the segments only those are looked at in which something does: each knows when its next one is due.
        """
        if now_ms < self.passed[0]:
            return []
        found: list[tuple[int, int, Segment]] = []
        cut = False
        for segment in segments:
            if segment.due_ms >= self.passed[0] and self._next_in(segment) <= now_ms:
                here = segment.index.due_between(self.passed, now_ms, STEP)
                found += [(due_ms, position, segment) for due_ms, position in here]
                cut = cut or len(here) >= STEP
                segment.next_due_ms = -1
        found.sort(key=lambda item: item[:2])
        kept = _affordable(found)
        self.behind = cut or kept < len(found)
        self.passed = found[kept - 1][:2] if self.behind else (now_ms, POSITION_MAX)
        by_segment: dict[Segment, list[int]] = {}
        for _, position, segment in found[:kept]:
            by_segment.setdefault(segment, []).append(position)
        return [due for segment, positions in by_segment.items() for due in _runs(segment, sorted(positions))]

    def _next_in(self, segment: Segment) -> int:
        if not segment.sealed:
            return segment.growing.next_due(self.passed)
        if segment.next_due_ms < 0:
            segment.next_due_ms = segment.index.next_due(self.passed)
        return segment.next_due_ms


def _affordable(found: Sequence[tuple[int, int, Segment]]) -> int:
    """How many of them, at least one, are told to no more subscriptions than a step may tell."""
    told = 0
    for kept, (_, position, segment) in enumerate(found):
        index = segment.index
        told += 1 + len(index.route(index.ordinal(position))[1])
        if told > 2 * STEP and kept:
            return kept
    return len(found)


def _runs(segment: Segment, positions: Iterable[int]) -> Iterator[Due]:
    """Ascending positions of one segment, joined where they are consecutive and go the same way."""
    index = segment.index
    first = last = -1
    until = 0
    numbers: tuple[int, ...] = ()
    for position in positions:
        if position == last + 1 and position < until:
            last = position
            continue
        if first >= 0:
            yield Due(segment, first, last, numbers)
        first = last = position
        ordinal = index.ordinal(position)
        numbers = index.route(ordinal)[1]
        until = index.position(index.route_stop(ordinal) - 1) + 1
    if first >= 0:
        yield Due(segment, first, last, numbers)


def wake(
    came: Iterable[Due], by_number: Mapping[int, Subscription], backfilled: Iterable[Subscription]
) -> dict[Subscription, None]:
    """Tell the subscriptions what came due; which they are. `backfilled`: those that have a past."""
    woken: dict[Subscription, None] = {}
    for due in came:
        for subscription, low, high in _told(due, by_number, backfilled):
            subscription.come_due(low, high, due.segment)
            woken[subscription] = None
    return woken


def count_delayed(
    segments: Iterable[Segment],
    passed: tuple[int, int],
    subscriptions: Iterable[Subscription],
) -> None:
    """Set how many messages of each subscription are neither due nor settled: once, at a start."""
    for _ in counting_delayed(segments, passed, subscriptions):
        pass


def counting_delayed(
    segments: Iterable[Segment],
    passed: tuple[int, int],
    subscriptions: Iterable[Subscription],
) -> Iterator[None]:
    """The same in steps, after a seek. Until the last, less is known of than there is.

    Others may run between steps, as long as nothing of the subscriptions is settled: what is published meanwhile is
    counted by who appends it, and what comes due is taken off, whether it has been counted before or is after.
    """
    by_number = {subscription.number: subscription for subscription in subscriptions}
    backfilled = [subscription for subscription in by_number.values() if subscription.past.end]
    for subscription in by_number.values():
        subscription.not_due = 0
    found = [segment for segment in segments if segment.due_ms >= passed[0]]
    grown = {segment: len(segment.index.timed_at) for segment in found if not segment.sealed}
    for segment in found:
        stop = grown[segment] if segment in grown else len(segment.index.timed_at)
        for at in range(0, stop, STEP):
            for due in _runs(segment, _behind(segment.index, at, min(at + STEP, stop), passed)):
                for subscription, low, high in _told(due, by_number, backfilled):
                    subscription.not_due += count(list(subscription.settled.gaps(low, high)))
            yield


def _behind(index: Index, start: int, stop: int, passed: tuple[int, int]) -> Iterator[int]:
    """Positions of those of the timed messages [start, stop) that are due behind `passed`, ascending."""
    for ordinal, due_ms in zip(index.timed_at[start:stop], index.due_ms[start:stop], strict=True):
        if due_ms >= passed[0] and (due_ms, position := index.position(ordinal)) > passed:
            yield position


def _told(
    due: Due, by_number: Mapping[int, Subscription], backfilled: Iterable[Subscription]
) -> Iterator[tuple[Subscription, int, int]]:
    """Whose they are: by their route, or by what was found out afterwards."""
    for number in due.numbers:
        subscription = by_number.get(number)
        if subscription is not None:
            yield subscription, due.first, due.last
    for subscription in backfilled:
        last = min(due.last, subscription.past.end - 1)
        for low, high in owned((due.segment,), subscription.number, due.first, last, subscription.past):
            yield subscription, low, high
