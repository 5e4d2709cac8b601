"""The checker is checked: stores that were broken on purpose, as stores of this kind are, must be caught."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.engine.merging import Merging
from gateway.store import recovery
from gateway.store.log import Log
from gateway.store.segment import Segment
from gateway.testing.faulty import FaultyFiles
from gateway.testing.power import Change, Named, lay_out
from tests.crash.life import Life, LifeOfStragglers
from tests.crash.points import points, with_a_bad_checkpoint
from tests.crash.verdict import violations
from tests.crash.witness import Witness

SEED = 3
OPERATIONS = 40
POINTS_MAX = 300


class SyncsLate(FaultyFiles):
    """Says that it has synced, and does so before the next write: an answer is given first."""

    def __init__(self) -> None:
        super().__init__()
        self._owed: list[int] = []

    def sync(self, file: int) -> None:
        self._owed.append(file)

    def write(self, file: int, data: bytes) -> None:
        for owed in self._owed:
            super().sync(owed)
        self._owed.clear()
        super().write(file, data)

    def close(self, file: int) -> None:
        if file in self._owed:
            self._owed.remove(file)
            super().sync(file)
        super().close(file)


class MergesUnsynced(FaultyFiles):
    """What was moved together is put in the place of what it was before it is on the disk."""

    def sync(self, file: int) -> None:
        if not self._paths[file].name.endswith(".log.tmp"):
            super().sync(file)


class ForgetsNames(FaultyFiles):
    def sync_directory(self, directory: Path) -> None:
        pass


def no_mutation(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    return FaultyFiles


def merges_as_it_should(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    return FaultyFiles


def answers_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    return SyncsLate


def does_not_sync_the_directory(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    return ForgetsNames


def loses_tombstones(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    """What was settled is not written to the log: only a checkpoint would tell."""
    monkeypatch.setattr(Log, "settle", lambda *arguments, **more: True)
    return FaultyFiles


def drops_tombstones_too_early(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    """Merges segments of whose settlements only the newest checkpoint knows; a copy leaves them out."""

    def mutant(self: Merging, segment: Segment, now: int) -> bool:
        wanted = segment in self._log.unsealed or segment.ids_ms + self._window_ms > now
        return segment.sealed and not wanted

    monkeypatch.setattr(Merging, "_may_be_merged", mutant)
    return FaultyFiles


def merges_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    return MergesUnsynced


def uses_a_position_again(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    """A restart begins one position too early."""
    recover = recovery.recover

    def mutant(*arguments: Any, **more: Any) -> recovery.Recovered:
        found = recover(*arguments, **more)
        if found.segments and (index := found.segments[-1].growing).starts:
            index.starts.pop()
        return found

    monkeypatch.setattr(recovery, "recover", mutant)
    return FaultyFiles


MUTANTS: dict[Callable[[pytest.MonkeyPatch], type[FaultyFiles]], str] = {
    no_mutation: "",
    merges_as_it_should: "",
    answers_before_the_sync: " lost",
    does_not_sync_the_directory: "answered as created, and gone",
    loses_tombstones: "after its ack was answered",
    drops_tombstones_too_early: "after its ack was answered",
    merges_before_the_sync: "said to wait",
    uses_a_position_again: "used again",
}


OF_MERGING = (merges_as_it_should, drops_tombstones_too_early, merges_before_the_sync)
WITH_A_BAD_CHECKPOINT = (merges_as_it_should, drops_tombstones_too_early)
BEHIND = 12
"""Changes of the disk behind the one that puts a merged segment in its place: the checkpoint it comes with is made."""


def moments_of_merges(changes: Sequence[Change]) -> set[int]:
    placed = [
        at
        for at, change in enumerate(changes)
        if isinstance(change, Named) and any(name.endswith(".log.tmp") for name in change.names)
    ]
    return {moment for at in placed for moment in range(at, at + BEHIND)}


@pytest.mark.parametrize(("mutate", "word"), MUTANTS.items(), ids=[each.__name__ for each in MUTANTS])
async def test_a_store_that_is_broken_on_purpose_is_caught(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch], type[FaultyFiles]],
    word: str,
) -> None:
    disk = mutate(monkeypatch)()
    witness = Witness(lambda: len(disk.changes))
    life = LifeOfStragglers if mutate in OF_MERGING else Life
    await life(tmp_path / "life", disk, witness, SEED).run(OPERATIONS)
    every = points(disk.changes, SEED)
    if mutate in OF_MERGING:
        moments = moments_of_merges(disk.changes)
        every = [point for point in every if point.moment in moments]
    if mutate in WITH_A_BAD_CHECKPOINT:
        every = [bad for point in every if (bad := with_a_bad_checkpoint(point)) is not None]
    caught: list[str] = []
    for point in Random(SEED).sample(every, min(POINTS_MAX if word else 30, len(every))):
        lay_out(point.contents, tmp_path / "found")
        caught += await violations(tmp_path / "found", witness.until(point.moment), killed=point.killed, thorough=False)
        if any(word in each for each in caught):
            break
    assert bool(caught) == bool(word)
    assert word in "".join(caught)
