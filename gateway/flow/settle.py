"""settle: what consumers say. Carried out in the order it came; answered, where that is asked for, once durable."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from gateway.broker.lease import Consumer
from gateway.engine.base import Engine
from gateway.errors import GatewayError
from gateway.flow.ring import Ring
from gateway.model import Settlement, Verb


class Settle:
    """The stage of acks, nacks, extends and terms."""

    def __init__(self, engine: Engine, items_max: int, clock: Callable[[], int]) -> None:
        self.ring: Ring[Settlement] = Ring("settle", items_max)
        self.counts = dict.fromkeys(Verb, 0)
        self.unknown = 0
        self._engine = engine
        self._clock = clock

    async def run(self) -> None:
        await self.ring.work(self.settle)

    def settle(self, settlement: Settlement) -> None:
        try:
            settlement.carried_out = self._count
            finished = self._engine.settle(settlement, self._clock())
        except GatewayError as error:
            settlement.error = error
            if settlement.done is not None:
                settlement.done(settlement)
            return
        if finished:
            self._count(settlement)

    def ack(self, consumer: Consumer, low: int, high: int, now: int) -> bool:
        """The short way of an ack that nobody waits for: of one whole lease, with nothing before it, as most are.

        False, and nothing done, where it is not that: it goes by the ring, which is 54 calls more.
        """
        if not self.ring.is_idle:
            return False
        began = perf_counter()
        try:
            met = self._engine.ack(consumer, low, high, now)
        except GatewayError:
            return False  # the ring's way ends the same
        if not met:
            return False
        self.counts[Verb.ACK] += met
        self.unknown += high - low + 1 - met
        self.ring.count_done(perf_counter() - began)
        return True

    def _count(self, settlement: Settlement) -> None:
        for verb, number in settlement.counts.items():
            self.counts[verb] += number
        self.unknown += settlement.unknown
