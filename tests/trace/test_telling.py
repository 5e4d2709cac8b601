from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.model import Durability, Result, Settlement, Stored
from gateway.principal import Principal
from gateway.trace.event import Step
from tests.trace.told import BEGAN_MS, BOTH, ORDERS, PARENT, Route, Told, joined, message, particular, plain

CONFLICT = GatewayError("id_conflict", "a payload may be named here: secret")


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def test_a_batch_is_one_event_for_each_step(told: Told) -> None:
    told.stored(1, 200)
    told.handed(range(1, 201))
    told.steps.settled("orders", range(1, 201), 1)
    told.write()
    assert told.buffer.events == 3
    for position in (1, 100, 200):
        assert told.steps_of(position) == ["accepted", "routed orders", "stored", "delivered orders", "acked orders"]
    assert told.about(201) == []


def test_batches_that_went_the_same_way_are_one_event_and_keep_their_producers(told: Told) -> None:
    batches = [plain(1, 2, origin="c-1"), plain(3, 1, origin="c-2"), plain(4, 3, origin="c-1")]
    told.steps.stored(batches)
    told.write()
    assert told.buffer.events == 1
    assert [told.message(position).steps[0].who for position in range(1, 7)] == ["c-1", "c-1", "c-2", *["c-1"] * 3]


def test_messages_that_travelled_together_keep_their_producers(told: Told) -> None:
    told.steps.stored([joined(1, "c-1", "c-2"), plain(3, 2, origin="c-3")])
    told.steps.stored([joined(5, "c-4", "c-5")])
    told.write()
    assert told.buffer.events == 2
    assert [told.message(position).steps[0].who for position in range(1, 7)] == [
        "c-1",
        "c-2",
        "c-3",
        "c-3",
        "c-4",
        "c-5",
    ]


def test_messages_that_travelled_together_and_were_told_apart_keep_their_producers(told: Told) -> None:
    batch = joined(1, "c-1", "c-2", "c-3")
    refusal = GatewayError("payload_too_large", "no")
    batch.plain, batch.results = False, [Stored("e-1", 1), refusal, Stored("e-2", 2)]
    told.steps.stored([batch])
    staged = joined(3, "c-4", "c-5")
    told.steps.stage(staged, "shop.1.unique_names", "ok")
    told.steps.stored([staged])
    told.write()
    accepted = [
        [step.who for step in told.message(position).steps if step.step == "accepted"] for position in range(1, 5)
    ]
    assert accepted == [["c-1"], ["c-3"], ["c-4"], ["c-5"]]


def test_messages_that_travelled_together_and_were_refused_keep_their_producers(told: Told) -> None:
    told.steps.refused(joined(0, "c-11", "c-22"), CONFLICT, "admit")
    told.finish()
    assert told.buffer.events == 2
    assert all(name in told.trace.all[0].path.read_bytes() for name in (b"c-11", b"c-22"))


@pytest.mark.parametrize("differs", ["route", "gap", "durability"])
def test_batches_that_went_another_way_are_events_of_their_own(told: Told, differs: str) -> None:
    first, second = plain(1), plain(2)
    if differs == "route":
        second.routes = (BOTH,)
    elif differs == "gap":
        second.first = 3
    else:
        second.durability = Durability.WRITTEN
    told.steps.stored([first, Settlement(None, []), second])
    told.write()
    assert told.buffer.events == 2
    assert told.message(2).steps == [] or differs != "gap"


def test_a_producer_with_a_credential_is_called_by_its_name(told: Told) -> None:
    batch = plain(1)
    batch.principal = Principal(name="shop")
    told.steps.stored([batch, plain(2)])
    told.write()
    assert [told.message(position).steps[0].who for position in (1, 2)] == ["shop at c-1", "c-1"]


def test_a_message_is_routed_to_each_of_its_subscriptions(told: Told) -> None:
    told.stored(1, route=BOTH)
    told.write()
    assert told.steps_of(1) == ["accepted", "routed orders", "routed audit", "stored"]
    assert told.message(1).topic == "trade.paid"


def test_messages_with_ids_of_their_own_and_trace_contexts_are_told_apart(told: Told) -> None:
    batch = particular(5, [message("a1"), message(), message("a3", traceparent=PARENT, other="x")])
    told.steps.stored([batch])
    told.write()
    assert [event.step for event in told.about(7)] == [Step.ACCEPTED, Step.IDS, Step.TRACEPARENT]
    assert [told.message(position).traceparent for position in (5, 6, 7)] == [None, None, PARENT]


def test_results_of_a_batch_are_told_message_by_message(told: Told) -> None:
    messages = [message("a0"), message("a1"), message("a2"), message("a3")]
    results: list[Result | None] = [Stored("a0", 10), CONFLICT, Stored("a2", 3, duplicate=True), Stored("a3", 11)]
    told.steps.stored([particular(10, messages, results)])
    told.write()
    assert told.steps_of(10) == told.steps_of(11) == ["accepted", "routed orders", "stored"]
    assert told.steps_of(3) == ["duplicate"]
    assert told.buffer.events == 4  # accepted, ids, refused, duplicate


def test_messages_of_one_batch_may_go_different_ways(told: Told) -> None:
    batch = particular(1, [message(), message(), message()])
    other = Route("stock", ("audit",))
    batch.routes = [ORDERS, other, other]
    told.steps.stored([batch])
    told.write()
    assert told.steps_of(1) == ["accepted", "routed orders", "stored"]
    assert told.steps_of(2) == told.steps_of(3) == ["accepted", "routed audit", "stored"]
    assert told.message(3).topic == "stock"


def test_a_batch_that_failed_is_refused_as_a_whole(told: Told) -> None:
    batch = plain(1, 3)
    batch.error = GatewayError("store_failed", "secret")
    told.steps.stored([batch])
    told.steps.refused(plain(1), GatewayError("overloaded", "secret"), "admit")
    told.write()
    assert told.about(1) == []
    assert told.buffer.events == 2


def test_nothing_that_was_sent_or_said_in_an_error_is_in_the_files(told: Told) -> None:
    told.steps.stored([particular(1, [message("a1"), message("a2")], [Stored("a1", 1), CONFLICT])])
    told.steps.refused(particular(0, [message("a3", token="secret")]), CONFLICT, "admit")
    told.finish()
    assert all(b"secret" not in file.path.read_bytes() for file in told.trace.all)
    assert b"id_conflict" in told.trace.all[0].path.read_bytes()


def test_what_stages_did_is_told_once_there_are_positions(told: Told) -> None:
    batch = plain(7, 4)
    told.steps.stage(batch, "convert", "converted")
    told.now += 5
    told.steps.filtered(batch, "orders", "no match", [1, 3])
    assert told.buffer.events == 0
    told.now += 5
    told.steps.stored([batch])
    told.write()
    assert told.steps_of(7) == ["accepted", "routed orders", "converted", "stored"]
    assert told.steps_of(8) == ["accepted", "routed orders", "converted", "filtered orders", "stored"]
    converted, filtered = told.message(8).steps[2:4]
    assert (converted.who, converted.time_ms) == ("convert", BEGAN_MS)
    assert (filtered.why, filtered.time_ms) == ("no match", BEGAN_MS + 5)


def test_what_stages_did_to_refused_messages_is_not_told(told: Told) -> None:
    batch = particular(1, [message(), message("a1")], [Stored("x", 1), CONFLICT])
    told.steps.stage(batch, "convert", "converted", [0, 1])
    told.steps.stage(batch, "other", "touched", [1])
    told.steps.stored([batch])
    told.write()
    assert told.steps_of(1) == ["accepted", "routed orders", "converted", "stored"]


def test_a_lease_that_was_given_back_before_its_frame_left_is_no_attempt(told: Told) -> None:
    told.handed([1], held=False)
    told.handed([2], attempts=4)
    told.write()
    assert told.about(1) == []
    (step,) = told.message(2).steps
    assert (step.attempt, step.until_ms, step.who) == (5, BEGAN_MS + 30_000, "c-9")


def test_interleaved_messages_are_one_event_about_them_alone(told: Told) -> None:
    told.handed([1, 3, 4, 9])
    told.write()
    assert told.buffer.events == 1
    assert [len(told.about(position)) for position in range(1, 11)] == [1, 0, 1, 1, 0, 0, 0, 0, 1, 0]


def test_what_is_settled_is_told_exactly(told: Told) -> None:
    """Positions of others, and those that were settled otherwise, lie between."""
    told.stored(1, 9)
    told.steps.settled("orders", [1, 4, 5], 1)
    told.steps.settled("orders", [2, 3, 6], 2)
    told.write()
    last = [told.steps_of(position)[-1] for position in range(1, 8)]
    assert last == ["acked orders", *["expired orders"] * 2, *["acked orders"] * 2, "expired orders", "stored"]


def test_whoever_had_a_message_last_did_what_became_of_it(told: Told) -> None:
    told.handed([1], who="c-1")
    told.steps.returned("orders", [1], 1, "nack", "", 0)
    told.handed([1], who="c-2", attempts=1)
    told.steps.extended("orders", [1], BEGAN_MS + 9)
    told.steps.settled("orders", [1], 1)
    told.steps.settled("audit", [1], 1)
    told.write()
    assert [step.who for step in told.message(1).steps] == ["c-1", "c-1", "c-2", "c-2", "c-2", None]


def test_everything_that_can_happen_to_a_delivery_has_its_step(told: Told) -> None:
    steps = told.steps
    told.stored(1)
    told.handed([1])
    steps.extended("orders", [1], BEGAN_MS + 60_000)
    steps.returned("orders", [1], 1, "nack", "no stock", BEGAN_MS + 99)
    steps.returned("orders", [1], 2, "lease", "", 0)
    steps.returned("orders", [1], 3, "disconnect", "", 0)
    steps.doomed("orders", [1], 4, "term", "rubbish")
    steps.dead_lettered("orders", 1, 8, "dead.orders")
    steps.settled("orders", [1], 3)
    steps.redriven("orders", [(1, 1), (3, 4)])
    steps.sought("orders", 1)
    steps.routed("orders", [(1, 1), (5, 6)], "backfill")
    told.write()
    found = told.message(1).steps[3:]
    assert [(step.step, step.who, step.why, step.until_ms, step.other) for step in found] == [
        ("delivered", "c-9", None, BEGAN_MS + 30_000, None),
        ("extended", "c-9", None, BEGAN_MS + 60_000, None),
        ("nacked", "c-9", "no stock", BEGAN_MS + 99, None),
        ("lease_expired", None, None, None, None),
        ("returned", None, None, None, None),
        ("given_up", None, "term: rubbish", None, None),
        ("dead_letter_stored", None, "dead.orders", None, 8),
        ("dead_lettered", None, None, None, None),
        ("redriven", None, None, None, None),
        ("sought", None, None, None, 1),
        ("routed", None, "backfill", None, None),
    ]
    assert told.steps_of(8) == ["dead_letter_of orders"]
    assert (told.story(1).links, told.story(8).links) == ({8: "dead_letter"}, {1: "original"})


def test_the_writer_is_woken_by_the_first_event_that_waits(told: Told) -> None:
    told.stored(1)
    told.handed([1])
    assert told.nudges == 1
    told.buffer.take(told.now, 10**9)
    told.handed([1])
    assert told.nudges == 2
    told.buffer.abandon(told.buffer.take(told.now, 10**9), told.now)  # could not be written: a new file begins
    told.handed([1])
    assert told.nudges == 3
