from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs
import orjson
import pytest
import trio
import trio.testing
import trio_websocket
from websockets.exceptions import InvalidStatus
from websockets.trio.client import connect as websockets_connect

from gateway.edge.standing import Standing
from gateway.edge.websocket import Session
from gateway.errors import GatewayError
from gateway.flow.ring import Wait
from gateway.model import JSON_DEPTH_MAX, Batch, Settlement
from gateway.node import Node
from tests.conftest import StartNode
from tests.edge.bystander import positions, statistics, subscription, untouched
from tests.edge.clients import Connect, call, close_of, connect_trio_websocket
from tests.edge.raw import (
    CLOSE,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    masked_frame,
    open_http,
    open_raw_websocket,
    request_bytes,
)

Operation = dict[str, Any]


def publish(*payloads: object, topic: str = "trade.order.paid", **more: object) -> Operation:
    return {"op": "publish", "messages": [{"topic": topic, "data": payload} for payload in payloads], **more}


def settle(verb: str, *ranges: list[int], **more: object) -> Operation:
    return {"op": verb, "subscription": "orders", "ranges": list(ranges), **more}


SUBSCRIBE: Operation = {"op": "subscribe", "id": "s", "subscription": "orders"}


@asynccontextmanager
async def consumer(node: Node, **more: object) -> AsyncIterator[RawWebSocket]:
    """A connection that is subscribed to `orders`."""
    async with open_raw_websocket(node.address) as client:
        await client.send(SUBSCRIBE | more)
        assert (await client.receive())["op"] == "ok"
        yield client


def places(frame: Operation) -> list[int]:
    assert frame["op"] == "messages", frame
    return [message["position"] for message in frame["messages"]]


async def until(node: Node, **expected: int) -> None:
    """Until the statistics of `orders` are these."""
    with trio.fail_after(5):
        while expected.items() - attrs.asdict(statistics(node)).items():
            await trio.sleep(0.002)


# -------------------------------------------------------------------------------------------------------- welcome


async def test_the_welcome_names_the_connection_the_node_and_the_limits(
    start_node: StartNode, connect: Connect
) -> None:
    node = await start_node({"limits.batch_messages_max": 77, "websocket.heartbeat_s": 12.5})
    async with connect(node.address) as client:
        welcome = client.welcome
        (connection,) = node.connections
        assert welcome.pop("limits") == attrs.asdict(node.config.limits)
        assert welcome == {"op": "welcome", "connection": connection.name, "node": node.name, "heartbeat_s": 12.5}
        view = connection.view()
        assert (view.protocol, view.state, view.subscriptions) == ("push.v1.json", "healthy", [])


async def test_a_hello_is_answered_and_names_the_client(node: Node, connect: Connect) -> None:
    async with connect(node.address) as client:
        assert await call(client, {"op": "hello", "id": 1, "token": "t", "client": "test/1"}) == {"op": "ok", "id": 1}
        (connection,) = node.connections
        assert connection.view().client == "test/1"


async def test_frames_that_come_with_the_handshake_are_not_lost(node: Node) -> None:
    """A client must not send any yet (RFC 6455 §4.1), but some do."""
    async with open_http(node.address) as http:
        hello = masked_frame(TEXT, b'{"op":"hello","id":1}')
        await http.send(request_bytes("GET", "/v1/connect", headers=HANDSHAKE) + hello)
        assert (await http.answer()).status == 101
        client = RawWebSocket(http)
        assert (await client.receive())["op"] == "welcome"
        assert await client.receive() == {"op": "ok", "id": 1}


# ------------------------------------------------------------------------------------------------------ subscribe


async def test_a_subscriber_gets_what_is_published_and_acks_it(node: Node, connect: Connect) -> None:
    await subscription(node, lease_ms=5000)
    async with connect(node.address) as client:
        answer = await call(client, SUBSCRIBE | {"id": 1})
        assert answer == {"op": "ok", "id": 1, "subscription": "orders", "window": 1000}
        await client.send(publish("a", "b"))
        frame = await client.receive()
        assert frame["messages"][0].pop("time_ms") == frame["messages"][1].pop("time_ms")
        epoch = node.engine.epoch
        assert frame == {
            "op": "messages",
            "subscription": "orders",
            "lease_ms": 5000,
            "messages": [
                {"position": 1, "id": f"{epoch}-1", "topic": "trade.order.paid", "data": "a"},
                {"position": 2, "id": f"{epoch}-2", "topic": "trade.order.paid", "data": "b"},
            ],
        }
        assert await call(client, settle("ack", [1, 2], id=2)) == {"op": "ok", "id": 2, "acked": 2, "unknown": 0}
    assert statistics(node).acked == 2


async def test_a_second_subscribe_is_refused_and_the_first_goes_on(node: Node, connect: Connect) -> None:
    await subscription(node)
    async with connect(node.address) as client:
        await call(client, SUBSCRIBE)
        error = await call(client, SUBSCRIBE | {"id": 2})
        assert (error["op"], error["code"], error["temporary"]) == ("error", "already_subscribed", False)
        assert "'orders'" in error["message"]
        await client.send(publish(1))
        assert places(await client.receive()) == [1]


async def test_a_subscription_that_is_not_there_is_an_error(connect: Connect, node: Node) -> None:
    async with connect(node.address) as client:
        error = await call(client, SUBSCRIBE)
        assert (error["code"], error["id"]) == ("subscription_not_found", "s")


@pytest.mark.parametrize(("asked", "given"), [(None, 10), (3, 3), (10, 10), (1000, 10)])
async def test_the_window_is_the_smaller_of_the_client_s_and_the_subscription_s(
    node: Node, asked: int | None, given: int
) -> None:
    await subscription(node, window_max=10)
    async with open_raw_websocket(node.address) as client:
        await client.send(SUBSCRIBE | {"window": asked})
        assert (await client.receive())["window"] == given
        await client.send(publish(*range(12), id=1))
        assert (await client.receive())["op"] == "published"
        received = 0
        while received < given:
            received += len(places(await client.receive()))
        assert (received, statistics(node).waiting) == (given, 12 - given)
        await client.send(settle("ack", [1, 2]))
        assert places(await client.receive()) == [given + 1, given + 2]  # two slots are free


async def test_unsubscribing_gives_back_at_once(node: Node, connect: Connect) -> None:
    await subscription(node)
    async with connect(node.address) as client:
        await call(client, SUBSCRIBE)
        await client.send(publish("for one of two"))
        assert places(await client.receive()) == [1]
        async with consumer(node) as other:
            unsubscribed = await call(client, {"op": "unsubscribe", "id": 2, "subscription": "orders"})
            assert unsubscribed == {"op": "ok", "id": 2}
            frame = await other.receive()
            assert (places(frame), frame["attempts"]) == ([1], {"1": 2})
            assert statistics(node).in_flight == 1


async def test_an_ack_right_before_the_unsubscribe_counts(node: Node, connect: Connect) -> None:
    await subscription(node)
    async with connect(node.address) as client:
        for place in range(1, 11):
            await call(client, SUBSCRIBE)
            await client.send(publish("acked in time"))
            assert places(await client.receive()) == [place]
            await client.send(settle("ack", [place, place]))
            await call(client, {"op": "unsubscribe", "id": 2, "subscription": "orders"})
            assert statistics(node).acked == place


async def test_a_subscription_may_be_deleted_while_its_reader_unsubscribes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await subscription(node)
    async with untouched(node), consumer(node) as client:
        settlements: list[Settlement] = []

        with monkeypatch.context() as held:
            held.setattr(node.settle.ring, "offer", settlements.append)
            await client.send({"op": "unsubscribe", "id": "u", "subscription": "orders"})
            with trio.fail_after(5):
                while not settlements:
                    await trio.sleep(0.002)
        await node.engine.delete_subscription("orders")
        await node.settle.ring.put(settlements[0])
        assert await client.receive() == {"op": "ok", "id": "u"}  # and is not closed for what it has left
        await client.send({"op": "hello", "id": 1})
        assert await client.receive() == {"op": "ok", "id": 1}


async def test_what_an_unsubscribing_reader_holds_goes_back_where_its_connection_ends_meanwhile(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no room for its leaving yet, and nobody is left who would wait for that."""
    node = await start_node({"websocket.close_timeout_s": 0.1})
    await subscription(node)
    came = trio.Event()

    def full(_settlement: Settlement) -> Wait:
        came.set()
        return trio.sleep_forever

    async with consumer(node) as client:
        await client.send(publish("held"))
        assert places(await client.receive()) == [1]
        with monkeypatch.context() as held:
            held.setattr(node.settle.ring, "offer", full)
            await client.send({"op": "unsubscribe", "id": "u", "subscription": "orders"})
            with trio.fail_after(5):
                await came.wait()
        (connection,) = node.connections
        connection.close(1008, "an operator closes it")
    with trio.fail_after(5):
        while len(node.connections):
            await trio.sleep(0.002)
    found = statistics(node)
    assert (found.consumers, found.in_flight, found.waiting) == (0, 0, 1)


async def test_unsubscribing_from_what_one_is_not_subscribed_to_is_an_error(node: Node, connect: Connect) -> None:
    await subscription(node)
    async with connect(node.address) as client:
        error = await call(client, {"op": "unsubscribe", "id": 2, "subscription": "orders"})
        assert (error["code"], "'orders'" in error["message"]) == ("bad_request", True)
        await call(client, SUBSCRIBE)
        await call(client, {"op": "unsubscribe", "id": 3, "subscription": "orders"})
        assert (await call(client, SUBSCRIBE))["op"] == "ok"  # and may subscribe again


async def test_one_connection_reads_many_subscriptions_up_to_its_limit(start_node: StartNode) -> None:
    node = await start_node({"websocket.subscriptions_max": 2})
    for name in ("orders", "refunds", "others"):
        await subscription(node, name, f"trade.{name}")
    async with connect_trio_websocket(node.address) as client:
        for name in ("orders", "refunds"):
            assert (await call(client, SUBSCRIBE | {"subscription": name}))["op"] == "ok"
        error = await call(client, SUBSCRIBE | {"subscription": "others"})
        assert (error["code"], error["temporary"]) == ("subscription_limit", False)
        assert "websocket.subscriptions_max" in error["message"]
        for name in ("refunds", "orders"):
            await client.send(publish(name, topic=f"trade.{name}"))
            assert (await client.receive())["subscription"] == name


# --------------------------------------------------------------------------------------------------------- settle


async def test_every_verb_is_answered_with_its_counts(node: Node, connect: Connect) -> None:
    await subscription(node, backoff_ms=(3_600_000,), dead_letter="")
    async with connect(node.address) as client:
        await call(client, SUBSCRIBE)
        await client.send(publish(*range(8)))
        assert places(await client.receive()) == list(range(1, 9))
        for operation, counts in [
            (settle("ack", [1, 2], [4, 4], id=1), {"acked": 3, "unknown": 0}),
            (settle("ack", [1, 3], id="two"), {"acked": 1, "unknown": 2}),
            (settle("nack", [5, 5], id=3, delay_ms=60_000, reason="later"), {"nacked": 1, "unknown": 0}),
            (settle("nack", [6, 6], id=4), {"nacked": 1, "unknown": 0}),
            (settle("extend", [7, 9], id=5, lease_ms=60_000), {"extended": 2, "unknown": 1}),
            (settle("term", [7, 7], id=6, reason="no use"), {"terminated": 1, "unknown": 0}),
            (settle("ack", id=7), {"acked": 0, "unknown": 0}),
        ]:
            assert await call(client, operation) == {"op": "ok", "id": operation["id"], **counts}
    await until(node, acked=4, delayed=2, dead_lettered=1, waiting=1)


async def test_a_settling_operation_without_an_id_is_not_answered(node: Node, connect: Connect) -> None:
    await subscription(node)
    async with connect(node.address) as client:
        await call(client, SUBSCRIBE)
        await client.send(publish(*range(4)))
        await client.receive()
        for verb, place in [("ack", 1), ("extend", 2), ("term", 3)]:
            await client.send(settle(verb, [place, place]))
        await client.send(settle("nack", [4, 4], delay_ms=0))
        frame = await client.receive()
        assert (places(frame), frame["attempts"]) == ([4], {"4": 2})
        assert await call(client, {"op": "hello", "id": 1}) == {"op": "ok", "id": 1}
    await until(node, acked=1, dead_lettered=1, waiting=2)


async def test_what_is_not_leased_to_this_connection_is_unknown_and_closes_nothing(
    node: Node, connect: Connect
) -> None:
    await subscription(node)
    async with consumer(node) as owner, connect(node.address) as client:
        await owner.send(publish(1, 2))
        assert places(await owner.receive()) == [1, 2]
        unknown = {"op": "ok", "acked": 0, "unknown": 2}
        assert await call(client, settle("ack", [1, 2], id=1)) == unknown | {"id": 1}  # not subscribed
        await call(client, SUBSCRIBE)
        assert await call(client, settle("ack", [1, 2], id=2)) == unknown | {"id": 2}  # the other's
        assert await call(client, settle("ack", [8, 9], id=3)) == unknown | {"id": 3}  # of the future
        gone = {"op": "ack", "id": 4, "subscription": "nobody", "ranges": [[1, 2]]}
        assert await call(client, gone) == unknown | {"id": 4}
        await owner.send(settle("ack", [1, 2], id=5))
        assert await owner.receive() == {"op": "ok", "id": 5, "acked": 2, "unknown": 0}


async def test_a_range_that_runs_backwards_is_an_error_and_settles_nothing(node: Node, connect: Connect) -> None:
    await subscription(node)
    async with connect(node.address) as client:
        await call(client, SUBSCRIBE)
        await client.send(publish(1))
        await client.receive()
        error = await call(client, settle("ack", [1, 1], [3, 2], id=1))
        assert (error["code"], "[3,2] runs backwards" in error["message"]) == ("bad_request", True)
        assert statistics(node).in_flight == 1


async def test_a_lease_that_runs_out_is_delivered_again(node: Node, connect: Connect) -> None:
    await subscription(node, lease_ms=100)
    async with connect(node.address) as client:
        await call(client, SUBSCRIBE)
        began = trio.current_time()
        await client.send(publish(1))
        assert "attempts" not in await client.receive()
        for attempt in (2, 3):
            frame = await client.receive()
            assert (places(frame), frame["attempts"]) == ([1], {"1": attempt})
            assert trio.current_time() - began >= 0.1 * (attempt - 1)
        assert await call(client, settle("ack", [1, 1], id=1)) == {"op": "ok", "id": 1, "acked": 1, "unknown": 0}


# -------------------------------------------------------------------------------------------------------- publish


async def test_new_and_contiguous_is_answered_with_positions(node: Node, connect: Connect) -> None:
    async with connect(node.address) as client:
        assert await call(client, publish(*range(5), id=1)) == {
            "op": "published",
            "id": 1,
            "durability": "fsynced",
            "positions": [1, 5],
        }
        answer = await call(client, publish(1, id="two", durability="written"))
        assert answer == {"op": "published", "id": "two", "durability": "written", "positions": [6, 6]}


async def test_anything_else_is_answered_with_a_result_for_each(node: Node, connect: Connect) -> None:
    await subscription(node)
    messages: list[object] = [
        {"topic": "trade.a", "data": 1},
        {"topic": "trade..a", "data": 2},
        {"topic": "trade.a", "data": 3, "id": "same"},
        {"topic": "trade.a", "data": 3, "id": "same"},
        {"topic": "trade.a", "data": 4, "id": "same"},
        {"topic": "trade.a", "data": 5, "price": 1},
        "nonsense",
        {"topic": "trade.a", "data_base64": "AAE=", "content_type": "image/png", "key": "k", "attributes": {"n": "v"}},
    ]
    async with connect(node.address) as client:
        answer = await call(client, {"op": "publish", "id": 1, "messages": messages})
        assert (answer["op"], answer["durability"]) == ("published", "fsynced")
        found = [r.get("position") or r["error"]["code"] for r in answer["results"]]
        assert found == [1, "bad_topic", 2, 2, "id_conflict", "bad_request", "bad_request", 3]
        assert [r.get("duplicate", False) for r in answer["results"]].index(True) == 3
        assert "messages[5]: Object contains unknown field `price`" in answer["results"][5]["error"]["message"]
        await call(client, SUBSCRIBE)
        frame = await client.receive()
        last = frame["messages"][2]
        assert (last["content_type"], last["data_base64"]) == ("image/png", "AAE=")
        assert (last["key"], last["attributes"]) == ("k", {"n": "v"})


async def test_an_error_of_a_publish_without_an_id_is_not_silent(node: Node, connect: Connect) -> None:
    async with connect(node.address) as client:
        await client.send(publish(1, topic="trade..a"))
        error = await client.receive()
        assert (error["op"], error["code"]) == ("error", "bad_topic")
        assert "id" not in error
        await client.send({"op": "publish", "messages": []})
        error = await client.receive()
        assert (error["code"], "id" in error) == ("bad_request", False)
        assert await call(client, publish(1, id=1)) == {
            "op": "published",
            "id": 1,
            "durability": "fsynced",
            "positions": [1, 1],
        }


async def test_many_publishes_may_be_under_way(node: Node, connect: Connect) -> None:
    async with connect(node.address) as client:
        for number in range(50):
            await client.send(publish(number, id=number))
        answers = [await client.receive() for _ in range(50)]
    assert [(a["id"], a["positions"]) for a in answers] == [(n, [n + 1, n + 1]) for n in range(50)]


async def test_a_batch_beyond_the_limits_is_refused_whole(start_node: StartNode, connect: Connect) -> None:
    node = await start_node(
        {"limits.batch_messages_max": 3, "limits.batch_bytes_max": 2048, "limits.payload_bytes_max": 1024}
    )
    async with connect(node.address) as client:
        assert (await call(client, publish(1, 2, 3, id=1)))["positions"] == [1, 3]
        assert (await call(client, publish(1, 2, 3, 4, id=2)))["code"] == "batch_too_large"
        assert (await call(client, publish(*["x" * 700] * 3, id=3)))["code"] == "batch_too_large"
        answer = await call(client, publish("x" * 900, "x" * 1023, id=4))
        assert answer["results"][0]["position"] == 4
        assert answer["results"][1]["error"]["code"] == "payload_too_large"
        assert (await call(client, publish(id=5)))["code"] == "bad_request"
    assert positions(node) == 5


async def test_a_payload_that_is_too_deep_is_answered_by_itself(node: Node, connect: Connect) -> None:
    deep = "[" * (JSON_DEPTH_MAX + 1) + "]" * (JSON_DEPTH_MAX + 1)
    async with connect(node.address) as client:
        await client.send(
            '{"op":"publish","id":1,"messages":[{"topic":"a","data":1},{"topic":"a","data":'
            + '},{"topic":"a","data":'.join((deep, deep[1:-1]))
            + "}]}"
        )
        results = (await client.receive())["results"]
        assert (results[0]["position"], results[2]["position"]) == (1, 2)
        assert f"deeper than {JSON_DEPTH_MAX} levels" in results[1]["error"]["message"]


# ------------------------------------------------------------------------------------------------ wrong operations


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"op": "nope", "id": 1}, "unknown_operation"),
        ({"id": 1}, "bad_request"),
        ({"op": "subscribe", "id": 1}, "bad_request"),
        ({"op": "hello", "id": 1, "tokn": 1}, "bad_request"),
        ({"op": "publish", "id": 1, "messages": [], "durability": "replicated"}, "bad_request"),
    ],
)
async def test_a_wrong_operation_is_answered_and_the_connection_goes_on(
    node: Node, connect: Connect, operation: Operation, code: str
) -> None:
    async with connect(node.address) as client:
        error = await call(client, operation)
        assert (error["op"], error["code"], error["temporary"]) == ("error", code, False)
        assert (await call(client, {"op": "hello", "id": 2}))["op"] == "ok"


@pytest.mark.parametrize("operation", ["hello", "publish", "ack", "nope"])
async def test_an_id_that_cannot_be_answered_harms_nobody(node: Node, connect: Connect, operation: str) -> None:
    async with untouched(node), connect(node.address) as client:
        await client.send(
            f'{{"op":"{operation}","id":18446744073709551616,"subscription":"orders","ranges":[],'
            '"messages":[{"topic":"a","data":1}]}'
        )
        error = await client.receive()
        assert (error["code"], "id" in error) == ("bad_request", False)
        assert (await call(client, {"op": "hello", "id": 2}))["op"] == "ok"


FATAL: dict[str, str | bytes] = {
    "binary": b'{"op":"hello","id":1}',
    "not JSON": "nonsense",
    "empty": "",
    "cut": '{"op":"hello"',
    "wrong first, then cut": '{"op":"nope","id":1,',
    "an array": '[{"op":"hello"}]',
    "a number": "5",
    "a lone surrogate": '{"op":"hello","id":"\\ud800"}',
    "NaN": '{"op":"publish","id":1,"messages":[{"topic":"a","data":NaN}]}',
    "a lone surrogate in a payload": '{"op":"publish","messages":[{"topic":5},{"topic":"a","data":"\\udc00"}]}',
    "too deep for any parser": '{"op":"publish","messages":[{"topic":"a","data":%s}]}' % ("[" * 10**5 + "]" * 10**5),
}


@pytest.mark.parametrize("frame", FATAL.values(), ids=FATAL)
async def test_what_is_no_operation_at_all_is_an_error_and_then_3501(
    node: Node, connect: Connect, frame: str | bytes
) -> None:
    async with untouched(node), connect(node.address) as client:
        await client.send(frame)
        error = await client.receive()
        assert (error["op"], error["code"], "id" in error) == ("error", "bad_request", False)
        closed = await close_of(client)
        assert closed.code == 3501
        assert error["message"].startswith(closed.reason)


async def test_nothing_behind_a_fatal_frame_is_carried_out(node: Node) -> None:
    async with untouched(node), open_raw_websocket(node.address) as client:
        ping = masked_frame(TEXT, orjson.dumps(publish(1, id=1)))
        await client.send_bytes(masked_frame(TEXT, b"nonsense") + ping * 3)
        assert (await client.receive())["code"] == "bad_request"
        assert await client.close_code() == 3501


# --------------------------------------------------------------------------------------------- frames and closing


@pytest.mark.parametrize("payload", [b"\xff", b'{"op":"hello","client":"\xed\xa0\x80"}', b'{"id":"\xc0\x80"}', b"\xe4"])
async def test_text_that_is_not_utf_8_closes_with_1007(node: Node, payload: bytes) -> None:
    async with untouched(node), open_raw_websocket(node.address) as client:
        await client.send_bytes(masked_frame(TEXT, payload))
        assert await client.close_code() == 1007
        await client.end()


async def test_a_frame_that_is_too_large_closes_with_1009(start_node: StartNode) -> None:
    limits = {"limits.payload_bytes_max": 4096, "limits.batch_bytes_max": 4096}
    node = await start_node({"websocket.frame_bytes_max": 8192, **limits})
    async with untouched(node), open_raw_websocket(node.address) as client:
        await client.send_bytes(masked_frame(TEXT, b" " * 8171 + b'{"op":"hello","id":1}'))
        assert await client.receive() == {"op": "ok", "id": 1}
        await client.send_bytes(masked_frame(TEXT, b" " * (1 << 20)))  # goes on long behind the limit
        assert await client.close_code() == 1009
        await client.end()


async def test_fragments_are_put_together_and_bounded_together(start_node: StartNode) -> None:
    limits = {"limits.payload_bytes_max": 4096, "limits.batch_bytes_max": 4096}
    node = await start_node({"websocket.frame_bytes_max": 8192, **limits})
    async with untouched(node), open_raw_websocket(node.address) as client:
        parts = (b'{"op":"he', b'llo","i', b'd":1}')
        for opcode, part in zip((TEXT, 0, 0), parts, strict=True):
            await client.send_bytes(masked_frame(opcode, part, last=part is parts[-1]))
            await client.send_bytes(masked_frame(PING, b"between"))
        assert await client.frame() == (PONG, b"between")
        await client.send_bytes(masked_frame(TEXT, b" " * 5000, last=False) + masked_frame(0, b" " * 5000))
        assert await client.close_code() == 1009


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),  # not masked
        (b"\xf1\x80\0\0\0\0", 1002),  # reserved bits
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode there is not
        (b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002),  # a ping too large
        (masked_frame(0, b"continues nothing"), 1002),
    ],
    ids=["unmasked", "reserved bits", "opcode", "large ping", "continuation"],
)
async def test_what_is_no_websocket_frame_closes(node: Node, data: bytes, code: int) -> None:
    async with untouched(node), open_raw_websocket(node.address) as client:
        await client.send_bytes(data)
        assert await client.close_code() == code
        await client.end()


async def test_a_client_s_close_is_answered_and_gives_back(node: Node) -> None:
    await subscription(node)
    async with untouched(node, stored=1), consumer(node) as client:
        await client.send(publish(1))
        assert places(await client.receive()) == [2]
        await client.send_bytes(masked_frame(CLOSE, b"\x03\xe8bye"))
        assert await client.close_code() == 1000
        await client.end()
        await until(node, waiting=1, in_flight=0, consumers=0)
        with trio.fail_after(5):
            while 1000 not in node.connections.closes:
                await trio.sleep(0.002)


async def test_what_a_lost_connection_held_goes_to_another_at_once(node: Node) -> None:
    await subscription(node)
    async with untouched(node, stored=3):
        async with consumer(node) as lost:
            await lost.send(publish(1, 2, 3))
            assert places(await lost.receive()) == [2, 3, 4]
            await lost.send(settle("ack", [3, 3], id=1))
            assert (await lost.receive())["acked"] == 1
            await lost.aclose()
        async with consumer(node) as other:
            frame = await other.receive()
            assert (places(frame), frame["attempts"]) == ([2, 4], {"2": 2, "4": 2})


async def test_a_client_may_leave_at_any_byte_of_a_publish(node: Node) -> None:
    frame = masked_frame(TEXT, orjson.dumps(publish("whole")))
    async with untouched(node, stored=1):
        for place in range(len(frame) + 1):
            async with open_raw_websocket(node.address) as client:
                await client.send_bytes(frame[:place])
                if place == len(frame):
                    await client.send({"op": "hello", "id": 1})
                    await client.receive()
        with trio.fail_after(5):
            while len(node.connections) != 1:
                await trio.sleep(0.002)


async def test_a_client_may_leave_at_any_byte_of_its_handshake(node: Node) -> None:
    data = request_bytes("GET", "/v1/connect", headers=HANDSHAKE)
    async with untouched(node):
        for place in range(0, len(data), 5):
            async with open_http(node.address) as http:
                await http.send(data[:place])


ODD_HEADERS = [
    b"X: \xff",
    b"X:",
    b"X: " + b"y" * 20_000,
    b"Sec-WebSocket-Extensions: \xff",
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    b"Sec-WebSocket-Protocol: \xff",
    b"Sec-WebSocket-Version: 8",
    b"Content-Length: 0",
    b"Origin: http://LOCALHOST",
    b"Cookie: a=b",
]


@pytest.mark.parametrize("header", ODD_HEADERS, ids=lambda header: header[:30].decode("latin-1"))
async def test_whatever_else_a_handshake_says_it_is_a_session(node: Node, header: bytes) -> None:
    data = request_bytes("GET", '/v1/connect?x=none&"', headers=HANDSHAKE)
    async with untouched(node), open_http(node.address) as http:
        await http.send(data.replace(b"\r\n\r\n", b"\r\n" + header + b"\r\n\r\n"))
        answer = await http.answer()
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "push.v1.json")
        assert "sec-websocket-extensions" not in answer.headers
        assert (await RawWebSocket(http).receive())["op"] == "welcome"


async def test_a_handshake_that_takes_too_long_is_given_up(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node({"websocket.handshake_timeout_s": 0.1})

    async def never(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio_websocket.WebSocketRequest, "accept", never)
    async with open_http(node.address) as http:
        await http.send(request_bytes("GET", "/v1/connect", headers=HANDSHAKE))
        await http.end()
    assert node.connections.closes == {1006: 1}


async def test_a_subscription_that_is_deleted_closes_with_3507(node: Node, connect: Connect) -> None:
    await subscription(node)
    async with untouched(node, stored=1), connect(node.address) as client:
        await call(client, SUBSCRIBE)
        await client.send(publish(1))
        await client.receive()
        await node.engine.delete_subscription("orders")
        error = await client.receive()
        assert (error["code"], "id" in error) == ("subscription_deleted", False)
        closed = await close_of(client)
        assert (closed.code, "'orders'" in closed.reason) == (3507, True)


async def test_a_connection_that_is_closed_by_the_operator_is_told_why(node: Node, connect: Connect) -> None:
    async with untouched(node), connect(node.address) as client:
        node.connections.get(client.welcome["connection"]).close(3001, "closed by the operator")
        closed = await close_of(client)
        assert (closed.code, closed.reason) == (3001, "closed by the operator")
    assert node.connections.closes[3001] == 1


async def test_a_close_code_reaches_a_client_that_goes_on_sending(node: Node) -> None:
    """The gateway waits for the client's close, so that no reset takes the reason away."""
    async with untouched(node), open_raw_websocket(node.address) as client:
        (name,) = (c.name for c in node.connections if not c.view().subscriptions)
        node.connections.get(name).close(3001, "why not")
        await trio.testing.wait_all_tasks_blocked()
        for number in range(50):
            await client.send({"op": "hello", "id": number})
        assert await client.close_code() == 3001
        assert name in {c.name for c in node.connections}
        await client.send_bytes(masked_frame(CLOSE, (3001).to_bytes(2, "big")))
        await client.end()


async def test_a_client_may_ping_while_it_is_being_closed(node: Node) -> None:
    async with untouched(node), open_raw_websocket(node.address) as client:
        (name,) = (c.name for c in node.connections if not c.view().subscriptions)
        node.connections.get(name).close(3001, "why not")
        await trio.testing.wait_all_tasks_blocked()
        await client.send_bytes(masked_frame(PING, b"still there?"))
        assert await client.close_code() == 3001
        await client.end()
    assert node.connections.closes[3001] == 1


async def test_a_client_that_does_not_answer_a_close_is_cut(start_node: StartNode) -> None:
    node = await start_node({"websocket.close_timeout_s": 0.1})
    async with untouched(node), open_raw_websocket(node.address) as client:
        (name,) = (c.name for c in node.connections if not c.view().subscriptions)
        began = trio.current_time()
        node.connections.get(name).close(3001, "x" * 500)
        opcode, payload = await client.frame()
        assert (opcode, payload[:2], len(payload)) == (CLOSE, b"\x0b\xb9", 122)  # a reason has 123 bytes at most
        await client.end()
        assert 0.1 <= trio.current_time() - began < 2


# ------------------------------------------------------------------------------------------------------ heartbeat

QUICK_HEART = {"websocket.heartbeat_s": 0.1, "websocket.pong_timeout_s": 0.1}


async def test_no_pong_closes_with_3012_and_gives_back(start_node: StartNode) -> None:
    node = await start_node(QUICK_HEART)
    await subscription(node)
    async with consumer(node) as client:
        await client.send(publish(1))
        await client.receive()
        began = trio.current_time()
        assert await client.close_code() == 3012
        assert trio.current_time() - began < 2
        await client.aclose()
    await until(node, waiting=1, in_flight=0)


async def test_of_a_quiet_connection_nothing_is_asked_between_two_pings(
    node: Node, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    overdue = Standing.overdue

    def noted(standing: Standing, now: float, now_ms: int) -> GatewayError | None:
        asked.append(now)
        return overdue(standing, now, now_ms)

    monkeypatch.setattr(Standing, "overdue", noted)
    async with connect(node.address):
        (session,) = node.connections
        assert isinstance(session, Session)
        now = trio.current_time()
        session.check(now)  # the handshake has just ended
        before = len(asked)
        for passed in range(10):
            session.check(now + passed / 4)
        assert len(asked) == before
        session.check(now + 1000)  # a ping goes out
        session.check(now + 1000.25)
        assert len(asked) == before + 2  # and an answer is due


async def test_a_client_that_answers_pings_stays(start_node: StartNode, connect: Connect) -> None:
    node = await start_node(QUICK_HEART)
    async with connect(node.address) as client:
        with trio.move_on_after(0.6):
            await client.receive()
        assert (await call(client, {"op": "hello", "id": 1}))["op"] == "ok"


async def test_whatever_a_client_sends_shows_that_it_lives(start_node: StartNode) -> None:
    node = await start_node(QUICK_HEART)
    async with open_raw_websocket(node.address) as client:
        for number in range(12):
            await trio.sleep(0.05)
            await client.send({"op": "hello", "id": number})
            assert (await client.receive())["id"] == number


async def test_a_pong_is_due_from_when_the_socket_has_taken_the_ping(start_node: StartNode) -> None:
    """Behind what a slow reader has not read yet a ping may wait long: that is for flow control to judge."""
    node = await start_node(QUICK_HEART)
    await subscription(node)
    async with consumer(node) as slow:
        async with open_http(node.address) as http:
            batch = [{"topic": "trade.a", "data": "x" * 65536}] * 40
            for _ in range(5):
                await slow.send_bytes(masked_frame(PONG, b""))
                await http.post("/v1/messages", orjson.dumps(batch))
        (connection,) = node.connections
        with trio.fail_after(5):
            while not connection.view().unsent_bytes:
                await slow.send_bytes(masked_frame(PONG, b""))
                await trio.sleep(0.005)
        await slow.send_bytes(masked_frame(PONG, b""))  # for a ping that the kernel may have taken
        await trio.sleep(0.5)
        assert connection.view().unsent_bytes
        assert len(node.connections) == 1


async def test_a_gateway_that_is_behind_takes_no_client_for_dead_whose_pong_lies_unread(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node(QUICK_HEART)
    came, thaw = trio.Event(), trio.Event()
    submit = node.admit.submit

    def offer(batch: Batch) -> Wait:
        came.set()
        return partial(wait, batch)

    async def wait(batch: Batch) -> None:
        await thaw.wait()
        monkeypatch.undo()
        await submit(batch)

    monkeypatch.setattr(node.admit, "offer", offer)
    async with open_raw_websocket(node.address) as client:
        await client.send({**publish(1), "id": 1})
        with trio.fail_after(5):
            await came.wait()
        await client.send_bytes(masked_frame(PONG, b""))
        await trio.sleep(0.6)
        assert len(node.connections) == 1
        thaw.set()
        with trio.fail_after(5):
            assert (await client.receive())["op"] == "published"


async def test_a_client_may_ping_too(node: Node) -> None:
    async with open_raw_websocket(node.address) as client:
        await client.send_bytes(masked_frame(PING, b"there?") + masked_frame(PONG, b"unasked"))
        assert await client.frame() == (PONG, b"there?")


# ---------------------------------------------------------------------------------------------------- slow readers


async def test_a_slow_reader_is_blocked_while_another_goes_on(node: Node) -> None:
    await subscription(node)
    total = 400
    async with untouched(node, stored=total), consumer(node) as slow, consumer(node) as quick:
        async with open_http(node.address) as http:
            for _ in range(total // 40):
                batch = [{"topic": "trade.a", "data": "x" * 65536}] * 40
                assert (await http.post("/v1/messages", orjson.dumps(batch))).status == 200
        acked = 0
        with trio.move_on_after(PATIENCE) as patience:
            while True:
                frame = await quick.receive()
                acked += len(places(frame))
                await quick.send(settle("ack", [places(frame)[0], places(frame)[-1]]))
                patience.deadline = trio.current_time() + PATIENCE
        views = sorted(connection.view().unsent_bytes for connection in node.connections)
        held = statistics(node).in_flight
        assert acked + held == total
        assert 0 < held < total / 2
        assert 0 < views[-1] < 2 * node.config.deliver.frame_bytes_max  # one frame waits, and no more
        assert views[:-1] == [0, 0]
        await slow.aclose()
        while acked < total:
            acked += len(places(await quick.receive()))


PATIENCE = 0.4
"""How long nothing comes until a test takes it that nothing will."""


async def test_a_slow_reader_that_reads_again_gets_its_messages(node: Node) -> None:
    await subscription(node)
    async with consumer(node) as slow:
        async with open_http(node.address) as http:
            batch = [{"topic": "trade.a", "data": "x" * 65536}] * 40
            for _ in range(5):
                await http.post("/v1/messages", orjson.dumps(batch))
        received: list[int] = []
        while len(received) < 200:
            received += places(await slow.receive())
        assert received == list(range(1, 201))


async def test_a_slow_reader_gets_its_subscriptions_in_turn(node: Node) -> None:
    """Whichever was served last before the socket was full is the last to be served when there is room again."""
    names = ("a", "b", "c")
    for name in names:
        await subscription(node, name, "trade.>")
    async with open_raw_websocket(node.address) as slow, open_http(node.address) as http:
        for name in names:
            await slow.send({"op": "subscribe", "id": name, "subscription": name})
            assert (await slow.receive())["op"] == "ok"
        batch = [{"topic": "trade.a", "data": "x" * 65536}] * 40
        for _ in range(8):
            assert (await http.post("/v1/messages", orjson.dumps(batch))).status == 200
        seen = dict.fromkeys(names, 0)
        for _ in range(120):  # half of what there is; 4 messages fill a frame
            seen[(await slow.receive())["subscription"]] += 1
            assert max(seen.values()) - min(seen.values()) <= 8, seen


async def test_a_client_that_does_not_read_its_answers_is_not_read_from(start_node: StartNode) -> None:
    node = await start_node({"websocket.unsent_bytes_max": 65536})
    async with untouched(node), open_raw_websocket(node.address) as client:
        hello = masked_frame(TEXT, orjson.dumps({"op": "hello", "id": "x" * 1_000_000}))
        sent = 0
        with trio.move_on_after(PATIENCE) as patience:
            while sent < 100:
                await client.send_bytes(hello)
                sent += 1
                patience.deadline = trio.current_time() + PATIENCE
        assert sent < 100
        assert max(connection.view().unsent_bytes for connection in node.connections) < 3_000_000


async def test_a_client_that_takes_none_of_its_answers_is_cut(start_node: StartNode) -> None:
    """One with a subscription goes down the ladder of flow control instead."""
    node = await start_node({"http.write_timeout_s": 0.3})
    async with untouched(node), open_raw_websocket(node.address) as client:
        hello = masked_frame(TEXT, orjson.dumps({"op": "hello", "id": "x" * 1_000_000}))
        with trio.fail_after(10):
            while len(node.connections) == 2:
                with suppress(trio.BrokenResourceError):
                    await client.send_bytes(hello)
                await trio.sleep(0.002)


async def test_a_library_that_is_refused_reads_why(node: Node) -> None:
    uri = f"ws://{node.address}/v1/connect"
    async with open_http(node.address) as http:
        with pytest.raises(InvalidStatus) as caught:
            async with websockets_connect(uri, stream=http.stream, proxy=None):
                pass
    response = caught.value.response
    assert response.status_code == 400
    assert orjson.loads(response.body)["code"] == "bad_request"
