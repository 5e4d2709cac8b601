from __future__ import annotations

from pathlib import Path

import pytest

from gateway.store import record as records
from gateway.trace.event import MAGIC
from gateway.trace.journey import Journeys, Span
from gateway.trace.lines import Reading
from tests.trace.told import BEGAN_MS, BOTH, ORDERS, PARENT, Route, Told, message, particular


class Followed(Told):
    """What is told becomes spans."""

    def __init__(self, directory: Path, messages_max: int = 100) -> None:
        super().__init__(directory)
        self.journeys = Journeys(messages_max)
        self._reading = Reading()

    def spans(self) -> list[Span]:
        """Those of everything told since the last look."""
        data = b"".join(self.buffer.take(self.now, 1 << 60).parts).removeprefix(MAGIC)
        events = (event for record in records.scan(data) for event in self._reading.events_of(record))
        return [span for event in events for span in self.journeys.spans(event, self._reading)]

    def sampled(self, first: int, count: int = 1, route: Route = ORDERS, parent: str = PARENT) -> None:
        batch = particular(first, [message(traceparent=parent) for _ in range(count)])
        batch.routes = [route]
        batch.time_ms = self.now - 3
        self.steps.stored([batch])


@pytest.fixture
def told(tmp_path: Path) -> Followed:
    return Followed(tmp_path)


def test_a_message_has_a_span_for_its_storage_and_one_for_each_delivery(told: Followed) -> None:
    told.sampled(7)
    [publish] = told.spans()
    assert publish == Span(
        name="publish trade.paid",
        traceparent=PARENT,
        begin_ms=BEGAN_MS - 3,
        end_ms=BEGAN_MS,
        attributes={
            "messaging.system": "push_gateway",
            "messaging.operation.name": "publish",
            "messaging.destination.name": "trade.paid",
            "gateway.position": 7,
            "gateway.durability": "fsynced",
            "gateway.subscriptions": 1,
        },
    )
    told.handed([7])
    told.now += 50
    told.steps.returned("orders", [7], 1, "nack", "no stock", told.now + 5)
    [failed] = told.spans()
    assert (failed.name, failed.begin_ms, failed.end_ms) == ("deliver orders", BEGAN_MS, BEGAN_MS + 50)
    assert failed.error == "returned: nack: no stock"
    assert failed.attributes["gateway.consumer"] == "c-9"
    told.handed([7], attempts=1)
    told.now += 20
    told.steps.settled("orders", [7], 1)
    [acked] = told.spans()
    assert (acked.begin_ms, acked.end_ms, acked.error) == (BEGAN_MS + 50, BEGAN_MS + 70, "")
    assert (acked.attributes["gateway.attempt"], acked.attributes["gateway.outcome"]) == (2, "acked")
    assert acked.attributes["messaging.destination.subscription.name"] == "orders"
    assert len(told.journeys) == 0


@pytest.mark.parametrize(("cause", "outcome"), [(2, "expired"), (3, "dead_lettered")])
def test_what_ends_without_a_delivery_has_a_span_all_the_same(told: Followed, cause: int, outcome: str) -> None:
    told.sampled(7)
    told.steps.settled("orders", [7], cause)
    _, ended = told.spans()
    assert (ended.error, ended.begin_ms, "gateway.consumer" in ended.attributes) == (outcome, ended.end_ms, False)
    assert len(told.journeys) == 0


def test_each_subscription_has_its_own(told: Followed) -> None:
    told.sampled(7, route=BOTH)
    told.handed([7])
    told.steps.settled("orders", [7], 1)
    assert [span.name for span in told.spans()] == ["publish trade.paid", "deliver orders"]
    assert len(told.journeys) == 1
    told.steps.settled("audit", [7], 2)
    assert [span.name for span in told.spans()] == ["deliver audit"]
    assert len(told.journeys) == 0


def test_only_messages_with_a_sampled_context_are_followed(told: Followed) -> None:
    told.stored(1, 5)
    told.sampled(6, parent=PARENT[:-2] + "00")
    told.sampled(7)
    told.stored(8, 5)
    told.handed([*range(1, 13)])
    told.steps.settled("orders", [*range(1, 13)], 1)
    assert [span.attributes["gateway.position"] for span in told.spans()] == [7, 7]


def test_a_message_that_nobody_is_due_is_not_followed(told: Followed) -> None:
    told.sampled(7, route=Route("trade.paid", ()))
    assert [span.name for span in told.spans()] == ["publish trade.paid"]
    assert len(told.journeys) == 0


def test_a_range_that_is_wider_than_what_is_followed_costs_no_more(told: Followed) -> None:
    told.sampled(7, 3)
    told.steps.settled("orders", range(1, 1_000_000_000), 2)
    assert len(told.spans()) == 6


def test_of_too_many_the_oldest_are_given_up_and_counted(tmp_path: Path) -> None:
    told = Followed(tmp_path, messages_max=2)
    for position in (1, 2, 3):
        told.sampled(position)
    told.handed([1, 2, 3])
    told.steps.settled("orders", [1, 2, 3], 1)
    delivered = [span.attributes["gateway.position"] for span in told.spans() if span.name.startswith("deliver")]
    assert (delivered, told.journeys.given_up) == ([2, 3], 1)


def test_what_happened_before_the_start_is_not_followed(told: Followed) -> None:
    told.handed([5])
    told.steps.settled("orders", [5], 1)
    assert told.spans() == []
