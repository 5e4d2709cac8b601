from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.bucket import Bucket


def test_a_new_bucket_has_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(10, burst_s=2)
    now = 1000.0
    taken = 0
    while bucket.wait_s(now) == 0:
        bucket.take(1, now)
        taken += 1
    assert 20 <= taken <= 21  # who comes to the last drop may be let in
    assert bucket.wait_s(now) <= 0.1 + 1e-9
    assert bucket.wait_s(now + 0.1) == pytest.approx(0, abs=1e-9)


def test_a_batch_larger_than_the_bucket_is_taken_and_owed() -> None:
    bucket = Bucket(100, burst_s=1)
    bucket.take(1000, 0.0)
    assert bucket.wait_s(0.0) == 9
    assert bucket.wait_s(8.9) == pytest.approx(0.1)
    assert bucket.wait_s(9.0) == 0


def test_a_bucket_that_rests_is_full_and_no_fuller() -> None:
    bucket = Bucket(10, burst_s=1)
    bucket.take(10, 0.0)
    assert not bucket.is_full(0.9)
    assert bucket.is_full(1.0)
    bucket.take(10, 1e6)
    assert not bucket.is_full(1e6 + 0.9)
    assert bucket.is_full(1e6 + 1)


@given(
    per_s=st.floats(0.5, 1e6),
    burst_s=st.floats(0.1, 100),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10_000)), min_size=1, max_size=100),
)
def test_over_any_time_no_more_is_taken_than_rate_and_burst_and_one_batch(
    per_s: float, burst_s: float, steps: list[tuple[float, int]]
) -> None:
    bucket, now, taken = Bucket(per_s, burst_s), 0.0, 0
    largest = max(count for _, count in steps)
    for passed, count in steps:
        now += passed
        if bucket.wait_s(now) == 0:
            bucket.take(count, now)
            taken += count
    assert taken <= (now + burst_s) * per_s * (1 + 1e-6) + largest


@given(per_s=st.floats(0.5, 1e6), burst_s=st.floats(0.1, 100), count=st.integers(1, 10**6), now=st.floats(0, 1e6))
def test_who_waits_as_told_may_take(per_s: float, burst_s: float, count: int, now: float) -> None:
    bucket = Bucket(per_s, burst_s)
    bucket.take(count, now)
    later = now + bucket.wait_s(now)
    assert bucket.wait_s(later + 1e-6 * max(later, 1)) == 0
