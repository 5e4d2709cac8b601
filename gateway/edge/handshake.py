"""From an HTTP request to a WebSocket: what is asked of the handshake, and the stream as the library has it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

import trio

from gateway.edge.stream import OutboxStream
from gateway.errors import GatewayError
from gateway.wire.inbound import Inbound
from gateway.wire.request import Request

_HANDSHAKE: Final = (
    b"GET /v1/connect HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n%bSec-WebSocket-Key: %b\r\n\r\n"
)
_TURN_S: Final = 0.002
"""A read may hold a thousand small messages; so long they are carried out before other tasks run."""
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")


def check_upgrade(request: Request, subprotocol: str | None) -> None:
    """Refuse an upgrade that cannot become a session of this protocol; None: of the one that has no name."""
    if request.header(b"sec-websocket-version") != b"13":
        raise GatewayError("upgrade_required", "the handshake needs Sec-WebSocket-Version: 13")
    if _KEY.fullmatch(request.header(b"sec-websocket-key") or b"") is None:
        raise GatewayError("bad_request", "the handshake needs a Sec-WebSocket-Key: 16 bytes in base64")
    if subprotocol is not None and subprotocol.encode() not in _offered(request):
        raise GatewayError(
            "bad_request", f"the handshake must offer the subprotocol {subprotocol} (Sec-WebSocket-Protocol)"
        )


def _offered(request: Request) -> list[bytes]:
    values = b",".join(value for name, value in request.headers if name == b"sec-websocket-protocol")
    return [word.strip() for word in values.split(b",")]


def replay(request: Request, subprotocol: str | None) -> bytes:
    """The handshake for the library to read: what it needs, and nothing else that it could choke on."""
    offer = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode()
    return _HANDSHAKE % (offer, request.header(b"sec-websocket-key"))


class BorrowedStream(trio.abc.Stream):
    """The stream as trio-websocket has it: first the handshake that we have read already, and behind it the rest.

    Whole data messages are not given to the library: the task in which it reads carries them out, in their order, by
    `on_message`, set before `accepted` is. Closing the stream ends the library's use of it only, and leaves us the last
    word.
    """

    __slots__ = ("_handshake", "_inbound", "_rest", "_stream", "accepted", "closed", "heard", "on_message")

    def __init__(self, stream: OutboxStream, handshake: bytes, rest: bytes, message_bytes_max: int) -> None:
        self.accepted = trio.Event()  # before that, the library would drop what comes behind the handshake
        self.closed = False
        self.heard = False  # something has come since that was last set to False
        self.on_message: Callable[[str | bytes], Awaitable[None]] | None = None
        self._inbound = Inbound(message_bytes_max)
        self._stream = stream
        self._handshake = handshake
        self._rest = rest

    def pass_all(self) -> None:
        """From now on messages are the library's too."""
        self._inbound.plain = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What is the library's of what comes; b"" at the end."""
        if self.closed:
            raise trio.ClosedResourceError
        if self._handshake:
            data, self._handshake = self._handshake, b""
            return data
        if not self.accepted.is_set():
            await self.accepted.wait()
        if self._rest:
            self._inbound.feed(self._rest)
            self._rest = b""
        inbound = self._inbound
        while True:
            await self._carry_out()
            if left := inbound.left():
                return left
            data = await self._stream.receive_some(max_bytes)
            self.heard = True
            if not data:
                return data
            inbound.feed(data)

    async def _carry_out(self) -> None:
        on_message, take = self.on_message, self._inbound.take
        if on_message is None:
            return
        until = 0.0
        while (message := take()) is not None:
            now = perf_counter()
            if not until:
                until = now + _TURN_S
            elif now > until:
                await trio.lowlevel.checkpoint()
                until = 0.0
            await on_message(message)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_drained()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()
