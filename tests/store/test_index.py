from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.hashes import half_id_hash, id_hash
from gateway.store.index import GrowingIndex, Piece
from gateway.store.record import Columns

BASE = 10


def grown(*records: list[int], gap: int = 44) -> GrowingIndex:
    """An index of records of messages of so many bytes, each record behind a front of `gap` bytes."""
    index = GrowingIndex(BASE)
    at = 100
    for time, sizes in enumerate(records):
        end = at + gap + sum(sizes) + len(sizes) - 1
        index.add(Columns(array("I", sizes)), at, end, at + gap, 1, time)
        at = end
    return index


def test_consecutive_positions_of_a_subscription_are_one_pair() -> None:
    index = GrowingIndex(1)
    for low, high in [(1, 3), (4, 4), (6, 6), (7, 9)]:
        index.route_to(8, low, high)
    index.route_to(9, 5, 5)
    assert {number: list(queue) for number, queue in index.queues.items()} == {8: [0, 3, 5, 8], 9: [4, 4]}


def test_a_run_within_a_record_is_one_piece_with_its_commas() -> None:
    index = grown([2, 3, 4], [5])
    first = 100 + 44
    assert list(index.pieces(0, 2)) == [Piece(0, first, first + 2 + 1 + 3 + 1 + 4, 3)]
    assert list(index.pieces(1, 1)) == [Piece(0, first + 3, first + 6, 1)]
    behind = first + 11 + 44
    assert list(index.pieces(2, 3)) == [Piece(0, first + 7, first + 11, 1), Piece(1, behind, behind + 5, 1)]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=5), st.data())
def test_pieces_are_every_message_once_and_in_order(records: list[list[int]], data: st.DataObject) -> None:
    index = grown(*records)
    count = len(index)
    first = data.draw(st.integers(0, count - 1))
    last = data.draw(st.integers(first, count - 1))
    pieces = list(index.pieces(first, last))
    assert sum(piece.messages for piece in pieces) == last - first + 1
    sizes = [size for record in records for size in record][first : last + 1]
    assert sum(piece.stop - piece.start for piece in pieces) == sum(sizes) + sum(p.messages - 1 for p in pieces)
    assert index.spread(first, last) == pieces[-1].stop - pieces[0].start
    assert all(
        piece.start == index.starts[ordinal] for piece, ordinal in zip(pieces, _firsts(pieces, first), strict=True)
    )


def _firsts(pieces: list[Piece], first: int) -> list[int]:
    found = []
    for piece in pieces:
        found.append(first)
        first += piece.messages
    return found


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=5),
    st.integers(0, 300),
    st.data(),
)
def test_what_fits_is_as_much_as_fits_and_at_least_one(
    records: list[list[int]], size_max: int, data: st.DataObject
) -> None:
    index = grown(*records)
    first = data.draw(st.integers(0, len(index) - 1))
    stop = index.fitting(first, size_max)
    assert stop > first
    assert stop == first + 1 or index.spread(first, stop - 1) <= size_max
    if stop < len(index):
        assert index.spread(first, stop) > size_max


def test_a_dense_index_finds_a_position_by_subtraction() -> None:
    index = grown([1, 1], [1])
    assert [index.ordinal(position) for position in (9, 10, 11, 12, 13, 99)] == [0, 0, 1, 2, 3, 3]
    assert [index.has(position) for position in (9, 10, 12, 13)] == [False, True, True, False]
    assert [index.position(ordinal) for ordinal in range(3)] == [10, 11, 12]
    assert [index.time_ms(ordinal) for ordinal in range(3)] == [0, 0, 1]


def test_a_sparse_index_says_which_positions_are_left() -> None:
    index = grown([1, 1], [1])
    index.steps = array("I", [0, 3, 7])
    assert [index.ordinal(position) for position in (10, 11, 13, 14, 17, 18)] == [0, 1, 1, 2, 2, 3]
    assert [position for position in range(9, 20) if index.has(position)] == [10, 13, 17]
    assert [index.position(ordinal) for ordinal in range(3)] == [10, 13, 17]


def added(**columns: Any) -> GrowingIndex:
    index = GrowingIndex(BASE)
    count = max(len(column) for column in columns.values() if not isinstance(column, bytes))
    index.routes = [("a", (1,)), ("b", (2, 3)), ("c", ())]
    index.add(Columns(array("I", [1] * count), **columns), 100, 200, 150, 1, 7)
    index.add(Columns(array("I", [1])), 200, 250, 249, 3, 8)
    return index


def test_times_stand_only_for_the_messages_that_have_some() -> None:
    index = added(due_ms=array("Q", [0, 5, 0]), expires_ms=array("Q", [0, 0, 9]))
    assert list(index.timed_at) == [1, 2]
    assert [index.times_of(ordinal) for ordinal in range(4)] == [(0, 0), (5, 0), (0, 9), (0, 0)]


def test_keys_stand_only_for_the_messages_that_have_one() -> None:
    index = added(keys=array("Q", [4, 0, 6]))
    assert [index.key_of(ordinal) for ordinal in range(4)] == [4, 0, 6, 0]


def test_routes_are_kept_where_they_change() -> None:
    index = added(routes=array("I", [2, 2, 1]))
    assert list(zip(index.route_at, index.route_of, strict=True)) == [(0, 2), (2, 1), (3, 3)]
    assert [index.route(ordinal)[0] for ordinal in range(4)] == ["b", "b", "a", "c"]


def test_ids_are_found_by_the_id_alone() -> None:
    ids = id_hash("a", "one") + bytes(16) + id_hash("b", "one")
    index = added(routes=array("I", [1, 1, 2]), ids=ids, digests=bytes(range(24)))
    assert index.find_id(half_id_hash("one"), 9) == [10, 12]
    assert index.find_id(half_id_hash("two"), 9) == []
    assert bytes(index.digests) == bytes(range(8)) + bytes(range(16, 24))


@pytest.mark.parametrize("text", ["", "a", "x" * 128, "é"])
def test_the_first_half_of_an_id_s_hash_is_of_the_id_alone(text: str) -> None:
    assert int.from_bytes(id_hash("any", text)[:8], "little") == half_id_hash(text) > 0
    assert id_hash("one", text)[8:] != id_hash("other", text)[8:]
