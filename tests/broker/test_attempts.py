from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.attempts import Attempts
from gateway.broker.slice import Slice

POSITIONS = st.integers(1, 30)
RANGES = st.tuples(POSITIONS, POSITIONS).map(lambda pair: (min(pair), max(pair)))


@given(st.lists(st.tuples(st.integers(0, 4), RANGES), max_size=12))
def test_the_number_that_was_noted_last_is_known_until_it_is_forgotten(said: list[tuple[int, tuple[int, int]]]) -> None:
    """0 stands for forgetting."""
    attempts, known = Attempts(), dict.fromkeys(range(1, 31), 0)
    for number, (low, high) in said:
        if number:
            attempts.note(number, [(low, high)])
        else:
            attempts.forget(low, high)
        known.update(dict.fromkeys(range(low, high + 1), number))
    assert {position: attempts.of(position) for position in known} == known
    assert bool(attempts) is any(known.values())
    again = Attempts.decode(attempts.encode())
    assert {position: again.of(position) for position in known} == known


def test_a_slice_is_cut_where_its_attempts_change() -> None:
    attempts = Attempts()
    attempts.note(2, [(3, 4), (7, 7)])
    attempts.note(5, [(4, 4)])
    parts = [
        (list(part.positions), part.span_low, part.attempts) for part in attempts.parts(Slice([1, 3, 4, 7, 9, 10], 0))
    ]
    assert parts == [([1], 0, 0), ([3], 2, 2), ([4], 4, 5), ([7], 5, 2), ([9, 10], 8, 0)]


def test_a_slice_of_new_messages_stays_one_and_so_does_one_that_knows_its_attempts() -> None:
    attempts = Attempts()
    attempts.note(2, [(3, 4)])
    new, tried = Slice(range(5, 9), 5), Slice(range(3, 5), 3, 7)
    assert list(attempts.parts(new)) == [new]
    assert list(attempts.parts(tried)) == [tried]
    assert tried.attempts == 7


def test_large_numbers_are_rounded_down_so_that_there_are_few_sets() -> None:
    attempts = Attempts()
    for position in range(1, 301):
        attempts.note(position, [(position, position)])
    assert [attempts.of(position) for position in (63, 64, 127, 128, 300)] == [63, 64, 64, 128, 256]
    assert len(attempts.encode()) == 63 + 4
