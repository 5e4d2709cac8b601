import pytest
from hypothesis import given
from hypothesis import strategies as st

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
