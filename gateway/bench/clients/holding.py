"""Consumers that let their leases run out, all at once, and others that take what comes back."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.bench.clients.connections import Connection, Opening, open_many, open_one, pass_over
from gateway.bench.clients.loop import Loop
from gateway.bench.clients.order import Result
from gateway.bench.layout import DELIVERY, Layout, Seen, read_delivery
from gateway.bench.load import NO_STAMP, subscribe
from gateway.bench.pace import now_us
from gateway.bench.plan import BATCH_DEFAULT, Address
from gateway.bench.tally import Received

_TAKERS: Final = 4
_WINDOW: Final = 10_000
_UNCONFIRMED: Final = 10_000
_TICK_S: Final = 0.01
_LAST_S: Final = 0.3


class Holding:
    """`holders` hold `messages` until their leases end, `lease_ms` after the last of them has come."""

    def __init__(
        self,
        *,
        name: str,
        topic: str,
        holders: int,
        messages: int,
        size_bytes: int,
        lease_ms: int,
        limit_s: float,
    ) -> None:
        self._name = name
        self._messages = messages
        self._holders = holders
        self._lease_ms = lease_ms
        self._limit_s = limit_s
        self._layout = Layout(topic, size_bytes)
        self._ack = b'{"op":"ack","subscription":"%b","ranges":' % name.encode("ascii")
        self._loop = Loop()
        self._holding: list[_Holder] = []
        self._idle: list[Opening] = []
        self._takers: list[Connection] = []
        self._publisher: Connection | None = None
        self._sent = 0
        self._held = Received()
        self._again = Received()
        self._published = Received()
        self._began_us = self._filled_us = self._first_us = self._last_us = 0
        self.result = Result()

    def open(self, address: Address) -> None:
        for opened in open_many(address, [self._name] * self._holders, _WINDOW):
            self._holding += [_Holder(self, self._loop, opening) for opening in opened]
        self._idle = [open_one(address) for _ in range(_TAKERS)]
        self._publisher = Connection(self._loop, open_one(address), self._confirm)

    def progress(self) -> tuple[int, int]:
        return self._held.count + self._again.count, 2 * self._messages

    def run(self) -> None:
        self._began_us = now_us()
        self._loop.run(self._tick, self._limit_s)
        self._loop.linger(_LAST_S)
        result = self.result
        result.elapsed_s = (self._last_us - self._first_us) / 1e6
        result.delivered = self._held.count + self._again.count
        result.lost = self._again.missing(self._published.positions) + self._held.missing(self._published.positions)
        different = sum(high - low + 1 for low, high in self._again.positions)
        result.invented = different - (result.published - self._again.missing(self._published.positions))
        result.duplicates = self._again.count - different
        result.extra = {
            "filled_at_us": self._filled_us,
            "filled_s": round((self._filled_us - self._began_us) / 1e6, 3),
            "late_ms": round((self._first_us - self._filled_us) / 1e3 - self._lease_ms, 1),
            "redelivered_s": round(result.elapsed_s, 3),
        }

    # ------------------------------------------------------------------------------------------------- sending

    def _tick(self) -> float | None:
        assert self._publisher is not None
        while self._sent < self._messages and self._sent - self.result.published < _UNCONFIRMED:
            count = min(BATCH_DEFAULT, self._messages - self._sent)
            self._publisher.offer(self._layout.publish(self._sent, [(NO_STAMP, count)]))
            self._sent += count
        return _TICK_S

    def _confirm(self, text: bytes) -> None:
        answer: dict[str, Any] = orjson.loads(text)
        if answer["op"] != "published":
            pass_over(text)
            return
        low, high = answer["positions"]
        self._published.positions.add(low, high)
        self.result.published += high - low + 1

    # ------------------------------------------------------------------------------------------------- hearing

    def hold(self, seen: Seen) -> None:
        """A first delivery came."""
        self._note(self._held, seen)
        if self._held.count >= self._messages and not self._filled_us:
            self._filled_us = now_us()
            for holder in self._holding:
                holder.extend(self._lease_ms)
            for opening in self._idle:
                opening.ask(subscribe(self._name, _WINDOW))
                opening.wait_ok()
                self._takers.append(_Taker(self, self._loop, opening).connection)

    @property
    def storm(self) -> bool:
        """Everything was handed out once."""
        return self._filled_us > 0

    def take(self, connection: Connection, seen: Seen) -> None:
        """Something came again."""
        self._note(self._again, seen)
        connection.offer(self._ack + orjson.dumps(seen.ranges) + b"}")
        self._last_us = now_us()
        self._first_us = self._first_us or self._last_us
        if self._again.count >= self._messages:
            self._loop.over = True

    def _note(self, received: Received, seen: Seen) -> None:
        received.count += seen.count
        self.result.frames += 1
        for low, high in seen.ranges:
            received.positions.add(low, high)

    @property
    def name(self) -> str:
        return self._name


class _Holder:
    """Keeps what comes first, and acks what comes again."""

    def __init__(self, holding: Holding, loop: Loop, opening: Opening) -> None:
        self._holding = holding
        self._ranges: list[tuple[int, int]] = []
        self.connection = Connection(loop, opening, self._hear)

    def _hear(self, text: bytes) -> None:
        if not text.startswith(DELIVERY):
            pass_over(text)
            return
        seen = read_delivery(text)
        if self._holding.storm:
            self._holding.take(self.connection, seen)
        else:
            self._ranges += seen.ranges
            self._holding.hold(seen)

    def extend(self, lease_ms: int) -> None:
        """All leases end together, so long from now."""
        body = {"op": "extend", "subscription": self._holding.name, "ranges": self._ranges, "lease_ms": lease_ms}
        self.connection.offer(orjson.dumps(body))


class _Taker:
    def __init__(self, holding: Holding, loop: Loop, opening: Opening) -> None:
        self._holding = holding
        self.connection = Connection(loop, opening, self._hear)

    def _hear(self, text: bytes) -> None:
        if text.startswith(DELIVERY):
            self._holding.take(self.connection, read_delivery(text))
        else:
            pass_over(text)
