from __future__ import annotations

from pathlib import Path

import pytest

from gateway.trace.timeline import STATES
from tests.trace.told import BEGAN_MS, BOTH, Told


@pytest.fixture
def told(tmp_path: Path) -> Told:
    told = Told(tmp_path)
    told.stored(1)
    return told


def state(told: Told, kept: dict[str, bool] | None) -> str:
    told.write()
    (standing,) = told.message(1, kept).standing
    assert standing.subscription == "orders"
    assert standing.state in STATES
    return standing.state


WAITS, SETTLED = {"orders": False}, {"orders": True}


def test_a_new_message_waits(told: Told) -> None:
    assert state(told, WAITS) == "waiting"


def test_a_delivered_message_is_in_flight(told: Told) -> None:
    told.handed([1])
    assert state(told, WAITS) == "in_flight"


@pytest.mark.parametrize(("due_ms", "expected"), [(0, "waiting"), (BEGAN_MS + 9, "delayed")])
def test_a_message_that_came_back_waits_until_it_is_due(told: Told, due_ms: int, expected: str) -> None:
    told.handed([1])
    told.steps.returned("orders", [1], 1, "nack", "", due_ms)
    assert state(told, WAITS) == expected


@pytest.mark.parametrize(("cause", "expected"), [(1, "acked"), (2, "expired"), (3, "dead_lettered")])
def test_a_settled_message_is_what_the_trace_says(told: Told, cause: int, expected: str) -> None:
    told.now += 7
    told.steps.settled("orders", [1], cause)
    assert state(told, SETTLED) == expected
    assert told.message(1, None).standing[0].state == expected  # also where the store has forgotten it
    assert told.message(1, SETTLED).standing[0].since_ms == BEGAN_MS + 7


def test_the_store_knows_better_than_the_trace(told: Told) -> None:
    """What was told between the last write and a kill is missing; and a seek makes settled messages wait again."""
    assert state(told, SETTLED) == "settled"
    told.steps.settled("orders", [1], 1)
    assert state(told, WAITS) == "waiting"


def test_a_message_that_the_store_has_no_more_is_settled(told: Told) -> None:
    assert state(told, None) == "settled"


def test_a_restart_ends_leases_and_pauses(told: Told) -> None:
    told.handed([1])
    told.steps.started("0badcafe", 1, 5, BEGAN_MS, "after a sudden end")
    assert state(told, WAITS) == "waiting"
    assert told.message(1, WAITS).steps[-1].why == "after a sudden end"


def test_a_restart_does_not_open_what_was_settled(told: Told) -> None:
    told.steps.settled("orders", [1], 1)
    told.steps.started("0badcafe", 1, 5, BEGAN_MS, "after a sudden end")
    assert state(told, SETTLED) == "acked"


def test_a_deleted_subscription_is_due_nothing(told: Told) -> None:
    told.steps.changed("orders", "deleted")
    assert state(told, {}) == "deleted"
    assert told.steps_of(1)[-1] == "subscription_changed orders"


def test_a_redrive_makes_a_dead_letter_due_again_where_it_is(told: Told) -> None:
    told.steps.settled("orders", [1], 3)
    told.steps.redriven("orders", [(1, 1)])
    assert state(told, WAITS) == "waiting"
    assert told.steps_of(1)[-2:] == ["dead_lettered orders", "redriven orders"]


@pytest.mark.parametrize(("to", "before", "after"), [(1, WAITS, "waiting"), (2, SETTLED, "skipped")])
def test_a_seek_makes_messages_due_again_or_goes_past_them(
    told: Told, to: int, before: dict[str, bool], after: str
) -> None:
    told.handed([1])
    told.steps.sought("orders", to)
    assert state(told, before) == after
    assert told.message(1).steps[-1].other == to


def test_a_seek_past_a_settled_message_changes_nothing(told: Told) -> None:
    told.steps.settled("orders", [1], 1)
    told.steps.sought("orders", 2)
    assert state(told, SETTLED) == "acked"


def test_what_happens_to_other_subscriptions_is_not_the_messages(told: Told) -> None:
    told.steps.changed("audit", "deleted")
    told.steps.changed("audit", "paused")
    told.write()
    assert told.steps_of(1) == ["accepted", "routed orders", "stored"]


def test_each_subscription_has_its_own_standing(told: Told) -> None:
    told.stored(2, route=BOTH)
    told.steps.settled("audit", [2], 1)
    told.write()
    message = told.message(2, {"orders": False, "audit": True})
    assert {each.subscription: each.state for each in message.standing} == {"orders": "waiting", "audit": "acked"}


def test_a_subscription_that_only_the_store_knows_of_is_shown(told: Told) -> None:
    """Its routing was lost with the process, or came before the trace was switched on."""
    told.steps.changed("audit", "paused")
    told.write()
    message = told.message(1, {"orders": False, "audit": True})
    assert {each.subscription: each.state for each in message.standing} == {"orders": "waiting", "audit": "settled"}
    assert message.steps[-1].why == "paused"


def test_a_filtered_message_is_not_due(tmp_path: Path) -> None:
    told = Told(tmp_path)
    batch = told.stored(1)
    told.steps.filtered(batch, "audit", "no match", [0])
    told.steps.stored([batch])
    told.write()
    assert [each.subscription for each in told.message(1).standing] == ["orders"]


def test_a_dead_letter_is_not_due_to_the_subscription_that_gave_it_up(told: Told) -> None:
    told.steps.dead_lettered("orders", 1, 7, "dead.orders")
    told.write()
    assert told.message(7, {}).standing == []
