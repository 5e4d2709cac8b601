import re
import sys
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.kit.chunk import RUNS_MAX, SIZE, Bits
from gateway.kit.ranges import RangeSet, count, normalise

SPACE = 60  # small, so that ranges meet often

closed_ranges = st.tuples(st.integers(0, SPACE), st.integers(0, SPACE)).map(lambda pair: (min(pair), max(pair)))
many_ranges = st.lists(closed_ranges, max_size=30)


def integers(low: int, high: int) -> set[int]:
    return set(range(low, high + 1))


def as_ranges(values: set[int]) -> list[tuple[int, int]]:
    """The model: the maximal runs of a plain set."""
    runs: list[tuple[int, int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return runs


@given(floor=st.integers(0, SPACE), added=many_ranges)
def test_a_range_set_is_a_set_of_integers(floor: int, added: list[tuple[int, int]]) -> None:
    ranges = RangeSet(floor)
    model = set(range(floor))
    for low, high in added:
        ranges.add(low, high)
        model |= integers(low, high)

        runs = as_ranges(model)
        floor_of_model = runs.pop(0)[1] + 1 if runs and runs[0][0] == 0 else 0
        assert ranges.floor == floor_of_model
        assert list(ranges) == runs
        assert len(ranges) == len(runs)
        assert bool(ranges) == bool(runs)
    assert {value for value in range(SPACE + 3) if value in ranges} == model


@given(floor=st.integers(0, SPACE), added=many_ranges, asked=closed_ranges)
def test_gaps_are_what_is_not_in_the_set(floor: int, added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    ranges = RangeSet(floor, added)
    model = set(range(floor)).union(*(integers(low, high) for low, high in added))
    assert list(ranges.gaps(*asked)) == as_ranges(integers(*asked) - model)


@given(floor=st.integers(0, SPACE), added=many_ranges)
def test_the_order_of_adding_does_not_matter(floor: int, added: list[tuple[int, int]]) -> None:
    backwards = RangeSet(floor, reversed(added))
    assert RangeSet(floor, added) == backwards
    assert RangeSet(backwards.floor, backwards) == backwards


@pytest.mark.parametrize(
    ("asked", "gaps"),
    [
        ((0, 4), [(3, 4)]),
        ((3, 5), [(3, 4)]),
        ((5, 5), []),
        ((9, 9), []),
        ((6, 10), [(10, 10)]),
        ((3, 20), [(3, 4), (10, 11), (13, 20)]),
        ((13, 20), [(13, 20)]),
        ((4, 3), []),
    ],
)
def test_gaps_stop_short_of_the_ranges_on_both_sides(asked: tuple[int, int], gaps: list[tuple[int, int]]) -> None:
    assert list(RangeSet(3, [(5, 9), (12, 12)]).gaps(*asked)) == gaps


def test_an_add_that_touches_the_floor_moves_it() -> None:
    ranges = RangeSet(10)
    ranges.add(10, 12)
    assert (ranges.floor, list(ranges)) == (13, [])


def test_the_floor_takes_in_the_ranges_that_it_reaches() -> None:
    ranges = RangeSet(1, [(3, 4), (5, 5), (8, 9)])
    ranges.add(1, 2)
    assert (ranges.floor, list(ranges)) == (6, [(8, 9)])


def test_an_add_that_closes_a_gap_joins_both_sides() -> None:
    ranges = RangeSet(0, [(5, 6), (8, 9)])
    ranges.add(7, 7)
    assert list(ranges) == [(5, 9)]


def test_an_add_below_the_floor_changes_nothing() -> None:
    ranges = RangeSet(10, [(20, 21)])
    ranges.add(2, 9)
    assert ranges == RangeSet(10, [(20, 21)])


def test_sets_with_other_floors_or_ranges_differ() -> None:
    assert RangeSet(3) != RangeSet(4)
    assert RangeSet(3, [(7, 8)]) != RangeSet(3, [(7, 9)])
    assert RangeSet(3) != 3


def test_a_range_set_has_no_hash_because_it_changes() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(RangeSet())


UNIVERSE: Final = 4 * SIZE

places = st.one_of(
    st.integers(0, UNIVERSE - 1),
    st.builds(
        lambda chunk, near: min(max(chunk * SIZE + near, 0), UNIVERSE - 1), st.integers(0, 4), st.integers(-3, 3)
    ),
)
far_ranges = st.tuples(places, places).map(lambda pair: (min(pair), max(pair)))
near_ranges = st.tuples(places, st.integers(0, 40)).map(lambda at: (at[0], min(at[0] + at[1], UNIVERSE - 1)))
combs = st.tuples(st.integers(1, UNIVERSE - 10_000), st.integers(2 * RUNS_MAX, 9_000))
changes = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "add", "remove"]), st.one_of(near_ranges, far_ranges)),
        st.tuples(st.sampled_from(["comb", "add", "remove"]), combs.map(lambda comb: (comb[0], sum(comb)))),
    ),
    max_size=12,
)


def bits(low: int, high: int) -> int:
    """[low, high] as a model: a plain number, bit by bit."""
    return (1 << high + 1) - (1 << low) if low <= high else 0


def comb(low: int, high: int) -> int:
    """Every other integer of [low, high]."""
    return int("01" * ((high - low + 2) // 2), 2) << low


def runs_of(model: int) -> list[tuple[int, int]]:
    return [(run.start(), run.end() - 1) for run in re.finditer("1+", f"{model:b}"[::-1])]


def changed(floor: int, steps: list[tuple[str, tuple[int, int]]]) -> tuple[RangeSet, int]:
    """A set and its model, behind all the steps."""
    ranges, model = RangeSet(floor), bits(0, floor - 1)
    for verb, (low, high) in steps:
        if verb == "add":
            ranges.add(low, high)
            model |= bits(low, high)
        elif verb == "remove":
            ranges.remove(low, high)
            model &= ~bits(low, high)
        else:
            for value in range(low, high + 1, 2):
                ranges.add(value, value)
            model |= comb(low, high)
    return ranges, model


@given(floor=st.one_of(st.just(0), places), steps=changes, asked=far_ranges, value=places)
@example(floor=0, steps=[("comb", (1, 9001)), ("add", (2, 9000))], asked=(0, 9000), value=5)
@example(floor=0, steps=[("add", (3, 3 * SIZE)), ("add", (0, 2))], asked=(0, 9), value=5)
@example(floor=0, steps=[("comb", (SIZE - 5000, SIZE + 5000)), ("add", (0, SIZE + 7))], asked=(0, UNIVERSE), value=SIZE)
@example(floor=3 * SIZE, steps=[("remove", (SIZE - 1, SIZE + 1)), ("comb", (SIZE, SIZE + 8001))], asked=(0, 9), value=5)
def test_a_range_set_of_many_chunks_is_a_set_of_integers(
    floor: int, steps: list[tuple[str, tuple[int, int]]], asked: tuple[int, int], value: int
) -> None:
    ranges, model = changed(floor, steps)
    runs = runs_of(model)
    floor_of_model = runs.pop(0)[1] + 1 if model & 1 else 0
    assert ranges.floor == floor_of_model
    assert list(ranges) == runs
    assert len(ranges) == len(runs)
    assert bool(ranges) == bool(runs)
    assert (value in ranges) == bool((model >> value) & 1)
    assert ranges.count_in(*asked) == (model & bits(*asked)).bit_count()
    assert list(ranges.gaps(*asked)) == runs_of(bits(*asked) & ~model)


@given(floor=places, steps=changes)
def test_a_set_comes_back_from_its_bytes(floor: int, steps: list[tuple[str, tuple[int, int]]]) -> None:
    ranges, _ = changed(floor, steps)
    again = RangeSet.decode(ranges.encode())
    assert again == ranges
    assert (again.floor, list(again)) == (ranges.floor, list(ranges))
    built = RangeSet(ranges.floor, reversed(list(ranges)))
    assert built.encode() == ranges.encode(), "bytes differ with the order of adding"


def test_half_a_million_settled_in_the_worst_order_take_a_bit_each() -> None:
    ranges = RangeSet(0)
    for position in range(1, 500_000, 2):
        ranges.add(position, position)
    full = [chunk.bitmap for chunk in ranges._chunks if isinstance(chunk, Bits)]
    assert len(full) == 500_000 // SIZE + 1
    assert sum(map(sys.getsizeof, full)) < 500_000 / 8 * 1.1
    assert len(ranges.encode()) < 500_000 / 8 * 1.1
    assert next(ranges.gaps(300_001, 500_000)) == (300_002, 300_002)
    assert ranges.count_in(0, 499_999) == 250_000


def test_bits_that_were_filled_up_are_ranges_again_in_the_bytes() -> None:
    ranges = RangeSet(0)
    for position in [*range(1, 20_000, 2), *range(2, 20_000, 2)]:
        ranges.add(position, position)
    assert ranges.encode() == RangeSet(0, [(1, 19_999)]).encode()
    assert len(ranges.encode()) < 50


def test_what_is_far_above_the_floor_costs_no_more() -> None:
    assert len(RangeSet(5, [(2**52, 2**52 + 1)]).encode()) < 50


def test_a_remove_below_the_floor_lowers_it_and_keeps_what_is_above() -> None:
    ranges = RangeSet(100, [(110, 120)])
    ranges.remove(40, 49)
    assert (ranges.floor, list(ranges)) == (40, [(50, 99), (110, 120)])
    ranges.add(40, 49)
    assert ranges == RangeSet(100, [(110, 120)])


def test_a_remove_across_the_floor_lowers_it_and_takes_what_it_meets_above() -> None:
    ranges = RangeSet(100, [(110, 120)])
    ranges.remove(90, 114)
    assert (ranges.floor, list(ranges)) == (90, [(115, 120)])


def test_a_remove_of_nothing_changes_nothing() -> None:
    ranges = RangeSet(100, [(110, 120)])
    ranges.remove(9, 8)
    ranges.remove(100, 109)
    assert ranges == RangeSet(100, [(110, 120)])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x02" + RangeSet(3).encode()[1:],
        RangeSet(3).encode() + b"x",
        RangeSet(3, [(5, 9)]).encode()[:-1],
    ],
)
def test_bytes_that_are_no_set_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="set of ranges"):
        RangeSet.decode(data)


@given(many_ranges)
def test_normalise_names_every_integer_once(ranges: list[tuple[int, int]]) -> None:
    model: set[int] = set().union(*(integers(low, high) for low, high in ranges))
    normal = normalise(ranges)
    assert normal == as_ranges(model)
    assert count(normal) == len(model)


@pytest.mark.parametrize(
    ("given_ranges", "normal"),
    [
        ([], []),
        ([(5, 5), (1, 3)], [(1, 3), (5, 5)]),
        ([(1, 3), (4, 6)], [(1, 6)]),
        ([(1, 9), (2, 3)], [(1, 9)]),
        ([(2, 2), (2, 2)], [(2, 2)]),
    ],
)
def test_normalise_joins_what_overlaps_or_touches(
    given_ranges: list[tuple[int, int]], normal: list[tuple[int, int]]
) -> None:
    assert normalise(given_ranges) == normal
