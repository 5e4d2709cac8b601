"""SIGKILL under load, again and again, with a history that is checked (`make crash` runs many cycles)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from tests.crash.history import History
from tests.crash.load import SUBSCRIPTION, Load
from tests.e2e.process import GatewayProcess

CYCLES = int(os.environ.get("CRASH_CYCLES", "10"))
SEED = int(os.environ.get("CRASH_SEED", "1"))


@pytest.mark.slow
async def test_no_answered_publish_is_lost_over_sigkills(tmp_path: Path) -> None:
    history = History()
    with GatewayProcess(tmp_path / "gateway") as gateway:
        gateway.put_subscription(SUBSCRIPTION, topics=["crash.>"])
        load = Load(gateway, history, SEED)
        for _ in range(CYCLES):
            await load.cycle(load.dice.uniform(0.1, 0.4), gateway.kill)
            await trio.to_thread.run_sync(gateway.start)
            assert history.violations == []
        await load.drain(30)
        assert history.violations == []
        assert history.missing == set()
        assert len(history.ok) > 100 * CYCLES
        assert gateway.terminate() == 0
    assert "Traceback" not in gateway.log.read_text()
