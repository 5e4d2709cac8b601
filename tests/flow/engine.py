"""A scripted engine: what the stages ask of it is noted, and it says what a test lets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import trio

from gateway.broker.lease import Consumer
from gateway.engine.base import DeadLetter, Engine, Upstream
from gateway.model import Batch, Delivery, Settlement


class ScriptedEngine:
    """Only what the flow calls. `as_engine` is the same for the types."""

    def __init__(self) -> None:
        self.routed: list[Batch] = []
        self.appended: list[list[Batch]] = []
        self.undecided: set[Batch] = set()
        self.filters = trio.Event()
        self.room = trio.Event()
        self.expected = 0
        self.room.set()
        self.error: Exception | None = None
        self.committing, self._commits = trio.open_memory_channel[list[Batch | Settlement]](100)
        self.settled: list[Settlement] = []
        self.leased: dict[tuple[int, int], int] = {}  # messages of leases that the short way of an ack finds
        self.acked = 0
        self.counts: dict[str, int] = {}
        self.ticks: list[int] = []
        self.doomed: list[DeadLetter] = []
        self.buried: list[DeadLetter] = []
        self.ready = trio.Event()
        self.due: list[tuple[Consumer, Delivery]] = []
        self.cold: set[Delivery] = set()
        self.loads: dict[Delivery, trio.Event] = {}
        self.sent: list[Delivery] = []

    @property
    def as_engine(self) -> Engine:
        return cast("Engine", self)

    @property
    def routes_at_once(self) -> bool:
        return not self.undecided

    def route(self, batch: Batch) -> None:
        self.routed.append(batch)

    def is_routed(self, batch: Batch) -> bool:
        return batch not in self.undecided

    async def ask_filters(self, batch: Batch) -> None:
        await self.filters.wait()
        self.undecided.discard(batch)

    @property
    def has_room(self) -> bool:
        return self.room.is_set()

    async def wait_room(self) -> None:
        await self.room.wait()

    def bring_from(self, upstream: Upstream) -> None:
        self.upstream = upstream

    def expect(self) -> None:
        self.expected += 1

    def append(self, batches: Sequence[Batch], now: int) -> None:
        if self.error:
            raise self.error
        self.appended.append(list(batches))

    @property
    def commits(self) -> None:
        return None

    async def tell_commits(self, told: Callable[[list[Batch | Settlement]], None]) -> None:
        async for entries in self._commits:
            told(entries)

    def settle(self, settlement: Settlement, now: int) -> bool:
        if self.error:
            raise self.error
        self.settled.append(settlement)
        for settle in settlement.settles:
            settlement.counts[settle.verb] += 1
        settlement.unknown += 1
        return True

    def ack(self, consumer: Consumer, low: int, high: int, now: int) -> int:
        if self.error:
            raise self.error
        met = self.leased.pop((low, high), 0)
        self.acked += met
        return met

    def tick(self, now: int) -> bool:
        self.ticks.append(now)
        return False

    async def dead_letters(self) -> list[DeadLetter]:
        doomed, self.doomed = self.doomed, []
        return doomed

    def bury(self, dead: DeadLetter, now: int) -> None:
        self.buried.append(dead)

    async def wait_ready(self) -> None:
        if self.due:
            await trio.lowlevel.checkpoint()
        else:
            self.ready = trio.Event()
            await self.ready.wait()

    def take(self, now: int) -> tuple[Consumer, Delivery] | None:
        return self.due.pop(0) if self.due else None

    def take_for(self, consumer: Consumer, now: int) -> Delivery | None:
        return self.due.pop(0)[1] if self.due else None

    def is_loaded(self, delivery: Delivery) -> bool:
        return delivery not in self.cold

    async def load(self, delivery: Delivery) -> None:
        await self.loads[delivery].wait()

    def send(self, consumer: Consumer, delivery: Delivery, now: int) -> None:
        self.sent.append(delivery)
