from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.index import Index
from gateway.store.segment import Segment, consecutive
from tests.store.building import in_memory, note


def test_a_segment_grows_until_it_is_sealed() -> None:
    segment = in_memory(3, 10)
    assert (segment.end, segment.sealed) == (10, False)
    note(segment)
    note(segment)
    assert (segment.end, len(segment.index)) == (12, 2)
    segment.seal(lambda _segment: Index(10))
    assert (segment.end, segment.count, segment.sealed, len(segment.index)) == (12, 2, True, 2)


def test_a_sealed_segment_opens_its_index_when_it_is_asked_for_and_not_before() -> None:
    opened: list[Segment] = []

    def open_index(segment: Segment) -> Index:
        opened.append(segment)
        return Index(segment.base)

    segment = Segment(1, Path("1"), 1, 0, "", last=4)
    segment.seal(open_index, end=9, count=3)
    segment.let_go()
    assert (segment.end, segment.count, segment.last, opened) == (9, 3, 4, [])
    assert segment.index is segment.index
    assert opened == [segment]
    segment.let_go()
    assert isinstance(segment.index, Index)
    assert opened == [segment, segment]


@given(st.sets(st.integers(0, 60)).map(sorted))
def test_consecutive_positions_are_joined(positions: list[int]) -> None:
    ranges = consecutive(positions)
    assert [position for low, high in ranges for position in range(low, high + 1)] == positions
    assert all(after[0] > before[1] + 1 for before, after in pairwise(ranges))


def test_a_range_of_positions_is_one_range() -> None:
    assert consecutive(range(3, 9)) == [(3, 8)]
    assert consecutive(range(3, 3)) == []
