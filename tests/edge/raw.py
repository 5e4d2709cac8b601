"""Clients that send exactly what they are told to: HTTP/1.1 and WebSocket frames over a bare trio socket."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import orjson
import trio

PATIENCE_S = 10
"""How long a test waits for something that must come at once; two shared cores can be slow."""


@attrs.frozen
class Answer:
    """One HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error object, which is whole (protocol.md §2)."""
        error = self.json
        assert error.keys() == {"code", "message", "temporary"}
        return str(error["code"])


class EndedError(Exception):
    """The gateway closed the connection in place of an answer."""


class RawHttp:
    """A bare connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def post(self, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        return await self.request("POST", target, body, headers)

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        await self.send(request_bytes(method, target, body, headers))
        return await self.answer(head=method == "HEAD")

    async def answer(self, *, head: bool = False) -> Answer:
        """The next response. `head`: to a HEAD, so without its body."""
        with trio.fail_after(PATIENCE_S):
            while b"\r\n\r\n" not in self.buffer:
                await self._more()
            lines, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            status_line, *fields = lines.decode("latin-1").split("\r\n")
            version, status, _phrase = status_line.split(" ", 2)
            assert version == "HTTP/1.1"
            headers: dict[str, str] = {}
            for field in fields:
                name, _, value = field.partition(": ")
                key = name.lower()
                headers[key] = f"{headers[key]}, {value}" if key in headers else value
            size = 0 if head else int(headers.get("content-length", "0"))
            while len(self.buffer) < size:
                await self._more()
            body, self.buffer = self.buffer[:size], self.buffer[size:]
        return Answer(int(status), headers, body)

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EndedError(self.buffer)
        self.buffer += data

    async def end(self) -> bytes:
        """Wait until the gateway closes the connection; what it still sent."""
        with trio.fail_after(PATIENCE_S):
            try:
                while True:
                    await self._more()
            except (EndedError, trio.BrokenResourceError):
                return self.buffer

    async def aclose(self) -> None:
        await self.stream.aclose()


@asynccontextmanager
async def open_http(address: str) -> AsyncIterator[RawHttp]:
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield RawHttp(stream)


def request_bytes(method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request with a Host and, where there is a body, its length."""
    fields = {"Host": "localhost", **(headers or {})}
    if body or method == "POST":
        fields.setdefault("Content-Length", str(len(body)))
    head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


# -------------------------------------------------------------------------------------------------- WebSocket

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "push.v1.json",
}
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def masked_frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """A client's frame (RFC 6455 §5.2), masked with zeros, which leave the payload as it is."""
    first = opcode | (0x80 if last else 0)
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack(">BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


class RawWebSocket:
    """A WebSocket client without manners: it answers no ping and no close by itself."""

    def __init__(self, http: RawHttp) -> None:
        self._http = http

    async def send(self, operation: Mapping[str, object]) -> None:
        await self.send_bytes(masked_frame(TEXT, orjson.dumps(operation)))

    async def send_bytes(self, data: bytes) -> None:
        await self._http.send(data)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: (opcode, payload). Raises EndedError where there is none."""
        with trio.fail_after(PATIENCE_S):
            first, second = await self._take(2)
            assert first & 0x70 == 0, "reserved bits"
            assert second & 0x80 == 0, "a server masks nothing"
            size = second
            if second == 126:
                (size,) = struct.unpack(">H", await self._take(2))
                assert size >= 126
            elif second == 127:
                (size,) = struct.unpack(">Q", await self._take(8))
                assert size >= 65536
            return first & 0x0F, await self._take(size)

    async def receive(self) -> dict[str, Any]:
        """The next object; pings are passed over."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                found: dict[str, Any] = orjson.loads(payload)
                return found
            assert opcode == PING, (opcode, payload)

    async def close_code(self) -> int:
        """Pass over what comes until the close frame; its code."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big")

    async def end(self) -> None:
        await self._http.end()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _take(self, size: int) -> bytes:
        http = self._http
        while len(http.buffer) < size:
            await http._more()
        data, http.buffer = http.buffer[:size], http.buffer[size:]
        return data


@asynccontextmanager
async def open_raw_websocket(address: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[RawWebSocket]:
    """Connected and welcomed."""
    async with open_http(address) as http:
        answer = await http.request("GET", "/v1/connect", headers={**HANDSHAKE, **(headers or {})})
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "push.v1.json")
        websocket = RawWebSocket(http)
        assert (await websocket.receive())["op"] == "welcome"
        yield websocket
