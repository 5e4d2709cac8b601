"""Going back, and going ahead: seek and redrive.

Promise 6 through both of them: counters only grow. A message that had been settled and is made due once more is counted
as *routed* once more; its first settling stays in the count. A message that a seek goes past is settled with a cause of
its own, SKIPPED, and shown among the expired. So routed = acked + in flight + waiting + delayed + expired +
dead-lettered holds behind either as it did before.

A seek begins afresh. What consumers hold, what waits for its time, what is on its way to the dead letters: all of it
is taken back, its attempts forgotten, and then the subscription is due exactly what it has from one position on. A
consumer that settles something of before is answered `unknown`; a dead letter that was on its way may be stored all
the same.

A redrive brings back what was given up, and nothing else moves: the messages that stand in `buried`, each at its own
position, so to this subscription only and in their order, ahead of what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

from gateway.broker.attempts import Attempts
from gateway.broker.backoffs import Backoffs
from gateway.broker.clockwork import STEP
from gateway.broker.owned import owned, tally
from gateway.broker.subscription import Cause, Subscription
from gateway.kit.ranges import RangeSet, count
from gateway.model import POSITION_MAX, Ranges, Sought
from gateway.store.segment import Segment

RANGES_MAX: Final = 1000
"""Ranges that one step of a redrive brings back: a few milliseconds."""


def seek(subscription: Subscription, position: int, segments: Sequence[Segment]) -> Sought:
    """Have `subscription` read on from `position`, or from the nearest there is: its own first, or the end.

    What is not due yet of what it has then is still to be counted: `Subscription.recounting`.
    """
    s = subscription
    while s.take_back(STEP):
        pass  # a caller with time to spare has done so before, in steps
    position = min(max(position, segments[0].base), segments[-1].end)
    messages, unsettled = tally(segments, s.number, s.settled, position, s.past)
    sought = Sought(position, again=messages - unsettled, skipped=s.unsettled - unsettled)
    s.begin_at(position)
    replay_seek(s, position, sought.again, sought.skipped)
    return sought


def replay_seek(subscription: Subscription, position: int, again: int, skipped: int) -> None:
    """What a SEEK record says."""
    subscription.settled = RangeSet(position)
    subscription.front = position
    subscription.routed += again
    subscription.counts[Cause.SKIPPED] += skipped
    subscription.buried.remove(position, POSITION_MAX)
    subscription.attempts = Attempts()
    subscription.backoffs = Backoffs()


def redrive(subscription: Subscription, segments: Sequence[Segment]) -> tuple[int, Ranges] | None:
    """One step of making due once more what was given up and is still kept: (messages, the ranges they are in)."""
    s = subscription
    s.buried.remove(1, segments[0].base - 1)
    found = list(islice(s.buried, RANGES_MAX))
    if not found:
        return None
    ranges: list[tuple[int, int]] = []
    messages = 0
    for low, high in found:
        here = count(owned(segments, s.number, low, high, s.past))
        if here:
            ranges.append((low, high))
            messages += here
    s.buried.remove(found[0][0], found[-1][1])
    replay_redrive(s, messages, ranges)
    for low, high in ranges:
        if low < s.front:  # it comes to the others by itself
            s.revisit.add(max(low, 1), min(high, s.front - 1))
    return messages, ranges


def replay_redrive(subscription: Subscription, messages: int, ranges: Ranges) -> None:
    """What a REDRIVE record says."""
    subscription.routed += messages
    subscription.look_again()
    for low, high in ranges:
        subscription.settled.remove(low, high)
        subscription.buried.remove(low, high)
