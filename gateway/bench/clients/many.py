"""Many subscriptions with a consumer each, and messages that come one by one.

together    one message to all of them, the next when it has come to all: every frame holds one message
each        every connection publishes to its own topic and is handed its own message, in turns at a rate
in turns    one connection publishes to all their topics in turns, at a rate
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

import orjson

from gateway.bench.clients.connections import Connection, open_many, open_one, pass_over
from gateway.bench.clients.loop import Loop
from gateway.bench.clients.order import Result
from gateway.bench.layout import DELIVERY, Layout, read_delivery
from gateway.bench.pace import Pace, now_us
from gateway.bench.plan import BATCH_DEFAULT, Address
from gateway.bench.tally import Received

TOGETHER: Final = "together"
EACH: Final = "each"
IN_TURNS: Final = "in turns"
_WINDOW: Final = 10_000
_PUBLISHED: Final = b'{"op":"published"'
_LAST_S: Final = 0.3
"""For the last acks to be carried out."""


class Many:
    """`names[n]` reads `topics[n % len(topics)]`."""

    def __init__(
        self,
        *,
        names: list[str],
        topics: list[str],
        how: str,
        messages: int,
        size_bytes: int,
        limit_s: float,
        rate_per_s: float | None = None,
    ) -> None:
        self._names = names
        self._topics = topics
        self._how = how
        self._messages = messages
        self._limit_s = limit_s
        self._rate_per_s = rate_per_s
        self._layouts = [Layout(topic, size_bytes) for topic in topics]
        self._turns = Layout(topics, size_bytes)
        self._loop = Loop()
        self._consumers: list[_Consumer] = []
        self._publishers: list[Connection] = []
        self._stamps: dict[int, list[int]] = {}  # reference of a publish -> when its messages were due
        self._sent = 0
        self._answered = 0
        self._pace = Pace(0, 1)
        self.confirm: Counter[int] = Counter()
        self.delivery: Counter[int] = Counter()
        self.published = Received()
        self.result = Result()

    def open(self, address: Address) -> None:
        one_topic = len(self._topics) == 1
        together = Received()
        for opened in open_many(address, self._names, _WINDOW):
            for opening in opened:
                number = len(self._consumers)
                name, topic = self._names[number], self._topics[number % len(self._topics)]
                received = Received() if one_topic else together
                self._consumers.append(_Consumer(self, self._loop, opening, name, topic, received))
            self._loop.linger(0.0)
        if self._how == EACH:
            self._publishers = [consumer.connection for consumer in self._consumers]
        else:
            self._publishers = [Connection(self._loop, open_one(address), self.hear)]

    @property
    def deliveries_due(self) -> int:
        """Of each message: to everybody, or to one."""
        return len(self._names) if len(self._topics) == 1 else 1

    def progress(self) -> tuple[int, int]:
        return self.result.delivered, self._messages * self.deliveries_due

    def run(self) -> None:
        began = time.monotonic()
        self._pace = Pace(now_us(), 1e6 / self._rate_per_s if self._rate_per_s else 1)
        self._loop.run(self._send_together if self._how == TOGETHER else self._send_in_time, self._limit_s)
        self.result.elapsed_s = time.monotonic() - began
        self._loop.linger(_LAST_S)
        self._add_up()

    # ------------------------------------------------------------------------------------------------- sending

    def _send_together(self) -> float | None:
        """The next message, where the one before it has come to all."""
        due = self._sent * self.deliveries_due
        if self._answered == self._sent and self.result.delivered + self.result.refused >= due:
            if self._sent == self._messages:
                self._loop.over = True
                return 0.0
            self._send(0, [now_us()])
        return None

    def _send_in_time(self) -> float | None:
        now, pace = now_us(), self._pace
        count = pace.due(self._sent, now, self._messages - self._sent)
        if self._how == EACH:
            for n in range(self._sent, self._sent + count):
                self._send(n % len(self._publishers), [pace.stamp(n, now)])
        else:
            while count > 0:
                some = range(self._sent, self._sent + min(count, BATCH_DEFAULT))
                self._send(0, [pace.stamp(n, now) for n in some])
                count -= len(some)
        if self._sent < self._messages:
            return (pace.due_us(self._sent) - now_us()) / 1e6
        if self._answered == self._messages and self.result.delivered >= self.result.published:
            self._loop.over = True
        return None

    def _send(self, publisher: int, stamps: list[int]) -> None:
        """One publish frame; messages go round the topics."""
        reference = self._sent
        layout = self._turns if self._how == IN_TURNS else self._layouts[publisher % len(self._layouts)]
        self._stamps[reference] = stamps
        self._sent += len(stamps)
        self._publishers[publisher].offer(layout.publish(reference, [(stamp, 1) for stamp in stamps]))

    # ------------------------------------------------------------------------------------------------- hearing

    def hear(self, text: bytes) -> None:
        """What a publisher is told."""
        if not text.startswith((_PUBLISHED, b'{"op":"error"')):
            pass_over(text)
            return
        answer: dict[str, Any] = orjson.loads(text)
        now, stamps = now_us(), self._stamps.pop(answer["id"])
        self._answered += len(stamps)
        for stamp in stamps:
            self.confirm[now - stamp] += 1
        if "positions" in answer:
            low, high = answer["positions"]
            self.published.positions.add(low, high)
            self.result.published += len(stamps)
        else:
            self.result.refuse(len(stamps), str(answer)[:200])

    def _add_up(self) -> None:
        result, published = self.result, list(self.published.positions)
        each = {id(consumer.received): consumer.received for consumer in self._consumers}
        for received in each.values():
            missing = received.missing(published)
            different = sum(high - low + 1 for low, high in received.positions)
            result.lost += missing
            result.duplicates += received.count - different
            result.invented += different - (result.published - missing)
        result.latency = {"confirm": dict(self.confirm), "delivery": dict(self.delivery)}


class _Consumer:
    """One connection with one subscription: acknowledges each frame."""

    __slots__ = ("_ack", "_many", "_topic", "connection", "received")

    def __init__(self, many: Many, loop: Loop, opening: Any, name: str, topic: str, received: Received) -> None:
        self._many = many
        self._topic = b'"topic":"%b"' % topic.encode("ascii")
        self._ack = b'{"op":"ack","subscription":"%b","ranges":' % name.encode("ascii")
        self.received = received
        self.connection = Connection(loop, opening, self._hear)

    def _hear(self, text: bytes) -> None:
        if not text.startswith(DELIVERY):
            self._many.hear(text)
            return
        seen, now, many = read_delivery(text), now_us(), self._many
        received, result = self.received, many.result
        received.count += seen.count
        for low, high in seen.ranges:
            received.positions.add(low, high)
        for stamp, count in seen.stamps.items():
            many.delivery[now - int(stamp)] += count
        result.frames += 1
        result.delivered += seen.count
        if self._topic not in text:
            result.invented += seen.count
        self.connection.offer(self._ack + orjson.dumps(seen.ranges) + b"}")
