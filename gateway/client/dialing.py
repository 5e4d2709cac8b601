"""From an address to an open WebSocket, or to the reason why not."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import attrs
import orjson
import trio
import trio_websocket

from gateway.wire import push_v1

PATH: Final = "/v1/connect"
FRAMES_QUEUED_MAX: Final = 16
"""Frames between the library's reading task and ours: enough to keep both busy."""
RECEIVE_BYTES: Final = 64 * 1024
"""One read takes a delivery frame of ordinary size; the library's default costs a pass for each 4 KiB."""

Token = str | Callable[[], Awaitable[str]] | None
OpenStream = Callable[[], Awaitable[trio.abc.Stream]]


@attrs.frozen
class Address:
    """Where the gateway is and how to come in."""

    host: str
    port: int
    resource: str
    tls: ssl.SSLContext | None
    token: Token
    name: str
    timeout_s: float
    message_bytes_max: int
    open_stream: OpenStream | None

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def dial(self) -> trio.abc.Stream:
        """A stream to the gateway, with TLS where the address asks for it. Raises OSError or TooSlowError."""
        with trio.fail_after(self.timeout_s):
            if self.open_stream is not None:
                return await self.open_stream()
            plain = await trio.open_tcp_stream(self.host, self.port)
            return plain if self.tls is None else await self._secure(plain, self.tls)

    async def _secure(self, plain: trio.SocketStream, tls: ssl.SSLContext) -> trio.abc.Stream:
        """TLS at once, not at the first byte: later, what is wrong with a certificate would be lost in a library."""
        stream = trio.SSLStream(plain, tls, server_hostname=self.host, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise OSError(f"TLS with {self.netloc} failed: {error.__cause__ or 'the connection was closed'}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def fresh_token(self) -> str | None:
        """The token, or what its function gives now. Raises TooSlowError, and whatever the function does."""
        if not callable(self.token):
            return self.token
        with trio.fail_after(self.timeout_s):
            return await self.token()

    def headers(self, token: str | None) -> list[tuple[bytes, bytes]]:
        headers = [(b"User-Agent", self.name.encode("ascii", "replace"))]
        return [*headers, (b"Authorization", b"Bearer " + token.encode("ascii"))] if token else headers


def parse_url(url: str, tls: ssl.SSLContext | None) -> tuple[str, int, str, ssl.SSLContext | None]:
    """`ws://host[:port][/path]` -> host, port, resource, TLS context. http and https mean ws and wss.

    Raises ValueError with the mend.
    """
    parts = urlsplit(url)
    secure = {"ws": False, "http": False, "wss": True, "https": True}.get(parts.scheme)
    if secure is None or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a gateway; write ws://host:port{PATH} or wss://host{PATH}")
    if parts.username is not None or parts.query:
        raise ValueError("credentials never go into the address; pass token=")
    context = (tls or ssl.create_default_context()) if secure else None
    return parts.hostname, parts.port or (443 if secure else 80), parts.path.rstrip("/") or PATH, context


class WatchedStream(trio.abc.Stream):
    """A stream that knows when it last received something, and says when there is nothing more to come."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.received_s = trio.current_time()
        self.on_end: Callable[[], None] | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(max_bytes)
        finally:
            self.received_s = trio.current_time()
            if not data:
                self._say_end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self._say_end()
            raise

    def _say_end(self) -> None:
        if self.on_end is not None:
            self.on_end()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def handshake(
    nursery: trio.Nursery, stream: WatchedStream, address: Address, token: str | None
) -> trio_websocket.WebSocketConnection | None:
    """Upgrade the stream; None where that was not answered. The library's reading task lives in `nursery`.

    A refusal is raised into `nursery`, as trio_websocket.ConnectionRejected. The library waits for ever where the other
    side closes without an answer, so the end of the stream ends the wait.
    """
    with trio.move_on_after(address.timeout_s) as scope:
        stream.on_end = scope.cancel
        return await trio_websocket.wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # annotated narrower than it is documented: "a Trio stream"
            address.netloc,
            address.resource,
            subprotocols=[push_v1.SUBPROTOCOL],
            extra_headers=address.headers(token),
            message_queue_size=FRAMES_QUEUED_MAX,
            max_message_size=address.message_bytes_max,
            receive_buffer_size=RECEIVE_BYTES,
        )
    return None


def read_refusal(rejected: trio_websocket.ConnectionRejected) -> str:
    """What the refusing side says: the message of an error object (protocol.md §2), or the status alone."""
    return str(_member(rejected, "message") or f"the handshake was refused with HTTP status {rejected.status_code}")


def is_expired(rejected: trio_websocket.ConnectionRejected) -> bool:
    """Whether the token had ended, and a fresh one may do."""
    return _member(rejected, "code") == "credentials_expired"


def _member(rejected: trio_websocket.ConnectionRejected, name: str) -> object:
    try:
        found: object = orjson.loads(rejected.body or b"")[name]
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    return found
