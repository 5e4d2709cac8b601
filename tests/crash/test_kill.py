"""SIGKILL under load, again and again, with a history that is checked (`make crash` runs many cycles)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.crash.history import History
from tests.crash.load import CONFIG, MERGING, SUBSCRIPTION, Load, merges_of
from tests.crash.spread import Say
from tests.e2e.process import GatewayProcess

CYCLES = int(os.environ.get("CRASH_CYCLES", "10"))
MANY = 200
"""Cycles that take longer than ids are remembered: from then on segments are merged."""
SEED = int(os.environ.get("CRASH_SEED", "1"))


@pytest.mark.slow
async def test_no_answered_publish_is_lost_over_sigkills(tmp_path: Path, say: Say) -> None:
    merges, _ = await kill_again_and_again(tmp_path, CONFIG, CYCLES, say)
    assert merges or CYCLES < MANY


@pytest.mark.slow
async def test_no_answered_publish_is_lost_over_sigkills_among_merges(tmp_path: Path, say: Say) -> None:
    merges, interrupted = await kill_again_and_again(tmp_path, CONFIG + MERGING, CYCLES // 2, say, merging=True)
    assert merges + interrupted
    assert (merges and interrupted) or CYCLES < MANY


async def kill_again_and_again(
    tmp_path: Path, config: str, cycles: int, say: Say, *, merging: bool = False
) -> tuple[int, int]:
    """Merges that came to their end meanwhile, and those that were interrupted."""
    history = History()
    (tmp_path / "gateway.toml").write_text(config, encoding="utf-8")
    with GatewayProcess(tmp_path / "gateway", "--config", str(tmp_path / "gateway.toml")) as gateway:
        gateway.put_subscription(SUBSCRIPTION, topics=["crash.>"])
        load = Load(gateway, history, SEED, tmp_path / "gateway" / "store" if merging else None)
        for number in range(cycles):
            await load.cycle(number, gateway.kill)
            await trio.to_thread.run_sync(gateway.start)
            await trio.to_thread.run_sync(load.check_conservation)
            assert history.violations == []
            if number % 20 == 19:
                say(load.told(number + 1))
        await load.drain(30)
        await trio.to_thread.run_sync(load.check_conservation)
        assert history.violations == []
        assert history.missing == set()
        assert len(history.ok) > 100 * cycles
        assert gateway.terminate() == 0
    assert "Traceback" not in gateway.log.read_text()
    return merges_of(gateway), load.interrupted
