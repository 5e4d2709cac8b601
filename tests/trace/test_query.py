"""A node, real sockets, and what its trace says of what was done to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
import trio

from gateway import config
from gateway.errors import GatewayError
from gateway.node import Node
from gateway.trace.timeline import STATES
from tests.conftest import QUICK, Log, running
from tests.control.conftest import client_of
from tests.control.shapes import check_shape
from tests.trace.told import PARENT

TOPIC = "/v1/topics/trade.paid/messages"


class Party:
    """A node with a client of each of its planes."""

    def __init__(self, node: Node, data: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
        self.node = node
        self.data = data
        self.control = control

    async def subscribe(self, name: str = "orders", **settings: Any) -> None:
        body = {"topics": ["trade.>"], "backoff_ms": [10], **settings}
        assert (await self.control.put(f"/v1/subscriptions/{name}", json=body)).status_code in (200, 201)

    async def publish(self, **headers: str) -> str:
        """The id."""
        answer = await self.data.post(TOPIC, content=b'{"amount":1}', headers=headers)
        return str(answer.json().get("id", answer.json()["code"] if answer.status_code >= 400 else ""))

    async def pull(self, name: str = "orders") -> dict[str, Any]:
        answer: dict[str, Any] = (await self.data.post(f"/v1/subscriptions/{name}/pull", json={"wait_ms": 5000})).json()
        return answer

    async def settle(self, pulled: dict[str, Any], verb: str, name: str = "orders", **more: Any) -> None:
        ranges = [[message["position"], message["position"]] for message in pulled["messages"]]
        body = {"lease": pulled["lease"], verb: ranges, **more}
        assert (await self.data.post(f"/v1/subscriptions/{name}/settle", json=body)).status_code == 200

    async def get(self, message_id: str, what: str = "", **query: Any) -> httpx.Response:
        return await self.control.get(f"/v1/messages/{quote(message_id, safe='')}{what}", params=query)

    async def trace(self, message_id: str, **query: Any) -> dict[str, Any]:
        answer = await self.get(message_id, "/trace", **query)
        assert answer.status_code == 200, answer.text
        view: dict[str, Any] = answer.json()
        check_shape("Trace", view)
        return view

    async def until(self, message_id: str, state: str) -> dict[str, Any]:
        """The trace once its message stands so with its first subscription."""
        with trio.fail_after(10):
            while (view := await self.trace(message_id))["messages"][0]["standing"][0]["state"] != state:
                await trio.sleep(0.01)
        return view


@pytest.fixture
async def party(tmp_path: Path) -> AsyncIterator[Party]:
    async with (
        running(tmp_path / "store") as node,
        client_of(node.address) as data,
        client_of(node.control_address) as control,
    ):
        yield Party(node, data, control)


def words(message: dict[str, Any]) -> list[str]:
    return [step["step"] for step in message["steps"]]


async def test_the_way_of_a_message_from_its_producer_to_its_ack(party: Party) -> None:
    await party.subscribe()
    await party.subscribe("audit")
    message_id = await party.publish(traceparent=PARENT)
    assert message_id == f"{party.node.engine.epoch}-1"
    await party.settle(await party.pull(), "ack")
    view = await party.until(message_id, "acked")
    (message,) = view["messages"]
    assert words(message) == ["accepted", "routed", "routed", "stored", "delivered", "acked"]
    assert {each["subscription"]: each["state"] for each in message["standing"]} == {
        "orders": "acked",
        "audit": "waiting",
    }
    assert message["topic"] == "trade.paid"
    assert message["traceparent"] == PARENT
    assert view["positions"] == [1]
    assert view["lost"] == 0
    times = [step["time_ms"] for step in message["steps"]]
    assert times == sorted(times)
    delivered, acked = message["steps"][4:]
    assert delivered["who"] == acked["who"]
    assert delivered["who"].startswith("pull 127.0.0.1:")
    assert message["steps"][0]["who"].startswith("127.0.0.1:")


async def test_a_message_is_followed_to_its_dead_letter_and_back(party: Party) -> None:
    await party.subscribe(attempts_max=1)
    await party.subscribe("graveyard", topics=["dead.>"])
    message_id = await party.publish(**{"Push-Id": "a1"})
    await party.settle(await party.pull(), "nack", reason="no stock")
    original, letter = (await party.until(message_id, "dead_lettered"))["messages"]
    assert words(original)[-5:] == ["stored", "delivered", "given_up", "dead_letter_stored", "dead_lettered"]
    assert original["steps"][-3]["why"] == "nack: no stock"
    assert (letter["relation"], letter["topic"]) == ("dead_letter", "dead.orders")
    assert letter["position"] == original["steps"][-2]["other"]
    assert [each["subscription"] for each in letter["standing"]] == ["graveyard"]
    same = await party.trace(f"{party.node.engine.epoch}-{letter['position']}")
    assert [(each["position"], each["relation"]) for each in same["messages"]] == [
        (letter["position"], ""),
        (original["position"], "original"),
    ]


async def test_an_id_that_was_used_twice_is_asked_for_by_position(party: Party) -> None:
    await party.subscribe()
    messages = [{"topic": topic, "id": "a/1 ü%2F", "data": 1} for topic in ("trade.paid", "trade.sent")]
    assert (await party.data.post("/v1/messages", json=messages)).status_code == 200
    view = await party.trace("a/1 ü%2F")
    assert view["positions"] == [1, 2]
    assert view["messages"][0]["position"] == 2
    assert (await party.trace("a/1 ü%2F", position=1))["messages"][0]["topic"] == "trade.paid"
    found = await party.get("a/1 ü%2F", position=1)
    assert (found.status_code, found.json()["message"]["topic"]) == (200, "trade.paid")
    check_shape("StoredMessage", found.json())
    wrong = await party.get("a/1 ü%2F", "/trace", position=3)
    assert (wrong.status_code, wrong.json()["code"]) == (404, "message_not_found")
    assert "positions are: 1, 2" in wrong.json()["message"]


async def test_what_was_refused_or_repeated_under_an_id_is_shown(party: Party) -> None:
    assert await party.publish(**{"Push-Id": "a1", "Push-Ttl-Ms": "99999999999999"}) == "bad_request"
    view = await party.trace("a1")
    assert (view["positions"], view["messages"]) == ([], [])
    assert [(step["step"], step["why"]) for step in view["refused"]] == [("refused", "trade.paid: bad_request")]
    await party.publish(**{"Push-Id": "a1"})
    await party.publish(**{"Push-Id": "a1"})
    view = await party.trace("a1")
    assert words(view["messages"][0]) == ["accepted", "stored", "duplicate"]
    assert len(view["refused"]) == 1


async def test_the_message_itself_is_answered_byte_for_byte(party: Party) -> None:
    await party.subscribe()
    await party.data.post(TOPIC, content=b'{"amount": 1.0,   "x":"\\u00e9"}')
    answer = await party.get(f"{party.node.engine.epoch}-1")
    assert b'"data":{"amount": 1.0,   "x":"\\u00e9"}}}' in answer.content
    assert answer.json()["positions"] == [1]


async def test_an_extended_lease_and_a_drain_that_refuses_are_told(party: Party) -> None:
    await party.subscribe()
    message_id = await party.publish()
    await party.settle(await party.pull(), "extend", extend_ms=60_000)
    (message,) = (await party.trace(message_id))["messages"]
    delivered, extended = message["steps"][-2:]
    assert (extended["step"], extended["who"]) == ("extended", delivered["who"])
    assert extended["until_ms"] >= extended["time_ms"] + 59_000
    party.node.admit.closed = GatewayError("draining", "the gateway is going down")
    assert await party.publish(**{"Push-Id": "late"}) == "draining"
    (refused,) = (await party.trace("late"))["refused"]
    assert refused["why"] == "trade.paid: draining: at admit"


async def test_a_pause_a_seek_and_a_redrive_are_in_the_trace(party: Party) -> None:
    await party.subscribe(attempts_max=1)
    message_id = await party.publish()
    await party.settle(await party.pull(), "nack")
    await party.until(message_id, "dead_lettered")
    for call in ("redrive", "pause", "resume"):
        assert (await party.control.post(f"/v1/subscriptions/orders/{call}")).status_code == 200
    message = (await party.until(message_id, "waiting"))["messages"][0]
    assert [(step["step"], step["why"]) for step in message["steps"]][-3:] == [
        ("redriven", None),
        ("subscription_changed", "paused"),
        ("subscription_changed", "resumed"),
    ]
    answer = await party.control.post("/v1/subscriptions/orders/seek", json={"to": "end"})
    assert answer.status_code == 200
    assert (await party.until(message_id, "skipped"))["messages"][0]["steps"][-1]["step"] == "sought"


async def test_whom_a_filter_kept_a_message_from_is_in_the_trace(party: Party) -> None:
    await party.subscribe(filter="data.amount > 10")
    await party.subscribe("audit")
    await party.publish()
    other = await party.data.post(TOPIC, content=b"{}")
    (message,) = (await party.trace(f"{party.node.engine.epoch}-1"))["messages"]
    assert words(message) == ["accepted", "routed", "filtered", "stored"]
    assert (message["steps"][2]["subscription"], message["steps"][2]["why"]) == ("orders", "no match")
    assert [each["subscription"] for each in message["standing"]] == ["audit"]
    (message,) = (await party.trace(other.json()["id"]))["messages"]
    assert message["steps"][2]["why"] != "no match"  # it could not say


async def test_what_a_pipeline_did_is_in_the_trace(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"required":["amount"]}')
    (tmp_path / "gateway.toml").write_text(
        f"""[[pipeline]]
        name = "trade"
        topics = ["trade.>"]
        stages = ["schema", "projection"]
        schema = "{tmp_path / "schema.json"}"
        projection = "{{sum: amount}}"
        """
    )
    settings = config.load(tmp_path / "gateway.toml", flags={**QUICK, "store.directory": str(tmp_path / "store")})
    async with trio.open_nursery() as nursery:
        node = Node(settings)
        nursery.start_soon(node.run)
        await node.ready.wait()
        async with client_of(node.address) as data, client_of(node.control_address) as control:
            party = Party(node, data, control)
            message_id = await party.publish()
            assert (await data.post(TOPIC, content=b"{}", headers={"Push-Id": "bad"})).status_code == 422
            (message,) = (await party.trace(message_id))["messages"]
            assert words(message) == ["accepted", "converted", "stored"]
            assert message["steps"][1]["who"] == "trade.2.projection"
            (refused,) = (await party.trace("bad"))["refused"]
            assert refused["why"] == "trade.paid: schema_mismatch"
        node.stop()


async def test_events_that_were_lost_around_a_message_are_counted(party: Party) -> None:
    message_id = await party.publish()
    recorder = party.node.recorder
    assert recorder is not None
    recorder._buffer.lose(7, party.node.clock())
    assert (await party.trace(message_id))["lost"] == 7
    recorder._buffer.lose(1, party.node.clock() + 3_600_000)
    assert (await party.trace(message_id))["lost"] == 7


@pytest.mark.parametrize("message_id", ["nobody", "{epoch}-2", "{epoch}-0", "{epoch}-007", "{epoch}-x", "other-1"])
@pytest.mark.parametrize("what", ["", "/trace"])
async def test_an_id_that_nobody_knows_is_not_found(party: Party, message_id: str, what: str) -> None:
    await party.subscribe()
    await party.publish()
    answer = await party.get(message_id.format(epoch=party.node.engine.epoch), what)
    assert (answer.status_code, answer.json()["code"]) == (404, "message_not_found")


@pytest.mark.parametrize("position", ["-1", "x", "1.5", "9007199254740992", "99999999999999999999", ""])
async def test_a_position_that_is_none_is_refused(party: Party, position: str) -> None:
    answer = await party.get("a1", "/trace", position=position)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_a_gateway_without_a_trace_says_so_and_keeps_none(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "store", {"trace.enabled": False}) as node,
        client_of(node.address) as data,
        client_of(node.control_address) as control,
    ):
        party = Party(node, data, control)
        await party.subscribe()
        message_id = await party.publish(**{"Push-Id": "a1"})
        answer = await party.get(message_id, "/trace")
        assert (answer.status_code, answer.json()["code"]) == (501, "not_supported")
        assert (await party.get(message_id, position=1)).json()["message"]["id"] == "a1"
        assert (await party.get(message_id)).json()["message"]["id"] == "a1"
        assert (await party.get(f"{node.engine.epoch}-1")).status_code == 200
        assert "gateway_trace" not in (await control.get("/metrics")).text
        assert not await trio.Path(tmp_path / "store" / "trace").exists()


async def test_a_trace_goes_on_over_a_restart(tmp_path: Path, log: Log) -> None:
    for life in range(2):
        async with (
            running(tmp_path / "store") as node,
            client_of(node.address) as data,
            client_of(node.control_address) as control,
        ):
            party = Party(node, data, control)
            if life == 0:
                await party.subscribe()
                message_id = await party.publish(**{"Push-Id": "a1"})
                await party.pull()
            else:
                await party.settle(await party.pull(), "ack")
                (message,) = (await party.until(message_id, "acked"))["messages"]
    assert words(message) == [*["accepted", "routed", "stored", "delivered", "node_started", "delivered", "acked"]]
    assert message["steps"][-3]["why"] == "after a clean end"
    assert {entry["log_level"] for entry in log} == {"info"}  # the store knows whose the folder in it is
    assert [step["attempt"] for step in message["steps"] if step["step"] == "delivered"] == [1, 1]


async def test_a_subscription_that_begins_at_the_start_and_goes_is_in_the_trace(party: Party) -> None:
    await party.subscribe("keeper")
    message_id = await party.publish()
    await party.subscribe("late", start="start")
    assert (await party.control.delete("/v1/subscriptions/keeper")).status_code == 204
    (message,) = (await party.trace(message_id))["messages"]
    assert {each["subscription"]: each["state"] for each in message["standing"]} == {
        "late": "waiting",
        "keeper": "deleted",
    }
    assert ("routed", "late", "backfill") in {(s["step"], s["subscription"], s["why"]) for s in message["steps"]}


async def test_a_message_that_expired_says_so(party: Party) -> None:
    await party.subscribe()
    message_id = await party.publish(**{"Push-Ttl-Ms": "1"})
    await trio.sleep(0.01)
    await party.data.post("/v1/subscriptions/orders/pull", json={"wait_ms": 0})
    (message,) = (await party.until(message_id, "expired"))["messages"]
    assert words(message)[-1] == "expired"


async def test_a_lease_that_runs_out_and_a_client_that_leaves_are_told_apart(party: Party) -> None:
    await party.subscribe(lease_ms=100)
    message_id = await party.publish()
    await party.pull()
    view = await party.until(message_id, "waiting")
    lost = view["messages"][0]["steps"][-1]
    assert (lost["step"], lost["attempt"]) == ("lease_expired", 1)
    assert lost["who"].startswith("pull 127.0.0.1:")
    assert orjson.dumps(view)
    assert {each["state"] for each in view["messages"][0]["standing"]} <= STATES
