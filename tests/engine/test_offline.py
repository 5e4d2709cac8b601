from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio

from gateway.engine.merging import MergeStatistics
from gateway.engine.offline import merge_store
from gateway.errors import StoreLockedError
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import BEGAN_MS, config, driven
from tests.engine.test_merging import SETTINGS, due, fill, leave_stragglers


async def test_a_stopped_store_is_merged_to_the_end(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        client = gateway.attach(window=100_000)
        await fill(gateway, 12)
        left = await leave_stragglers(gateway, client)
    before = len(list((tmp_path / "s").glob("*.log")))
    said: list[MergeStatistics] = []
    with trio.fail_after(10):
        statistics = await merge_store(
            config(tmp_path / "s", **SETTINGS),
            lambda: BEGAN_MS,
            live_share=0.25,
            told=lambda so_far: said.append(attrs.evolve(so_far)),
            files=FaultyFiles(),
        )
    assert [one.merges for one in said] == list(range(1, statistics.merges + 1))
    assert statistics.freed_bytes > 10 * statistics.moved_bytes > 0
    assert len(list((tmp_path / "s").glob("*.log"))) <= before - 8
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        assert await due(gateway) == left


async def test_a_store_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS):
        with pytest.raises(StoreLockedError, match="is in use"):
            await merge_store(config(tmp_path / "s"), lambda: BEGAN_MS, live_share=0.25, told=print)
