"""Promise 6, looked at behind every test that has subscriptions: each message is in one hand, and none is missing.

    routed = acked + in flight + waiting + delayed + expired + dead-lettered

Twice: as the public statistics show it, and recounted from the store. What is not settled there is what the hands hold
together, and each hand is counted by itself.

It is called by what the tests stand on: `driven` (an engine), `start_node` and `running` (a node), `GatewayProcess` (a
process) and the world of tests/broker. No test has to think of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from gateway.broker.delay import count_delayed
from gateway.broker.queue import unsettled
from gateway.broker.subscription import Subscription
from gateway.engine.census import _Told
from gateway.engine.embedded import EmbeddedEngine
from gateway.kit.ranges import count
from gateway.store.files import Files
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf
from gateway.store.survey import look, survey

HANDS = ("acked", "in_flight", "waiting", "delayed", "expired", "dead_lettered")
UNSETTLED = ("in_flight", "waiting", "delayed")


def check_shown(shown: Mapping[str, Any]) -> None:
    """The statistics of one subscription, as anybody is shown them."""
    assert shown["routed"] == sum(shown[hand] for hand in HANDS), shown
    assert min(shown[hand] for hand in HANDS) >= 0, shown


def check_subscription(subscription: Subscription, segments: Sequence[Segment]) -> None:
    """One subscription in memory, over all segments that there are. One that is deleted owes nobody anything."""
    if subscription.deleted:
        return
    shown = attrs.asdict(subscription.statistics(None))
    check_shown(shown)
    owed = sum(_owed(subscription, segment) for segment in segments)
    assert sum(shown[hand] for hand in UNSETTLED) == owed, (subscription.name, shown, owed)
    held = sum(consumer.in_flight for consumer in subscription._holders())
    assert subscription.in_flight >= held, "the rest is on its way to the dead letters"
    for consumer in subscription._holders():
        pieces = [lease.slice for lease in consumer.leases] + [piece for piece, _ in consumer._aged or ()]
        assert sum(map(len, pieces)) == consumer.in_flight
    assert sum(len(piece) for piece, _ in subscription._delays) == subscription.delayed
    not_due = subscription.not_due
    count_delayed(segments, subscription._clockwork.delays.passed, (subscription,))
    assert subscription.not_due == not_due


def _owed(subscription: Subscription, segment: Segment) -> int:
    """Its messages in `segment` that are not settled, counted in the index."""
    return count(list(unsettled(segment, subscription.number, subscription.settled, subscription.past)))


def check_engine(engine: EmbeddedEngine) -> None:
    """All subscriptions of an engine that is open, and their turns. A store that failed owes nobody an account."""
    if engine._log.failed is None:
        for subscription in engine._catalogue:
            if not subscription.unfilled:
                check_subscription(subscription, engine._log.segments)
            waits = subscription.takers and not subscription.held_up and subscription.has_more(engine._log.durable_end)
            assert not waits or subscription in engine._turns._ready, "who has something and a taker has a turn"


def check_store(directory: Path) -> None:
    """All subscriptions, as a start would find them in the files; nobody may use the store."""
    files, told = Files(), _Told()
    seen = list(survey(files, directory, look(files, directory), told, Shelf(files, 1, 1)))
    owed = {
        subscription.name: sum(_owed(subscription, each.segment) for each in seen) for subscription in told.catalogue
    }
    for each in seen:
        each.let_go()
    assert owed == {subscription.name: subscription.unsettled for subscription in told.catalogue}
