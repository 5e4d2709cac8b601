"""Which segments are still needed, and what of them: what is due to somebody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.broker.owned import owned
from gateway.broker.subscription import Subscription
from gateway.kit.ranges import RangeSet, normalise
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


def due_from(segment: Segment, holder: Subscription, low: int) -> Iterator[tuple[int, int]]:
    """Closed ranges of the positions of `segment`, from `low` on, that are due to one subscription, or may be redriven.

    It must not be gone on with once the subscription has changed: begin anew behind the last range.
    """
    number, past = holder.number, holder.past
    buried = holder.buried.count_in(max(low, segment.base), segment.end - 1) > 0
    for first, last in owned((segment,), number, max(low, segment.base), segment.end - 1, past):
        due = holder.settled.gaps(first, last)
        yield from due if not buried else normalise([*due, *_within(holder.buried, first, last)])


def _within(ranges: RangeSet, low: int, high: int) -> Iterator[tuple[int, int]]:
    """What of [low, high] is in `ranges`."""
    for gap_low, gap_high in (*ranges.gaps(low, high), (high + 1, high + 1)):
        if low < gap_low:
            yield low, gap_low - 1
        low = gap_high + 1
