"""Damage to a merged segment, and what comes of it when the files that it was made from are there again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.testing.power import Contents
from tests.crash.spread import Say, judge_all, judge_some
from tests.crash.stores import MERGED, Store, build_merged, judge, start
from tests.crash.test_damage import REFUSED, SAMPLE, SEALED, Damage, flips, judge_flip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Contents]:
    return build_merged(tmp_path_factory.mktemp("merged") / "store")


@pytest.fixture
def store(built: tuple[Store, Contents], tmp_path: Path) -> Store:
    """The first of its segments was merged."""
    return built[0].copy(tmp_path / "store")


@pytest.fixture
def sources(built: tuple[Store, Contents]) -> Contents:
    """The files that it was made from, by name."""
    return built[1]


async def test_the_store_is_one_that_was_merged(store: Store, sources: Contents) -> None:
    assert list(sources) == [f"{number:010}.log" for number in range(1, MERGED + 1)]
    assert [path.stem for path in store.segments[:2]] == ["0000000001", f"{MERGED + 1:010}"]
    assert len(store.positions_of(store.segments[0])) > 3
    assert (await start(store)).served == store.bodies


@pytest.mark.parametrize(("damage", "expected"), SEALED.items(), ids=[each.__name__ for each in SEALED])
async def test_damage_to_a_merged_segment(store: Store, damage: Damage, expected: str) -> None:
    path = store.segments[0]
    missing = set(store.positions_of(path))
    damage(path)
    outcome = await start(store)
    if expected == REFUSED:
        assert outcome.refusal
        assert ".log" in outcome.refusal
    else:
        judge(store, outcome, path, missing)


@pytest.mark.slow
async def test_no_flipped_bit_of_a_merged_segment_is_served_or_unsaid(store: Store, tmp_path: Path, say: Say) -> None:
    cases = flips(store, store.segments[0])
    found = await (judge_some(judge_flip, cases, tmp_path / "flipped") if SAMPLE else judge_all(judge_flip, cases, say))
    assert found == []


async def test_a_source_that_is_there_again_is_removed(store: Store, sources: Contents) -> None:
    """As a crash leaves it, or a backup that was put over the store."""
    for name in list(sources)[1:]:
        (store.directory / name).write_bytes(sources[name])
    assert (await start(store)).served == store.bodies
    assert not any((store.directory / name).exists() for name in list(sources)[1:])


@pytest.mark.parametrize("count", [1, MERGED])
async def test_a_merged_segment_that_is_what_it_was_before_is_refused_and_nothing_removed(
    store: Store, sources: Contents, count: int
) -> None:
    """As from an older backup: it has what was settled since, and not what was moved into it, or all of that beside."""
    for name, data in list(sources.items())[:count]:
        (store.directory / name).write_bytes(data)
    outcome = await start(store)
    assert "0000000001.log: is older than the checkpoint, which knows it merged with those up to" in outcome.refusal
    assert all((store.directory / name).read_bytes() == sources[name] for name in list(sources)[:count])


async def test_a_copy_that_was_never_put_in_its_place_is_removed(store: Store) -> None:
    left = store.directory / f"{MERGED + 1:010}.log.tmp"
    left.write_bytes(store.segments[0].read_bytes())
    assert (await start(store)).served == store.bodies
    assert not left.exists()
