"""Which message may go out, against the plain rule: the first unsettled one of its key, while no other is out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.keyorder import KeyOrder
from gateway.broker.slice import Slice


class Queue:
    """Messages with keys, at positions 1, 2, ...; 0 is no key, None is a foreign position."""

    def __init__(self, keys: Sequence[int | None], keys_max: int = 100) -> None:
        self.keys = dict(enumerate(keys, 1))
        self.order = KeyOrder(keys_max)
        self.front = 1
        self.settled: set[int] = set()
        self.covered: list[tuple[int, int]] = []

    def walk(self, count: int) -> list[int]:
        """The front goes over the next positions; those that may go out."""
        positions = [p for p in range(self.front, len(self.keys) + 1) if self.keys[p] is not None][:count]
        if not positions:
            return []
        slices, between, self.front = self.order.sort_out(positions, self.front, [self.keys[p] or 0 for p in positions])
        self.covered += between
        return self.taken(slices)

    def freed(self) -> list[int]:
        out = list(self.order.freed(self.following, lambda positions: [self.keys[p] or 0 for p in positions]))
        return self.taken(out)

    def following(self, low: int, count: int) -> list[int]:
        own = [p for p in range(low, self.front) if self.keys[p] is not None and p not in self.settled]
        return own[:count]

    def taken(self, slices: list[Slice]) -> list[int]:
        self.covered += [(piece.span_low, piece.last) for piece in slices]
        return [position for piece in slices for position in piece.positions]

    def settle(self, *positions: int) -> None:
        self.settled.update(positions)
        self.order.settled(positions)


def test_one_message_of_a_key_is_out_and_others_go_past_it() -> None:
    queue = Queue([7, 7, 8, 0, 7, 8, 0])
    assert queue.walk(10) == [1, 3, 4, 7]
    assert queue.freed() == []
    queue.settle(1)
    assert queue.freed() == [2]
    queue.settle(2, 3)
    assert sorted(queue.freed()) == [5, 6]
    queue.settle(4, 5, 6, 7)
    assert queue.freed() == []
    assert len(queue.order) == 0


def test_what_comes_later_waits_behind_what_is_looked_for() -> None:
    queue = Queue([7, 7, 7])
    assert queue.walk(2) == [1]
    queue.settle(1)
    assert queue.walk(1) == []
    assert queue.freed() == [2]


def test_at_the_bound_the_front_stops_before_a_new_key() -> None:
    queue = Queue([1, 2, 1, 3, 4], keys_max=2)
    assert queue.walk(5) == [1, 2]
    assert queue.front == 4
    queue.settle(2)
    assert queue.walk(5) == [4]
    queue.settle(1)
    assert queue.freed() == [3]
    assert queue.walk(5) == []
    queue.settle(4)
    assert queue.walk(5) == [5]


def test_a_key_that_was_stuck_finds_its_next_however_far_it_is() -> None:
    queue = Queue([7, 7, *range(100, 20_000), 7], keys_max=10**6)
    queue.walk(10**6)
    queue.settle(1)
    assert queue.freed() == [2]
    queue.settle(*range(3, 19_000), 2)
    steps = 0
    while not (found := queue.freed()):
        assert queue.order.searching
        steps += 1
    assert found == [19_903]
    queue.settle(19_903)
    assert not queue.order.searching


def test_a_million_behind_one_key_cost_no_memory_of_their_own() -> None:
    queue = Queue([7] * 5000)
    assert queue.walk(5000) == [1]
    assert (len(queue.order), len(queue.order._out), len(queue.order._freed)) == (1, 1, 0)


def test_those_that_were_settled_otherwise_are_not_found() -> None:
    queue = Queue([7, 7, 7])
    queue.walk(3)
    queue.settle(2, 3)
    queue.settle(1)
    assert queue.freed() == []
    assert len(queue.order) == 0


@given(
    keys=st.lists(st.none() | st.integers(0, 4), max_size=40),
    keys_max=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from(["walk", "walk", "settle", "freed"]), st.integers(1, 8)), max_size=80),
)
@pytest.mark.hypothesis
def test_whatever_happens_first_deliveries_of_a_key_follow_position_one_at_a_time(
    keys: list[int | None], keys_max: int, steps: list[tuple[str, int]]
) -> None:
    queue = Queue(keys, keys_max)
    out: list[int] = []
    went: list[int] = []
    for what, number in [*steps, *[("walk", 9), ("freed", 1), ("settle", 1)] * 60]:
        if what == "walk":
            new = queue.walk(number)
        elif what == "freed":
            new = queue.freed()
        else:
            new = []
            if out:
                queue.settle(out.pop(number % len(out)))
        for position in new:
            key = queue.keys[position]
            assert position not in went
            assert not key or all(queue.keys[other] != key for other in out), "one at a time"
            assert not key or all(other < position for other in went if queue.keys[other] == key), "in order"
            out.append(position)
            went.append(position)
        assert len(queue.order) <= keys_max
    assert sorted(went) == [position for position, key in queue.keys.items() if key is not None], "nothing is lost"
    assert len(queue.order) == 0
    assert len(queue.covered) == len(set(queue.covered))
    covered = [position for low, high in queue.covered for position in range(low, high + 1)]
    assert len(covered) == len(set(covered)), "what slices and the ranges between them span does not overlap"
    assert sorted(covered) == list(range(1, queue.front)), "and leaves nothing out"
