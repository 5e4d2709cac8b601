"""append: a place in the log. The bytes are built here, once; the flusher makes them durable with all that waits."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from gateway.engine.base import Engine
from gateway.errors import GatewayError, StoreError
from gateway.flow.ring import Ring
from gateway.model import Batch


class Append:
    """The third stage."""

    def __init__(self, engine: Engine, items_max: int, clock: Callable[[], int]) -> None:
        self.ring: Ring[Batch] = Ring("append", items_max)
        self._engine = engine
        self._clock = clock

    async def run(self) -> None:
        while True:
            batch = await self.ring.get()
            await self._engine.wait_room()
            began = perf_counter()
            try:
                self._engine.append(batch, self._clock())
            except StoreError as error:
                batch.fail(GatewayError("store_failed", f"{error}; the gateway is going down"))
            self.ring.count_busy(perf_counter() - began)
