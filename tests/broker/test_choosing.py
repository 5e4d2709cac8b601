from __future__ import annotations

from collections import Counter
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.choosing import Takers
from gateway.broker.lease import Consumer, Lease
from gateway.broker.slice import Slice
from gateway.broker.subscription import Subscription


class World:
    """As much of a subscription as its consumers need."""

    def __init__(self, windows: list[int]) -> None:
        self.takers = Takers()
        self.position = 0
        self.consumers = [
            Consumer(cast("Subscription", self), window, 10_000, lambda _delivery: None, str(index))
            for index, window in enumerate(windows)
        ]
        for consumer in self.consumers:
            consumer.update()

    def lease(self, consumer: Consumer, count: int) -> Lease:
        low, self.position = self.position, self.position + count
        lease = Lease(consumer, Slice(range(low, low + count), low))
        consumer.hold(lease)
        return lease


def settle(lease: Lease) -> None:
    lease.consumer.drop(lease)


step = st.tuples(st.integers(0, 7), st.sampled_from(["lease", "lease", "settle", "block", "unblock", "window"]))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.lists(step, max_size=200))
def test_the_best_is_always_one_with_the_largest_free_share(windows: list[int], steps: list[tuple[int, str]]) -> None:
    world = World(windows)
    held: dict[Consumer, list[Lease]] = {consumer: [] for consumer in world.consumers}
    for index, verb in steps:
        consumer = world.consumers[index % len(windows)]
        if verb == "lease" and consumer.credit:
            held[consumer].append(world.lease(consumer, 1))
        elif verb == "settle" and held[consumer]:
            settle(held[consumer].pop())
        elif verb == "window":
            consumer.window = index + 1  # smaller than what is in flight too
            consumer.update()
        elif verb in ("block", "unblock"):
            consumer.blocked = verb == "block"
            consumer.update()
        willing = [each for each in world.consumers if each.credit > 0]
        assert set(world.takers) == set(willing)
        assert len(world.takers) == len(willing)
        best = world.takers.best()
        assert (best is None) is (not willing)
        if best is not None:
            assert best.free_share == max(each.free_share for each in willing)
            assert best in world.takers


def test_idle_consumers_take_turns() -> None:
    world = World([10] * 5)
    turns = []
    for _ in range(20):
        best = world.takers.best()
        assert best is not None
        turns.append(best.label)
        settle(world.lease(best, 1))
    assert turns == [str(index) for index in range(5)] * 4


def test_messages_go_to_where_the_window_is_emptiest() -> None:
    """Windows of 10, 20 and 70 that nobody empties fill up together."""
    world = World([10, 20, 70])
    got: Counter[str] = Counter()
    for _ in range(50):
        best = world.takers.best()
        assert best is not None
        got[best.label] += 1
        world.lease(best, 1)
    assert got == {"0": 5, "1": 10, "2": 35}


def test_what_is_out_of_date_is_bounded() -> None:
    world = World([1000] * 3)
    for number in range(5000):
        settle(world.lease(world.consumers[number % 3], 1))
    assert len(world.takers._heap) <= 2 * 3 + 64 + 1


def test_a_consumer_that_left_is_not_kept() -> None:
    world = World([1, 1])
    for consumer in world.consumers:
        consumer.block()
    assert world.takers._heap == []
    assert world.takers.best() is None
