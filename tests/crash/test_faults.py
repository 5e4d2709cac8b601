"""A fault at every call to the disk: whoever asked is told, nothing that was answered is a lie, and a restart works."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Container, Iterator
from pathlib import Path
from random import Random

import attrs
import pytest
import trio

from gateway.errors import GatewayError, StoreError
from gateway.testing.faulty import Call, FaultyFiles
from gateway.testing.power import Surface, lay_out, ways_of
from tests.crash.life import Life
from tests.crash.spread import Say, judge_all, judge_some
from tests.crash.verdict import violations
from tests.crash.witness import Witness

SEED = int(os.environ.get("CRASH_SEED", "1"))
SAMPLE = int(os.environ.get("CRASH_FAULTS", "40"))
"""How many calls are tried with each fault; 0 all of them (`make crash`)."""
OPERATIONS = 40


@attrs.frozen
class Fault:
    error: int
    verbs: Container[str]
    """The calls it can come from."""
    kept: int = 0
    ever: bool = False
    """So do all calls behind it."""
    reserves: bool = True
    """Whether the file system has fallocate."""


TAKE_ROOM = ("write", "create", "replace", "truncate", "reserve", "sync", "sync_directory")
CHANGE_OR_ASK = (*TAKE_ROOM, "make_directory", "names", "open", "size", "read", "map", "unlink", "lock")
FAULTS = {
    "an error of the device": Fault(errno.EIO, CHANGE_OR_ASK),
    "no room": Fault(errno.ENOSPC, TAKE_ROOM),
    "a short write, then no room": Fault(errno.ENOSPC, ("write",), kept=50),
    "no room, and none could be reserved": Fault(errno.ENOSPC, ("write", "create"), kept=50, reserves=False),
    "a short write, then an error": Fault(errno.EIO, ("write",), kept=50),
    "the disk is gone": Fault(errno.EIO, CHANGE_OR_ASK, kept=50, ever=True),
}


async def live(directory: Path, disk: FaultyFiles) -> tuple[Life, bool]:
    """A short life, and whether it was cut short."""
    life, whole = Life(directory, disk, Witness(lambda: len(disk.changes)), SEED), True
    try:
        await life.run(OPERATIONS)
    except* (StoreError, GatewayError, OSError):
        whole = False
    return life, whole


Place = tuple[str, str]
"""A verb, and the kind of file: what is published, sealed, merged, checkpointed, let go."""
KINDS = {
    ".log.tmp": "merged",
    ".log": "segment",
    ".hint": "hint",
    ".hint.tmp": "hint",
    "spare": "spare",
    "lock": "lock",
}


def place_of(call: Call) -> Place:
    name = call.name
    suffix = name[name.find(".") :] if "." in name else name
    return call.verb, KINDS.get(suffix, "checkpoint" if name.startswith("checkpoint") else "directory")


async def calls_of_a_life(directory: Path, *, reserves: bool = True) -> list[Call]:
    disk = FaultyFiles()
    disk.reserves = reserves
    life, whole = await live(directory, disk)
    assert whole
    assert life.operations == OPERATIONS
    assert life.driven.engine.statistics().merges > 0
    return disk.calls


def chosen(calls: list[Call]) -> Iterator[int]:
    """Numbers of calls, from 1: all of them, or some of each verb on each kind of file."""
    if not SAMPLE:
        yield from range(1, len(calls) + 1)
        return
    dice = Random(SEED)
    places = list(map(place_of, calls))
    numbers = sorted(range(1, len(calls) + 1), key=lambda number: (places[number - 1], dice.random()))
    each = [list(group) for _, group in itertools.groupby(numbers, key=lambda number: places[number - 1])]
    for group in each:
        yield from group[: max(1, SAMPLE // len(each))]


def test_a_life_has_all_that_can_fail(tmp_path: Path) -> None:
    """Publishes, seals, checkpoints and merges, each with all the calls that it takes."""
    places = set(map(place_of, trio.run(calls_of_a_life, tmp_path)))
    assert {("write", "segment"), ("sync", "segment"), ("replace", "segment"), ("open", "segment")} <= places
    assert {("write", "hint"), ("replace", "hint"), ("write", "checkpoint"), ("sync", "checkpoint")} <= places
    assert {("create", "merged"), ("write", "merged"), ("sync", "merged"), ("reserve", "spare")} <= places
    assert {("unlink", "segment"), ("unlink", "hint"), ("sync_directory", "directory")} <= places


@attrs.frozen
class Case:
    """One fault at one call."""

    fault: str
    nth: int
    call: Call

    def __str__(self) -> str:
        return f"{self.fault}, call {self.nth}, {self.call}"


def cases_of(fault: str, calls: list[Call]) -> list[Case]:
    verbs = FAULTS[fault].verbs
    return [Case(fault, nth, calls[nth - 1]) for nth in chosen(calls) if calls[nth - 1].verb in verbs]


async def judge(directory: Path, case: Case) -> list[str]:
    """Everything promised must be there: as the process left it, and when the power goes then."""
    fault = FAULTS[case.fault]
    lay_out({}, directory)
    disk = FaultyFiles()
    disk.reserves = fault.reserves
    disk.fail(nth=case.nth, error=fault.error, kept=fault.kept, ever=fault.ever)
    life, _ = await live(directory, disk)
    broken = [f"{case}: left open: {name}" for name in disk.open_files]
    surface = Surface()
    for change in disk.changes:
        surface.tell(change)
    for number, (way, contents) in enumerate(itertools.islice(ways_of(surface, Random(SEED), 0), 2)):
        lay_out(contents, directory)
        found = await violations(directory, life.witness.until(), killed=number == 0, thorough=False)
        broken += [f"{case}: {way}: {each}" for each in found]
    return broken


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
async def test_whichever_call_fails_the_outcome_is_clear_and_true(tmp_path: Path, say: Say, fault: str) -> None:
    cases = cases_of(fault, await calls_of_a_life(tmp_path / "whole", reserves=FAULTS[fault].reserves))
    if SAMPLE:
        assert await judge_some(judge, cases, tmp_path / "life") == []
    else:
        assert await judge_all(judge, cases, say) == []
