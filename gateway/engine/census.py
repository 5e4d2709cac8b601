"""How much a store holds, and for whom: told from its files, as a start of the gateway would find them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from gateway.broker.clockwork import Clockwork
from gateway.broker.queue import unsettled
from gateway.broker.subscription import Cause, Subscription
from gateway.engine.catalogue import Catalogue
from gateway.kit.ranges import normalise
from gateway.store.files import Files
from gateway.store.index import Index
from gateway.store.record import Record
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf
from gateway.store.survey import Seen, check_unchanged, epoch_of, look, steadily, survey

_NEVER_MS: Final = 2**63
_ANY: Final = 2**31


@attrs.frozen
class SegmentCount:
    """One segment. `due`: to any subscription; those are what keeps the file."""

    number: int
    base: int
    end: int
    messages: int
    bytes: int
    due_messages: int
    due_bytes: int
    active: bool
    hint: bool

    @property
    def dead_bytes(self) -> int:
        """What the segment could be smaller by: settled messages, records of acks, heads."""
        return self.bytes - self.due_bytes


@attrs.frozen
class SubscriptionCount:
    """One subscription. `waiting`: in whichever hand, delayed or in flight too. `oldest_ms`: of those."""

    name: str
    floor: int
    routed: int
    acked: int
    expired: int
    dead_lettered: int
    waiting: int
    oldest_position: int | None
    oldest_ms: int | None


@attrs.frozen
class Census:
    """As of what is in the files: the checkpoint, at its place, and the log behind it."""

    epoch: str
    checkpoint: tuple[int, int] | None
    """(segment, offset)."""
    segments: tuple[SegmentCount, ...]
    subscriptions: tuple[SubscriptionCount, ...]


def take(files: Files, directory: Path) -> Census:
    """Count. Reads the indexes of all segments, and what stands behind the checkpoint; blocks. Raises StoreError."""
    return steadily(directory, lambda: _take(files, directory))


def _take(files: Files, directory: Path) -> Census:
    sight = look(files, directory)
    told = _Told()
    seen = survey(files, directory, sight, told, Shelf(files, 1, 1))
    subscriptions = list(told.catalogue)
    oldest: dict[Subscription, tuple[int, int]] = {}
    try:
        segments = tuple(_count(each, subscriptions, oldest) for each in seen)
    finally:  # whatever is wrong with a count may be so because a segment was merged since
        check_unchanged(files, sight, seen)
    return Census(
        epoch_of(files, directory, sight),
        sight.place if sight.checkpoint else None,
        segments,
        tuple(_standing(each, oldest.get(each, (None, None))) for each in subscriptions),
    )


class _Told:
    """Hears what the engine would hear at a start; no clock of it ever runs."""

    ids_since_ms = _NEVER_MS

    def __init__(self) -> None:
        self.catalogue = Catalogue(Clockwork(_ANY, 0), _ANY)

    def restore(self, state: dict[str, Any]) -> None:
        self.catalogue.restore(state)

    def messages(self, low: int, high: int, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            if number in self.catalogue.by_number:
                self.catalogue.by_number[number].routed += high - low + 1

    def remember_ids(self, segment: Segment, index: Index) -> None:
        """Nobody publishes here."""

    def control(self, record: Record) -> None:
        self.catalogue.replay(record)


def _count(
    seen: Seen, subscriptions: Sequence[Subscription], oldest: dict[Subscription, tuple[int, int]]
) -> SegmentCount:
    """Count one segment, and note in `oldest` (position, time_ms) of who is due something from here on."""
    segment = seen.segment
    due: list[tuple[int, int]] = []
    for subscription in subscriptions:
        ranges = list(unsettled(segment, subscription.number, subscription.settled, subscription.past))
        if ranges and subscription not in oldest:
            first = ranges[0][0]
            oldest[subscription] = first, segment.index.time_ms(segment.index.ordinal(first))
        due += ranges
    parts = list(_parts(segment.index, due))
    counted = SegmentCount(
        segment.number,
        segment.base,
        segment.end,
        segment.count,
        segment.size,
        sum(last - first + 1 for first, last in parts),
        sum(segment.index.spread(first, last) for first, last in parts),
        seen.last,
        seen.hint,
    )
    seen.let_go()
    return counted


def _parts(index: Index, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Closed ranges of ordinals that stand for `ranges` of positions, each message once."""
    for low, high in normalise(ranges):
        first, last = index.ordinal(low), index.ordinal(high + 1) - 1
        if first <= last:
            yield first, last


def _standing(subscription: Subscription, oldest: tuple[int, int] | tuple[None, None]) -> SubscriptionCount:
    counts = subscription.counts
    return SubscriptionCount(
        subscription.name,
        subscription.settled.floor,
        subscription.routed,
        counts[Cause.ACKED],
        counts[Cause.EXPIRED] + counts[Cause.SKIPPED],
        counts[Cause.DEAD_LETTERED],
        subscription.unsettled,
        *oldest,
    )
