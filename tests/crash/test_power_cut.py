"""The power goes under load, again and again, on a real file system (`make crash`; needs root)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.crash.history import History
from tests.crash.load import CONFIG, MERGING, SUBSCRIPTION, Load, merges_of
from tests.crash.power_cut import PowerCutDisk, why_not
from tests.crash.spread import Say
from tests.e2e.process import GatewayProcess

CYCLES = int(os.environ.get("POWER_CUTS", "0"))
SEED = int(os.environ.get("CRASH_SEED", "1"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerCutDisk]:
    if not CYCLES:
        pytest.skip("power cuts are part of `make crash`: they mount a file system")
    (tmp_path / "trial").mkdir()
    if reason := why_not(tmp_path / "trial"):
        pytest.skip(reason)
    disk = PowerCutDisk(tmp_path)
    try:
        disk.make()
        yield disk
    finally:
        disk.remove()


def cut_power(gateway: GatewayProcess, disk: PowerCutDisk) -> None:
    """The disk is gone first, then the process. What that says in between is not heard: the kernel may tell it of a
    sync that was under way that it went well, which a machine without power could not."""
    disk.cut()
    gateway.kill()
    disk.unmount()
    disk.mount()
    gateway.start()


@pytest.mark.slow
async def test_no_answered_publish_is_lost_over_power_cuts(tmp_path: Path, disk: PowerCutDisk, say: Say) -> None:
    await cut_again_and_again(tmp_path, disk, CONFIG, CYCLES, say)


@pytest.mark.slow
async def test_no_answered_publish_is_lost_over_power_cuts_among_merges(
    tmp_path: Path, disk: PowerCutDisk, say: Say
) -> None:
    merges, interrupted = await cut_again_and_again(tmp_path, disk, CONFIG + MERGING, CYCLES, say, merging=True)
    assert merges + interrupted


async def cut_again_and_again(
    tmp_path: Path, disk: PowerCutDisk, config: str, cycles: int, say: Say, *, merging: bool = False
) -> tuple[int, int]:
    """Merges that came to their end meanwhile, and those that were interrupted."""
    history = History()
    (tmp_path / "gateway.toml").write_text(config, encoding="utf-8")
    config_file, store = str(tmp_path / "gateway.toml"), disk.directory / "store"
    with GatewayProcess(tmp_path / "gateway", "--config", config_file, store=store) as gateway:
        gateway.put_subscription(SUBSCRIPTION, topics=["crash.>"])
        load = Load(gateway, history, SEED, store if merging else None)
        for number in range(cycles):
            await load.cycle(number, partial(cut_power, gateway, disk), deaf=True)
            await trio.to_thread.run_sync(load.check_conservation)
            assert history.violations == []
            say(load.told(number + 1))
        await load.drain(30)
        await trio.to_thread.run_sync(load.check_conservation)
        assert history.violations == []
        assert history.missing == set()
        assert len(history.ok) > 100 * cycles
        assert list(store.glob("*.log"))
        assert gateway.terminate() == 0
    return merges_of(gateway), load.interrupted
