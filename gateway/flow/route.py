"""route: who is this for? By topic, which the engine remembers, and by the filters of the subscriptions."""

from __future__ import annotations

from time import perf_counter

from gateway.engine.base import Engine
from gateway.flow.ring import Ring
from gateway.model import Batch


class Route:
    """The second stage."""

    def __init__(self, engine: Engine, items_max: int, forward: Ring[Batch]) -> None:
        self.ring: Ring[Batch] = Ring("route", items_max)
        self._engine = engine
        self._forward = forward
        self.ring.at_once = self._at_once

    def _at_once(self, batch: Batch) -> bool:
        if not self._engine.routes_at_once or not self._forward.takes():
            return False
        self._route(batch)
        self._forward.put_nowait(batch, len(batch.messages))
        return True

    async def run(self) -> None:
        while True:
            batch = await self.ring.get()
            self._route(batch)
            while not self._engine.is_routed(batch):
                await self._engine.ask_filters(batch)
            await self._forward.put(batch, len(batch.messages))

    def _route(self, batch: Batch) -> None:
        began = perf_counter()
        self._engine.route(batch)
        self.ring.count_busy(perf_counter() - began)
