"""HTTP publishes of one message each, the next on a connection when its answer is there; requests are ready made."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import Final

from gateway.bench.clients.http import HttpConnection, request
from gateway.bench.clients.loop import Loop
from gateway.bench.clients.order import Result
from gateway.bench.layout import Layout
from gateway.bench.load import NO_STAMP
from gateway.bench.pace import now_us
from gateway.bench.plan import Address
from gateway.kit.ranges import RangeSet

_POSITION: Final = re.compile(rb'"position":(\d+)')


class Publishing:
    """`connections` that publish `messages` together."""

    def __init__(self, *, topic: str, connections: int, messages: int, size_bytes: int, limit_s: float) -> None:
        self._topic = topic
        self._count = connections
        self._messages = messages
        self._size_bytes = size_bytes
        self._limit_s = limit_s
        self._loop = Loop()
        self._connections: list[HttpConnection] = []
        self._request = b""
        self._sent_us: dict[HttpConnection, int] = {}
        self._sent = self._answered = 0
        self._positions = RangeSet()
        self._latency: Counter[int] = Counter()
        self.result = Result()

    def open(self, address: Address) -> None:
        body = Layout(self._topic, self._size_bytes).payload(NO_STAMP)
        self._request = request(address, "POST", f"/v1/topics/{self._topic}/messages", body)
        self._connections = [HttpConnection(self._loop, address, self._hear) for _ in range(self._count)]

    def progress(self) -> tuple[int, int]:
        return self._answered, self._messages

    def run(self) -> None:
        began = time.monotonic()
        for connection in self._connections:
            self._send(connection)
        self._loop.run(lambda: None, self._limit_s)
        self.result.elapsed_s = time.monotonic() - began
        self.result.positions = list(self._positions)
        self.result.lost = self._messages - self._answered
        self.result.latency = {"confirm": dict(self._latency)}

    def _send(self, connection: HttpConnection) -> None:
        if self._sent < self._messages:
            self._sent += 1
            self._sent_us[connection] = now_us()
            connection.socket.send(self._request)

    def _hear(self, connection: HttpConnection, status: int, body: bytes) -> None:
        self._latency[now_us() - self._sent_us[connection]] += 1
        match = _POSITION.search(body)
        if status == 201 and match:
            position = int(match.group(1))
            self._positions.add(position, position)
            self.result.published += 1
        else:
            self.result.refuse(1, f"{status} {body[:200].decode(errors='replace')}")
        self._answered += 1
        if self._answered == self._messages:
            self._loop.over = True
        else:
            self._send(connection)
