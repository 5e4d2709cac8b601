"""A commit rests where commits take too much of the run loop, and only there."""

from __future__ import annotations

from gateway.kit.pace import Pace

REST_MAX_S = 0.002


def after(pace: Pace, looks: int, share: float, start_s: float = 100.0) -> list[float]:
    """The rests after so many looks, 25 ms apart, of a run loop that is busy for this share of the time."""
    rests = []
    for number in range(looks):
        now = start_s + 0.025 * number
        pace.look(now, now * share)
        rests.append(pace.rest_s)
    return rests


def test_a_run_loop_that_has_time_does_not_rest() -> None:
    assert after(Pace(REST_MAX_S), 20, 0.5) == [0.0] * 20


def test_the_rest_grows_while_the_run_loop_is_busy_up_to_its_bound() -> None:
    rests = after(Pace(REST_MAX_S), 30, 0.9)
    assert rests == sorted(rests)
    assert rests[1] < REST_MAX_S
    assert rests[-1] == REST_MAX_S


def test_between_busy_and_idle_it_stays_as_it_is() -> None:
    pace = Pace(REST_MAX_S)
    after(pace, 3, 0.9)
    now = 200.0
    pace.look(now, now * 0.65)
    rest_s = pace.rest_s
    assert set(after(pace, 10, 0.65, now + 0.025)) == {rest_s}


def test_it_goes_when_the_load_has_gone() -> None:
    pace = Pace(REST_MAX_S)
    after(pace, 30, 0.9)
    assert after(pace, 30, 0.1, 300.0)[-1] == 0.0


def test_commits_closer_than_a_look_are_taken_together() -> None:
    pace = Pace(REST_MAX_S)
    after(pace, 2, 0.9)
    before = pace.rest_s
    pace.look(100.026, 500.0)
    assert pace.rest_s == before


def test_a_rest_of_nothing_is_never_taken() -> None:
    assert set(after(Pace(0.0), 20, 1.0)) == {0.0}
