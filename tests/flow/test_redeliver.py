from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
import trio
import trio.testing

from gateway.engine.base import DeadLetter
from gateway.errors import GatewayError
from gateway.flow.redeliver import Redeliver, dead_letter
from gateway.model import Batch, Durability, Stored
from gateway.node import Node
from tests.conftest import Log
from tests.edge.bystander import statistics, subscription
from tests.edge.raw import RawHttp, open_http
from tests.flow.engine import ScriptedEngine

Clock = trio.testing.MockClock

BODY = (
    b'{"position":51,"id":"a1","topic":"trade.order.paid","key":"k","time_ms":5,'
    b'"attributes":{"n":"v"},"data":{"x" : 1.0}}'
)


def dead(body: bytes = BODY, **more: Any) -> DeadLetter:
    letter = {"subscription": "orders", "attempts": 16, "cause": "nack", "reason": "", "handle": None, **more}
    return DeadLetter(topic="dead.orders", body=body, **letter)


# ---------------------------------------------------------------------------------------------- the message itself


def test_a_dead_letter_carries_the_original_and_why_it_is_here() -> None:
    message = dead_letter(dead(reason="no such order"))
    assert message.data is not msgspec.UNSET
    assert (message.topic, message.key, bytes(message.data)) == ("dead.orders", "k", b'{"x" : 1.0}')
    assert message.attributes == {
        "n": "v",
        "dead_letter_subscription": "orders",
        "dead_letter_cause": "nack",
        "dead_letter_attempts": "16",
        "dead_letter_topic": "trade.order.paid",
        "dead_letter_position": "51",
        "dead_letter_id": "a1",
        "dead_letter_reason": "no such order",
    }
    assert (message.id, message.delay_ms, message.ttl_ms) == (None, 0, 0)


def test_a_payload_that_is_no_json_stays_as_it_is() -> None:
    body = b'{"position":1,"id":"i","topic":"a","time_ms":5,"content_type":"image/png","data_base64":"AAE="}'
    message = dead_letter(dead(body))
    assert (message.data, message.data_base64, message.content_type) == (msgspec.UNSET, "AAE=", "image/png")


def test_a_reason_is_cut_and_absent_where_none_was_given() -> None:
    attributes = dead_letter(dead(reason="x" * 5000)).attributes
    assert attributes is not None
    assert attributes["dead_letter_reason"] == "x" * 1024
    assert "dead_letter_reason" not in (dead_letter(dead()).attributes or {})


# --------------------------------------------------------------------------------------------------------- clock


class Door:
    """Where dead letters are submitted; opens and shuts."""

    def __init__(self) -> None:
        self.submitted: list[Batch] = []
        self.closed: GatewayError | None = None
        self.stuck: trio.Event | None = None

    async def submit(self, batch: Batch) -> None:
        if self.stuck is not None:
            await self.stuck.wait()
        if self.closed is not None:
            raise self.closed
        self.submitted.append(batch)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def door() -> Door:
    return Door()


def redeliverer(engine: ScriptedEngine, door: Door) -> Redeliver:
    return Redeliver(engine.as_engine, 100, lambda: int(trio.current_time() * 1000), door.submit)


async def test_the_clock_ticks_evenly(
    engine: ScriptedEngine, door: Door, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    redeliver = redeliverer(engine, door)
    nursery.start_soon(redeliver.run)
    await trio.sleep(1.05)
    assert engine.ticks == [pytest.approx(100 * n, abs=1) for n in range(1, 11)]
    assert (redeliver.statistics.ticks, redeliver.statistics.late_ticks) == (10, 0)


async def test_a_clock_that_was_held_up_goes_on_from_where_it_is(
    engine: ScriptedEngine, door: Door, mock_clock: Clock, nursery: trio.Nursery
) -> None:
    redeliver = redeliverer(engine, door)
    nursery.start_soon(redeliver.run)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(10)
    await trio.testing.wait_all_tasks_blocked()
    assert redeliver.statistics.late_ticks == 1
    assert redeliver.statistics.ticks <= 2  # and not a hundred at once
    mock_clock.jump(0.1)
    await trio.testing.wait_all_tasks_blocked()
    assert engine.ticks[-1] == 10_100


async def test_a_dead_letter_is_buried_once_it_is_stored(
    engine: ScriptedEngine, door: Door, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    redeliver = redeliverer(engine, door)
    nursery.start_soon(redeliver.run)
    letter = dead()
    engine.doomed = [letter]
    await trio.sleep(0.25)
    (batch,) = door.submitted
    assert (batch.trusted, batch.durability, batch.messages[0].topic) == (True, Durability.FSYNCED, "dead.orders")
    assert engine.buried == []
    batch.finish()
    assert engine.buried == [letter]
    await trio.sleep(1)
    assert len(door.submitted) == 1
    assert redeliver.statistics.dead_letters == 1


@pytest.mark.parametrize("code", ["overloaded", "draining"])
async def test_a_dead_letter_that_finds_no_place_is_tried_again(
    engine: ScriptedEngine, door: Door, autojump_clock: Clock, nursery: trio.Nursery, code: str
) -> None:
    nursery.start_soon(redeliverer(engine, door).run)
    door.closed = GatewayError(code, "not now")
    letters = [dead(attempts=number) for number in range(3)]
    engine.doomed = list(letters)
    await trio.sleep(1)
    assert (door.submitted, engine.buried) == ([], [])
    door.closed = None
    await trio.sleep(0.25)
    for batch in door.submitted:
        batch.finish()
    assert engine.buried == letters


@pytest.mark.parametrize("whole", [False, True], ids=["by itself", "with its batch"])
async def test_a_dead_letter_that_was_refused_is_logged_and_tried_again(
    engine: ScriptedEngine, door: Door, autojump_clock: Clock, nursery: trio.Nursery, log: Log, whole: bool
) -> None:
    nursery.start_soon(redeliverer(engine, door).run)
    engine.doomed = [dead()]
    await trio.sleep(0.25)
    error = GatewayError("store_failed", "the disk is gone")
    if whole:
        door.submitted[0].fail(error)
    else:
        door.submitted[0].answer(0, error)
        door.submitted[0].finish()
    assert engine.buried == []
    (entry,) = log
    assert (entry["event"], entry["error"]) == ("a dead letter was refused", "the disk is gone")
    log.clear()
    await trio.sleep(0.25)
    door.submitted[1].answer(0, Stored("i", 9))
    door.submitted[1].finish()
    assert len(engine.buried) == 1


async def test_a_dead_letter_that_waits_for_its_place_does_not_stop_the_clock(
    engine: ScriptedEngine, door: Door, autojump_clock: Clock, nursery: trio.Nursery
) -> None:
    """Promise 5: a lease is over at most one tick late, however full the gateway is."""
    nursery.start_soon(redeliverer(engine, door).run)
    door.stuck = trio.Event()
    engine.doomed = [dead()]
    await trio.sleep(1.05)
    assert len(engine.ticks) == 10


# ------------------------------------------------------------------------------------------------ through a node


async def pull(http: RawHttp, name: str, **body: object) -> dict[str, Any]:
    answer = await http.post(f"/v1/subscriptions/{name}/pull", orjson.dumps({"wait_ms": 5000, **body}))
    found: dict[str, Any] = answer.json
    return found


async def publish(http: RawHttp) -> None:
    headers = {"Push-Id": "a1", "Push-Key": "k", "Push-Attr-N": "v"}
    assert (await http.post("/v1/topics/trade.order.paid/messages", b'{"x" : 1.0}', headers)).status == 201


@pytest.mark.parametrize(
    ("verbs", "cause", "reason", "attempts"),
    [
        ({"nack": [[1, 1]], "nack_delay_ms": 0, "reason": "again"}, "nack", "again", "2"),
        ({"term": [[1, 1]], "reason": "never"}, "term", "never", "1"),
        ({}, "lease", None, "2"),
    ],
    ids=["nack", "term", "lease"],
)
async def test_a_message_that_was_given_up_comes_to_its_dead_letter_topic(
    node: Node, verbs: dict[str, Any], cause: str, reason: str | None, attempts: str
) -> None:
    await subscription(node, attempts_max=2, lease_ms=100)
    await subscription(node, "morgue", "dead.>")
    async with open_http(node.address) as http:
        await publish(http)
        for attempt in range(1, int(attempts) + 1):
            pulled = await pull(http, "orders")
            assert [m["position"] for m in pulled["messages"]] == [1]
            assert pulled["attempts"] == ({"1": attempt} if attempt > 1 else {})
            if verbs:
                body = {"lease": pulled["lease"], **verbs}
                await http.post("/v1/subscriptions/orders/settle", orjson.dumps(body))
        (letter,) = (await pull(http, "morgue"))["messages"]
        assert (letter["topic"], letter["key"], letter["data"]) == ("dead.orders", "k", {"x": 1.0})
        expected = {
            "n": "v",
            "dead_letter_subscription": "orders",
            "dead_letter_cause": cause,
            "dead_letter_attempts": attempts,
            "dead_letter_topic": "trade.order.paid",
            "dead_letter_position": "1",
            "dead_letter_id": "a1",
        }
        assert letter["attributes"] == expected | ({"dead_letter_reason": reason} if reason else {})
        assert (await pull(http, "orders", wait_ms=50))["messages"] == []
    found = statistics(node)
    assert (found.dead_lettered, found.in_flight, found.acked) == (1, 0, 0)
    assert node.redeliver.statistics.dead_letters == 1


async def test_a_dead_letter_waits_until_the_door_opens_again(node: Node) -> None:
    await subscription(node)
    async with open_http(node.address) as http:
        await publish(http)
        lease = (await pull(http, "orders"))["lease"]
        node.admit.closed = GatewayError("overloaded", "not now")
        settled = await http.post("/v1/subscriptions/orders/settle", orjson.dumps({"lease": lease, "term": [[1, 1]]}))
        assert settled.json["terminated"] == 1
        await trio.sleep(0.1)  # several ticks
        assert (statistics(node).dead_lettered, statistics(node).in_flight) == (0, 1)
        node.admit.closed = None
        with trio.fail_after(5):
            while statistics(node).dead_lettered != 1:
                await trio.sleep(0.005)


async def test_where_dead_letters_are_switched_off_nothing_is_published(node: Node) -> None:
    await subscription(node, dead_letter="")
    await subscription(node, "morgue", "dead.>")
    async with open_http(node.address) as http:
        await publish(http)
        lease = (await pull(http, "orders"))["lease"]
        await http.post("/v1/subscriptions/orders/settle", orjson.dumps({"lease": lease, "term": [[1, 1]]}))
        assert (await pull(http, "morgue", wait_ms=100))["messages"] == []
    assert statistics(node).dead_lettered == 1
