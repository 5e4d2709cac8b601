"""The checker is checked: stores that were broken on purpose, as stores of this kind are, must be caught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.store import recovery
from gateway.store.log import Log
from gateway.store.record import Kind
from gateway.testing.faulty import FaultyFiles
from gateway.testing.power import lay_out
from tests.crash.life import Life
from tests.crash.points import points
from tests.crash.verdict import violations
from tests.crash.witness import Witness

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


class ForgetsNames(FaultyFiles):
    def sync_directory(self, directory: Path) -> None:
        pass


def no_mutation(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    return FaultyFiles


def answers_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    return SyncsLate


def does_not_sync_the_directory(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    return ForgetsNames


def loses_tombstones(monkeypatch: pytest.MonkeyPatch) -> type[FaultyFiles]:
    """What was settled is not written to the log: only a checkpoint would tell."""
    control = Log.control

    def mutant(self: Log, kind: Kind, *arguments: Any, **more: Any) -> bool:
        return kind is Kind.SETTLE or control(self, kind, *arguments, **more)

    monkeypatch.setattr(Log, "control", mutant)
    return FaultyFiles


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
    answers_before_the_sync: " lost",
    does_not_sync_the_directory: "answered as created, and gone",
    loses_tombstones: "after its ack was answered",
    uses_a_position_again: "used again",
}


@pytest.mark.parametrize(("mutate", "word"), MUTANTS.items(), ids=[each.__name__ for each in MUTANTS])
async def test_a_store_that_is_broken_on_purpose_is_caught(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch], type[FaultyFiles]],
    word: str,
) -> None:
    disk = mutate(monkeypatch)()
    witness = Witness(lambda: len(disk.changes))
    await Life(tmp_path / "life", disk, witness, seed=1).run(OPERATIONS)
    every = points(disk.changes, seed=1)
    caught: list[str] = []
    for point in Random(1).sample(every, min(POINTS_MAX if word else 30, len(every))):
        lay_out(point.contents, tmp_path / "found")
        caught += await violations(tmp_path / "found", witness.until(point.moment), killed=point.killed, thorough=False)
        if any(word in each for each in caught):
            break
    assert bool(caught) == bool(word)
    assert word in "".join(caught)
