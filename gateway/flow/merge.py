"""merge: what little is due of nearly empty segments is moved together. Its own loop, for it takes its time."""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway.engine.base import Engine


class Merge:
    """Has the engine look for segments to merge, one merge at a time."""

    def __init__(self, engine: Engine, interval_s: float, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._interval_s = interval_s
        self._clock = clock

    async def run(self) -> None:
        while True:
            await trio.sleep(self._interval_s)
            await self._engine.merge(self._clock())
