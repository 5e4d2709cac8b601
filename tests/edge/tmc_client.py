"""A TMC client written from protocol.md §6 alone: nothing of the gateway's is used to encode or to decode."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio_websocket
import wsproto.utilities

from tests.edge.raw import PATIENCE_S

CONNECT, CONNECTACK, SEND, SENDACK = range(4)
PULL, CONFIRM, DATA, FAILED = 1, 2, 3, 20


def counted(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<i", len(data)) + data


@attrs.frozen
class Wide:
    """A number in a width of the test's choice: 2 byte, 3 int16, 4 int32, 5 int64, 6 date."""

    format: int
    number: int


def value(content: object) -> bytes:
    if content is None:
        return b"\0"
    if isinstance(content, str):
        return b"\1" + counted(content)
    if isinstance(content, bytes):
        return b"\7" + struct.pack("<i", len(content)) + content
    if isinstance(content, int):  # the narrowest that it fits
        for format_, bits in ((2, 8), (3, 15), (4, 31), (5, 63)):
            if 0 <= content < 1 << bits:
                content = Wide(format_, content)
                break
    assert isinstance(content, Wide)
    return bytes([content.format]) + struct.pack({2: "<B", 3: "<h", 4: "<i"}.get(content.format, "<q"), content.number)


def frame(
    type_: int,
    customs: Mapping[str, object],
    *,
    token: str | None = None,
    flag: int | None = None,
    token_last: bool = False,
) -> bytes:
    token_header = b"" if token is None else b"\5\0" + counted(token)
    parts = [bytes([2, type_]), b"" if token_last else token_header]
    parts += (b"\1\0" + counted(key) + value(content) for key, content in customs.items())
    parts.append(b"" if flag is None else b"\4\0" + struct.pack("<i", flag))
    parts.append(token_header if token_last else b"")
    return b"".join([*parts, b"\0\0"])


@attrs.frozen
class Read:
    """A frame of the gateway. Dates and integers keep their format beside them, for clients cast to it."""

    type: int
    token: str | None
    flag: int | None
    status: int
    phrase: str
    customs: dict[str, Any]
    formats: dict[str, int]


def read(data: bytes) -> Read:
    assert data[0] == 2
    at = 2
    found: dict[int, Any] = {}
    customs: dict[str, Any] = {}
    formats: dict[str, int] = {}

    def take(layout: str) -> Any:
        nonlocal at
        [number] = struct.unpack_from(layout, data, at)
        at += struct.calcsize(layout)
        return number

    def text() -> bytes:
        nonlocal at
        size = take("<i")
        at += size
        return data[at - size : at]

    while (header := take("<h")) != 0:
        if header == 1:
            key = text().decode()
            formats[key] = take("<B")
            if formats[key] in (1, 7):
                raw = text()
                customs[key] = raw.decode() if formats[key] == 1 else raw
            else:
                customs[key] = take({2: "<B", 3: "<h", 4: "<i", 5: "<q", 6: "<q"}[formats[key]])
        elif header in (3, 5):
            found[header] = text().decode()
        else:
            assert header in (2, 4)
            found[header] = take("<i")
    assert at == len(data)
    return Read(data[1], found.get(5), found.get(4), found.get(2, 0), found.get(3, ""), customs, formats)


def signature(secret: str, values: Mapping[str, str]) -> str:
    text = secret + "".join(name + values[name] for name in sorted(values)) + secret
    return hashlib.md5(text.encode()).hexdigest().upper()


class ClosedError(Exception):
    """The gateway has closed, with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class TmcClient:
    """A connected client. Everything is sent as it stands; nothing happens by itself."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection
        self.token: str | None = None

    async def send(self, data: bytes) -> None:
        try:
            await self._connection.send_message(data)
        except trio_websocket.ConnectionClosed as closed:
            raise ClosedError(closed.reason.code if closed.reason else 1006) from None

    async def receive(self) -> Read:
        with trio.fail_after(PATIENCE_S):
            try:
                data = await self._connection.get_message()
            except trio_websocket.ConnectionClosed as closed:
                raise ClosedError(closed.reason.code if closed.reason else 1006) from None
        assert isinstance(data, bytes), "frames are binary"
        return read(data)

    async def closed(self) -> int:
        """Pass over what comes until the gateway closes; the code."""
        while True:
            try:
                await self.receive()
            except ClosedError as closed:
                return closed.code

    async def connect(self, key: str, secret: str, group: str | None = "default", **changes: object) -> Read:
        await self.send(frame(CONNECT, connect_customs(key, secret, group) | changes, flag=1))
        answer = await self.receive()
        self.token = answer.token
        return answer

    async def say(self, kind: object, customs: Mapping[str, object] | None = None, flag: int | None = None) -> None:
        await self.send(frame(SEND, {"__kind": kind, **(customs or {})}, token=self.token, flag=flag))

    async def pull(self) -> None:
        await self.say(PULL)

    async def confirm(self, id_: int) -> None:
        await self.say(CONFIRM, {"id": id_})

    async def pushed(self) -> Read:
        """The next message."""
        found = await self.receive()
        assert (found.type, found.customs["__kind"]) == (SEND, DATA)
        assert found.token == self.token, "clients take only what has their token"
        return found


def connect_customs(key: str, secret: str, group: str | None, timestamp: str = "") -> dict[str, object]:
    signed = {"app_key": key, "timestamp": timestamp or str(int(time.time() * 1000))}
    if group is not None:
        signed["group_name"] = group
    return {**signed, "sign": signature(secret, signed), "sdk": "test", "intranet_ip": "127.0.0.1"}


@asynccontextmanager
async def open_tmc(address: str, path: str = "/") -> AsyncIterator[TmcClient]:
    host, _, port = address.rpartition(":")
    try:
        async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
            connection = await trio_websocket.wrap_client_stream(nursery, stream, address, path, max_message_size=2**26)
            assert connection.subprotocol is None
            yield TmcClient(connection)
            await connection.aclose()
    except* wsproto.utilities.LocalProtocolError:
        pass  # the library's reader fails where it is pinged while it closes
