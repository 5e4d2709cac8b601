import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.bench.layout import Seen
from gateway.bench.tally import Latency, Tally
from tests.bench.test_plan import plan


def seen(low: int, high: int, stamp: int = 0) -> Seen:
    return Seen(high - low + 1, [(low, high)], {b"%016d" % stamp: high - low + 1})


def tally(messages: int, *subscriptions: str) -> Tally:
    made = Tally(plan(messages=messages))
    made.begin(subscriptions, 1000)
    return made


async def test_a_run_is_complete_once_all_is_confirmed_and_has_come_everywhere() -> None:
    run = tally(10, "a", "b")
    run.note_accepted(1, 10, 2000)
    run.note_received("a", seen(1, 10), 2000)
    run.note_received("b", seen(1, 9), 2000)
    assert not run.complete.is_set()
    assert run.lost == 1
    run.note_received("b", seen(10, 10), 2500)
    assert run.complete.is_set()
    assert (run.lost, run.duplicates, run.invented, run.received) == (0, 0, 0, 20)
    assert run.elapsed_s == pytest.approx(0.0015)


async def test_a_run_that_has_caught_up_is_not_complete_before_all_is_answered() -> None:
    run = tally(10, "a")
    run.note_accepted(1, 4, 2000)
    run.note_received("a", seen(1, 4), 2000)
    assert not run.complete.is_set()


async def test_a_delivery_may_come_before_the_confirmation() -> None:
    run = tally(10, "a")
    run.note_received("a", seen(1, 10), 2000)
    run.note_accepted(1, 10, 3000)
    assert run.complete.is_set()
    assert run.elapsed_s == pytest.approx(0.002)


async def test_a_duplicate_does_not_stand_in_for_what_is_lost() -> None:
    run = tally(10, "a")
    run.note_accepted(1, 10, 2000)
    run.note_received("a", seen(1, 9), 2000)
    run.note_received("a", seen(9, 9), 2000)
    assert not run.complete.is_set()
    assert (run.lost, run.duplicates) == (1, 1)


async def test_what_nobody_published_is_counted() -> None:
    run = tally(2, "a")
    run.note_accepted(1, 2, 2000)
    run.note_received("a", seen(2, 4), 2000)
    assert (run.lost, run.duplicates, run.invented) == (1, 0, 2)


async def test_a_refused_message_is_not_waited_for() -> None:
    run = tally(10, "a")
    run.note_accepted(1, 4, 2000)
    run.note_refused(6, "overloaded: later", 2000)
    run.note_refused(0, "another", 2000)
    run.note_received("a", seen(1, 4), 2000)
    assert run.complete.is_set()
    assert (run.refused, run.refusal) == (6, "overloaded: later")


async def test_who_keeps_up_is_done_before_those_who_do_not() -> None:
    run = Tally(plan(messages=10, subscribers=2, no_ack=1))
    run.begin(["a", "b"], 1000, misfits=["a"])
    run.note_accepted(1, 10, 2000)
    run.note_received("b", seen(1, 10), 2500)
    assert (run.kept_up.is_set(), run.complete.is_set()) == (True, False)
    run.note_received("a", seen(1, 10), 9000, timed=False)
    assert run.complete.is_set()
    assert run.elapsed_s == pytest.approx(0.0015)


async def test_a_backlog_is_due_too_and_its_messages_have_no_latency() -> None:
    run = Tally(plan(messages=2, backlog=8))
    run.note_backlog(1, 8)
    run.begin(["a"], 1000)
    run.note_received("a", seen(1, 8, stamp=0), 3000)
    assert run.drained_us == 3000
    run.note_accepted(9, 10, 3500)
    run.note_received("a", seen(9, 10, stamp=3400), 4000)
    assert run.complete.is_set()
    assert (run.lost, run.duplicates, run.invented, run.due) == (0, 0, 0, 10)
    latency = run.delivery.percentiles()
    assert latency is not None
    assert latency.max_ms == 0.6


async def test_with_own_topics_each_message_comes_to_one_of_all() -> None:
    run = Tally(plan(messages=10, subscribers=2, own_topics=True))
    run.begin(["a", "b"], 1000)
    run.note_accepted(1, 10, 2000)
    run.note_received("a", seen(1, 5), 2000)
    assert not run.complete.is_set()
    run.note_received("b", seen(6, 10), 2000)
    assert run.complete.is_set()
    assert run.received == 10


async def test_without_subscriptions_a_confirmation_is_the_end() -> None:
    run = tally(3)
    run.note_accepted(1, 3, 2000)
    assert run.complete.is_set()


async def test_latency_counts_from_the_stamp() -> None:
    run = tally(10, "a")
    run.note_received("a", seen(1, 10, stamp=1500), 2000)
    latency = run.delivery.percentiles()
    assert latency is not None
    assert latency.p50_ms == latency.max_ms == 0.5


def test_no_latency_has_no_percentiles() -> None:
    assert Latency().percentiles() is None


@settings(max_examples=20)  # the library walks 40,000 buckets for each percentile
@given(st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(1, 3)), min_size=1, max_size=200))
def test_percentiles_are_those_of_the_values(values: list[tuple[int, int]]) -> None:
    latency = Latency()
    for microseconds, count in values:
        latency.record(microseconds, count)
    found = latency.percentiles()
    assert found is not None
    every = sorted(microseconds for microseconds, count in values for _ in range(count))
    median = every[max(0, -(-len(every) // 2) - 1)] / 1000
    assert found.p50_ms == pytest.approx(median, rel=0.002, abs=0.001)
    assert found.max_ms == every[-1] / 1000
    assert found.p50_ms <= found.p90_ms <= found.p99_ms <= found.p99_9_ms <= found.max_ms
