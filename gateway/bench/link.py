"""Connections of the load: one WebSocket, or HTTP/1.1 kept alive, over the gateway's own outbox stream."""

from __future__ import annotations

import re
import socket
from functools import cache
from typing import Final

import trio

from gateway.bench.frames import CLOSE, PING, PONG, TEXT, FrameReader, Handshake, client_frame
from gateway.bench.plan import PATH, Address
from gateway.cli.options import token
from gateway.edge.stream import OutboxStream

HANDSHAKE_S: Final = 20.0
"""Thousands of connections are opened at once, and the gateway takes them one after the other."""
_CLOSE_S: Final = 2.0
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_END_OF_HEAD: Final = b"\r\n\r\n"


class LinkLostError(Exception):
    """The gateway closed a connection, or was not there."""


async def dial(address: Address, nursery: trio.Nursery) -> OutboxStream:
    """A TCP connection. Raises LinkLostError."""
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        raise LinkLostError(f"{address.netloc}: {error.strerror or error}; is the gateway there?") from None
    return OutboxStream(socket.socket(fileno=stream.socket.detach()), nursery)


class WebSocketLink:
    """One connection that speaks push.v1.json. Its outbox lives in the nursery it was opened with."""

    def __init__(self, stream: OutboxStream) -> None:
        self._stream = stream
        self._reader = FrameReader()
        self._closing = False

    @classmethod
    async def open(cls, address: Address, nursery: trio.Nursery) -> WebSocketLink:
        """Connect, shake hands, and take the welcome. Raises LinkLostError."""
        with trio.move_on_after(HANDSHAKE_S):
            link = cls(await dial(address, nursery))
            try:
                welcome = await link._shake_hands(Handshake(address.netloc, PATH, authorization(address)))
                while not welcome:
                    welcome = await link.receive()
            except BaseException:
                link.abort()
                raise
            return link
        raise LinkLostError(f"{address.netloc}: no answer to the handshake within {HANDSHAKE_S:g} s")

    async def _shake_hands(self, handshake: Handshake) -> list[bytes]:
        """The frames that came behind the answer."""
        self._stream.offer(handshake.request)
        answer = b""
        while _END_OF_HEAD not in answer:
            answer += await self._receive_some()
        head, _, rest = answer.partition(_END_OF_HEAD)
        wrong = handshake.check(head)
        if wrong:
            raise LinkLostError(wrong)
        return self._hear(rest)

    async def _receive_some(self) -> bytes:
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkLostError(f"the connection broke: {error}") from None
        if not data:
            raise LinkLostError("the gateway ended the connection")
        return data

    def offer(self, operation: bytes) -> None:
        """Send one operation; never waits."""
        self._stream.offer(client_frame(operation))

    @property
    def unsent_bytes(self) -> int:
        return self._stream.unsent

    async def wait_sent(self) -> None:
        """Wait until the kernel has taken everything. Raises LinkLostError."""
        try:
            await self._stream.wait_drained()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LinkLostError("the connection broke while sending") from None

    async def receive(self) -> list[bytes]:
        """The text frames of the next read; pings are answered. Raises LinkLostError at the end."""
        return self._hear(await self._receive_some())

    def _hear(self, data: bytes) -> list[bytes]:
        texts: list[bytes] = []
        for opcode, payload in self._reader.feed(data):
            if opcode == TEXT:
                texts.append(payload)
            elif opcode == PING:
                self._stream.offer(client_frame(payload, PONG))
            elif opcode == CLOSE:
                code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
                raise LinkLostError(f"the gateway closed the connection with {code} {reason}".rstrip())
        return texts

    async def aclose(self) -> None:
        """Close by the book, so that the gateway need not think that we crashed."""
        self._stream.offer(client_frame((1000).to_bytes(2, "big"), CLOSE))
        with trio.move_on_after(_CLOSE_S):
            try:
                while True:
                    await self.receive()
            except LinkLostError:
                pass
        self.abort()

    def abort(self) -> None:
        self._stream.abort()


def authorization(address: Address) -> str:
    """The header line of the credential of this gateway, or of the one that the command was given."""
    credential = address.token or _given_token()
    return "" if credential is None else f"Authorization: Bearer {credential}\r\n"


@cache
def _given_token() -> str | None:
    return token()


class HttpLink:
    """One kept-alive connection; one request at a time."""

    def __init__(self, address: Address, stream: OutboxStream) -> None:
        self._address = address
        self._stream = stream

    @classmethod
    async def open(cls, address: Address, nursery: trio.Nursery) -> HttpLink:
        """Connect. Raises LinkLostError."""
        return cls(address, await dial(address, nursery))

    def head(self, method: str, path: str, length: int) -> bytes:
        """The head of a request with a JSON body of `length` bytes."""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: {self._address.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n{authorization(self._address)}\r\n"
        ).encode("ascii")

    async def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """One request and its answer: status and body. Raises LinkLostError."""
        return await self.exchange(self.head(method, path, len(body)) + body)

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """The same with a request that is ready. An answer of the gateway always says its length."""
        self._stream.offer(request)
        answer = b""
        try:
            while True:
                data = await self._stream.receive_some()
                if not data:
                    raise LinkLostError("the gateway ended the connection")
                answer = answer + data if answer else data
                end = answer.find(_END_OF_HEAD) + len(_END_OF_HEAD)
                if end < len(_END_OF_HEAD):
                    continue
                match = _LENGTH.search(answer, 0, end)
                if len(answer) - end >= (int(match.group(1)) if match else 0):
                    return int(answer[9:12]), answer[end:]
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise LinkLostError(f"the connection broke: {error}") from None

    def abort(self) -> None:
        self._stream.abort()
