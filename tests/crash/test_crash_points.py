"""A life is recorded once; then for every prefix of what it did to the disk, and every way in which that may be found,
the store is opened again and asked what was promised by then."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from random import Random

import attrs
import pytest

from gateway.testing.faulty import FaultyFiles
from gateway.testing.power import Change, Named, lay_out
from tests.crash.life import Life, LifeOfStragglers
from tests.crash.points import Point, points, with_a_bad_checkpoint
from tests.crash.spread import Judge, Say, judge_all, judge_some
from tests.crash.verdict import violations
from tests.crash.witness import Known, Witness

SEED = int(os.environ.get("CRASH_SEED", "1"))
SAMPLE = int(os.environ.get("CRASH_POINTS", "100"))
"""How many of the thousands of points are tried; 0 all of them (`make crash`)."""
OPERATIONS = 200


MERGES = 100
"""Operations of a life that is little else than merging."""
Recording = tuple[list[Change], Witness]


async def record(directory: Path, seed: int, operations: int = OPERATIONS, life: type[Life] = Life) -> Recording:
    disk = FaultyFiles()
    witness = Witness(lambda: len(disk.changes))
    await life(directory, disk, witness, seed).run(operations)
    return disk.changes, witness


@attrs.frozen
class Moment:
    """Points at which the same was known."""

    known: Known
    points: list[Point]


async def judge(directory: Path, moment: Moment, *, thorough: bool = True) -> list[str]:
    broken: list[str] = []
    for point in moment.points:
        lay_out(point.contents, directory)
        found = await violations(directory, moment.known, killed=point.killed, thorough=thorough)
        broken += [f"{point}: {each}" for each in found]
    return broken


judge_with_a_bad_checkpoint = partial(judge, thorough=False)


def moments(some: list[Point], witness: Witness) -> list[Moment]:
    """Whatever order `some` are in, it is the same work: what was known is made up once for each moment."""
    by_moment: dict[int, list[Point]] = {}
    for point in some:
        by_moment.setdefault(point.moment, []).append(point)
    return [Moment(witness.until(moment), found) for moment, found in sorted(by_moment.items())]


async def judged(
    every: list[Point], witness: Witness, directory: Path, sample: int, say: Say, judge: Judge[Moment]
) -> list[str]:
    """What is broken at all of them, or at so many of them where only some are asked for."""
    if SAMPLE:
        return await judge_some(judge, moments(Random(SEED).sample(every, min(sample, len(every))), witness), directory)
    cases = moments(every, witness)
    say(f"{len(every):,} points at {len(cases):,} moments")
    return await judge_all(judge, cases, say)


@pytest.mark.slow
async def test_whatever_a_crash_leaves_no_promise_is_broken(tmp_path: Path, say: Say) -> None:
    changes, witness = await record(tmp_path / "life", SEED)
    every = points(changes, SEED)
    assert len(every) > 4 * OPERATIONS  # or the life is not worth the test
    assert await judged(every, witness, tmp_path / "found", SAMPLE, say, judge) == []


@pytest.mark.slow
async def test_whatever_a_crash_leaves_of_merges_no_promise_is_broken(tmp_path: Path, say: Say) -> None:
    changes, witness = await record(tmp_path / "life", SEED, MERGES, LifeOfStragglers)
    every = points(changes, SEED)
    placed = [each for each in changes if isinstance(each, Named) and any(".log.tmp" in name for name in each.names)]
    assert len(placed) > MERGES // 2  # each is made, and put in its place
    assert await judged(every, witness, tmp_path / "found", SAMPLE // 2, say, judge) == []


@pytest.mark.slow
@pytest.mark.parametrize(("life", "operations"), [(Life, OPERATIONS // 2), (LifeOfStragglers, MERGES)])
async def test_the_checkpoint_before_the_last_does_as_well_at_any_moment(
    tmp_path: Path, say: Say, life: type[Life], operations: int
) -> None:
    changes, witness = await record(tmp_path / "life", SEED, operations, life)
    every = [bad for point in points(changes, SEED) if (bad := with_a_bad_checkpoint(point)) is not None]
    found = await judged(every, witness, tmp_path / "found", SAMPLE // 2, say, judge_with_a_bad_checkpoint)
    assert found == []
