"""deliver: whose turn is it? Takes what is due from the engine and hands it to consumers, one frame after the other.

Handing over never waits: a consumer's socket that is full blocks that consumer and nothing else. Bodies that are no
longer in memory are read beside this task, so that a subscription far behind does not hold up those that are not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

import attrs
import trio

from gateway.broker.lease import Consumer
from gateway.engine.base import Engine
from gateway.model import Delivery

_TURN = 16
_TURN_S = 0.001
"""Frames handed over, and time passed, before other tasks run. Full frames take a tenth of a millisecond each; those
that are put together from single messages that came back take thirty times as long."""


@attrs.define
class DeliverStatistics:
    """Counters since the start."""

    frames: int = 0
    messages: int = 0
    redelivered: int = 0
    cold_frames: int = 0
    busy_seconds: float = 0.0


class Deliver:
    """The push stage."""

    def __init__(
        self, engine: Engine, clock: Callable[[], int], gathering: AbstractContextManager[None] | None = None
    ) -> None:
        """`gathering` is entered while the deliveries of a turn are handed over."""
        self._gathering = gathering or nullcontext()
        self.statistics = DeliverStatistics()
        self._engine = engine
        self._clock = clock
        self._nursery: trio.Nursery | None = None  # of what is being read

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            while True:
                await self._engine.wait_ready()
                began = perf_counter()
                self._turn(began + _TURN_S)
                self.statistics.busy_seconds += perf_counter() - began

    def _turn(self, until_s: float) -> None:
        now = self._clock()
        with self._gathering:
            for _ in range(_TURN):
                taken = self._engine.take(now)
                if taken is None:
                    return
                consumer, delivery = taken
                self._pass_on(consumer, delivery, now)
                if perf_counter() > until_s:
                    return

    def turn_now(self) -> None:
        """What a commit has made due, in the pass that tells of it; what is more than a turn is left to the task."""
        if self._nursery is not None:
            began = perf_counter()
            self._turn(began + _TURN_S)
            self.statistics.busy_seconds += perf_counter() - began

    def at_once(self, consumer: Consumer) -> None:
        """Hand a consumer that has come without waiting what is there for it; this stage's task is not woken for it."""
        began = perf_counter()
        now = self._clock()
        delivery = self._engine.take_for(consumer, now)
        if delivery is not None:
            self._pass_on(consumer, delivery, now)
        self.statistics.busy_seconds += perf_counter() - began

    def _pass_on(self, consumer: Consumer, delivery: Delivery, now: int) -> None:
        if delivery.bodies or self._engine.is_loaded(delivery):
            self._hand(consumer, delivery, now)
        else:
            assert self._nursery is not None  # whoever has taken something has seen this stage run
            self._nursery.start_soon(self._load, consumer, delivery)

    async def _load(self, consumer: Consumer, delivery: Delivery) -> None:
        self.statistics.cold_frames += 1
        await self._engine.load(delivery)
        self._hand(consumer, delivery, self._clock())

    def _hand(self, consumer: Consumer, delivery: Delivery, now: int) -> None:
        statistics = self.statistics
        statistics.frames += 1
        statistics.messages += delivery.count
        statistics.redelivered += len(delivery.attempts)
        self._engine.send(consumer, delivery, now)
