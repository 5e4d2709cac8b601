from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from gateway.node import Node
from tests.control.shapes import check_shape

CONNECTIONS = "/v1/connections"


@asynccontextmanager
async def connected(node: Node) -> AsyncIterator[tuple[WebSocketConnection, str]]:
    """A WebSocket client, and the name its connection has."""
    host, _, port = node.address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))  # ours, because the library leaves it open after some closes
    async with stream, trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, stream, host, "/v1/connect", subprotocols=["push.v1.json"])
        welcome = orjson.loads(await websocket.get_message())
        yield websocket, welcome["connection"]
        nursery.cancel_scope.cancel()


async def ask(websocket: WebSocketConnection, **operation: object) -> None:
    await websocket.send_message(orjson.dumps({"id": 1, **operation}).decode())
    assert orjson.loads(await websocket.get_message())["op"] == "ok"


async def test_where_nobody_is_connected_the_list_is_empty(control: httpx.AsyncClient) -> None:
    assert (await control.get(CONNECTIONS)).json() == []


async def test_the_list_shows_every_connection_as_it_is_described(node: Node, control: httpx.AsyncClient) -> None:
    await control.put("/v1/subscriptions/orders", json={"topics": ["a"], "window_max": 50})
    async with connected(node) as (first, first_name), connected(node) as (_, second_name):
        await ask(first, op="hello", client="test/1")
        await ask(first, op="subscribe", subscription="orders")
        listed = (await control.get(CONNECTIONS)).json()
    for view in listed:
        check_shape("Connection", view)
    by_name = {view["connection"]: view for view in listed}
    assert by_name.keys() == {first_name, second_name}
    view = by_name[first_name]
    assert (view["protocol"], view["client"]) == ("push.v1.json", "test/1")
    assert (view["subscriptions"], view["window"], view["in_flight"]) == (["orders"], 50, 0)
    assert view["remote"].startswith("127.0.0.1:")


async def test_a_connection_that_is_deleted_is_closed_with_leave_to_reconnect(
    node: Node, control: httpx.AsyncClient
) -> None:
    async with connected(node) as (closed, name), connected(node) as (_, other):
        answer = await control.delete(f"{CONNECTIONS}/{name}")
        assert (answer.status_code, answer.content) == (204, b"")
        with trio.fail_after(5), pytest.raises(ConnectionClosed) as caught:
            await closed.get_message()
        reason = caught.value.reason
        assert reason is not None
        assert (reason.code, reason.reason) == (3001, "closed by the operator")
        while len(node.connections) > 1:
            await trio.lowlevel.checkpoint()
        assert [view["connection"] for view in (await control.get(CONNECTIONS)).json()] == [other]
        assert (await control.delete(f"{CONNECTIONS}/{name}")).status_code == 404


async def test_what_a_deleted_connection_held_goes_back(
    node: Node, control: httpx.AsyncClient, data: httpx.AsyncClient
) -> None:
    await control.put("/v1/subscriptions/orders", json={"topics": ["a"]})
    async with connected(node) as (websocket, name):
        await ask(websocket, op="subscribe", subscription="orders")
        await data.post("/v1/topics/a/messages", content=b"{}")
        assert orjson.loads(await websocket.get_message())["op"] == "messages"
        assert (await control.get("/v1/subscriptions/orders")).json()["statistics"]["in_flight"] == 1
        await control.delete(f"{CONNECTIONS}/{name}")
        with trio.fail_after(5), pytest.raises(ConnectionClosed):
            await websocket.get_message()
        while len(node.connections):
            await trio.lowlevel.checkpoint()
    statistics = (await control.get("/v1/subscriptions/orders")).json()["statistics"]
    assert (statistics["in_flight"], statistics["waiting"]) == (0, 1)


@pytest.mark.parametrize("name", ["c-000000000000", "c%2F1", "%FF", "x" * 300])
async def test_an_unknown_connection_is_not_found(control: httpx.AsyncClient, name: str) -> None:
    answer = await control.delete(f"{CONNECTIONS}/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "connection_not_found")


async def test_the_rate_of_acks_is_measured(node: Node, control: httpx.AsyncClient, data: httpx.AsyncClient) -> None:
    node.watchdog.period_s = 0.02
    await control.put("/v1/subscriptions/orders", json={"topics": ["a"]})
    async with connected(node) as (websocket, _):
        await ask(websocket, op="subscribe", subscription="orders")
        assert (await control.get(CONNECTIONS)).json()[0]["acked_per_s"] == 0
        await data.post("/v1/messages", json=[{"topic": "a", "data": number} for number in range(100)])
        assert len(orjson.loads(await websocket.get_message())["messages"]) == 100
        await ask(websocket, op="ack", subscription="orders", ranges=[[1, 100]])
        with trio.fail_after(5):
            while (await control.get(CONNECTIONS)).json()[0]["acked_per_s"] < 1:
                await trio.sleep(0.02)
