from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.slice import Slice

positions = st.one_of(
    st.builds(lambda first, count: range(first, first + count), st.integers(1, 50), st.integers(2, 9)),
    st.lists(st.integers(1, 50), min_size=2, max_size=9, unique=True).map(sorted),
)


@given(positions, st.data())
def test_the_parts_of_a_cut_are_the_slice_and_their_spans_meet(there: Sequence[int], data: st.DataObject) -> None:
    index = data.draw(st.integers(1, len(there) - 1))
    before, behind = Slice(there, 1, attempts=3).cut(index)
    assert [*before.positions, *behind.positions] == list(there)
    assert (before.span_low, behind.span_low) == (1, before.last + 1)
    assert (before.attempts, behind.attempts) == (3, 3)
    assert isinstance(before.positions, type(there)), "what is contiguous stays a range"


@given(positions, st.data())
def test_one_that_is_singled_out_leaves_what_was_before_and_behind_it(
    there: Sequence[int], data: st.DataObject
) -> None:
    position = data.draw(st.sampled_from(list(there)))
    before, piece, after = Slice(there, there[0] - 1, attempts=3).singled_out(position)
    parts = [part for part in (before, piece, after) if part is not None]
    assert [p for part in parts for p in part.positions] == list(there)
    assert (list(piece.positions), {part.attempts for part in parts}) == ([position], {3})
    assert [part.span_low for part in parts] == [there[0] - 1, *(part.last + 1 for part in parts[:-1])]


@given(positions, st.integers(0, 60), st.integers(0, 60))
def test_what_lies_within_is_a_run_of_indices(there: Sequence[int], low: int, high: int) -> None:
    start, stop = Slice(there, 1).within(low, high)
    assert list(there[start:stop]) == [position for position in there if low <= position <= high]


@pytest.mark.parametrize("there", [range(4, 7), [4, 5, 9]])
def test_its_ends_and_its_length(there: Sequence[int]) -> None:
    piece = Slice(there, 2)
    assert (piece.first, piece.last, len(piece)) == (4, there[-1], 3)
