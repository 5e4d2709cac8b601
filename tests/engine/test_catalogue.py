from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.clockwork import Clockwork
from gateway.broker.queue import NO_PAST, Past
from gateway.broker.subscription import Cause
from gateway.engine.catalogue import Catalogue, encode_past, subscription_record
from gateway.errors import GatewayError
from gateway.kit.ranges import RangeSet
from gateway.model import Start, SubscriptionSettings
from gateway.store import record as records
from gateway.store.record import Kind, Record


def catalogue(subscriptions_max: int = 100) -> Catalogue:
    return Catalogue(Clockwork(100, 0), subscriptions_max)


def settings(*topics: str, **more: Any) -> SubscriptionSettings:
    return SubscriptionSettings(topics=topics or ("trade.>",), **more)


def record(kind: Kind, body: bytes, *, number: int = 0, position: int = 1) -> Record:
    found = records.decode(records.encode(kind, body, number=number, position=position))
    assert found is not None
    return found


def test_a_topic_goes_to_those_whose_pattern_matches_in_the_order_of_their_numbers() -> None:
    known = catalogue()
    for name, topics in {"a": ["trade.>"], "b": ["*.paid", "trade.paid"], "c": ["other"], "d": [">"]}.items():
        known.create(name, settings(*topics), 1)
    assert known.route("trade.paid").numbers == (1, 2, 4)
    assert known.route("other").numbers == (3, 4)
    assert known.route("trade.paid") is known.route("trade.paid")


def test_what_is_remembered_of_a_topic_is_forgotten_with_every_change() -> None:
    known = catalogue()
    one = known.create("a", settings("trade.>", "trade.>", "trade.paid"), 1)
    assert known.route("trade.paid").numbers == (1,)
    known.create("b", settings("trade.>"), 1)
    assert known.route("trade.paid").numbers == (1, 2)
    known.change(one, settings("other"))
    assert (known.route("trade.paid").numbers, known.route("other").numbers) == ((2,), (1,))
    known.remove(one)
    assert known.route("other").numbers == ()


def test_the_memory_of_topics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.engine.catalogue.ROUTES_MAX", 10)
    known = catalogue()
    known.create("a", settings(">"), 1)
    for number in range(35):
        assert known.route(f"t.{number}").numbers == (1,)
        assert len(known._routes) <= 10


def test_a_number_is_never_given_twice() -> None:
    known = catalogue()
    known.remove(known.create("a", settings(), 1))
    assert known.create("a", settings(), 1).number == 2
    again = catalogue()
    again.restore(known.snapshot(1))
    again.remove(again.known("a"))
    assert again.create("b", settings(), 1).number == 3


def test_more_subscriptions_than_allowed_are_refused_with_the_setting() -> None:
    known = catalogue(subscriptions_max=1)
    known.create("a", settings(), 1)
    with pytest.raises(GatewayError, match=r"there are 1 subscriptions; .*deliver\.subscriptions_max"):
        known.create("b", settings(), 1)


def test_a_subscription_that_does_not_exist_is_named_with_the_mend() -> None:
    with pytest.raises(GatewayError, match="subscription 'orders' does not exist; create it with PUT") as caught:
        catalogue().known("orders")
    assert caught.value.code == "subscription_not_found"


floors = st.integers(1, 50)
ranges = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5)).map(lambda pair: (pair[0], sum(pair))), max_size=4)


@given(data=st.data(), count=st.integers(0, 3))
def test_a_snapshot_restores_everything(data: st.DataObject, count: int) -> None:
    before = catalogue()
    for number in range(count):
        made = before.create(
            f"s{number}",
            settings("a.>", lease_ms=number + 100, start=data.draw(st.sampled_from(Start)), dead_letter=""),
            data.draw(floors),
        )
        for low, high in data.draw(ranges):
            made.settled.add(low, high)
        made.unfilled = data.draw(st.booleans())
        made.past = Past(RangeSet(0, [(1, 2), (7, 9)]), 12)
        made.routed = data.draw(floors)
        made.counts[Cause.EXPIRED] = data.draw(floors)
    after = catalogue()
    after.restore(orjson.loads(orjson.dumps(before.snapshot(1))))
    assert after.snapshot(1) == before.snapshot(1)
    for one, other in zip(before, after, strict=True):
        assert (one.settings, one.settled, one.created) == (other.settings, other.settled, other.created)
        assert (other.front, other.past.end) == (other.settled.floor, one.past.end)
        assert other.past.positions == one.past.positions
    assert after.route("a.b").numbers == before.route("a.b").numbers


def test_the_settled_ranges_of_the_first_checkpoints_are_read() -> None:
    before, after = catalogue(), catalogue()
    before.create("a", settings(), 30).settled.add(40, 41)
    state = before.snapshot(1)
    del state["subscriptions"][0]["settled"]
    state["subscriptions"][0].update(floor=30, ranges=[[40, 41], [50, 50]])
    after.restore(state)
    assert after.known("a").settled == RangeSet(30, [(40, 41), (50, 50)])
    assert after.known("a").front == 30


def test_a_snapshot_leaves_out_what_is_gone_from_the_log() -> None:
    known = catalogue()
    known.create("a", settings(), 30).past = Past(RangeSet(0, [(1, 4), (8, 12)]), 13)
    assert known.snapshot(10)["subscriptions"][0]["past"][0] == 13
    assert known.snapshot(13)["subscriptions"][0]["past"][0] == 0
    assert known.known("a").past is NO_PAST


def test_the_log_s_records_are_carried_out_again() -> None:
    before, after = catalogue(), catalogue()
    one = before.create("a", settings("x", lease_ms=500), 5)
    after.replay(record(Kind.SUBSCRIPTION, subscription_record(one, one.settings), number=1, position=5))
    assert after.snapshot(1) == before.snapshot(1)
    assert after.known("a").front == 5

    after.replay(record(Kind.SETTLE, records.encode_settle(Cause.ACKED, 2, [(5, 7)]), number=1))
    after.replay(record(Kind.SETTLE, records.encode_settle(Cause.EXPIRED, 1, [(9, 9)]), number=1))
    assert after.known("a").settled == RangeSet(8, [(9, 9)])
    assert after.known("a").front == 8
    assert after.known("a").counts == {Cause.ACKED: 2, Cause.EXPIRED: 1, Cause.DEAD_LETTERED: 0, Cause.SKIPPED: 0}

    changed = settings("y", paused=True)
    after.replay(record(Kind.SUBSCRIPTION, subscription_record(one, changed), number=1, position=9))
    assert after.known("a").settings == changed
    assert after.known("a").settled == RangeSet(8, [(9, 9)])

    after.replay(record(Kind.SUBSCRIPTION, subscription_record(one, None), number=1, position=9))
    assert list(after) == []


def test_records_of_a_subscription_that_is_gone_are_passed_over() -> None:
    known = catalogue()
    known.replay(record(Kind.SETTLE, records.encode_settle(Cause.ACKED, 1, [(1, 1)]), number=7))
    known.replay(record(Kind.BACKFILL, encode_past(Past(RangeSet(0, [(1, 1)]), 2)), number=7))
    known.replay(record(Kind.SUBSCRIPTION, orjson.dumps({"number": 7, "name": "a", "settings": None}), number=7))
    assert list(known) == []


def test_a_backfill_sets_the_front_at_the_start_where_there_is_a_past() -> None:
    known = catalogue()
    with_past = known.create("a", settings(start=Start.START), 30)
    without = known.create("b", settings(start=Start.START), 30)
    assert (with_past.unfilled, with_past.held_up) == (True, True)
    known.replay(record(Kind.BACKFILL, encode_past(Past(RangeSet(0, [(3, 5), (9, 9)]), 30)), number=1))
    known.fill(without, Past(RangeSet(), 30))
    assert (with_past.unfilled, with_past.routed, with_past.front, with_past.settled) == (False, 4, 0, RangeSet(0))
    assert (without.unfilled, without.routed, without.front, without.settled) == (False, 0, 30, RangeSet(30))
