"""From an HTTP request to a WebSocket: what is asked of the handshake, and the stream as the library has it."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import perf_counter
from typing import Final

import trio

from gateway.edge.stream import OutboxStream
from gateway.errors import GatewayError
from gateway.flow.ring import Wait
from gateway.wire.inbound import Inbound
from gateway.wire.request import Request

_HANDSHAKE: Final = (
    b"GET /v1/connect HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n%bSec-WebSocket-Key: %b\r\n\r\n"
)
_TURN_S: Final = 0.002
"""A read may hold a thousand small messages; so long they are carried out before other tasks run."""
OnMessage = Callable[[str | bytes], Wait | None]
"""Carry a message out; what it returns is waited for before the next."""

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

    Whole data messages are not given to the library: they are carried out, in their order, by `on_message`, set before
    `accepted` is. That is done where the bytes come in; what it returns has to be waited for, and the task in which the
    library reads does so. Closing the stream ends the library's use of it only, and leaves us the last word.
    """

    __slots__ = (
        "_ended",
        "_handshake",
        "_inbound",
        "_left",
        "_rest",
        "_stream",
        "_waiting",
        "accepted",
        "closed",
        "heard",
        "on_message",
    )

    def __init__(self, stream: OutboxStream, handshake: bytes, rest: bytes, message_bytes_max: int) -> None:
        self.accepted = trio.Event()  # before that, the library would drop what comes behind the handshake
        self.closed = False
        self.heard = False  # something has come since that was last set to False
        self.on_message: OnMessage | None = None
        self._waiting: Wait | None = None  # the rest of the message that came last
        self._left = b""  # found for the library
        self._ended = False
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
        while True:
            if self._waiting is not None:
                waiting, self._waiting = self._waiting, None
                await waiting()
            elif not self._carry_out():
                await trio.lowlevel.checkpoint()
            elif left := self._left or self._inbound.left():
                self._left = b""
                return left
            elif self._ended:
                return b""
            else:
                await self._stream.attend(self._take_in)

    def _take_in(self) -> bool:
        """Something has come. Whether there is nothing to do but to wait for more."""
        data = self._stream.receive_now()
        if data is None:
            return True
        self.heard = True
        if not data:
            self._ended = True
            return False
        if self.on_message is not None and (text := self._inbound.text(data)) is not None:
            self._waiting = self.on_message(text)
            return self._waiting is None
        self._inbound.feed(data)
        if self._carry_out():
            self._left = self._inbound.left()
            return not self._left
        return False

    def _carry_out(self) -> bool:
        """Carry out the messages that are whole; False where one has to wait, or where others run before the next."""
        on_message, take = self.on_message, self._inbound.take
        if on_message is None or self._left:
            return True
        until = 0.0
        while (message := take()) is not None:
            self._waiting = on_message(message)
            if self._waiting is not None:
                return False
            if not until:
                until = perf_counter() + _TURN_S
            elif perf_counter() > until:
                return False
        return True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_drained()

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()
