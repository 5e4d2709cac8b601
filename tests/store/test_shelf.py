from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store.recovery import recover
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf
from gateway.testing.faulty import FaultyFiles
from tests.store.building import Told, segments


def shelved(directory: Path, maps_max: int = 2, indexes_max: int = 2) -> tuple[list[Segment], Shelf, FaultyFiles]:
    """Three sealed segments and an active one."""
    segments(directory, 4, 4, 4, 1)
    disk = FaultyFiles()
    shelf = Shelf(disk, indexes_max, maps_max)
    return recover(disk, directory, Told(), shelf).segments[:-1], shelf, disk


def test_no_more_indexes_are_mapped_than_may_be(tmp_path: Path) -> None:
    sealed, _, disk = shelved(tmp_path)
    for segment in (*sealed, sealed[2], sealed[1]):
        assert len(segment.index) == 4
    assert disk.count("map") == 3
    assert len(sealed[0].index) == 4  # it had to make place
    assert disk.count("map") == 4


def test_an_index_that_was_let_go_is_kept_by_those_who_hold_it(tmp_path: Path) -> None:
    sealed, _, _ = shelved(tmp_path)
    first = sealed[0].index
    for segment in sealed:
        _ = segment.index
    assert list(first.queues[1]) == [0, 3]


def test_no_more_segments_are_open_than_may_be_and_those_in_use_stay_open_until_they_are_given_back(
    tmp_path: Path,
) -> None:
    sealed, shelf, disk = shelved(tmp_path)
    before = len(disk.open_files)
    lent = [shelf.lend(segment) for segment in sealed]
    assert len(disk.open_files) == before + 3
    assert shelf.verify(lent[0], sealed[0].index, [0]) == {}
    for opened in lent:
        shelf.give_back(opened)
    assert len(disk.open_files) == before + 2
    shelf.close()
    assert len(disk.open_files) == before


def test_a_record_is_verified_before_it_is_served_and_only_once(tmp_path: Path) -> None:
    sealed, shelf, disk = shelved(tmp_path)
    index = sealed[0].index
    pieces = list(index.pieces(0, 3))
    assert not shelf.is_verified(sealed[0], pieces)
    opened = shelf.lend(sealed[0])
    reads = disk.count("read")
    for _ in range(2):
        assert shelf.verify(opened, index, [0, 1]) == {}
    assert disk.count("read") == reads + 2
    assert shelf.is_verified(sealed[0], pieces)
    assert bytes(shelf.view(sealed[0], pieces[0])).count(b"position") == 2
    shelf.give_back(opened)
    shelf.forget(sealed[0])
    assert not shelf.is_verified(sealed[0], pieces)


def test_damage_and_a_disk_that_cannot_read_are_told_apart_and_not_verified(tmp_path: Path) -> None:
    sealed, shelf, disk = shelved(tmp_path)
    index = sealed[0].index
    data = bytearray(sealed[0].path.read_bytes())
    data[index.starts[0]] ^= 1
    sealed[0].path.write_bytes(data)
    opened = shelf.lend(sealed[0])
    assert shelf.verify(opened, index, [0, 1]) == {0: "is damaged (its CRC does not match)"}
    disk.fail("read")
    assert shelf.verify(opened, index, [0]) == {0: "cannot be read (Input/output error)"}
    assert [shelf.is_verified(sealed[0], [piece]) for piece in index.pieces(0, 3)] == [False, True]


def test_a_hint_file_that_is_gone_while_the_store_is_open_is_named(tmp_path: Path) -> None:
    sealed, _, _ = shelved(tmp_path)
    sealed[1].path.with_suffix(".hint").unlink()
    with pytest.raises(StoreError, match=r"0000000002\.hint: No such file"):
        _ = sealed[1].index
