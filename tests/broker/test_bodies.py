from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.bodies import Bodies

OVERHEAD_BYTES = 41


def body(position: int) -> bytes:
    return b"%d" % position * (position % 3 + 1)


def filled(first: int, *counts: int, bytes_max: int = 10**9) -> Bodies:
    bodies = Bodies(bytes_max, first)
    for count in counts:
        bodies.append([body(position) for position in range(bodies.end, bodies.end + count)])
    return bodies


@given(
    first=st.integers(0, 700),
    counts=st.lists(st.sampled_from([1, 2, 100, 255, 256, 257, 600]), max_size=6),
    asked=st.tuples(st.integers(0, 2500), st.integers(0, 700)),
    bytes_max=st.sampled_from([0, 5_000, 20_000, 10**9]),
    as_list=st.booleans(),
)
def test_what_is_here_comes_back_and_what_is_not_does_not(
    first: int, counts: list[int], asked: tuple[int, int], bytes_max: int, as_list: bool
) -> None:
    bodies = filled(first, *counts, bytes_max=bytes_max)
    assert bodies.end == first + sum(counts)
    positions: Sequence[int] = range(asked[0], asked[0] + asked[1])
    if as_list:
        positions = positions[::3]
        positions = list(positions)
    found = bodies.get(positions)
    if positions and bodies.low <= positions[0] and positions[-1] < bodies.end:
        assert found == [body(position) for position in positions]
    else:
        assert found is None


@given(counts=st.lists(st.integers(1, 700), max_size=8), bytes_max=st.integers(0, 60_000))
def test_the_cap_holds_after_every_append(counts: list[int], bytes_max: int) -> None:
    bodies = Bodies(bytes_max, 1)
    for count in counts:
        bodies.append([body(position) for position in range(bodies.end, bodies.end + count)])
        assert bodies.size <= bytes_max
        kept = bodies.get(range(bodies.low, bodies.end)) or []
        assert bodies.size == sum(len(each) + OVERHEAD_BYTES for each in kept)
        assert 1 <= bodies.low <= bodies.end


def test_the_oldest_go_first_and_the_newest_stay() -> None:
    size = 256 * (100 + OVERHEAD_BYTES)
    bodies = Bodies(2 * size, 0)
    for _ in range(3):
        bodies.append([b"x" * 100] * 256)
    assert (bodies.low, bodies.end, bodies.size) == (256, 768, 2 * size)


def test_without_room_nothing_is_kept() -> None:
    bodies = filled(1, 5, 1, bytes_max=0)
    assert (bodies.low, bodies.end, bodies.size) == (7, 7, 0)
    assert bodies.get([6]) is None


def test_a_restart_forgets_all_and_goes_on_elsewhere() -> None:
    bodies = filled(1, 300)
    bodies.restart(1000)
    assert (bodies.low, bodies.end, bodies.size) == (1000, 1000, 0)
    bodies.append([body(1000), body(1001)])
    assert bodies.get(range(1000, 1002)) == [body(1000), body(1001)]
    assert bodies.get([999]) is None


@pytest.mark.parametrize("positions", [[], range(5, 5)])
def test_nothing_is_not_here(positions: Sequence[int]) -> None:
    assert filled(1, 10).get(positions) is None


def test_hits_and_misses_are_counted_in_messages() -> None:
    bodies = filled(1, 10)
    bodies.get(range(1, 5))
    bodies.get([7, 9])
    bodies.get([9, 11])
    assert (bodies.hits, bodies.misses) == (6, 2)
