"""append: a place in the log. The bytes are built here, once; the flusher makes them durable with all that waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

from gateway.engine.base import Engine
from gateway.errors import GatewayError, StoreError
from gateway.flow.ring import Ring
from gateway.model import Batch

_MESSAGES_MAX: Final = 1000
"""Messages written in one go: a millisecond or two in which nothing else runs."""
FEW: Final = 32
FEW_BYTES: Final = 64 * 1024
"""A batch of so few waits for the next commit and is appended right before it, with all the others that have come by
then: it costs a third so, and no task switch. A larger one is appended while the commit before is synced."""


class Append:
    """The third stage. Also the log's upstream: `bring_in` appends what waits for the next commit."""

    def __init__(self, engine: Engine, items_max: int, clock: Callable[[], int]) -> None:
        self.ring: Ring[Batch] = Ring("append", items_max)
        self._engine = engine
        self._clock = clock
        self._few: list[Batch] = []
        self._few_messages = 0
        self.ring.at_once = self._keep
        engine.bring_from(self)

    def __len__(self) -> int:
        """Batches that wait for the next commit."""
        return len(self._few)

    async def run(self) -> None:
        is_routed = self._engine.is_routed
        while True:
            batches = [await self.ring.get()]
            await self._engine.wait_room()
            messages = len(batches[0].messages)
            while messages < _MESSAGES_MAX and (batch := self.ring.get_nowait()) is not None:
                batches.append(batch)
                messages += len(batch.messages)
            while stale := [batch for batch in batches if not is_routed(batch)]:  # a subscription came or went
                await self._engine.ask_filters(stale[0])
            self.bring_in()  # it came before these
            self._append(batches)

    def _keep(self, batch: Batch) -> bool:
        """Have it wait for the next commit, if it may; filters are asked by the stage's task."""
        messages = self._few_messages + len(batch.messages)
        if (
            len(batch.messages) > FEW
            or batch.size > FEW_BYTES
            or messages > _MESSAGES_MAX
            or not self._engine.routes_at_once
            or not self._engine.has_room
        ):
            return False
        self._few.append(batch)
        self._few_messages = messages
        self._engine.expect()
        return True

    def bring_in(self) -> None:
        """Append all that waits for the next commit."""
        if self._few:
            few, self._few, self._few_messages = self._few, [], 0
            self._append(few)

    def _append(self, batches: Sequence[Batch]) -> None:
        began = perf_counter()
        try:
            self._engine.append(batches, self._clock())
        except StoreError as error:
            for batch in batches:
                batch.fail(GatewayError("store_failed", f"{error}; the gateway is going down"))
        self.ring.count_busy(perf_counter() - began)
