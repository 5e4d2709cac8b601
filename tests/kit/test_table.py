from __future__ import annotations

import mmap
from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.table import Extents, Table, anonymous

VALUE = Struct("<QQ")
RECORDS = 256  # of 16 bytes: one page


class Counted(Extents):
    """Notes what is open; `room`: how many may be."""

    def __init__(self, room: int = 1000) -> None:
        self.open_now: dict[int, mmap.mmap] = {}
        self.room = room

    def open(self, number: int, size: int) -> mmap.mmap:
        assert number not in self.open_now
        if len(self.open_now) >= self.room:
            raise OSError("no space")
        self.open_now[number] = anonymous(size)
        return self.open_now[number]

    def close(self, number: int, mapping: mmap.mmap) -> None:
        assert self.open_now.pop(number) is mapping
        mapping.close()


def write(table: Table, slot: int, value: int) -> None:
    mapping, at = table.place(slot)
    VALUE.pack_into(mapping, at, value, ~value & (2**64 - 1))


def read(table: Table, slot: int) -> int:
    mapping, at = table.place(slot)
    value, check = VALUE.unpack_from(mapping, at)
    assert check == ~value & (2**64 - 1)
    return int(value)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400), st.randoms(use_true_random=False)), max_size=12))
def test_every_record_keeps_its_bytes_whatever_comes_and_goes(steps: list[tuple[bool, int, object]]) -> None:
    source = Counted()
    table = Table(VALUE.size, RECORDS, source)
    kept: dict[int, int] = {}
    value = 0
    for takes, number, random in steps:
        if takes:
            for _ in range(number):
                slot = table.take()
                assert slot > 0
                assert slot not in kept
                write(table, slot, value)
                kept[slot] = value
                value += 1
        else:
            for slot in random.sample(sorted(kept), min(number, len(kept))):  # type: ignore[attr-defined]
                table.give(slot)
                del kept[slot]
        assert len(table) == len(kept) == table.records_in(0)
        assert {slot: read(table, slot) for slot in kept} == kept
        used = {(slot - 1) // RECORDS for slot in kept}
        assert used <= source.open_now.keys()
        assert len(source.open_now) <= len(used) + 1, "one empty mapping is kept, no more"
        assert table.extents == len(source.open_now)
    table.clear()
    assert (len(table), source.open_now) == (0, {})


def test_the_lowest_extent_with_room_is_filled_first() -> None:
    table = Table(VALUE.size, RECORDS)
    slots = [table.take() for _ in range(3 * RECORDS)]
    assert slots == list(range(1, 3 * RECORDS + 1))
    table.give(2 * RECORDS + 5)
    table.give(7)
    assert [table.take(), table.take()] == [7, 2 * RECORDS + 5]
    assert (table.records_in(0, 1), table.records_in(1)) == (RECORDS, 2 * RECORDS)


def test_an_extent_that_emptied_is_given_back_but_for_one() -> None:
    source = Counted()
    table = Table(VALUE.size, RECORDS, source)
    slots = [table.take() for _ in range(3 * RECORDS)]
    for slot in slots:
        table.give(slot)
    assert sorted(source.open_now) == [0]
    again = [table.take() for _ in range(RECORDS + 1)]
    assert len(set(again)) == RECORDS + 1
    assert sorted(source.open_now) == [0, 1]


def test_where_there_is_no_room_nothing_has_changed() -> None:
    source = Counted(room=1)
    table = Table(VALUE.size, RECORDS, source)
    slots = [table.take() for _ in range(RECORDS)]
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            table.take()
    assert len(table) == RECORDS
    table.give(slots[3])
    assert table.take() == slots[3]
    source.room = 2
    assert table.take() == RECORDS + 1


@pytest.mark.parametrize(("size", "records"), [(16, 255), (16, 128), (2, 4096), (15, 256)])
def test_an_extent_is_whole_pages_of_a_power_of_two(size: int, records: int) -> None:
    with pytest.raises(ValueError, match="whole pages"):
        Table(size, records)
