"""The tiers, and the clock that works in steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import cast

import pytest

from gateway.broker.choosing import Takers
from gateway.broker.clockwork import CHUNK_MAX, GENERATION_MS, STEP, Clockwork
from gateway.broker.lease import Consumer, Keeper, Lease, Returned
from gateway.broker.shelf import RECORD_BYTES, Pile, Shelf
from gateway.broker.slice import Slice
from gateway.broker.subscription import Subscription
from gateway.kit.table import Table

TICK_MS = 100
BEGAN_MS = 1_000_000
LONG_MS = 30_000


class World:
    """A clockwork, and a consumer that may hold everything. `file_extent`: of 256 records each."""

    def __init__(self, file_extent: int | None = None) -> None:
        self.now = BEGAN_MS
        self.takers = Takers()
        shelf: Shelf[Keeper] = Shelf(TICK_MS, Table(RECORD_BYTES, 256), file_extent)
        self.clockwork = Clockwork(TICK_MS, self.now, shelf)
        self.consumer = Consumer(cast("Subscription", self), 10**9, 10_000, lambda _delivery: None, "test")

    def lease(self, first: int, lease_ms: int = LONG_MS, *, started: bool = True) -> Lease:
        lease = Lease(self.consumer, Slice(range(first, first + 1), first, 1))
        self.consumer.hold(lease)
        lease.started = started
        self.clockwork.add(lease, self.now + lease_ms)
        return lease

    def steps(self, milliseconds: int) -> Iterator[list[Lease | Returned]]:
        """What each step made due."""
        self.now += milliseconds
        while True:
            due = self.clockwork.advance(self.now)
            for item in due:
                if isinstance(item, Lease):
                    self.consumer.drop(item)
            yield due
            if not self.clockwork.behind:
                return

    def due(self, milliseconds: int) -> list[int]:
        return [item.slice.first for step in self.steps(milliseconds) for item in step]


def test_a_lease_is_in_the_heap_for_ten_seconds_and_then_in_the_direct_tier() -> None:
    world = World()
    world.lease(1)
    assert world.due(2 * GENERATION_MS) == []
    assert world.clockwork.records() == (1, 0, 0)
    assert world.due(GENERATION_MS) == []
    assert world.clockwork.records() == (0, 1, 0)
    assert (world.consumer.leases, world.consumer.aged, world.consumer.in_flight) == ([], 1, 1)
    assert world.due(LONG_MS - 3 * GENERATION_MS - 1) == []
    assert world.due(1) == [1]
    assert world.clockwork.records() == (0, 0, 0)
    assert (world.consumer.aged, world.consumer.in_flight) == (0, 0)


def test_there_are_three_maps_at_most() -> None:
    world = World()
    for first in range(600):
        world.lease(first)
        assert world.due(TICK_MS) == ([] if first < 299 else [first - 299])
        assert len(world.clockwork._maps) <= 3


def test_a_lease_that_ends_soon_is_not_moved() -> None:
    world = World()
    world.lease(1, 20_000)
    assert world.due(19_999) == []
    assert world.clockwork.records() == (1, 0, 0)
    assert world.due(1) == [1]


def test_a_lease_that_waits_for_its_socket_is_not_moved() -> None:
    world = World()
    world.lease(1, 60_000, started=False)
    assert world.due(59_999) == []
    assert world.clockwork.records() == (1, 0, 0)
    assert world.due(1) == [1]


def test_what_is_discarded_is_never_due() -> None:
    world = World()
    leases = [world.lease(first, lease_ms) for first, lease_ms in enumerate([500, 500, LONG_MS, LONG_MS])]
    world.clockwork.discard(leases[0])
    world.clockwork.discard(leases[2])
    world.clockwork.discard(leases[2])
    assert world.due(LONG_MS) == [1, 3]


def test_what_is_added_again_is_due_at_its_new_deadline_only() -> None:
    world = World()
    lease = world.lease(1, 500)
    world.clockwork.add(lease, world.now + 20_000)
    assert world.due(19_999) == []
    assert world.due(1) == [1]


def test_what_is_called_back_keeps_its_deadline_and_says_where_it_was() -> None:
    world = World(file_extent=1)
    for first in range(300):
        world.lease(first)
    assert world.due(3 * GENERATION_MS) == []
    assert world.clockwork.records() == (0, 256, 44)
    world.clockwork.call_back(world.consumer, 254, 257)
    assert [(lease.first, lease.tier, lease.started) for lease in world.consumer.leases] == [
        (254, 1, True),
        (255, 1, True),
        (256, 2, True),
        (257, 2, True),
    ]
    assert world.clockwork.records() == (4, 254, 42)
    assert world.consumer.in_flight == 300
    assert world.due(LONG_MS - 3 * GENERATION_MS - 1) == []
    assert sorted(world.due(1)) == list(range(300))


@pytest.mark.parametrize("lease_ms", [5000, LONG_MS])
def test_a_storm_is_worked_off_in_steps_from_whichever_tier(lease_ms: int) -> None:
    world = World()
    count = 10 * STEP + 7
    for first in range(count):
        world.lease(first, lease_ms)
    due: list[int] = []
    while world.now < BEGAN_MS + lease_ms:
        for step in world.steps(TICK_MS):
            assert len(step) <= STEP
            due += [item.slice.first for item in step]
    assert sorted(due) == list(range(count))
    assert due[:CHUNK_MAX] == list(range(CHUNK_MAX)), "oldest first"
    assert world.consumer.in_flight == 0


def test_a_step_ends_before_the_chunk_that_would_be_too_much() -> None:
    world = World()
    leases = [world.lease(first, 5000) for first in range(2 * CHUNK_MAX)]
    world.clockwork.discard(leases[0])
    assert [len(step) for step in world.steps(5000) if step] == [CHUNK_MAX - 1, CHUNK_MAX]


@pytest.mark.parametrize("storm_ms", [5000, LONG_MS])
@pytest.mark.parametrize("lease_ms", [5000, LONG_MS])
def test_what_comes_due_during_a_storm_is_not_late_for_it(storm_ms: int, lease_ms: int) -> None:
    """Whichever tiers the two are in: it waits for a few steps, and not until the storm is over."""
    world = World()
    count, storm_at = 20 * STEP, BEGAN_MS + LONG_MS + 1000
    late = storm_at + 2 * TICK_MS
    given = [(storm_at - storm_ms, range(count), storm_at), (late - lease_ms, range(count, count + 3), late)]
    for at, firsts, until in sorted(given, key=lambda each: each[0]):
        world.due(at - world.now)
        for first in firsts:
            world.lease(first, until - at)
    world.due(storm_at - 1 - world.now)
    next(world.steps(1))
    steps = world.steps(2 * TICK_MS)
    found = [item.slice.first for _ in range(4) for item in next(steps)]
    assert {count, count + 1, count + 2} <= set(found)
    assert len(found) < count / 2


def test_ageing_is_done_in_steps_and_what_is_due_goes_before_it() -> None:
    world = World()
    count = 6 * CHUNK_MAX
    for first in range(count):
        world.lease(first)
    soon = world.lease(count, 3 * GENERATION_MS)
    world.now += 3 * GENERATION_MS
    aged = [0]
    assert world.clockwork.advance(world.now) == [soon]
    while world.clockwork.behind:
        aged.append(world.consumer.aged)
        world.clockwork.advance(world.now)
    aged.append(world.consumer.aged)
    assert aged[-1] == count
    assert max(after - before for before, after in itertools.pairwise(aged)) <= STEP + CHUNK_MAX


def test_a_lease_whose_time_comes_while_it_waits_to_be_moved_is_due() -> None:
    """As after a pause of the whole process."""
    world = World()
    world.lease(1)
    assert world.due(LONG_MS) == [1]


def test_a_pile_that_nobody_wants_goes_in_steps() -> None:
    world = World()
    pile: Pile[Keeper] = Pile(world.clockwork.shelf, world.consumer)
    for position in range(3 * STEP):
        pile.add(Slice(range(2 * position, 2 * position + 1), 2 * position), world.clockwork.next_tick + 1)
    world.clockwork.drop(pile)
    assert world.clockwork.records() == (0, 2 * STEP, 0)
    left = []
    while world.clockwork.behind:
        world.clockwork.advance(world.now)
        left.append(len(pile))
    assert left == [STEP, 0]


def test_an_emptied_chunk_takes_no_memory() -> None:
    world = World()
    leases = [world.lease(first) for first in range(3 * CHUNK_MAX)]
    chunk = leases[0].place
    assert chunk is not None
    size = chunk.__sizeof__()
    for lease in leases:
        world.clockwork.discard(lease)
    assert chunk.__sizeof__() < size / 20


def test_beyond_their_bound_the_oldest_in_the_heap_are_moved_before_their_time() -> None:
    world = World()
    world.clockwork = Clockwork(TICK_MS, world.now, world.clockwork.shelf, heap_leases_max=4 * CHUNK_MAX)
    waits = world.lease(10**6, 60_000, started=False)
    count = 10 * CHUNK_MAX
    for first in range(count):
        world.lease(first, LONG_MS if first < count // 2 else 12_000)
    assert world.due(TICK_MS) == []
    heap, direct, file = world.clockwork.records()
    assert (heap + direct, file) == (count + 1, 0)
    assert 3 * CHUNK_MAX <= heap <= 7 * CHUNK_MAX
    assert waits.place is not None, "nothing is on the shelf that nobody has seen"
    assert min(lease.first for lease in world.consumer.leases) > 0
    assert sorted(world.due(12_000 - TICK_MS)) == list(range(count // 2, count))
    assert sorted(world.due(LONG_MS - 12_000)) == list(range(count // 2))
