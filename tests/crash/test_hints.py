"""A hint file is a cache: whatever happens to one, the same is served, and it is made anew as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import pytest
from google_crc32c import value as crc32c

from gateway.store import hint as hints
from tests.crash.spread import Say, judge_all, judge_some
from tests.crash.stores import Flip, Store, build, start

SEED = int(os.environ.get("CRASH_SEED", "1"))
SAMPLE = int(os.environ.get("CRASH_BITS", "60"))
"""How many bits are flipped; 0 all of them (`make crash`)."""
HINT: Final = "0000000003.hint"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return build(tmp_path_factory.mktemp("hints") / "store", crash=False)


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return build(tmp_path_factory.mktemp("another") / "store", crash=False)


def missing(path: Path, another: Store) -> None:
    path.unlink()


def empty(path: Path, another: Store) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path, another: Store) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeros(path: Path, another: Store) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def of_another_segment(path: Path, another: Store) -> None:
    shutil.copy(path.with_name("0000000002.hint"), path)


def of_another_store(path: Path, another: Store) -> None:
    shutil.copy(another.directory / HINT, path)


def older_than_its_segment(path: Path, another: Store) -> None:
    """The hint of the segment as it was before its last bytes came."""
    with path.with_suffix(".log").open("ab") as file:
        file.write(b"\0" * 40)


Damage = Callable[[Path, Store], None]
DAMAGE: Final[tuple[Damage, ...]] = (
    missing,
    empty,
    cut_in_half,
    zeros,
    of_another_segment,
    of_another_store,
)


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit the other way."""
    other = bytearray(data)
    other[bit >> 3] ^= 1 << (bit & 7)
    return bytes(other)


async def serves_all(store: Store) -> bool:
    outcome = await start(store)
    return not outcome.refusal and outcome.served == store.bodies


@pytest.mark.parametrize("damage", DAMAGE, ids=[each.__name__ for each in DAMAGE])
async def test_a_bad_hint_is_made_anew_as_it_was(closed: Store, another: Store, tmp_path: Path, damage: Damage) -> None:
    store = closed.copy(tmp_path / "store")
    before = (store.directory / HINT).read_bytes()
    damage(store.directory / HINT, another)
    assert await serves_all(store)
    assert (store.directory / HINT).read_bytes() == before


async def test_a_stale_hint_is_not_believed(closed: Store, another: Store, tmp_path: Path) -> None:
    store = closed.copy(tmp_path / "store")
    older_than_its_segment(store.directory / HINT, another)
    assert await serves_all(store)


async def judge_hint(directory: Path, flip: Flip) -> list[str]:
    store = flip.store.copy(directory)
    path = directory / flip.name
    before = path.read_bytes()
    flip.carry_out(path)
    if not await serves_all(store) or path.read_bytes() != before:
        return [f"{flip}: is believed"]
    return []


async def test_no_flipped_bit_of_a_hint_is_believed(closed: Store, tmp_path: Path, say: Say) -> None:
    store = closed.copy(tmp_path / "store")
    every = range(8 * (store.directory / HINT).stat().st_size)
    cases = [Flip(store, HINT, bit) for bit in (Random(SEED).sample(every, SAMPLE) if SAMPLE else every)]
    found = await (judge_some(judge_hint, cases, tmp_path / "flipped") if SAMPLE else judge_all(judge_hint, cases, say))
    assert found == []


# --------------------------------------------------------------------------------------- the checker is checked


class AgreeableCrc(int):
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def believes_any_crc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "crc32c", lambda data: AgreeableCrc(crc32c(data)))


def believes_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "mismatch", lambda *_: None)


@pytest.mark.parametrize("mutate", [believes_any_crc, believes_any_name])
async def test_a_store_that_trusts_a_bad_hint_is_caught(
    closed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutate: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutate(monkeypatch)
    data = (closed.directory / HINT).read_bytes()
    bad = [(closed.directory / "0000000002.hint").read_bytes()]
    bad += [flipped(data, bit) for bit in Random(1).sample(range(8 * len(data)), 100)]
    for each in bad:
        store = closed.copy(tmp_path / "store")
        (store.directory / HINT).write_bytes(each)
        try:
            if not await serves_all(store):
                return
        except (Exception, ExceptionGroup):  # whatever a wrong index leads to
            return
    pytest.fail("nobody noticed")
