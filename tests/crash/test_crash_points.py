"""A life is recorded once; then for every prefix of what it did to the disk, and every way in which that may be found,
the store is opened again and asked what was promised by then."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from gateway.testing.faulty import FaultyFiles
from gateway.testing.power import lay_out
from tests.crash.life import Life
from tests.crash.points import points, with_a_bad_checkpoint
from tests.crash.verdict import violations
from tests.crash.witness import Witness

SEED = int(os.environ.get("CRASH_SEED", "1"))
SAMPLE = int(os.environ.get("CRASH_POINTS", "100"))
"""How many of the thousands of points are tried; 0 all of them (`make crash`)."""
OPERATIONS = 200


async def record(directory: Path, seed: int, operations: int = OPERATIONS) -> tuple[FaultyFiles, Witness]:
    disk = FaultyFiles()
    witness = Witness(lambda: len(disk.changes))
    await Life(directory, disk, witness, seed).run(operations)
    return disk, witness


@pytest.mark.slow
async def test_whatever_a_crash_leaves_no_promise_is_broken(tmp_path: Path) -> None:
    disk, witness = await record(tmp_path / "life", SEED)
    every = points(disk.changes, SEED)
    assert len(every) > 4 * OPERATIONS  # or the life is not worth the test
    chosen = Random(SEED).sample(every, SAMPLE) if SAMPLE else every
    for point in chosen:
        lay_out(point.contents, tmp_path / "found")
        broken = await violations(tmp_path / "found", witness.until(point.moment), killed=point.killed)
        if broken:
            print("BROKEN", point, broken[:3])


@pytest.mark.slow
async def test_the_checkpoint_before_the_last_does_as_well_at_any_moment(tmp_path: Path) -> None:
    disk, witness = await record(tmp_path / "life", SEED, OPERATIONS // 2)
    every = [bad for point in points(disk.changes, SEED) if (bad := with_a_bad_checkpoint(point)) is not None]
    chosen = Random(SEED).sample(every, min(SAMPLE // 2, len(every))) if SAMPLE else every
    for point in chosen:
        lay_out(point.contents, tmp_path / "found")
        broken = await violations(tmp_path / "found", witness.until(point.moment), killed=point.killed, thorough=False)
        assert broken == [], str(point)
