"""Pulls of one message each over kept-alive connections, while somebody publishes."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any, Final

import orjson

from gateway.bench.clients.connections import Connection, open_one, pass_over
from gateway.bench.clients.http import HttpConnection, request
from gateway.bench.clients.loop import Loop
from gateway.bench.clients.order import Result
from gateway.bench.layout import Layout, read_delivery
from gateway.bench.pace import now_us
from gateway.bench.plan import BATCH_DEFAULT, Address
from gateway.bench.tally import Received

_WAIT_MS: Final = 20_000
_LEASE: Final = b'"lease":"'
_NONE: Final = b'"messages":[]'


class Pulling:
    """`clients` pull until all of `messages` have come; at most `ahead` wait for them. `settle`: each acks at once."""

    def __init__(
        self,
        *,
        name: str,
        topic: str,
        clients: int,
        messages: int,
        ahead: int,
        settle: bool,
        size_bytes: int,
        limit_s: float,
    ) -> None:
        self._name = name
        self._clients = clients
        self._messages = messages
        self._ahead = ahead
        self._settle = settle
        self._limit_s = limit_s
        self._layout = Layout(topic, size_bytes)
        self._loop = Loop()
        self._pull = b""
        self._address = Address("", 0)
        self._waiting: list[HttpConnection] = []
        self._settling: set[HttpConnection] = set()
        self._publisher: Connection | None = None
        self._sent = 0
        self._confirmed: deque[int] = deque()
        self._published = Received()
        self._received = Received()
        self._latency: Counter[int] = Counter()
        self.result = Result()

    def open(self, address: Address) -> None:
        self._address = address
        body = orjson.dumps({"max": 1, "wait_ms": _WAIT_MS})
        self._pull = request(address, "POST", f"/v1/subscriptions/{self._name}/pull", body)
        self._waiting = [HttpConnection(self._loop, address, self._hear) for _ in range(self._clients)]
        self._publisher = Connection(self._loop, open_one(address), self._confirm)

    def progress(self) -> tuple[int, int]:
        return self._received.count, self._messages

    def run(self) -> None:
        began = time.monotonic()
        for connection in self._waiting:
            connection.socket.send(self._pull)
        self._loop.run(self._publish, self._limit_s)
        result, received = self.result, self._received
        result.elapsed_s = time.monotonic() - began
        result.delivered = received.count
        different = sum(high - low + 1 for low, high in received.positions)
        result.lost = received.missing(self._published.positions)
        result.duplicates = received.count - different
        result.invented = different - (result.published - result.lost)
        result.latency = {"delivery": dict(self._latency)}

    def _publish(self) -> float | None:
        """As much as may wait, in batches."""
        assert self._publisher is not None
        while self._sent < self._messages and self._sent - self._received.count <= self._ahead // 2:
            room = self._ahead - (self._sent - self._received.count)
            count = min(BATCH_DEFAULT, room, self._messages - self._sent)
            self._publisher.offer(self._layout.publish(self._sent, [(now_us(), count)]))
            self._sent += count
        return None

    def _confirm(self, text: bytes) -> None:
        answer: dict[str, Any] = orjson.loads(text)
        if answer["op"] != "published":
            pass_over(text)
            return
        low, high = answer["positions"]
        self._published.positions.add(low, high)
        self.result.published += high - low + 1
        self._end_where_done()

    def _hear(self, connection: HttpConnection, status: int, body: bytes) -> None:
        if status != 200:
            self.result.refuse(1, f"{status} {body[:200].decode(errors='replace')}")
            self._loop.over = True
            return
        if connection in self._settling:
            self._settling.discard(connection)
        elif _NONE not in body:
            self._take(connection, body)
            if self._settle:
                return
        if self._received.count < self._messages:
            connection.socket.send(self._pull)
        self._end_where_done()

    def _take(self, connection: HttpConnection, body: bytes) -> None:
        seen, now = read_delivery(body), now_us()
        self._received.count += seen.count
        for low, high in seen.ranges:
            self._received.positions.add(low, high)
        for stamp, count in seen.stamps.items():
            self._latency[now - int(stamp)] += count
        self.result.frames += 1
        if self._settle:
            start = body.index(_LEASE) + len(_LEASE)
            lease = body[start : body.index(b'"', start)].decode()
            self._settling.add(connection)
            ack = orjson.dumps({"lease": lease, "ack": seen.ranges})
            path = f"/v1/subscriptions/{self._name}/settle"
            connection.socket.send(request(self._address, "POST", path, ack))

    def _end_where_done(self) -> None:
        if self._received.count >= self._messages == self.result.published and not self._settling:
            self._loop.over = True
