from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.queue import walk
from gateway.kit.ranges import RangeSet
from gateway.store.segment import Segment
from tests.store.building import in_memory, note

OWN, FOREIGN = 1, 2


def segment(number: int, base: int, own: Sequence[bool], sizes: Sequence[int] | int = 100) -> Segment:
    """A segment whose positions from `base` on are the subscription's or another's; records of so many bytes."""
    made = in_memory(number, base)
    made.size = 166
    for is_own, size in zip(own, [sizes] * len(own) if isinstance(sizes, int) else sizes, strict=True):
        position = note(made, size)
        made.growing.route_to(OWN if is_own else FOREIGN, position, position)
    return made


@attrs.define
class Stored:
    """Segments one behind the other; `own` are the subscription's positions, `sizes` those of all records."""

    segments: list[Segment]
    own: list[int]
    sizes: dict[int, int]
    settled: RangeSet

    @property
    def end(self) -> int:
        return self.segments[-1].end

    def segment_of(self, position: int) -> int:
        return next(s.number for s in self.segments if s.base <= position < s.end)

    def next(self, front: int, limit: int, count_max: int, size_max: int) -> tuple[list[int], int]:
        """The model of `walk`: look at each position in turn."""
        due = [p for p in self.own if front <= p < limit and p not in self.settled]
        if not due:
            return [], max(front, limit, self.settled.floor)
        taken: list[int] = []
        size = 0
        for position in due:
            size += self.sizes[position]
            if taken and (
                len(taken) == count_max or size > size_max or self.segment_of(position) != self.segment_of(taken[0])
            ):
                break
            taken.append(position)
        return taken, taken[-1] + 1


@st.composite
def stored(draw: st.DrawFn) -> Stored:
    segments: list[Segment] = []
    own: list[int] = []
    sizes: dict[int, int] = {}
    base = draw(st.integers(1, 3))
    runs = st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=6)
    for number in range(1, draw(st.integers(1, 4)) + 1):
        mine = [is_own for is_own, length in draw(runs) for _ in range(length)]
        each = draw(st.lists(st.integers(33, 200), min_size=len(mine), max_size=len(mine)))
        segments.append(segment(number, base, mine, each))
        own += [position for position, is_own in enumerate(mine, base) if is_own]
        sizes.update(enumerate(each, base))
        base += len(mine)
    settled = RangeSet(draw(st.integers(0, base)))
    for low, length in draw(st.lists(st.tuples(st.integers(0, base - 1), st.integers(0, 6)), max_size=5)):
        settled.add(low, min(low + length, base - 1))
    return Stored(segments, own, sizes, settled)


@given(stored=stored(), data=st.data(), count_max=st.integers(1, 12), size_max=st.integers(1, 900))
def test_a_walk_finds_what_looking_at_every_position_would(
    stored: Stored, data: st.DataObject, count_max: int, size_max: int
) -> None:
    front = data.draw(st.integers(0, stored.end))
    limit = data.draw(st.integers(front, stored.end))
    positions, after = walk(stored.segments, OWN, front, limit, stored.settled, count_max, size_max)
    assert (list(positions), after) == stored.next(front, limit, count_max, size_max)


@given(stored=stored(), count_max=st.integers(1, 12), size_max=st.integers(1, 900))
def test_walk_after_walk_finds_everything_once_and_in_order(stored: Stored, count_max: int, size_max: int) -> None:
    front = 0
    found: list[int] = []
    while front < stored.end:
        positions, front = walk(stored.segments, OWN, front, stored.end, stored.settled, count_max, size_max)
        found += positions
    assert found == [p for p in stored.own if p not in stored.settled]


def test_a_run_is_a_range_and_not_a_list() -> None:
    segments = [segment(1, 1, [True] * 50)]
    assert walk(segments, OWN, 1, 51, RangeSet(), 20, 10_000) == (range(1, 21), 21)
    assert walk(segments, OWN, 30, 51, RangeSet(30), 100, 10_000) == (range(30, 51), 51)
    assert walk(segments, OWN, 1, 51, RangeSet(0, [(5, 9)]), 100, 1000) == ([1, 2, 3, 4, *range(10, 16)], 16)
    assert walk(segments, OWN, 10, 51, RangeSet(0, [(5, 9)]), 4, 1000) == (range(10, 14), 14)


def test_messages_interleaved_with_others_are_found_together() -> None:
    segments = [segment(1, 1, [True, False] * 10)]
    assert walk(segments, OWN, 2, 21, RangeSet(), 4, 10_000) == ([3, 5, 7, 9], 10)


def test_a_message_larger_than_the_limit_goes_alone() -> None:
    segments = [segment(1, 1, [True] * 3, [50, 5000, 50])]
    assert walk(segments, OWN, 1, 4, RangeSet(), 10, 100) == (range(1, 2), 2)
    assert walk(segments, OWN, 2, 4, RangeSet(), 10, 100) == (range(2, 3), 3)
    assert walk(segments, OWN, 3, 4, RangeSet(), 10, 100) == (range(3, 4), 4)


def test_a_walk_stops_at_the_end_of_a_segment_and_goes_on_in_the_next() -> None:
    segments = [segment(1, 1, [True] * 3), segment(2, 4, []), segment(3, 4, [False, True])]
    assert walk(segments, OWN, 2, 6, RangeSet(), 10, 10_000) == (range(2, 4), 4)
    assert walk(segments, OWN, 4, 6, RangeSet(), 10, 10_000) == (range(5, 6), 6)


def test_where_the_first_segments_are_gone_a_walk_begins_at_what_is_left() -> None:
    segments = [segment(7, 100, [False, True])]
    assert walk(segments, OWN, 3, 102, RangeSet(3), 10, 10_000) == (range(101, 102), 102)


@pytest.mark.parametrize("limit", [5, 7])
def test_what_is_not_durable_is_not_found(limit: int) -> None:
    segments = [segment(1, 1, [True] * 10)]
    assert walk(segments, OWN, 1, limit, RangeSet(), 100, 10_000) == (range(1, limit), limit)


def test_nothing_is_found_once_and_not_looked_for_again() -> None:
    segments = [segment(1, 1, [False] * 10)]
    assert walk(segments, OWN, 3, 9, RangeSet(), 100, 10_000) == ((), 9)
    assert walk(segments, OWN, 9, 9, RangeSet(), 100, 10_000) == ((), 9)
