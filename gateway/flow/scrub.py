"""scrub: the store is read again, evenly over days, so that damage is met before it is due. Its own loop."""

from __future__ import annotations

from typing import Final

import trio

from gateway.config import Store
from gateway.engine.base import Engine

_TICK_S: Final = 10.0
_STEP_BYTES: Final = 1024 * 1024
"""Read at a time: some milliseconds of a disk, so that no commit waits long behind it."""


class Scrub:
    """Has the engine read all that is sealed once in store.scrub_interval_s, at store.scrub_bytes_per_s at most."""

    def __init__(self, engine: Engine, settings: Store) -> None:
        self._engine = engine
        self._settings = settings

    async def run(self) -> None:
        settings = self._settings
        owed = 0.0
        while True:
            await trio.sleep(_TICK_S)
            sealed = self._engine.statistics().sealed_bytes
            step = min(_STEP_BYTES, sealed)
            owed += sealed * _TICK_S / settings.scrub_interval_s
            owed = min(owed, max(step, settings.scrub_bytes_per_s * _TICK_S))
            while 0 < step <= owed:
                read = await self._engine.scrub(step)
                owed = owed - read if read else 0
                await trio.sleep(read / settings.scrub_bytes_per_s)
