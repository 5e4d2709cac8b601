"""A gateway that says what a test tells it to, over streams in memory: real frames, and no real time."""

from __future__ import annotations

from typing import Any

import orjson
import trio
import trio.testing
import trio_websocket

from gateway.client.dialing import OpenStream
from gateway.wire.push_v1 import SUBPROTOCOL

URL = "ws://gateway.test/v1/connect"


class Peer:
    """The gateway's end of one connection."""

    def __init__(self, ws: trio_websocket.WebSocketConnection, headers: dict[bytes, bytes]) -> None:
        self.ws = ws
        self.headers = headers

    async def send(self, **frame: Any) -> None:
        await self.send_text(orjson.dumps(frame).decode())

    async def send_text(self, text: str) -> None:
        await self.ws.send_message(text)

    async def receive(self) -> dict[str, Any]:
        frame: dict[str, Any] = orjson.loads(await self.ws.get_message())
        return frame

    async def expect(self, op: str) -> dict[str, Any]:
        frame = await self.receive()
        assert frame["op"] == op, frame
        return frame

    async def expect_silence(self, seconds: float) -> None:
        with trio.move_on_after(seconds) as scope:
            frame = await self.receive()
            raise AssertionError(f"expected silence, got {frame}")
        assert scope.cancelled_caught

    async def expect_close(self) -> None:
        try:
            frame = await self.receive()
        except trio_websocket.ConnectionClosed:
            return
        raise AssertionError(f"expected the end, got {frame}")

    async def expect_attach(self, name: str = "orders") -> dict[str, Any]:
        frame = await self.expect("subscribe")
        assert frame["subscription"] == name
        await self.send(op="ok", id=frame["id"])
        return frame

    async def expect_detach(self) -> None:
        frame = await self.expect("unsubscribe")
        await self.send(op="ok", id=frame["id"])

    async def publish_answered(self, *positions: int) -> dict[str, Any]:
        """Take one publish frame and answer that all of it is stored from `positions[0]` on."""
        frame = await self.expect("publish")
        first = positions[0]
        last = first + len(frame["messages"]) - 1
        await self.send(op="published", id=frame["id"], durability=frame["durability"], positions=[first, last])
        return frame

    async def deliver(self, *positions: int, lease_ms: int = 30_000, **more: Any) -> None:
        """Deliver messages whose data is their position."""
        messages = [
            {"position": each, "id": f"id-{each}", "topic": "trade", "time_ms": 1, "data": each} for each in positions
        ]
        await self.send(op="messages", subscription="orders", lease_ms=lease_ms, messages=messages, **more)

    async def close(self, code: int, reason: str = "") -> None:
        await self.ws.aclose(code, reason)

    async def cut(self) -> None:
        """Lose the connection without a word."""
        await trio.aclose_forcefully(self.ws._stream)


class FakeGateway:
    """Accepts connections; each becomes a Peer, in order."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._send_peer, self._receive_peer = trio.open_memory_channel[Peer](100)
        self.dials_s: list[float] = []
        self.unreachable = 0
        """How many of the next connection attempts fail before a byte is said."""
        self.refusal: tuple[int, bytes] | None = None
        self.subprotocol: str | None = SUBPROTOCOL
        self.answers_handshakes = True

    @property
    def open_stream(self) -> OpenStream:
        return self._open_stream

    async def _open_stream(self) -> trio.abc.Stream:
        self.dials_s.append(trio.current_time())
        if self.unreachable:
            self.unreachable -= 1
            raise OSError("nobody listens there")
        near, far = trio.testing.memory_stream_pair()
        if self.answers_handshakes:
            self._nursery.start_soon(self._serve, far)
        else:
            await far.aclose()
        return near

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream, message_queue_size=100)
            if self.refusal is not None:
                status, body = self.refusal
                await request.reject(status, body=body)
                return
            ws = await request.accept(subprotocol=self.subprotocol)
            await self._send_peer.send(Peer(ws, dict(request.headers)))

    async def peer(self) -> Peer:
        """The next connection, its hello read, before its welcome."""
        peer = await self._receive_peer.receive()
        await peer.expect("hello")
        return peer

    async def welcomed_peer(self, **limits: int) -> Peer:
        """The next connection, welcomed."""
        peer = await self.peer()
        await peer.send(op="welcome", connection="c-1", node="n-1", heartbeat_s=25, limits=limits)
        return peer
