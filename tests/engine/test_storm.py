from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.broker.shelf import EXTENT_RECORDS
from tests.engine.storm import storm

PAUSE_MS_MAX = 20.0


@pytest.mark.parametrize(("messages", "frame"), [(20_000, 1), (100_000, 500)])
async def test_leases_that_end_together_stop_nothing_and_are_all_redelivered(
    tmp_path: Path, messages: int, frame: int
) -> None:
    """`python -m tests.engine.storm 1000000 1` shows the same for a million."""
    seen = await storm(tmp_path, messages, frame, direct_bytes_max=1)
    assert (seen.in_flight, seen.redelivered) == (messages, messages)
    records = messages // frame
    beyond = max(records - EXTENT_RECORDS, 0)
    assert seen.records == {"heap": 0, "direct": records - beyond, "file": beyond}
    assert seen.longest_pause_ms < PAUSE_MS_MAX
    assert seen.ageing_pause_ms < PAUSE_MS_MAX
    assert not [name for name in os.listdir(tmp_path) if name.startswith("inflight")]
