import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.backoff import JITTER, full_jitter_s, redelivery_ms
from gateway.model import BACKOFF_MS_DEFAULT

randoms = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempts", "delay_ms"), [(1, 10_000), (2, 30_000), (3, 60_000), (8, 7_200_000), (9, 7_200_000), (400, 7_200_000)]
)
def test_a_redelivery_waits_for_its_step_and_the_last_step_repeats(attempts: int, delay_ms: int) -> None:
    assert redelivery_ms(BACKOFF_MS_DEFAULT, attempts, random=0.0) == delay_ms


@given(
    schedule_ms=st.lists(st.integers(0, 2_592_000_000), min_size=1, max_size=100),
    attempts=st.integers(1, 1000),
    random=randoms,
)
def test_jitter_only_lengthens_and_by_its_share_at_most(schedule_ms: list[int], attempts: int, random: float) -> None:
    step_ms = redelivery_ms(schedule_ms, attempts, 0.0)
    assert step_ms in schedule_ms
    assert step_ms <= redelivery_ms(schedule_ms, attempts, random) <= step_ms * (1 + JITTER)


def test_jitter_spreads_what_failed_together() -> None:
    assert len({redelivery_ms([10_000], 1, random / 100) for random in range(100)}) == 100


def test_a_schedule_of_zero_means_at_once() -> None:
    assert redelivery_ms([0], 1, random=0.99) == 0


@given(attempt=st.integers(0, 10_000), random=randoms)
def test_a_reconnect_waits_below_an_exponential_ceiling(attempt: int, random: float) -> None:
    delay_s = full_jitter_s(attempt, base_s=0.5, cap_s=20.0, random=random)
    assert 0 <= delay_s <= min(20.0, 0.5 * 2 ** min(attempt, 32))


@pytest.mark.parametrize(("attempt", "half_s"), [(0, 0.25), (1, 0.5), (2, 1.0), (6, 10.0), (10**9, 10.0)])
def test_a_reconnect_is_uniform_below_its_ceiling(attempt: int, half_s: float) -> None:
    assert full_jitter_s(attempt, base_s=0.5, cap_s=20.0, random=0.0) == 0.0
    assert full_jitter_s(attempt, base_s=0.5, cap_s=20.0, random=0.5) == half_s
