"""SIGKILL under load, again and again, with a history that is checked (`make crash` runs many cycles)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.crash.history import History
from tests.crash.load import CONFIG, SUBSCRIPTION, Load
from tests.e2e.process import GatewayProcess

CYCLES = int(os.environ.get("CRASH_CYCLES", "10"))
MANY = 200
"""Cycles that take longer than ids are remembered: from then on segments are merged."""
SEED = int(os.environ.get("CRASH_SEED", "1"))


@pytest.mark.slow
async def test_no_answered_publish_is_lost_over_sigkills(tmp_path: Path) -> None:
    history = History()
    (tmp_path / "gateway.toml").write_text(CONFIG, encoding="utf-8")
    with GatewayProcess(tmp_path / "gateway", "--config", str(tmp_path / "gateway.toml")) as gateway:
        gateway.put_subscription(SUBSCRIPTION, topics=["crash.>"])
        load = Load(gateway, history, SEED)
        for number in range(CYCLES):
            await load.cycle(number, gateway.kill)
            await trio.to_thread.run_sync(gateway.start)
            await trio.to_thread.run_sync(load.check_conservation)
            assert history.violations == []
        await load.drain(30)
        await trio.to_thread.run_sync(load.check_conservation)
        assert history.violations == []
        assert history.missing == set()
        assert len(history.ok) > 100 * CYCLES
        if CYCLES >= MANY:
            assert "merged segments" in gateway.log.read_text()
        assert gateway.terminate() == 0
    assert "Traceback" not in gateway.log.read_text()
