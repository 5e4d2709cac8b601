"""The whole gateway in this process: its drain, its failures, its limits."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio
import trio.testing

from gateway import node as node_module
from gateway.config import Config
from gateway.errors import ConfigError, StoreError, StoreLockedError
from gateway.model import Settlement
from gateway.node import Node
from gateway.store.disk import Disk
from gateway.store.files import Files
from tests.conftest import Log, StartNode, quick_config, running
from tests.edge.bystander import bystander, positions, statistics, subscription
from tests.edge.raw import (
    CLOSE,
    HANDSHAKE,
    TEXT,
    Answer,
    RawHttp,
    RawWebSocket,
    masked_frame,
    open_http,
    open_raw_websocket,
    request_bytes,
)

ONE = "/v1/topics/trade.order.paid/messages"
PULL = "/v1/subscriptions/orders/pull"
SETTLE = "/v1/subscriptions/orders/settle"
SUBSCRIBE = {"op": "subscribe", "id": "s", "subscription": "orders"}
CLOSED = masked_frame(CLOSE, b"\x0b\xb9")


@asynccontextmanager
async def holding(node: Node) -> AsyncIterator[RawWebSocket]:
    """A WebSocket consumer that holds message 1, and does not settle it by itself."""
    await subscription(node)
    async with open_raw_websocket(node.address) as client, open_http(node.address) as http:
        await client.send(SUBSCRIBE)
        assert (await client.receive())["op"] == "ok"
        assert (await http.post(ONE, b'"held"')).status == 201
        frame = await client.receive()
        assert [(m["position"], m["data"]) for m in frame["messages"]] == [(1, "held")]
        yield client


async def in_time(happened: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not happened():
            await trio.sleep(0.002)


def target_of(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def without_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the disk's work goes by `Files`, and nothing by io_uring."""
    monkeypatch.setattr(Disk, "append", lambda *_: False)


class SlowDisk:
    """Every sync takes this long, off the run loop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        sync = Files.sync

        def slow_sync(files: Files, file: int) -> None:
            time.sleep(seconds)
            sync(files, file)

        without_ring(monkeypatch)
        monkeypatch.setattr(Files, "sync", slow_sync)


# ---------------------------------------------------------------------------------------------------------- drain


async def test_a_node_without_clients_ends_at_once(tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with running(tmp_path):
            pass


async def test_a_draining_node_takes_nothing_new_and_says_when_to_come_back(node: Node) -> None:
    async with holding(node) as client, open_http(node.address) as http, open_http(node.address) as other:
        assert (await http.post(ONE, b"1")).status == 201
        node.stop()
        await in_time(lambda: node.admit.closed is not None)
        for target, body in [(ONE, b"2"), ("/v1/messages", b'[{"topic":"a","data":1}]'), (PULL, b"{}")]:
            answer = await http.post(target, body)
            assert (answer.status, answer.code, answer.json["temporary"]) == (503, "draining", True)
            assert int(answer.headers["retry-after"]) >= 1
        answer = await other.request("GET", "/v1/connect", headers=HANDSHAKE)
        assert (answer.status, answer.code) == (503, "draining")
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(*target_of(node.address))
        assert positions(node) == 3
        await client.send({"op": "ack", "subscription": "orders", "ranges": [[1, 2]]})
        assert await client.close_code() == 3013


async def test_pulls_that_wait_are_answered_empty(node: Node) -> None:
    await subscription(node)
    async with open_http(node.address) as http:
        await http.send(request_bytes("POST", PULL, b'{"wait_ms":60000}'))
        await in_time(lambda: node.longpoll.waiting == 1)
        node.stop()
        answer = await http.answer()
        assert (answer.status, answer.json["messages"]) == (200, [])
        assert await http.end() == b""


async def test_a_websocket_client_is_told_may_finish_and_is_closed(start_node: StartNode) -> None:
    node = await start_node({"shutdown.reconnect_ms_min": 7, "shutdown.reconnect_ms_max": 9})
    async with holding(node) as client:
        node.stop()
        assert await client.receive() == {"op": "drain", "reconnect_ms": [7, 9]}
        await client.send(SUBSCRIBE | {"id": 1, "subscription": "others"})
        error = await client.receive()
        assert (error["id"], error["code"], error["temporary"]) == (1, "draining", True)
        await client.send({"op": "publish", "id": 2, "messages": [{"topic": "trade.a", "data": 1}]})
        error = await client.receive()
        assert (error["id"], error["code"]) == (2, "draining")
        assert statistics(node).in_flight == 1  # its lease is still its own
        await client.send({"op": "ack", "id": 3, "subscription": "orders", "ranges": [[1, 1]]})
        assert await client.receive() == {"op": "ok", "id": 3, "acked": 1, "unknown": 0}
        opcode, payload = await client.frame()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 3013)
        await client.send_bytes(masked_frame(CLOSE, payload))
        await client.end()
    assert node.connections.closes == {3013: 1}


async def test_an_unsubscribe_is_answered_before_the_end(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with holding(node) as client:
        held: list[Settlement] = []

        with monkeypatch.context() as patched:
            patched.setattr(node.settle.ring, "offer", held.append)
            await client.send({"op": "unsubscribe", "id": "u", "subscription": "orders"})
            await in_time(lambda: bool(held))
            node.stop()
            assert (await client.receive())["op"] == "drain"
        await node.settle.ring.put(held[0])
        assert await client.receive() == {"op": "ok", "id": "u"}
        assert await client.close_code() == 3013


async def test_a_client_with_nothing_in_hand_is_closed_at_once(node: Node) -> None:
    async with open_raw_websocket(node.address) as client:
        node.stop()
        assert (await client.receive())["op"] == "drain"
        assert await client.close_code() == 3013


async def test_nothing_more_is_delivered_to_a_client_that_was_told(node: Node) -> None:
    async with holding(node) as client, open_http(node.address) as http:
        for connection in node.connections:
            connection.drain()
        assert (await client.receive())["op"] == "drain"
        assert (await http.post(ONE, b'"for somebody else"')).status == 201
        answer = await http.post(PULL, b"{}")
        assert [message["data"] for message in answer.json["messages"]] == ["for somebody else"]
        assert [connection.view().state for connection in node.connections] == ["paused"]


async def test_a_client_that_does_not_finish_in_time_is_closed_with_3001(start_node: StartNode) -> None:
    node = await start_node({"shutdown.drain_s": 0.2})
    async with holding(node) as client:
        began = trio.current_time()
        node.stop()
        assert (await client.receive())["op"] == "drain"
        opcode, payload = await client.frame()
        assert (opcode, payload) == (CLOSE, b"\x0b\xb9shutdown")
        assert trio.current_time() - began >= 0.2
        await client.send_bytes(CLOSED)
        await client.end()
    await in_time(lambda: len(node.connections) == 0)
    assert statistics(node).in_flight == 0
    assert node.connections.closes == {3001: 1}


async def test_what_is_under_way_is_answered_before_the_end(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish, an empty one, a settle over HTTP, and both over WebSocket: all wait for a slow disk."""
    node = await start_node()
    async with holding(node) as client, open_http(node.address) as puller:
        await puller.post(ONE, b'"pulled"')
        assert [m["data"] for m in (await client.receive())["messages"]] == ["pulled"]
        await client.send({"op": "unsubscribe", "id": "u", "subscription": "orders"})
        await client.receive()
        pulled = (await puller.post(PULL, b'{"max":1}')).json
        await client.send(SUBSCRIBE)
        assert [(await client.receive())["op"] for _ in range(2)] == ["ok", "messages"]
        before = node.admit.ring.statistics().items
        SlowDisk(monkeypatch, 0.15)
        async with open_http(node.address) as publisher, open_http(node.address) as empty:
            await publisher.send(request_bytes("POST", ONE, b'"new"'))
            await empty.send(request_bytes("POST", ONE, b""))
            await puller.send(request_bytes("POST", SETTLE, orjson.dumps({"lease": pulled["lease"], "ack": [[1, 1]]})))
            await client.send({"op": "publish", "id": 1, "messages": [{"topic": "trade.a", "data": 1}]})
            await client.send({"op": "ack", "id": 2, "subscription": "orders", "ranges": [[1, 2]]})
            await in_time(lambda: node.admit.ring.statistics().items == before + 3 and statistics(node).acked == 2)
            node.stop()
            frames = [await client.receive() for _ in range(3)]
            assert {frame["op"] for frame in frames} == {"drain", "published", "ok"}
            assert next(frame for frame in frames if frame["op"] == "ok")["acked"] == 1
            assert await client.close_code() == 3013
            await client.send_bytes(CLOSED)
            answers = [await http.answer() for http in (publisher, empty, puller)]
            assert [answer.status for answer in answers] == [201, 201, 200]
            assert answers[2].json["acked"] == 1


async def test_http_alone_is_answered_before_the_end_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await subscription(node)
    async with open_http(node.address) as http, open_http(node.address) as settler:
        await http.post(ONE, b"1")
        lease = (await settler.post(PULL, b"{}")).json["lease"]
        before = node.admit.ring.statistics().items
        SlowDisk(monkeypatch, 0.15)
        await settler.send(request_bytes("POST", SETTLE, orjson.dumps({"lease": lease, "ack": [[1, 1]]})))
        await http.send(request_bytes("POST", ONE, b""))
        await in_time(lambda: node.admit.ring.statistics().items == before + 1 and statistics(node).acked == 1)
        node.stop()
        for client, status in ((settler, 200), (http, 201)):
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (status, "close")


async def test_a_drain_may_meet_a_connection_at_any_moment_of_its_life(node: Node) -> None:
    """Handshakes begun, sessions ending, requests half sent: the node ends in time, and without a word in its log."""
    data = request_bytes("GET", "/v1/connect", headers=HANDSHAKE)
    streams: list[RawHttp] = []
    for number in range(60):
        http = RawHttp(await trio.open_tcp_stream(*target_of(node.address)))
        streams.append(http)
        kind = number % 6
        if kind == 0:
            await http.send(data[: number * 4])
        elif kind == 1:
            await http.send(data)
        elif kind == 2:
            await http.send(data + masked_frame(CLOSE, b"\x03\xe8"))
        elif kind == 3:
            await http.send(data + masked_frame(TEXT, b"nonsense"))
        elif kind == 4:
            await http.send(request_bytes("POST", ONE, b"1")[: number * 2])
    node.stop()
    with trio.fail_after(8):
        for http in streams:
            await http.end()
            await http.aclose()


async def test_what_was_not_settled_is_there_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await subscription(node)
        async with open_http(node.address) as http:
            for number in range(4):
                await http.post(ONE, b"%d" % number, {"Push-Id": f"id-{number}"})
            lease = (await http.post(PULL, b'{"max":3}')).json["lease"]
            await http.post(SETTLE, orjson.dumps({"lease": lease, "ack": [[2, 2]]}))
    async with running(tmp_path) as node, open_http(node.address) as http:
        answer = await http.post(PULL, b"{}")
        assert [(m["position"], m["data"]) for m in answer.json["messages"]] == [(1, 0), (3, 2), (4, 3)]
        again = await http.post(ONE, b"0", {"Push-Id": "id-0"})
        assert (again.status, again.json["position"], again.json["duplicate"]) == (200, 1, True)
        assert (statistics(node).routed, statistics(node).acked) == (4, 1)


# --------------------------------------------------------------------------------------------------- backpressure


async def test_a_full_gateway_says_so_and_loses_nothing(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await start_node({"ring.items_max": 1, "ring.wait_ms": 150})
    thaw = trio.Event()
    monkeypatch.setattr(node.engine, "wait_room", thaw.wait)
    monkeypatch.setattr(type(node.engine), "has_room", property(lambda _: thaw.is_set()))
    await subscription(node)
    async with bystander(node) as other:
        answers: dict[int, Answer] = {}

        async def publish(number: int) -> None:
            async with open_http(node.address) as http:
                answers[number] = await http.post(ONE, b"%d" % number)

        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            for number in range(14):
                nursery.start_soon(publish, number)
            await in_time(lambda: bool(answers))
            assert trio.current_time() - began >= 0.15
            await trio.sleep(0.2)
            refused = set(answers)
            assert 0 < len(refused) < 14
            for answer in answers.values():
                assert (answer.status, answer.code, answer.json["temporary"]) == (503, "overloaded", True)
                assert answer.headers["retry-after"] == "1"
            assert positions(node) == 1
            thaw.set()
        accepted = {number for number, answer in answers.items() if answer.status == 201}
        assert accepted | refused == set(range(14))
        assert accepted & refused == set()
        async with open_http(node.address) as http:
            pulled = (await http.post(PULL, b"{}")).json["messages"]
            assert {message["data"] for message in pulled} == accepted
        await other.publish_and_receive()
    assert node.notify.statistics.accepted == len(accepted) + 1


async def test_a_full_gateway_pushes_back_over_websocket_too(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node({"ring.items_max": 1, "ring.wait_ms": 100})
    thaw = trio.Event()
    monkeypatch.setattr(node.engine, "wait_room", thaw.wait)
    monkeypatch.setattr(type(node.engine), "has_room", property(lambda _: thaw.is_set()))
    async with open_raw_websocket(node.address) as client:
        for number in range(8):
            await client.send({"op": "publish", "id": number, "messages": [{"topic": "a", "data": number}]})
        error = await client.receive()
        assert (error["op"], error["code"], error["temporary"]) == ("error", "overloaded", True)
        thaw.set()
        answers = [error] + [await client.receive() for _ in range(7)]
        assert {answer["id"] for answer in answers} == set(range(8))
        published = [answer for answer in answers if answer["op"] == "published"]
        assert [answer["positions"][0] for answer in published] == list(range(1, len(published) + 1))
    assert positions(node) == len(published) + 1


async def test_more_connections_than_may_be_open_are_refused_in_http(start_node: StartNode) -> None:
    node = await start_node({"listen.connections_max": 2})
    async with open_http(node.address) as first, open_raw_websocket(node.address) as second:
        for request in (request_bytes("POST", ONE, b"1"), request_bytes("GET", "/v1/connect", headers=HANDSHAKE)):
            async with open_http(node.address) as third:
                await third.send(request)
                answer = await third.answer()
                assert (answer.status, answer.code, answer.json["temporary"]) == (503, "connection_limit", True)
                assert int(answer.headers["retry-after"]) >= 1
                assert await third.end() == b""
        assert (await first.post(ONE, b"1")).status == 201
        await second.send({"op": "hello", "id": 1})
        assert (await second.receive())["op"] == "ok"
    async with open_http(node.address) as fourth:
        await in_time(lambda: len(node.connections) == 0)
        assert (await fourth.post(ONE, b"1")).status == 201


async def test_more_connections_of_one_address_than_may_be_open_are_refused_in_http(start_node: StartNode) -> None:
    node = await start_node({"listen.connections_per_address_max": 2})
    other = await trio.open_tcp_stream("127.0.0.1", int(node.address.rpartition(":")[2]), local_address="127.0.0.9")
    async with other, open_http(node.address) as first, open_http(node.address):
        async with open_http(node.address) as third:
            await third.send(request_bytes("POST", ONE, b"1"))
            answer = await third.answer()
            assert (answer.status, answer.code) == (503, "connection_limit")
            assert "listen.connections_per_address_max" in answer.json["message"]
            assert await third.end() == b""
        assert (await first.post(ONE, b"1")).status == 201
        assert (await RawHttp(other).post(ONE, b"1")).status == 201
    async with open_http(node.address) as fourth:
        await in_time(lambda: all(listener.open == 1 for listener in node._listeners if listener.name == "data"))
        assert (await fourth.post(ONE, b"1")).status == 201
        [data] = [listener for listener in node._listeners if listener.name == "data"]
        assert (data.refused, data.open_of("127.0.0.1:1"), data.open_of("127.0.0.9:1")) == (1, 1, 0)


async def test_a_producer_beyond_its_quota_is_told_when_to_come_back(start_node: StartNode) -> None:
    node = await start_node({"quota.messages_per_s": 5.0, "quota.burst_s": 1.0})
    async with open_http(node.address) as http, open_raw_websocket(node.address) as client:
        answers = [await http.post(ONE, b"1") for _ in range(20)]
        assert [answer.status for answer in answers][:5] == [201] * 5
        refused = answers[-1]
        assert (refused.status, refused.code, refused.json["temporary"]) == (429, "quota_exceeded", True)
        assert int(refused.headers["retry-after"]) >= 1
        await client.send({"op": "publish", "id": 1, "messages": [{"topic": "trade.a", "data": 1}]})
        assert (await client.receive())["code"] == "quota_exceeded"
        with trio.fail_after(10):
            while (await http.post(ONE, b"1")).status != 201:
                await trio.sleep(0.05)


# --------------------------------------------------------------------------------------------------------- failure


class FailingDisk:
    """Syncs fail while it is `failing`, each once `told` to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing = False
        self.told = threading.Event()
        sync = Files.sync

        def perhaps_sync(files: Files, file: int) -> None:
            if self.failing:
                self.told.wait(5)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            sync(files, file)

        without_ring(monkeypatch)
        monkeypatch.setattr(Files, "sync", perhaps_sync)


async def test_a_store_that_fails_is_said_to_who_waits_and_ends_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    disk = FailingDisk(monkeypatch)
    node = Node(quick_config(tmp_path))
    answers: list[Answer] = []
    frames: list[dict[str, Any]] = []
    with pytest.RaisesGroup(pytest.RaisesExc(StoreError, match="Input/output error"), flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            await node.ready.wait()
            with trio.CancelScope(shield=True):
                async with open_http(node.address) as http, open_raw_websocket(node.address) as client:
                    assert (await http.post(ONE, b"1")).status == 201
                    disk.failing = True
                    await client.send({"op": "publish", "id": 1, "messages": [{"topic": "a", "data": 1}]})
                    await http.send(request_bytes("POST", ONE, b"2"))
                    while node.admit.ring.statistics().items < 3:
                        await trio.sleep(0.001)
                    disk.told.set()
                    frames.append(await client.receive())
                    answers.append(await http.answer())
                    await client.end()
                    await http.end()
    disk.failing = False
    (answer,), (frame,) = answers, frames
    assert (answer.status, answer.code, answer.json["temporary"]) == (503, "store_failed", True)
    assert int(answer.headers["retry-after"]) >= 1
    assert (frame["op"], frame["id"], frame["code"], frame["temporary"]) == ("error", 1, "store_failed", True)
    assert [entry["event"] for entry in log if entry["log_level"] == "error"] == ["the store has failed; the node ends"]
    log.clear()


async def consume(http: RawHttp, stored: int) -> None:
    """Pull and ack so many messages, which are all that there are."""
    while stored:
        pulled = (await http.post(PULL, b'{"max":100,"wait_ms":0}')).json
        settled = await http.post(SETTLE, orjson.dumps({"lease": pulled["lease"], "ack": [[0, 2**53 - 1]]}))
        assert settled.json["acked"] == len(pulled["messages"]) > 0
        stored -= len(pulled["messages"])


class FullDisk:
    """There is no room for another segment while `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        reserve = Files.reserve

        def perhaps_reserve(files: Files, file: int, size: int) -> bool:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return reserve(files, file, size)

        monkeypatch.setattr(Files, "reserve", perhaps_reserve)


async def test_a_disk_without_room_for_another_segment_refuses_publishes_alone_and_recovers(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    disk = FullDisk(monkeypatch)
    node = await start_node({"store.segment_bytes": 65536, "limits.dedup_window_s": 0})
    await subscription(node)
    payload = b'"%b"' % (b"x" * 20_000)
    async with open_http(node.address) as http, open_http(node.control_address) as control:
        disk.full = True
        answers = [await http.post(ONE, payload) for _ in range(20)]
        refused = next(answer for answer in answers if answer.status != 201)
        stored = answers.index(refused)
        assert (refused.status, refused.code, refused.json["temporary"]) == (503, "disk_full", True)
        assert int(refused.headers["retry-after"]) >= 1
        assert [entry["log_level"] for entry in log if "no room for another segment" in entry["event"]] == ["warning"]
        await control.send(request_bytes("GET", "/healthz"))
        assert (await control.answer()).json["checks"]["log"]["state"] == "failed"
        await control.send(request_bytes("GET", "/metrics"))
        assert b"gateway_log_full 1.0" in (await control.answer()).body
        await consume(http, stored)
        disk.full = False
        with trio.fail_after(10):
            while (await http.post(ONE, payload)).status != 201:
                await trio.sleep(0.05)
        assert [entry["log_level"] for entry in log if "room for another segment again" in entry["event"]] == ["info"]


class SmallDisk:
    """There is no fallocate, and `room` bytes are left for segments and what is set aside for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        write, unlink = Files.write, Files.unlink

        def perhaps_write(files: Files, file: int, data: bytes) -> None:
            bounded = Path(os.readlink(f"/proc/self/fd/{file}")).name.endswith((".log", "spare"))
            taken = data[: max(self.room, 0)] if bounded else data
            write(files, file, taken)
            self.room -= len(taken) if bounded else 0
            if len(taken) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def free_and_unlink(files: Files, path: Path) -> None:
            self.room += path.stat().st_size
            unlink(files, path)

        monkeypatch.setattr(Files, "reserve", lambda *_: False)
        monkeypatch.setattr(Files, "free", lambda *_: self.room)
        without_ring(monkeypatch)
        monkeypatch.setattr(Files, "write", perhaps_write)
        monkeypatch.setattr(Files, "unlink", free_and_unlink)


async def test_a_full_disk_without_fallocate_refuses_publishes_alone_and_recovers(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    SmallDisk(monkeypatch, 400_000)  # of which 2 * 64 KiB are set aside
    node = await start_node({"store.segment_bytes": 65536, "limits.dedup_window_s": 0})
    await subscription(node)
    payload = b'"%b"' % (b"x" * 20_000)
    async with open_http(node.address) as http, open_http(node.control_address) as control:
        answers = [await http.post(ONE, payload) for _ in range(20)]
        refused = [answer for answer in answers if answer.status != 201]
        stored = len(answers) - len(refused)
        assert stored > 400_000 // 2 // 20_000, "what could not be reserved was used"
        assert {(answer.status, answer.code) for answer in refused} == {(503, "disk_full")}
        assert [entry["event"] for entry in log if entry["log_level"] == "warning"] == ["no room; nothing is published"]
        await control.send(request_bytes("GET", "/metrics"))
        assert b"gateway_log_full 1.0" in (await control.answer()).body
        await consume(http, stored)
        with trio.fail_after(10):  # what was settled is deleted, and that is room
            while (await http.post(ONE, payload)).status != 201:
                await trio.sleep(0.05)
        assert [entry["log_level"] for entry in log if "room for another segment again" in entry["event"]] == ["info"]


async def test_a_store_that_another_node_holds_is_not_touched(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        with pytest.raises(StoreLockedError, match=f"in use by process {os.getpid()}"):
            await Node(quick_config(tmp_path)).run()
        async with open_http(node.address) as http:
            assert (await http.post(ONE, b"1")).status == 201


@pytest.mark.parametrize("plane", ["data", "control"])
async def test_an_address_that_is_taken_ends_the_start(tmp_path: Path, plane: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"listen\.{plane}: {address}: .*choose another address"):
            await Node(quick_config(tmp_path, {f"listen.{plane}": address})).run()
    async with running(tmp_path):  # and leaves the store as it was
        pass


async def test_a_directory_that_cannot_be_made_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError, match="name a directory"):
        await Node(quick_config(tmp_path / "file" / "store")).run()


async def test_a_node_that_is_cancelled_closes_its_sockets(tmp_path: Path) -> None:
    node = Node(quick_config(tmp_path))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await node.ready.wait()
        addresses = [node.address, node.control_address]
        nursery.cancel_scope.cancel()
    for address in addresses:
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(*target_of(address))


# --------------------------------------------------------------------------------------------------- the process


def run_until_ready(config: Config) -> Node:
    """`node.run` as the command line calls it, stopped as soon as it is ready."""
    nodes: list[Node] = []

    def announce(node: Node) -> None:
        nodes.append(node)
        node.stop()

    node_module.run(config, announce)
    return nodes[0]


def test_a_run_is_announced_and_ends_when_it_is_stopped(tmp_path: Path) -> None:
    node = run_until_ready(quick_config(tmp_path))
    assert node.address.startswith("127.0.0.1:")
    assert node.control_address != node.address


def test_a_run_that_cannot_begin_raises_the_plain_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError):
        run_until_ready(quick_config(tmp_path, {"listen.data": f"127.0.0.1:{taken.getsockname()[1]}"}))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        run_until_ready(quick_config(tmp_path / "file"))


def test_the_banner_says_where_and_what_to_try(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes: list[Node] = []

    def announce(node: Node) -> None:
        nodes.append(node)
        node_module.print_banner(node)
        node.stop()

    node_module.run(quick_config(tmp_path), announce)
    shown = capsys.readouterr().out
    assert str(tmp_path) in shown
    assert f"ws://{nodes[0].address}/v1/connect" in shown
    assert f"curl -X PUT http://{nodes[0].control_address}/v1/subscriptions/hello" in shown


def test_the_banner_s_lines_bring_a_token_where_one_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text("")

    def announce(node: Node) -> None:
        node_module.print_banner(node)
        node.stop()

    node_module.run(quick_config(tmp_path / "store", {"auth.keys_file": str(keys)}), announce)
    lines = [line for line in capsys.readouterr().out.splitlines() if "curl" in line]
    assert len(lines) == 3
    assert all('-H "Authorization: Bearer $TOKEN"' in line for line in lines)


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@gateway-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        run_until_ready(quick_config(tmp_path / "store"))
        assert manager.recv(100) == b"READY=1"


def test_without_a_service_manager_nobody_is_told(monkeypatch: pytest.MonkeyPatch, log: Log, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    node_module.notify_systemd("READY=1")
    assert log == []
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    node_module.notify_systemd("READY=1")
    assert [entry["event"] for entry in log] == ["cannot notify the service manager"]
