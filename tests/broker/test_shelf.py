from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.shelf import EXTENT_RECORDS, RECORD_BYTES, Pile, Shelf
from gateway.broker.slice import Slice
from gateway.kit.table import Table

TICK_MS = 100
PERIOD_MS = 1000  # ten ticks; deadlines 20 ticks away are far


class World:
    """Two owners, and a clock in ticks."""

    def __init__(self, tick: int = 50) -> None:
        table = Table(RECORD_BYTES, 256)
        self.shelf: Shelf[str] = Shelf(TICK_MS, table, 1, period_ms=PERIOD_MS)
        self.piles = [Pile(self.shelf, "a"), Pile(self.shelf, "b")]
        self.tick = tick
        self.shelf.turn(tick)

    def pass_ticks(self, ticks: int, step: int) -> list[tuple[str, int]]:
        """(owner, first position) of everything that came due."""
        self.tick += ticks
        self.shelf.turn(self.tick)
        due: list[tuple[str, int]] = []
        while self.shelf.behind:
            due += [(owner, piece.first) for owner, piece in self.shelf.due(step)]
            if not self.shelf._ringing:
                self.shelf.bring_near(step)
        return due


def contents(pile: Pile[str]) -> list[tuple[list[int], int, int]]:
    return [(list(piece.positions), piece.span_low, tick) for piece, tick in pile]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 60), st.sampled_from([1, 2, 3, 9, 10, 19, 20, 25, 31, 400])),
        st.tuples(st.just("take"), st.integers(0, 60), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 5), st.sampled_from([1, 2, 9, 10, 30, 1000])),
    ),
    max_size=60,
)


@given(steps=steps, data=st.data())
def test_everything_is_due_at_its_tick_however_near_or_far(
    steps: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    world = World()
    model: dict[int, int] = {}  # position -> tick
    for verb, number, ticks in steps:
        pile = world.piles[number % 2]
        if verb == "add" and number not in model:
            model[number] = world.tick + ticks
            pile.add(Slice(range(number, number + 1), number, 1), world.tick + ticks)
        elif verb == "take" and number in model:
            ((piece, tick, in_file),) = pile.overlapping(number, number)
            assert (piece.first, tick, in_file) == (number, model.pop(number), False)
        elif verb == "pass":
            due = world.pass_ticks(ticks, number)
            over = [position for position, tick in model.items() if tick <= world.tick]
            assert sorted(position for _, position in due) == sorted(over)
            assert all(owner == "ab"[position % 2] for owner, position in due)
            if ticks < 2:
                assert [model[position] for _, position in due] == sorted(model[position] for _, position in due)
            for position in over:
                del model[position]
        assert len(world.shelf) == len(model)
        assert sorted(p for pile in world.piles for piece, _ in pile for p in piece.positions) == sorted(model)
        for position, tick in model.items():
            found = world.piles[position % 2].find(position)
            assert found is not None
            assert found[1] == tick
    world.pass_ticks(2000, 5)
    assert (len(world.shelf), world.shelf._heads, world.shelf._far_heads) == (0, {}, {})


@given(st.sets(st.integers(3, 80), min_size=1).map(sorted), st.integers(0, 3), st.integers(1, 90), st.integers(1, 90))
def test_what_follows_on_is_joined_again_and_keeps_its_span(
    positions: Sequence[int], span: int, count_max: int, limit: int
) -> None:
    """However a queue was cut into single messages: what is popped tiles what was added."""
    world = World()
    pile = world.piles[0]
    low = positions[0] - span
    for position in positions:
        pile.add(Slice(range(position, position + 1), low, 2))
        low = position + 1
    low, left = positions[0] - span, list(positions)
    while pile:
        piece = pile.pop(count_max, limit)
        assert list(piece.positions) == left[: len(piece)]
        assert (piece.span_low, piece.attempts) == (low, 2)
        assert len(piece) <= count_max
        stop = piece.last + 1
        if left[0] < limit:
            assert piece.last < limit
            whole = [p for p in left if p < limit]
            assert len(piece) == min(count_max, len(whole))
        else:
            assert len(piece) == 1
        low, left = stop, left[len(piece) :]
    assert left == []


def test_only_what_was_tried_as_often_is_joined() -> None:
    pile = World().piles[0]
    for position, attempts in ((1, 1), (2, 1), (3, 2), (4, 2), (6, 2)):  # 5 is somewhere else
        pile.add(Slice(range(position, position + 1), position, attempts))
    assert [list(pile.pop(10, 100).positions) for _ in range(3)] == [[1, 2], [3, 4], [6]]


def test_a_slice_of_interleaved_messages_takes_a_record_for_each_run() -> None:
    world = World()
    world.piles[0].add(Slice([3, 4, 9, 12, 13], 2, 1), 70)
    assert contents(world.piles[0]) == [([3, 4], 2, 70), ([9], 5, 70), ([12, 13], 10, 70)]
    assert [(list(piece.positions), tick) for piece, tick, _ in world.piles[0].overlapping(4, 9)] == [
        ([3, 4], 70),
        ([9], 70),
    ]
    assert contents(world.piles[0]) == [([12, 13], 10, 70)]


def test_the_oldest_of_a_tick_goes_first() -> None:
    world = World()
    for position in (5, 1, 9, 3):
        world.piles[0].add(Slice(range(position, position + 1), position, 1), 60)
    assert world.pass_ticks(10, 1) == [("a", 5), ("a", 1), ("a", 9), ("a", 3)]


def test_records_beyond_the_bound_are_in_the_file() -> None:
    world = World()
    for position in range(300):
        world.piles[0].add(Slice(range(2 * position, 2 * position + 1), 2 * position, 1), 60)
    assert world.shelf.records() == (256, 44)
    taken = world.piles[0].overlapping(0, 1000)
    assert [in_file for _, _, in_file in taken] == [False] * 256 + [True] * 44
    assert world.shelf.records() == (0, 0)


def test_a_number_is_given_again_once_its_pile_is_empty() -> None:
    world = World()
    for _ in range(3):
        for pile in world.piles:
            pile.add(Slice(range(1, 2), 1), 60)
        assert [pile.drop(5) for pile in world.piles] == [1, 1]
    assert len(world.shelf._piles) == 3


def test_a_pile_is_dropped_in_steps() -> None:
    world = World()
    for position in range(10):
        world.piles[0].add(Slice(range(3 * position, 3 * position + 2), 3 * position), 60)
    assert (world.piles[0].drop(4), len(world.piles[0]), len(world.shelf)) == (8, 6, 6)
    assert (world.piles[0].drop(100), len(world.piles[0]), len(world.shelf)) == (12, 0, 0)
    assert world.pass_ticks(100, 5) == []


def test_what_a_record_costs() -> None:
    assert RECORD_BYTES == 48
    assert RECORD_BYTES * EXTENT_RECORDS % 4096 == 0


@pytest.mark.parametrize("jump", [10, 3000, 10**7])
def test_a_jump_of_the_clock_makes_everything_due_at_once(jump: int) -> None:
    world = World()
    for position, ticks in ((1, 5), (2, 100), (3, 2500)):
        world.piles[0].add(Slice(range(position, position + 1), position, 1), world.tick + ticks)
    assert {position for _, position in world.pass_ticks(jump, 1)} == ({1} if jump == 10 else {1, 2, 3})
