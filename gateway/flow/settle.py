"""settle: what consumers say. Carried out in the order it came; answered, where that is asked for, once durable."""

from __future__ import annotations

from collections.abc import Callable

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

    def _count(self, settlement: Settlement) -> None:
        for verb, number in settlement.counts.items():
            self.counts[verb] += number
        self.unknown += settlement.unknown
