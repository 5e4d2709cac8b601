"""What is done to a store while no gateway runs on it: the engine is opened, does it, and closes."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from gateway.config import Config
from gateway.engine.embedded import EmbeddedEngine
from gateway.engine.merging import MergeStatistics
from gateway.store.files import Files


async def merge_store(
    config: Config,
    clock: Callable[[], int],
    *,
    live_share: float,
    told: Callable[[MergeStatistics], None],
    files: Files | None = None,
) -> MergeStatistics:
    """Merge all that is worth it, as `gateway serve` would in time; `told` behind each merge.

    `live_share` stands for store.merge_live_share. What has expired is settled first. Raises StoreLockedError where a
    gateway runs on the store, or StoreError.
    """
    settings = attrs.evolve(config, store=attrs.evolve(config.store, merge_live_share=live_share))
    engine = EmbeddedEngine(settings, clock, files)
    await engine.open()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run)
            statistics = await engine.merge_all(clock(), told)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await engine.aclose()
    return statistics
