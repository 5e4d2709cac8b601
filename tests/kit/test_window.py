from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.window import TOLERANCE, Rate, Window

FLOOR, NEAR_MS = 8, 100.0


def window(cap: int = 1000) -> Window:
    return Window(cap, FLOOR, NEAR_MS)


def observe(found: Window, latency_ms: float, times: int = 1) -> Window:
    """As many samples, each taken with a full window."""
    for _ in range(times):
        found.observe(latency_ms, found.size)
    return found


# ----------------------------------------------------------------------------------------------------------- rate


def test_a_rate_comes_to_what_is_steady() -> None:
    rate = Rate(0)
    for look in range(1, 101):
        found = rate.update(look * 50, look * 100)
    assert found == pytest.approx(500, rel=0.01)


def test_a_rate_may_be_asked_as_seldom_as_one_likes() -> None:
    often, seldom = Rate(0), Rate(0)
    for look in range(1, 51):
        often.update(look * 10, look * 100)
    assert seldom.update(500, 5000) == pytest.approx(often.update(500, 5000), rel=0.01)


def test_a_rate_falls_where_nothing_comes_any_more() -> None:
    rate = Rate(0)
    rate.update(10_000, 10_000)
    assert rate.update(10_000, 12_000) == pytest.approx(rate.update(10_000, 12_000))
    assert rate.update(10_000, 30_000) < 1


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 5000)), max_size=50))
def test_a_rate_is_never_negative_and_never_more_than_its_fastest_stretch(steps: list[tuple[int, int]]) -> None:
    rate, count, now, fastest, at = Rate(0), 0, 0, 0.0, 0
    for events, passed in steps:
        count, now = count + events, now + passed
        found = rate.update(count, now)
        if now > at:
            fastest, at = max(fastest, 1000 * count / (now - at)), now
        assert 0 <= found <= fastest + 1e-6


# --------------------------------------------------------------------------------------------------------- window


def test_a_window_starts_at_its_cap_and_a_fast_client_keeps_it_there() -> None:
    found = window()
    assert found.size == 1000
    assert observe(found, 5, times=100).size == 1000
    assert not found.is_narrow


def test_latencies_that_are_near_are_all_as_good() -> None:
    found = observe(window(), 1, times=3)
    assert observe(found, TOLERANCE * NEAR_MS, times=50).size == 1000


def test_it_shrinks_by_the_ratio_of_the_latencies_and_never_by_more_than_half() -> None:
    found = window()
    found.observe(2.5 * NEAR_MS, 1000)
    assert found.size == int(1000 * 2 / 2.5 + 1000**0.5)
    found = window()
    found.observe(100 * NEAR_MS, 1000)
    assert found.size == int(1000 / 2 + 1000**0.5)


def test_a_client_with_a_queue_of_ours_is_brought_to_twice_its_best() -> None:
    """One that works on 500 a second, one after the other: its latency is what is in flight over that rate."""
    found = window()
    for _ in range(200):
        observe(found, found.size / 500 * 1000)
    assert found.size == pytest.approx(500 * TOLERANCE * NEAR_MS / 1000, rel=0.3)


def test_a_client_that_simply_takes_long_gets_its_window_back() -> None:
    """It acks every five seconds, whatever is in flight: a smaller window would only make it slower."""
    found = window()
    sizes = [observe(found, 5000).size for _ in range(10)]
    assert min(sizes) < 1000
    assert sizes[-5:] == [1000] * 5
    assert found.best_ms == 5000


def test_a_client_whose_latency_is_known_from_a_single_message_is_not_tried() -> None:
    found = window()
    found.observe(5000, 1)
    assert found.best_ms == 5000
    assert observe(found, 5000, times=20).size == 1000


def test_a_slow_message_of_a_client_with_little_in_flight_says_nothing_of_the_window() -> None:
    found = window()
    found.observe(5, 1)
    for _ in range(20):
        found.observe(3000, 10)
    assert found.size == 1000


def test_at_the_floor_the_best_is_how_it_is_now() -> None:
    found = observe(window(), 10)
    found.observe(10, 1)
    found.cut()
    assert (found.size, found.is_narrow) == (FLOOR, True)
    for _ in range(300):
        observe(found, 4000)
    assert found.best_ms == pytest.approx(4000, rel=0.01)
    assert found.size == 1000


def test_it_grows_from_the_floor_to_the_cap_in_some_seconds_of_looks() -> None:
    found = window()
    found.cut()
    looks = 0
    while found.size < 1000:
        found.observe(5, 1)
        looks += 1
    assert 30 < looks < 80


def test_a_lease_that_runs_out_takes_its_place_along() -> None:
    found = window()
    found.lose(1)
    assert (found.size, found.is_narrow) == (999, False)
    found.lose(5000)
    assert (found.size, found.is_narrow) == (FLOOR, True)


def test_a_cap_below_the_floor_holds() -> None:
    found = Window(3, FLOOR, NEAR_MS)
    assert observe(found, 60_000, times=10).size == 3
    found.cut()
    assert (found.size, found.is_narrow) == (3, False)


SAMPLE = st.one_of(
    st.tuples(st.floats(0, 1e6), st.integers(1, 20_000)), st.integers(1, 10_000), st.just(None)
)  # a delivery that was timed, leases that ran out, a cut


@given(st.integers(1, 10_000), st.integers(1, 100), st.lists(SAMPLE, max_size=200))
def test_whatever_is_measured_it_stays_between_floor_and_cap(
    cap: int, floor: int, samples: list[tuple[float, int] | int | None]
) -> None:
    found = Window(cap, floor, NEAR_MS)
    for sample in samples:
        before = found.size
        match sample:
            case None:
                found.cut()
            case int():
                found.lose(sample)
            case latency_ms, in_flight:
                found.observe(latency_ms, in_flight)
        assert min(floor, cap) <= found.size <= cap
        if sample is None or isinstance(sample, int):
            assert found.size <= before


@given(st.floats(1, 50_000), st.integers(1, 5000), st.integers(0, 2**32))
def test_no_client_of_one_speed_is_starved(service_ms: float, cap: int, seed: int) -> None:
    """One that takes the same time for each delivery, whatever is in flight, ends with all of its window."""
    found = Window(cap, FLOOR, NEAR_MS)
    for _ in range(500):
        observe(found, service_ms)
    assert found.size == cap
