"""append: a place in the log. The bytes are built here, once; the flusher makes them durable with all that waits."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

from gateway.engine.base import Engine
from gateway.errors import GatewayError, StoreError
from gateway.flow.ring import Ring
from gateway.model import Batch

_MESSAGES_MAX: Final = 1000
"""Messages written in one go: a millisecond or two in which nothing else runs."""
_FEW: Final = 32
"""A batch of so few waits while the disk is busy: it would wait there anyway, and costs a third when it goes together
with those that come meanwhile. A larger one is written while the one before is synced."""


class Append:
    """The third stage."""

    def __init__(self, engine: Engine, items_max: int, clock: Callable[[], int]) -> None:
        self.ring: Ring[Batch] = Ring("append", items_max)
        self._engine = engine
        self._clock = clock

    async def run(self) -> None:
        is_routed = self._engine.is_routed
        while True:
            batches = [await self.ring.get()]
            await self._engine.wait_room()
            if len(batches[0].messages) <= _FEW:
                await self._engine.wait_turn()
            began = perf_counter()
            messages = len(batches[0].messages)
            while messages < _MESSAGES_MAX and (batch := self.ring.get_nowait()) is not None:
                batches.append(batch)
                messages += len(batch.messages)
            while stale := [batch for batch in batches if not is_routed(batch)]:  # a subscription came or went
                await self._engine.ask_filters(stale[0])
            try:
                self._engine.append(batches, self._clock())
            except StoreError as error:
                for batch in batches:
                    batch.fail(GatewayError("store_failed", f"{error}; the gateway is going down"))
            self.ring.count_busy(perf_counter() - began)
