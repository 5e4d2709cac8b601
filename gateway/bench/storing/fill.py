"""A store of so many messages, written by the engine's own appender and log: no sockets, no answers, the same files."""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import trio

from gateway.bench.layout import Layout
from gateway.broker.clockwork import Clockwork
from gateway.broker.dedup import Dedup
from gateway.broker.subscription import Cause
from gateway.config import Store
from gateway.engine.appender import Appender
from gateway.engine.catalogue import Catalogue, subscription_record
from gateway.model import Batch, Durability, Message, SubscriptionSettings
from gateway.store import record as records
from gateway.store.index import Index
from gateway.store.log import Log
from gateway.store.record import Kind, Record
from gateway.store.segment import Segment

TOPIC: Final = "storing.t{number}"
NAME: Final = "storing-{number}"
_BATCHES_A_TURN: Final = 200
_PATTERNS: Final = 1024

Tell = Callable[[int], None]
"""Told how many messages there are by now."""


class Settled(enum.Enum):
    """What of it is settled."""

    NONE = "none"
    HALF = "half"
    """Every message is or is not by chance: the worst that a settled set can be."""
    MOST = "most"
    """Nine of ten batches, by chance: the rest are stragglers."""


@attrs.frozen(kw_only=True)
class Filling:
    """What is written. Message by message, batches go round the topics, and each subscription has one of them."""

    messages: int
    subscriptions: int = 10
    batch: int = 20
    size_bytes: int = 256
    settled: Settled = Settled.NONE
    segment_bytes: int = Store().segment_bytes


@attrs.frozen(kw_only=True)
class Filled:
    """What came of it."""

    messages: int
    settled: int
    seconds: float
    log_bytes: int
    hint_bytes: int
    segments: int
    behind_bytes: int
    """Of the log, behind the last checkpoint: what a start reads."""


class Nobody:
    """Hears what is in a new store: nothing."""

    ids_since_ms = 0

    def restore(self, state: dict[str, Any]) -> None: ...

    def messages(self, low: int, high: int, numbers: tuple[int, ...]) -> None: ...

    def remember_ids(self, segment: Segment, index: Index) -> None: ...

    def control(self, record: Record) -> None: ...


async def fill(directory: Path, filling: Filling, tell: Tell, *, crashed: bool = False) -> Filled:
    """Fill a new store. `crashed`: leave it as a kill -9 does, with a log behind the last checkpoint."""
    began = time.monotonic()
    log = Log(Store(directory=str(directory), segment_bytes=filling.segment_bytes, cache_bytes=0))
    writer = _Filler(log, filling)
    await trio.to_thread.run_sync(log.open, Nobody(), now_ms())
    try:
        log.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            nursery.start_soon(_discard, log)
            await writer.write(tell)
            await log.sync()
            nursery.cancel_scope.cancel()
        if not crashed:
            await log.flush()
    finally:
        await trio.to_thread.run_sync(log.close)
    return Filled(
        messages=filling.messages,
        settled=writer.settled,
        seconds=time.monotonic() - began,
        log_bytes=_bytes(directory, "*.log"),
        hint_bytes=_bytes(directory, "*.hint"),
        segments=len(log.segments),
        behind_bytes=writer.behind_bytes,
    )


async def _discard(log: Log) -> None:
    """Nobody waits for an answer."""
    while True:
        await log.committed()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _bytes(directory: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in directory.glob(pattern))


class _Filler:
    """Appends, and settles half of what it has appended."""

    def __init__(self, log: Log, filling: Filling) -> None:
        self.settled = 0
        self._log = log
        self._filling = filling
        self._catalogue = Catalogue(Clockwork(100, now_ms()), filling.subscriptions)
        self._appender = Appender(log, self._catalogue, Dedup(0, 2, now_ms()))
        self._place = (1, 0)
        log.snapshot = self._snapshot
        self._patterns = _patterns(filling)

    def _snapshot(self) -> dict[str, Any]:
        self._place = (self._log.active.number, self._log.active.size)
        return self._catalogue.snapshot(self._log.segments[0].base)

    @property
    def behind_bytes(self) -> int:
        number, offset = self._place
        return sum(each.size for each in self._log.segments if each.number >= number) - offset

    async def write(self, tell: Tell) -> None:
        filling, done, at = self._filling, 0, 0
        self._subscribe()
        topics = [TOPIC.format(number=number) for number in range(filling.subscriptions)]
        while done < filling.messages:
            ranges: list[list[tuple[int, int]]] = [[] for _ in topics]
            self._log.begin(now_ms())  # seals a full segment, once there is room for the next
            for _ in range(_BATCHES_A_TURN):
                number, count = at % len(topics), min(filling.batch, filling.messages - done)
                at += 1
                if not count or self._log.active.size >= filling.segment_bytes:
                    break
                first = self._append(topics[number], count)
                done += count
                if self._patterns and count == filling.batch:
                    pattern = self._patterns[at % _PATTERNS]
                    ranges[number] += [(first + low, first + high) for low, high in pattern]
            self._settle(ranges)
            tell(done)
            if self._log.active.size >= filling.segment_bytes:
                await self._log.sync()  # the room of the next is reserved
            await self._log.wait_room()
            await trio.lowlevel.checkpoint()

    def _subscribe(self) -> None:
        for number in range(self._filling.subscriptions):
            settings = SubscriptionSettings(
                topics=(TOPIC.format(number=number),), window_max=10_000, dead_letter="", lease_ms=600_000
            )
            subscription = self._catalogue.create(NAME.format(number=number), settings, self._log.end)
            body = subscription_record(subscription, settings)
            self._log.control(Kind.SUBSCRIPTION, body, number=subscription.number)

    def _append(self, topic: str, count: int) -> int:
        """The position of the first."""
        message = Message(topic, data=msgspec.Raw(Layout(topic, self._filling.size_bytes).payload(0)))
        batch = Batch([message] * count, Durability.FSYNCED, 0, lambda _batch: None)
        batch.plain, batch.topics, batch.routes = True, {topic}, (self._catalogue.route(topic),)
        self._appender.append([batch], now_ms())
        return batch.first

    def _settle(self, ranges: list[list[tuple[int, int]]]) -> None:
        """As acks do, and a restart hears of them."""
        for number, its in enumerate(ranges, 1):
            if its:
                counted = sum(high - low + 1 for low, high in its)
                body = records.encode_settle(Cause.ACKED, counted, its)
                self._log.control(Kind.SETTLE, body, number=number, lazy=True)
                self._catalogue.replay(Record(0, 0, Kind.SETTLE, 0, number, self._log.end, now_ms(), body))
                self.settled += counted


def _patterns(filling: Filling) -> list[list[tuple[int, int]]]:
    """What is settled of a batch, as closed ranges of places in it; to be taken in turn."""
    chance = random.Random(1)
    match filling.settled:
        case Settled.HALF:
            return [_half(chance, filling.batch) for _ in range(_PATTERNS)]
        case Settled.MOST:
            return [[(0, filling.batch - 1)] if chance.random() < 0.9 else [] for _ in range(_PATTERNS)]
        case _:
            return []


def _half(chance: random.Random, count: int) -> list[tuple[int, int]]:
    """About half of the numbers below `count`, as closed ranges."""
    ranges: list[tuple[int, int]] = []
    for number in range(count):
        if chance.random() < 0.5:
            continue
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
