from hypothesis import given
from hypothesis import strategies as st

from gateway.bench.pace import TIMER_US, Pace, timetable


def test_publishers_take_turns() -> None:
    paces = [timetable(1000, number, 4, 500) for number in range(4)]
    due = sorted(pace.due_us(n) for pace in paces for n in range(5))
    assert due == [500 + 1000 * n for n in range(20)]


@given(st.floats(1, 1e6), st.integers(0, 10_000), st.integers(0, 10_000_000), st.integers(1, 500))
def test_what_is_due_is_what_the_timetable_says(rate: float, sent: int, passed: int, limit: int) -> None:
    pace = timetable(rate, 0, 1, 1000)
    now = 1000 + passed
    count = pace.due(sent, now, limit)
    assert 0 <= count <= limit
    assert all(pace.due_us(sent + n) <= now + 1 for n in range(count))
    if count < limit:
        assert pace.due_us(sent + count) > now - 1


def test_nothing_is_due_before_the_start() -> None:
    assert Pace(5000, 10).due(0, 100, 200) == 0


def test_a_message_carries_the_time_it_was_due_so_that_a_stall_does_not_hide_itself() -> None:
    pace = Pace(0, 100)
    assert pace.stamp(3, 300) == 300
    assert pace.stamp(3, 300 + TIMER_US) == 300 + TIMER_US  # the timer's own lateness
    assert pace.stamp(3, 1_000_000) == 300 + TIMER_US
