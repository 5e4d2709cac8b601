from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.trace.index import BLOCK_BYTES, Index

FAR = 10 * BLOCK_BYTES


def test_blocks_begin_at_records_and_cover_the_file() -> None:
    index = Index()
    for offset in (100, BLOCK_BYTES, BLOCK_BYTES + 101, 3 * BLOCK_BYTES):
        index.note(offset, True, 1, 1)
    assert list(index.spans(FAR)) == [
        (100, BLOCK_BYTES + 101),
        (BLOCK_BYTES + 101, 3 * BLOCK_BYTES),
        (3 * BLOCK_BYTES, FAR),
    ]


def test_what_is_not_written_yet_is_not_read() -> None:
    index = Index()
    index.note(100, True, 1, 1)
    index.note(100 + BLOCK_BYTES, True, 1, 1)
    assert list(index.spans(150)) == [(100, 150)]
    assert list(index.about(1, 150)) == [(100, 150)]


def test_publishing_far_ahead_of_consuming_does_not_make_a_block_about_all_between() -> None:
    index = Index()
    index.note(0, True, 1_000_000, 1_000_200)
    index.note(70, False, 1, 200)
    for position, there in ((1, True), (200, True), (201, False), (500_000, False), (1_000_000, True)):
        assert bool(list(index.about(position, FAR))) is there


def test_an_event_about_no_position_widens_nothing() -> None:
    index = Index()
    index.note(0, False, 0, 0)
    index.note(70, False, 5, 9)
    assert not list(index.about(1, FAR))
    assert list(index.spans(FAR)) == [(0, FAR)]


positions = st.integers(1, 2**53)
notes = st.lists(st.tuples(st.integers(1, BLOCK_BYTES), st.booleans(), positions, positions), max_size=30)


@given(notes, positions)
def test_every_event_about_a_position_is_in_a_block_that_is_found(
    told: list[tuple[int, bool, int, int]], position: int
) -> None:
    index, offset, wanted = Index(), 0, []
    for step, publishing, a, b in told:
        offset += step
        index.note(offset, publishing, min(a, b), max(a, b))
        if min(a, b) <= position <= max(a, b):
            wanted.append(offset)
    blocks = list(index.about(position, offset + 1))
    assert all(any(start <= each < end for start, end in blocks) for each in wanted)


@given(notes, st.integers(0, 5), st.lists(st.integers(0, 2**32 - 1), max_size=3))
def test_an_index_comes_back_as_it_went(told: list[tuple[int, bool, int, int]], names: int, losses: list[int]) -> None:
    index, offset = Index(), 0
    for step, publishing, a, b in told:
        offset += step
        index.note(offset, publishing, min(a, b), max(a, b))
    assert [index.name(number) for number in range(names)] == list(range(1, names + 1))
    index.losses.extend(losses)
    body = index.encode(12345)
    again = Index.decode(body)
    assert (again.blocks, again.names, again.losses) == (index.blocks, index.names, index.losses)
    assert Index.offset_of(body) == 12345
    for cut in range(0, len(body), max(len(body) // 7, 1)):
        with pytest.raises(ValueError, match="index"):
            Index.decode(body[:cut])
