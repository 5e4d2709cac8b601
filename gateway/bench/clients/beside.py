"""One that publishes a message now and then, and is handed it, while others are at work: what they cost it."""

from __future__ import annotations

import select
import sys
from typing import Any, Final

import orjson

from gateway.bench.clients.connections import Connection, open_many, open_one, pass_over
from gateway.bench.clients.loop import Loop
from gateway.bench.clients.order import Result
from gateway.bench.layout import DELIVERY, Layout, read_delivery
from gateway.bench.pace import now_us, timetable
from gateway.bench.plan import Address

_WINDOW: Final = 10_000
_LAST_S: Final = 0.3


class Beside:
    """`rate_per_s` messages to `topic`, one by one, until it is told to end; the subscription `name` hands them back.

    `timed` says of each when it was due, and how long after that its answer (`confirm`) and its delivery came.
    """

    def __init__(self, *, name: str, topic: str, rate_per_s: float, size_bytes: int, limit_s: float) -> None:
        self._name = name
        self._rate_per_s = rate_per_s
        self._limit_s = limit_s
        self._layout = Layout(topic, size_bytes)
        self._ack = b'{"op":"ack","subscription":"%b","ranges":' % name.encode("ascii")
        self._loop = Loop()
        self._publisher: Connection | None = None
        self._consumer: Connection | None = None
        self._pace = timetable(rate_per_s, 0, 1, 0)
        self._sent = 0
        self._stamps: list[int] = []
        self.result = Result(timed={"confirm": [], "delivery": []})

    def open(self, address: Address) -> None:
        [[consumer]] = open_many(address, [self._name], _WINDOW)
        self._consumer = Connection(self._loop, consumer, self._hear)
        self._publisher = Connection(self._loop, open_one(address), self._confirm)

    def progress(self) -> tuple[int, int]:
        return self.result.delivered, self._sent

    def run(self) -> None:
        began_us = now_us()
        self._pace = timetable(self._rate_per_s, 0, 1, began_us)
        self._loop.run(self._tick, self._limit_s)
        self._loop.linger(_LAST_S)
        self.result.elapsed_s = (now_us() - began_us) / 1e6
        self.result.lost = self.result.published - self.result.delivered

    def _tick(self) -> float:
        """What is due, and how long until the next is; over, where something has come to the input."""
        assert self._publisher is not None
        if select.select([sys.stdin], [], [], 0)[0]:
            self._loop.over = True
        now = now_us()
        for _ in range(self._pace.due(self._sent, now, 1000)):
            stamp = self._pace.stamp(self._sent, now)
            self._stamps.append(stamp)
            self._publisher.offer(self._layout.publish(self._sent, [(stamp, 1)]))
            self._sent += 1
        return (self._pace.due_us(self._sent) - now_us()) / 1e6

    def _confirm(self, text: bytes) -> None:
        answer: dict[str, Any] = orjson.loads(text)
        if answer["op"] == "published":
            stamp = self._stamps[answer["id"]]
            self.result.timed["confirm"].append((stamp, now_us() - stamp))
            self.result.published += 1
        elif "id" in answer:
            self.result.refuse(1, str(answer.get("message")))
        else:
            pass_over(text)

    def _hear(self, text: bytes) -> None:
        if not text.startswith(DELIVERY):
            pass_over(text)
            return
        assert self._consumer is not None
        seen, now = read_delivery(text), now_us()
        self._consumer.offer(self._ack + orjson.dumps(seen.ranges) + b"}")
        self.result.delivered += seen.count
        self.result.timed["delivery"] += [(int(stamp), now - int(stamp)) for stamp in seen.stamps]
