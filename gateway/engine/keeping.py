"""Which segments are still needed: those that hold something that is due to somebody."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.broker.subscription import Subscription
from gateway.store.segment import Segment


def is_done_with(segment: Segment, subscriptions: Mapping[int, Subscription]) -> bool:
    """Whether nothing in a sealed segment is due to any of `subscriptions`, by number.

    A message that was found due is remembered as the segment's witness, and asked for first the next time: what is
    settled stays so, and a segment is searched from one end to the other no more than once in all.
    """
    if segment.witness is not None:
        number, position = segment.witness
        holder = subscriptions.get(number)
        if holder is not None and (position not in holder.settled or position in holder.buried):
            return False
    for holder in _holders(segment, subscriptions):
        held = holder.holds(segment)
        if held is not None:
            segment.witness = (holder.number, held)
            return False
    return True


def _holders(segment: Segment, subscriptions: Mapping[int, Subscription]) -> list[Subscription]:
    """The subscriptions that messages of the segment may be due to."""
    queues = segment.index.queues
    return [
        holder
        for number, holder in subscriptions.items()
        if (holder.settled.floor < segment.end or holder.buried.count_in(segment.base, segment.end - 1))
        and (number in queues or segment.base < holder.past.end)
    ]
