"""Large payloads: HTTP in, WebSocket out, both at once; every byte that comes is looked at."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

import orjson

from gateway.bench.clients.connections import Connection, open_many, pass_over
from gateway.bench.clients.http import HttpConnection, request
from gateway.bench.clients.loop import Loop
from gateway.bench.clients.order import Result
from gateway.bench.layout import DELIVERY, Layout, read_delivery
from gateway.bench.load import NO_STAMP
from gateway.bench.plan import Address
from gateway.bench.tally import Received

_DATA: Final = b'"data":'
_AHEAD_BYTES: Final = 16 * 1024 * 1024
"""Published and not yet delivered: so that neither way runs ahead."""
_WINDOW: Final = 10_000
_LAST_S: Final = 0.2


class Large:
    """`connections` publish, one consumer takes and acks."""

    def __init__(
        self,
        *,
        name: str,
        topic: str,
        connections: int,
        messages: int,
        size_bytes: int,
        durability: str,
        limit_s: float,
    ) -> None:
        self._name = name
        self._topic = topic
        self._count = connections
        self._messages = messages
        self._durability = durability
        self._limit_s = limit_s
        self._ahead = max(connections, _AHEAD_BYTES // size_bytes)
        self._payload = Layout(topic, size_bytes).payload(NO_STAMP)
        self._request = b""
        self._ack = b'{"op":"ack","subscription":"%b","ranges":' % name.encode("ascii")
        self._loop = Loop()
        self._resting: deque[HttpConnection] = deque()  # in turns, so that none is idle for long
        self._consumer: Connection | None = None
        self._sent = self._answered = 0
        self._received = Received()
        self._published = Received()
        self.result = Result()

    def open(self, address: Address) -> None:
        path, headers = f"/v1/topics/{self._topic}/messages", f"Push-Durability: {self._durability}\r\n"
        self._request = request(address, "POST", path, self._payload, headers)
        self._resting.extend(HttpConnection(self._loop, address, self._confirm) for _ in range(self._count))
        [[opening]] = open_many(address, [self._name], _WINDOW)
        self._consumer = Connection(self._loop, opening, self._hear)

    def progress(self) -> tuple[int, int]:
        return self.result.delivered, self._messages

    def run(self) -> None:
        began = time.monotonic()
        self._loop.run(self._publish, self._limit_s)
        result, received = self.result, self._received
        result.elapsed_s = time.monotonic() - began
        self._loop.linger(_LAST_S)
        different = sum(high - low + 1 for low, high in received.positions)
        result.lost = received.missing(self._published.positions)
        result.duplicates = received.count - different
        result.invented += different - (result.published - result.lost)

    def _publish(self) -> float | None:
        while self._resting and self._sent < self._messages and self._sent - self.result.delivered < self._ahead:
            self._sent += 1
            self._resting.popleft().socket.send(self._request)
        return None

    def _confirm(self, connection: HttpConnection, status: int, body: bytes) -> None:
        self._answered += 1
        self._resting.append(connection)
        if status != 201:
            self.result.refuse(1, f"{status} {body[:200].decode(errors='replace')}")
        else:
            position = orjson.loads(body)["position"]
            self._published.positions.add(position, position)
            self.result.published += 1
        self._end_where_done()

    def _hear(self, text: bytes) -> None:
        if not text.startswith(DELIVERY):
            pass_over(text)
            return
        assert self._consumer is not None
        seen = read_delivery(text)
        self._received.count += seen.count
        for low, high in seen.ranges:
            self._received.positions.add(low, high)
        self.result.invented += seen.count - self._as_published(text)
        self.result.frames += 1
        self.result.delivered += seen.count
        self._consumer.offer(self._ack + orjson.dumps(seen.ranges) + b"}")
        self._end_where_done()

    def _as_published(self, text: bytes) -> int:
        """How many payloads in a frame are the one that was published."""
        count, at = 0, text.find(_DATA)
        while at >= 0:
            at += len(_DATA)
            count += text.startswith(self._payload, at)
            at = text.find(_DATA, at + len(self._payload))
        return count

    def _end_where_done(self) -> None:
        if self._answered == self._messages and self.result.delivered >= self.result.published:
            self._loop.over = True
