"""One face for the WebSocket clients that the edge is tested with: two libraries that are not ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import orjson
import trio
import trio_websocket
import websockets.exceptions
import websockets.trio.client
import wsproto.utilities
from websockets.typing import Subprotocol

from tests.edge.raw import PATIENCE_S

Item = dict[str, Any] | str | bytes


class ClosedError(Exception):
    """The gateway closed the connection, with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSocketClient(Protocol):
    """A connected client. `welcome` is the first frame."""

    welcome: dict[str, Any]

    async def send(self, item: Item) -> None:
        """An object as JSON; text and bytes as they are."""

    async def receive(self) -> dict[str, Any]:
        """The next frame. ClosedError where the gateway has closed."""


Connect = Callable[[str], AbstractAsyncContextManager[WebSocketClient]]


async def close_of(client: WebSocketClient) -> ClosedError:
    """Pass over what comes until the gateway closes; how it did."""
    while True:
        try:
            await client.receive()
        except ClosedError as closed:
            return closed


async def call(client: WebSocketClient, operation: dict[str, Any]) -> dict[str, Any]:
    """Send an operation with an id and give back its answer; deliveries before it are lost, so there must be none."""
    await client.send(operation)
    answer = await client.receive()
    assert answer.get("id") == operation["id"], answer
    return answer


def text_of(item: Item) -> str | bytes:
    return orjson.dumps(item).decode() if isinstance(item, dict) else item


def object_of(frame: str | bytes) -> dict[str, Any]:
    assert isinstance(frame, str), "the gateway sends text only"
    found: dict[str, Any] = orjson.loads(frame)
    return found


class TrioWebSocketClient:
    """trio-websocket."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self.welcome: dict[str, Any] = {}

    async def send(self, item: Item) -> None:
        try:
            await self._connection.send_message(text_of(item))
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from None

    async def receive(self) -> dict[str, Any]:
        with trio.fail_after(PATIENCE_S):
            try:
                return object_of(await self._connection.get_message())
            except trio_websocket.ConnectionClosed as closed:
                raise _closed(closed) from None


def _closed(closed: trio_websocket.ConnectionClosed) -> ClosedError:
    assert closed.reason is not None
    return ClosedError(closed.reason.code, closed.reason.reason or "")


@asynccontextmanager
async def connect_trio_websocket(address: str) -> AsyncIterator[WebSocketClient]:
    host, _, port = address.rpartition(":")
    try:
        async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
            # the stream is ours, because the library's own is left open where the other side closes first
            connection = await trio_websocket.wrap_client_stream(
                nursery, stream, address, "/v1/connect", subprotocols=["push.v1.json"], max_message_size=2**26
            )
            assert connection.subprotocol == "push.v1.json"
            client = TrioWebSocketClient(connection)
            client.welcome = await client.receive()
            yield client
            await connection.aclose()
    except* wsproto.utilities.LocalProtocolError:
        pass  # the library's reader fails where it is pinged while it closes


class WebsocketsClient:
    """websockets, in its trio flavour."""

    def __init__(self, connection: websockets.trio.client.ClientConnection) -> None:
        self._connection = connection
        self.welcome: dict[str, Any] = {}

    async def send(self, item: Item) -> None:
        try:
            await self._connection.send(text_of(item))
        except websockets.exceptions.ConnectionClosed as closed:
            raise _lost(closed) from None

    async def receive(self) -> dict[str, Any]:
        with trio.fail_after(PATIENCE_S):
            try:
                return object_of(await self._connection.recv())
            except websockets.exceptions.ConnectionClosed as closed:
                raise _lost(closed) from None


def _lost(closed: websockets.exceptions.ConnectionClosed) -> ClosedError:
    return ClosedError(closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else ClosedError(1006, "")


@asynccontextmanager
async def connect_websockets(address: str) -> AsyncIterator[WebSocketClient]:
    host, _, port = address.rpartition(":")
    async with (
        await trio.open_tcp_stream(host, int(port)) as stream,
        websockets.trio.client.connect(
            f"ws://{address}/v1/connect",
            stream=stream,
            subprotocols=[Subprotocol("push.v1.json")],
            max_size=2**26,
            proxy=None,
        ) as connection,
    ):
        assert connection.subprotocol == "push.v1.json"
        client = WebsocketsClient(connection)
        client.welcome = await client.receive()
        yield client
