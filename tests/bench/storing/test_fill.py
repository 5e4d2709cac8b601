"""What is filled is a store like any other, with as much in it as it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from gateway.bench.storing.fill import Filling, Settled, fill
from gateway.engine import census
from gateway.store.files import Files
from gateway.store.recovery import segment_name
from gateway.store.verify import verify


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_store_is_sound_and_says_who_is_due_what(tmp_path: Path, crashed: bool) -> None:
    told: list[int] = []
    filling = Filling(messages=10_050, subscriptions=3, batch=20, settled=Settled.HALF, segment_bytes=1024 * 1024)
    filled = await fill(tmp_path / "store", filling, told.append, crashed=crashed)
    verdict = await trio.to_thread.run_sync(verify, Files(), tmp_path / "store", lambda _: None)
    assert (verdict.lost, verdict.messages, verdict.segments) == ([], 10_050, filled.segments)
    counted = await trio.to_thread.run_sync(census.take, Files(), tmp_path / "store")
    assert sum(each.routed for each in counted.subscriptions) == 10_050
    assert sum(each.acked for each in counted.subscriptions) == filled.settled
    assert sum(each.waiting for each in counted.subscriptions) == 10_050 - filled.settled
    assert 4_500 < filled.settled < 5_500
    assert told[-1] == 10_050
    place = counted.checkpoint
    assert place is not None
    assert filled.behind_bytes == (tmp_path / "store" / segment_name(place[0])).stat().st_size - place[1]


async def test_a_store_that_was_left_suddenly_has_no_last_checkpoint(tmp_path: Path) -> None:
    filled = await fill(tmp_path / "store", Filling(messages=1000), lambda _: None, crashed=True)
    assert filled.behind_bytes == filled.log_bytes
    assert not (tmp_path / "store" / "checkpoint").exists()
