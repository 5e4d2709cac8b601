"""sweep: what nobody has taken in time. Its own loop, for a look at a large backlog must not delay a lease."""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway.engine.base import Engine


class Sweep:
    """Expires by time to live and by retention."""

    def __init__(self, engine: Engine, sweep_ms: int, clock: Callable[[], int]) -> None:
        self.sweeps = 0
        self._engine = engine
        self._sweep_s = sweep_ms / 1000
        self._clock = clock

    async def run(self) -> None:
        while True:
            await trio.sleep(self._sweep_s)
            await self._engine.sweep(self._clock())
            self.sweeps += 1
