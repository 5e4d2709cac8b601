"""Damage by name, and what must survive it: nothing altered is ever served, and nothing is missing unsaid."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

import orjson
import pytest
import trio

from tests.crash.spread import Say, judge_all, judge_some
from tests.crash.stores import Flip, Store, build, judge, start

SEED = int(os.environ.get("CRASH_SEED", "1"))
SAMPLE = int(os.environ.get("CRASH_BITS", "60"))
"""How many of a segment's 32,768 bits are flipped; 0 all of them (`make crash`)."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Five sealed segments of 4 KiB and an active one, as a killed process leaves them."""
    return build(tmp_path_factory.mktemp("killed") / "store", crash=True)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same, closed in peace: the checkpoint knows where it ends."""
    return build(tmp_path_factory.mktemp("closed") / "store", crash=False)


# ------------------------------------------------------------------------------------------------------ named cases


def zero_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    page = min(2048, len(data) // 2)
    data[page : page + 4096] = bytes(len(data[page : page + 4096]))
    path.write_bytes(data)


def flip_in_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def append_junk(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\xff" * 100)


def remove(path: Path) -> None:
    path.unlink()


def duplicate_behind_the_last(path: Path) -> None:
    shutil.copy(path, path.with_name("0000000099.log"))


def neighbour_of(path: Path) -> Path:
    """The segment behind it."""
    return min(other for other in path.parent.glob("*.log") if other > path)


def duplicate_over_its_neighbour(path: Path) -> None:
    shutil.copy(path, neighbour_of(path))


def swap_with_its_neighbour(path: Path) -> None:
    neighbour = neighbour_of(path)
    path.rename(path.with_suffix(".swap"))
    neighbour.rename(path)
    path.with_suffix(".swap").rename(neighbour)


Damage = Callable[[Path], None]
REFUSED: Final = "refused"
SET_ASIDE: Final = "set aside"
SEALED: Final[dict[Damage, str]] = {
    zero_page: SET_ASIDE,
    flip_in_the_middle: SET_ASIDE,
    empty: SET_ASIDE,
    cut_in_half: SET_ASIDE,
    append_junk: SET_ASIDE,
    remove: REFUSED,
    duplicate_behind_the_last: REFUSED,
    duplicate_over_its_neighbour: REFUSED,
    swap_with_its_neighbour: REFUSED,
}
"""What happens to a sealed segment, and what comes of it at most. Set aside: all but that segment's is served."""


@pytest.mark.parametrize(("damage", "expected"), SEALED.items(), ids=[each.__name__ for each in SEALED])
@pytest.mark.parametrize("which", [0, 2], ids=["the first", "one in the middle"])
async def test_damage_to_a_sealed_segment(
    killed: Store, tmp_path: Path, damage: Damage, expected: str, which: int
) -> None:
    store = killed.copy(tmp_path / "store")
    path = store.segments[which]
    missing = set(store.positions_of(path))
    damage(path)
    outcome = await start(store)
    if expected == REFUSED:
        assert outcome.refusal
        assert ".log" in outcome.refusal
    else:
        judge(store, outcome, path, missing)


async def test_a_segment_of_another_store_is_not_taken_for_ours(killed: Store, tmp_path: Path) -> None:
    store = killed.copy(tmp_path / "store")
    other = await trio.to_thread.run_sync(lambda: build_in_a_thread(tmp_path / "other"))
    shutil.copy(other.segments[1], store.segments[1])
    outcome = await start(store)
    assert store.segments[1].name in outcome.text
    assert outcome.served.items() <= store.bodies.items()


def build_in_a_thread(directory: Path) -> Store:
    return build(directory, crash=True)


# ---------------------------------------------------------------------------------------------- bits and truncations


def bits(size: int) -> Sequence[int]:
    every = range(8 * size)
    return sorted(Random(SEED).sample(every, SAMPLE)) if SAMPLE else every


def flips(store: Store, path: Path) -> list[Flip]:
    return [Flip(store, path.name, bit) for bit in bits(path.stat().st_size)]


async def judge_flip(directory: Path, flip: Flip) -> list[str]:
    """Of a sealed segment what is in it may be missing; of the active one what is in the record, and behind it."""
    store = flip.store.copy(directory)
    path = directory / flip.name
    missing = set(store.positions_of(path))
    if path == store.active:
        ends = [*store.records_of(path), (max(store.bodies) + 1, path.stat().st_size)]
        first = next(position for position, end in ends if end > flip.bit >> 3)
        missing = {position for position in store.bodies if position >= first}
    flip.carry_out(path)
    try:
        judge(store, await start(store), path, missing)
    except AssertionError as error:
        return [f"{flip}: {error}"]
    return []


@pytest.mark.slow
@pytest.mark.parametrize("which", [1, -1], ids=["sealed", "active"])
async def test_no_flipped_bit_is_served_or_unsaid(killed: Store, tmp_path: Path, say: Say, which: int) -> None:
    store = killed.copy(tmp_path / "store")
    cases = flips(store, store.segments[which])
    found = await (judge_some(judge_flip, cases, tmp_path / "flipped") if SAMPLE else judge_all(judge_flip, cases, say))
    assert found == []


async def test_a_torn_tail_is_cut_wherever_it_is_torn(killed: Store, tmp_path: Path) -> None:
    """Every truncation of the last three records: those before the cut are there, and the cut is said."""
    ends = killed.records_of(killed.active)
    data = killed.active.read_bytes()
    for size in sorted({*range(ends[-4][1], len(data), 1 if SAMPLE == 0 else 37), *(end for _, end in ends[-4:-1])}):
        store = killed.copy(tmp_path / "store")
        path = store.active
        os.truncate(path, size)
        outcome = await start(store)
        assert not outcome.refusal
        behind = {position for position, end in ends if end > size}
        assert outcome.served == {p: body for p, body in store.bodies.items() if p not in behind}
        if size not in {end for _, end in ends}:
            assert path.name in outcome.text


async def test_what_the_checkpoint_knows_of_is_never_cut_as_a_torn_tail(closed: Store, tmp_path: Path) -> None:
    end = closed.records_of(closed.active)[-4][1]
    for size in range(end, closed.active.stat().st_size, 37):
        store = closed.copy(tmp_path / "store")
        path = store.active
        os.truncate(path, size)
        outcome = await start(store)
        judge(store, outcome, path, set(closed.positions_of(closed.active)))
        assert path.name in outcome.text


def test_the_store_that_is_damaged_has_segments_worth_it(killed: Store) -> None:
    assert len(killed.segments) == 6
    assert all(len(killed.positions_of(segment)) > 3 for segment in killed.segments)
    assert len(killed.bodies) == sum(len(killed.positions_of(segment)) for segment in killed.segments)
    assert [orjson.loads(body)["position"] for body in killed.bodies.values()] == sorted(killed.bodies)
