"""HTTP/1.1 kept alive: one request at a time on a connection, answers found by their places."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.bench.clients.loop import Loop, Socket, dial
from gateway.bench.link import authorization
from gateway.bench.plan import Address

_TIMEOUT_S: Final = 30.0
_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class HttpConnection:
    """`on_answer` is called with status and body of each answer."""

    __slots__ = ("_on_answer", "_rest", "socket")

    def __init__(self, loop: Loop, address: Address, on_answer: Callable[[HttpConnection, int, bytes], None]) -> None:
        self._on_answer = on_answer
        self._rest = b""
        self.socket = Socket(loop, dial(address.host, address.port, _TIMEOUT_S), self._hear)

    def _hear(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if end >= len(_END_OF_HEAD):
            match = _LENGTH.search(data, 0, end)
            if len(data) - end >= (int(match.group(1)) if match else 0):
                self._rest = b""
                self._on_answer(self, int(data[9:12]), data[end:])
                return
        self._rest = data


def request(address: Address, method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """A whole request, to be sent again and again; `headers`: lines of their own."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}{authorization(address)}\r\n"
    )
    return head.encode("ascii") + body
