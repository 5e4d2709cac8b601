"""One subscription, statement by statement; test_subscription_model.py has all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker import revisit
from gateway.broker.clockwork import HANDING_MS, Clockwork
from gateway.broker.delay import wake
from gateway.broker.lease import Consumer, Lease
from gateway.broker.queue import walk as real
from gateway.broker.subscription import Cause, Settled, Subscription
from gateway.kit.ranges import RangeSet
from gateway.model import Settle, SubscriptionSettings, Verb
from tests import conservation
from tests.store.building import in_memory, note

TICK_MS = 100
BEGAN_MS = 1_000_000
LEASE_MS = 1000


class World:
    """A subscription over segments that exist in memory only, and its clock."""

    def __init__(self, **settings: Any) -> None:
        self.now = BEGAN_MS
        self.segments = [in_memory(1, 1)]
        self.clockwork = Clockwork(TICK_MS, self.now)
        self.settings = SubscriptionSettings(
            **{"topics": ("own.>",), "lease_ms": LEASE_MS, "backoff_ms": (200, 500), "attempts_max": 3, **settings}
        )
        self.subscription = Subscription(1, "orders", self.settings, 1, self.clockwork)
        WORLDS.append(self)

    def publish(self, own: str, size: int = 100, *, due_ms: int = 0, expires_ms: int = 0) -> None:
        """One message for each character: `x` is the subscription's, anything else another's."""
        segment = self.segments[-1]
        for character in own:
            route = 1 if character == "x" else 2
            position = note(segment, size, due_ms=due_ms, expires_ms=expires_ms, route=route)
            if character == "x":
                segment.growing.route_to(1, position, position)
                self.subscription.routed += 1
                self.subscription.not_due += due_ms > self.now

    def seal(self) -> None:
        self.segments.append(in_memory(self.segments[-1].number + 1, self.segments[-1].end))

    def attach(self, window: int = 100, *, once: bool = False) -> Consumer:
        consumer = Consumer(self.subscription, window, 10_000, lambda _delivery: None, "test", once=once)
        self.subscription.attach(consumer)
        return consumer

    def take(self, consumer: Consumer, count_max: int = 500, size_max: int = 100_000) -> list[Lease]:
        return self.subscription.take(consumer, self.segments, self.segments[-1].end, count_max, size_max, self.now)

    def deliver(self, consumer: Consumer, count_max: int = 500, size_max: int = 100_000) -> list[int]:
        """Take, and hand over at once; the positions."""
        leases = self.take(consumer, count_max, size_max)
        for lease in leases:
            self.subscription.start(lease, self.now)
        return positions(leases)

    def take_newest(self, consumer: Consumer) -> Lease | None:
        """The short way of `take`."""
        return self.subscription.take_newest(consumer, self.segments[-1], self.segments[-1].end, self.now)

    def settle(self, consumer: Consumer, verb: Verb, *ranges: tuple[int, int], **more: Any) -> tuple[int, int]:
        return self.subscription.settle(consumer, Settle(verb, ranges, **more), self.now, 0.0)

    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds
        behind = True
        while behind:
            for item in self.clockwork.advance(self.now):
                if isinstance(item, Lease):
                    self.subscription.expire(item, self.now)
                else:
                    self.subscription.due(item)
            wake(self.clockwork.delays.advance(self.segments, self.now), {1: self.subscription}, ())
            behind = self.clockwork.behind or self.clockwork.delays.behind

    def restart(self) -> None:
        """A new life with what the log says was settled."""
        before = self.subscription
        self.clockwork = Clockwork(TICK_MS, self.now)
        self.subscription = Subscription(1, "orders", self.settings, 1, self.clockwork)
        self.subscription.routed = before.routed
        for settled in before.news:
            for low, high in settled.ranges:
                self.subscription.settled.add(low, high)
            self.subscription.counts[settled.cause] += settled.count
        self.subscription.front = self.subscription.settled.floor
        self.subscription.recount(self.segments)

    def numbers(self) -> dict[str, int]:
        """What is not zero, and it adds up."""
        shown = attrs.asdict(self.subscription.statistics(None))
        conservation.check_shown(shown)
        return {hand: shown[hand] for hand in conservation.HANDS if shown[hand]}


WORLDS: list[World] = []


@pytest.fixture(autouse=True)
def each_message_is_in_one_hand() -> Iterator[None]:
    """Behind every test, in every world that it has made."""
    WORLDS.clear()
    yield
    for world in WORLDS:
        conservation.check_subscription(world.subscription, world.segments)


def positions(leases: Sequence[Lease]) -> list[int]:
    return [position for lease in leases for position in lease.slice.positions]


# ---------------------------------------------------------------------------------------------------------- delivering


def test_new_messages_come_in_their_order_and_once() -> None:
    world = World()
    world.publish("x.xx..x")
    consumer = world.attach()
    assert world.deliver(consumer) == [1, 3, 4, 7]
    assert world.deliver(consumer) == []
    world.publish(".x")
    assert world.deliver(consumer) == [9]
    assert world.numbers() == {"in_flight": 5}


# ------------------------------------------------------------------------------------------------------- the short ways

STEPS = ("x", "x", ".", ".x", "x.", ".x.x", "xx", "seal", "ack", "ack", "nack", "tick", "timed")


@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=30), window=st.sampled_from([2, 100]))
def test_the_short_ways_lead_where_the_long_ones_do(steps: list[str], window: int) -> None:
    short, long = World(), World()
    for step in steps:
        seen = [go(world, step, window, is_short=world is short) for world in (short, long)]
        assert seen[0] == seen[1]


def go(world: World, step: str, window: int, *, is_short: bool) -> object:
    """One step, and a look at everything that it may have changed."""
    s = world.subscription
    [consumer] = s.consumers or [world.attach(window)]
    if step == "seal" and world.segments[-1].end > world.segments[-1].base:
        world.seal()
    elif step == "tick":
        world.pass_time(300)
    elif step in ("ack", "nack"):
        for lease in consumer.leases[:1]:
            low, high = lease.slice.first, lease.slice.last
            if step == "nack":
                world.settle(consumer, Verb.NACK, (low, high), delay_ms=200)
            elif not is_short or (piece := s.ack(consumer, low, high, world.now)) is None:
                world.settle(consumer, Verb.ACK, (low, high))
            else:
                s.news.append(Settled(s, Cause.ACKED, len(piece), [(piece.span_low, high)]))
    elif step == "timed":
        world.publish("x", expires_ms=world.now + 200)
    else:
        world.publish(step)
    taken = None
    if s.choose() is not None:
        newest = world.take_newest(consumer) if is_short else None
        leases = [newest] if newest else world.take(consumer)
        taken = [(list(lease.slice.positions), lease.slice.span_low, lease.slice.attempts) for lease in leases]
        for lease in leases:
            s.start(lease, world.now)
    told = [(each.cause, each.count, each.ranges) for each in s.news]
    held = [(list(lease.slice.positions), lease.deadline_ms) for lease in consumer.leases]
    hands = (s.front, s.in_flight, s.delayed, s.has_more(world.segments[-1].end), world.clockwork.settled)
    return taken, told, held, hands, s.settled.encode(), consumer.acked, consumer.credit, world.numbers()


def test_the_newest_alone_is_taken_in_a_step() -> None:
    world = World()
    consumer = world.attach(window=3)
    world.publish("..x")
    lease = world.take_newest(consumer)
    assert lease is not None
    assert (list(lease.slice.positions), lease.slice.span_low, consumer.leases) == ([3], 1, [lease])
    assert world.take_newest(consumer) is None
    world.publish("x")
    assert world.take_newest(consumer) is not None
    world.publish("xx")
    assert world.take_newest(consumer) is None  # two are more than one
    assert world.deliver(consumer) == [5]
    world.publish("x")
    assert world.take_newest(consumer) is None  # the window is full, and another comes first


@pytest.mark.parametrize("why", ["came back", "redriven", "keys", "tried", "its own time", "not durable", "settled"])
def test_the_short_way_is_for_nothing_else(why: str) -> None:
    world = World(ordered=why == "keys", attempts_max=1, dead_letter="dead")
    consumer = world.attach()
    s = world.subscription
    world.publish("x")
    [first] = world.deliver(consumer)
    if why == "came back":
        s._ready.add(consumer.leases[0].slice)
    elif why == "redriven":
        s.buried.add(1, 1)
    elif why == "tried":
        s.attempts.note(1, [(first, first)])
    world.publish("x", expires_ms=world.now + 5 if why == "its own time" else 0)
    if why == "settled":
        s.settled.add(2, 2)
    limit = 2 if why == "not durable" else 3
    assert s.take_newest(consumer, world.segments[-1], limit, world.now) is None
    WORLDS.clear()  # some of it is made up


def test_no_more_is_taken_than_the_window_and_the_count_allow() -> None:
    world = World()
    world.publish("x" * 10)
    consumer = world.attach(window=5)
    assert world.deliver(consumer, count_max=3) == [1, 2, 3]
    assert world.deliver(consumer) == [4, 5]
    assert world.deliver(consumer) == []
    assert world.settle(consumer, Verb.ACK, (2, 2)) == (1, 0)
    assert world.deliver(consumer) == [6]


def test_an_idle_subscription_is_not_looked_for_in_the_segments_of_others_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.publish("x")
    consumer = world.attach()
    world.deliver(consumer)
    for _ in range(3):
        world.seal()
        world.publish("...")
    begun: list[int] = []

    def walk(segments: Any, number: int, front: int, *more: Any) -> Any:
        begun.append(front)
        return real(segments, number, front, *more)

    monkeypatch.setattr("gateway.broker.subscription.walk", walk)
    assert world.deliver(consumer) == []
    assert not world.subscription.has_more(world.segments[-1].end)
    world.publish("..x")
    assert world.subscription.has_more(world.segments[-1].end)
    assert world.deliver(consumer) == [13]
    assert begun == [2, 11]
    world.settle(consumer, Verb.ACK, (1, 13))
    assert world.subscription.settled.floor == 14  # what was passed over belongs to the span


def test_what_is_routed_says_whether_there_is_more() -> None:
    world = World()
    world.publish("x.")
    world.subscription.routed_end = 2
    consumer = world.attach()
    assert [world.subscription.has_more(limit) for limit in (1, 2, 3)] == [False, True, True]
    world.deliver(consumer)
    assert not world.subscription.has_more(3)
    world.settle(consumer, Verb.NACK, (1, 1), delay_ms=0)
    assert world.subscription.has_more(3)
    world.deliver(consumer)
    world.settle(consumer, Verb.TERM, (1, 1))
    world.subscription.bury(world.subscription.doomed.pop().slice)
    assert not world.subscription.has_more(3)
    assert revisit.redrive(world.subscription, world.segments) == (1, [(1, 1)])
    assert world.subscription.has_more(3)
    assert world.deliver(consumer) == [1]


def test_one_delivery_is_of_one_segment() -> None:
    world = World()
    world.publish("xx")
    world.seal()
    world.publish("xx")
    consumer = world.attach()
    assert [world.deliver(consumer), world.deliver(consumer)] == [[1, 2], [3, 4]]


def test_the_consumer_with_the_largest_free_share_is_chosen() -> None:
    world = World()
    world.publish("x" * 20)
    large, small = world.attach(window=10), world.attach(window=4)
    world.deliver(large, count_max=5)
    assert world.subscription.choose() is small
    world.deliver(small, count_max=3)
    assert world.subscription.choose() is large
    large.block()
    small.block()
    assert world.subscription.choose() is None


# ------------------------------------------------------------------------------------------------------------ settling


def test_one_ack_may_span_several_leases_and_parts_of_them() -> None:
    world = World()
    world.publish("xx.x..xxx.xx")  # 1 2 4 7 8 9 11 12
    consumer = world.attach()
    for count in (3, 2, 3):
        world.deliver(consumer, count_max=count)
    assert world.settle(consumer, Verb.ACK, (2, 8)) == (4, 3)
    assert positions(consumer.leases) == [1, 9, 11, 12]
    assert world.numbers() == {"acked": 4, "in_flight": 4}
    assert world.settle(consumer, Verb.ACK, (0, 1), (9, 10), (11, 99)) == (4, 89)
    assert world.numbers() == {"acked": 8}


def test_an_ack_counts_a_position_once_however_often_it_is_named() -> None:
    world = World()
    world.publish("xxx")
    consumer = world.attach()
    world.deliver(consumer)
    assert world.settle(consumer, Verb.ACK, (1, 2), (2, 3), (2, 2)) == (3, 0)
    assert world.settle(consumer, Verb.ACK, (1, 3)) == (0, 3)
    assert consumer.acked == 3


def test_messages_of_another_consumer_are_not_settled() -> None:
    world = World()
    world.publish("xx")
    one, other = world.attach(), world.attach()
    world.deliver(one, count_max=1)
    world.deliver(other, count_max=1)
    assert world.settle(one, Verb.ACK, (1, 2)) == (1, 1)
    assert positions(other.leases) == [2]


def test_what_is_all_settled_is_one_floor_whatever_lies_between_and_in_whatever_order() -> None:
    world = World()
    world.publish("..x.x..")
    consumer = world.attach()
    world.deliver(consumer)
    assert world.deliver(consumer) == []  # nothing but foreign positions: they stay part of the next message's span
    world.publish("..x.xx")
    world.deliver(consumer)
    for position in (12, 3, 10, 13, 5):
        world.settle(consumer, Verb.ACK, (position, position))
    assert world.subscription.settled == RangeSet(14)


def test_a_hole_is_told_by_one_range() -> None:
    world = World()
    world.publish("x.x.x.x.x")
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.ACK, (1, 2), (5, 9))
    assert world.subscription.settled == RangeSet(2, [(4, 9)])
    world.settle(consumer, Verb.ACK, (3, 3))
    assert world.subscription.settled == RangeSet(10)


def test_what_is_settled_is_told_to_the_log_with_its_cause_and_count() -> None:
    world = World(dead_letter="")
    world.publish("x..xx")
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.ACK, (4, 5))
    world.settle(consumer, Verb.TERM, (1, 1))
    told = [(settled.cause, settled.count, settled.ranges) for settled in world.subscription.news]
    assert told == [(Cause.ACKED, 2, [(2, 5)]), (Cause.DEAD_LETTERED, 1, [(1, 1)])]


@pytest.mark.parametrize("verb", Verb)
def test_what_has_not_reached_the_socket_cannot_be_settled(verb: Verb) -> None:
    """Nobody has seen it; were it split here, its parts would never begin to run."""
    world = World()
    world.publish("xxx")
    consumer = world.attach()
    leases = world.take(consumer)
    assert world.settle(consumer, verb, (2, 2)) == (0, 1)
    for lease in leases:
        world.subscription.start(lease, world.now)
    world.pass_time(LEASE_MS)
    assert world.deliver(consumer) == [1, 2, 3]


# -------------------------------------------------------------------------------------------------------------- leases


def test_a_lease_runs_out_at_its_deadline_and_not_before() -> None:
    world = World()
    world.publish("xx")
    consumer = world.attach(window=2)
    world.deliver(consumer)
    world.pass_time(LEASE_MS - 1)
    assert (world.deliver(consumer), consumer.credit) == ([], 0)
    world.pass_time(1)
    assert (world.numbers(), consumer.credit) == ({"waiting": 2}, 2)
    assert world.deliver(consumer) == [1, 2]
    assert [lease.slice.attempts for lease in consumer.leases] == [2]


def test_what_is_left_of_a_lease_keeps_its_deadline() -> None:
    world = World()
    world.publish("xxxxx")
    consumer = world.attach()
    world.deliver(consumer)
    world.pass_time(700)
    world.settle(consumer, Verb.ACK, (3, 3))
    world.pass_time(299)
    assert world.numbers() == {"acked": 1, "in_flight": 4}
    world.pass_time(1)
    assert world.deliver(consumer) == [1, 2, 4, 5]


def test_what_was_extended_runs_on_and_the_rest_does_not() -> None:
    world = World(attempts_max=9)
    world.publish("xxx")
    consumer = world.attach()
    world.deliver(consumer)
    assert world.settle(consumer, Verb.EXTEND, (2, 2), lease_ms=3000) == (1, 0)
    for _ in range(2):
        world.pass_time(LEASE_MS)
        assert world.deliver(consumer) == [1, 3]
    world.pass_time(LEASE_MS)
    assert world.deliver(consumer) == [1, 2, 3]
    assert {p: lease.slice.attempts for lease in consumer.leases for p in lease.slice.positions} == {1: 4, 2: 2, 3: 4}


def test_extending_without_a_time_is_for_a_whole_lease_from_now() -> None:
    world = World()
    world.publish("x")
    consumer = world.attach()
    world.deliver(consumer)
    world.pass_time(900)
    world.settle(consumer, Verb.EXTEND, (1, 1))
    world.pass_time(999)
    assert world.numbers() == {"in_flight": 1}
    world.pass_time(1)
    assert world.numbers() == {"waiting": 1}


def test_a_lease_that_has_not_started_does_not_run_out_until_its_frame_has_waited_too_long() -> None:
    world = World()
    world.publish("x")
    consumer = world.attach()
    (lease,) = world.take(consumer)
    world.pass_time(HANDING_MS - TICK_MS)
    assert world.numbers() == {"in_flight": 1}
    world.pass_time(TICK_MS)
    assert world.numbers() == {"waiting": 1}
    assert not lease.held
    assert consumer.credit == consumer.window, "its place in the window is free"
    (again,) = world.take(world.attach())
    assert again.slice.attempts == 0, "nobody has seen it"


def test_an_attempt_is_counted_when_the_frame_is_handed_over() -> None:
    world = World()
    world.publish("x")
    gone, consumer = world.attach(), world.attach()
    world.take(gone)
    world.subscription.detach(gone, world.now)  # before its frame reached the socket
    [lease] = world.take(consumer)
    assert lease.slice.attempts == 0
    world.subscription.start(lease, world.now)
    world.subscription.start(lease, world.now)
    assert lease.slice.attempts == 1


def test_what_a_consumer_held_goes_back_at_once_when_it_leaves() -> None:
    world = World()
    world.publish("xxxx")
    gone, consumer = world.attach(), world.attach()
    world.deliver(gone, count_max=2)
    world.take(gone, count_max=1)
    world.subscription.detach(gone, world.now)
    assert (gone.leases, gone.in_flight, gone.credit) == ([], 0, 0)
    assert world.deliver(consumer) == [1, 2, 3]
    assert world.deliver(consumer) == [4]


# ---------------------------------------------------------------------------------------------------------- redelivery


def test_what_came_back_goes_before_what_is_new_and_in_its_order() -> None:
    world = World()
    world.publish("x" * 8)
    consumer = world.attach(window=6)
    world.deliver(consumer)
    world.settle(consumer, Verb.NACK, (5, 5), (2, 2), delay_ms=0)
    world.settle(consumer, Verb.NACK, (3, 3), delay_ms=0)
    assert world.deliver(consumer) == [2, 3, 5]
    world.settle(consumer, Verb.ACK, (1, 6))
    assert world.deliver(consumer) == [7, 8]


def test_what_came_back_keeps_to_the_bytes_of_a_delivery() -> None:
    world = World()
    world.publish("x" * 10, size=1000)
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.NACK, (1, 6), delay_ms=0)
    for position in range(7, 11):
        world.settle(consumer, Verb.NACK, (position, position), delay_ms=0)
    assert world.deliver(consumer, size_max=4500) == [1, 2, 3, 4]
    assert world.deliver(consumer, size_max=4500) == [5, 6, 7, 8]
    assert world.deliver(consumer, size_max=10) == [9]
    assert world.deliver(consumer, size_max=10) == [10]


def test_what_came_back_keeps_to_the_window() -> None:
    world = World()
    world.publish("x" * 10)
    gone, consumer = world.attach(), world.attach(window=4)
    world.deliver(gone)
    world.subscription.detach(gone, world.now)
    assert world.deliver(consumer) == [1, 2, 3, 4]
    assert world.settle(consumer, Verb.ACK, (1, 4)) == (4, 0)
    assert world.deliver(consumer) == [5, 6, 7, 8]


def test_a_nack_waits_for_its_backoff() -> None:
    world = World(attempts_max=9)
    world.publish("x")
    consumer = world.attach()
    for backoff_ms in (200, 500, 500):
        world.deliver(consumer)
        world.settle(consumer, Verb.NACK, (1, 1))
        assert world.numbers() == {"delayed": 1}
        world.pass_time(backoff_ms - 1)
        assert world.deliver(consumer) == []
        world.pass_time(1)
    assert world.deliver(consumer) == [1]


def test_a_nack_is_an_instant_redelivery_only_where_that_is_asked_for() -> None:
    world = World(backoff_ms=(200,))
    world.publish("x")
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.NACK, (1, 1), delay_ms=0)
    assert world.deliver(consumer) == [1]


# -------------------------------------------------------------------------------------------------------- dead letters


def until_doomed(world: World, consumer: Consumer) -> None:
    for _ in range(world.settings.attempts_max):
        world.deliver(consumer)
        world.pass_time(LEASE_MS)


def test_a_message_whose_attempts_are_used_up_is_doomed_and_stays_in_flight_until_it_is_buried() -> None:
    world = World()
    world.publish("xx")
    consumer = world.attach(window=2)
    until_doomed(world, consumer)
    [doomed] = world.subscription.doomed
    assert (list(doomed.slice.positions), doomed.slice.attempts, doomed.cause) == ([1, 2], 3, "lease")
    assert (world.numbers(), consumer.credit) == ({"in_flight": 2}, 2)
    assert world.deliver(consumer) == []
    first, second = doomed.slice.cut(1)
    world.subscription.bury(second)
    assert world.numbers() == {"in_flight": 1, "dead_lettered": 1}
    world.subscription.bury(first)
    assert world.numbers() == {"dead_lettered": 2}
    assert world.subscription.settled == RangeSet(3)


def test_a_term_dooms_at_once_and_carries_its_reason() -> None:
    world = World()
    world.publish("x")
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.TERM, (1, 1), reason="no such order")
    [doomed] = world.subscription.doomed
    assert (doomed.cause, doomed.reason, doomed.slice.attempts) == ("term", "no such order", 1)


def test_without_dead_letters_a_message_just_ends() -> None:
    world = World(dead_letter="", attempts_max=1)
    world.publish("xx")
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.TERM, (1, 1))
    world.pass_time(LEASE_MS)
    assert world.numbers() == {"dead_lettered": 2}
    assert world.subscription.doomed == []


def test_a_subscription_that_would_get_its_own_dead_letters_keeps_redelivering() -> None:
    world = World(dead_letter="own.dead", attempts_max=1)
    world.publish("x")
    consumer = world.attach()
    for _ in range(3):
        assert world.deliver(consumer) == [1]
        world.pass_time(LEASE_MS)
        assert world.numbers() == {"delayed": 1}
        world.pass_time(500)  # the last step of the backoff
    world.deliver(consumer)
    world.settle(consumer, Verb.TERM, (1, 1))
    assert world.numbers() == {"dead_lettered": 1}
    assert world.subscription.doomed == []


def test_where_dead_letters_go_is_asked_again_after_a_change() -> None:
    world = World(dead_letter="own.dead", attempts_max=1)
    world.publish("x")
    consumer = world.attach()
    world.deliver(consumer)
    world.subscription.change(attrs.evolve(world.settings, dead_letter=None))
    world.pass_time(LEASE_MS)
    assert len(world.subscription.doomed) == 1


# --------------------------------------------------------------------------------------------------------------- times


def test_a_delayed_message_lets_those_behind_it_pass() -> None:
    world = World()
    world.publish("x")
    world.publish("x", due_ms=world.now + 500)
    world.publish("x")
    assert world.numbers() == {"waiting": 2, "delayed": 1}
    consumer = world.attach()
    assert world.deliver(consumer) == [1, 3]
    assert world.numbers() == {"in_flight": 2, "delayed": 1}
    world.pass_time(499)
    assert world.deliver(consumer) == []
    world.pass_time(1)
    assert world.deliver(consumer) == [2]


def test_a_message_whose_time_is_over_is_never_delivered() -> None:
    world = World()
    world.publish("x")
    world.publish("x", expires_ms=world.now + 100)
    consumer = world.attach()
    world.pass_time(100)
    assert world.deliver(consumer) == [1]
    assert world.numbers() == {"in_flight": 1, "expired": 1}


def test_a_message_whose_time_runs_out_while_it_waits_for_its_redelivery_expires() -> None:
    world = World()
    world.publish("x", expires_ms=world.now + 150)
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.NACK, (1, 1), delay_ms=100)
    world.pass_time(200)
    assert world.deliver(consumer) == []
    assert world.numbers() == {"expired": 1}


def test_a_message_may_be_acked_after_its_time() -> None:
    world = World()
    world.publish("x", expires_ms=world.now + 150)
    consumer = world.attach()
    world.deliver(consumer)
    world.pass_time(300)
    world.settle(consumer, Verb.ACK, (1, 1))
    assert world.numbers() == {"acked": 1}


# ------------------------------------------------------------------------------------------------------------- restart


def test_after_a_restart_what_was_not_settled_comes_again_and_nothing_else() -> None:
    world = World()
    world.publish("x.xxxx.")
    world.seal()
    world.publish(".xxx")
    consumer = world.attach()
    world.deliver(consumer)
    world.deliver(consumer)
    world.settle(consumer, Verb.ACK, (1, 1), (4, 5), (9, 10))
    world.restart()
    consumer = world.attach()
    assert world.deliver(consumer) == [3, 6]
    assert world.deliver(consumer) == [11]
    world.settle(consumer, Verb.ACK, (1, 11))
    assert world.subscription.settled == RangeSet(12)
    assert world.numbers() == {"acked": 8}


def test_what_was_settled_before_a_restart_stays_so_when_the_floor_comes_to_it() -> None:
    """The hole is acked before the rest is walked: then the floor is ahead of the front."""
    world = World()
    world.publish("xxxxx")
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.ACK, (2, 4))
    world.restart()
    consumer = world.attach(window=1)
    assert world.deliver(consumer) == [1]
    world.settle(consumer, Verb.ACK, (1, 1))
    assert world.deliver(consumer) == [5]


# -------------------------------------------------------------------------------------------------------------- asking


@pytest.mark.parametrize(
    ("acked", "due"), [((1, 0), True), ((1, 1), True), ((1, 4), True), ((3, 5), True), ((1, 5), False)]
)
def test_a_segment_is_held_while_anything_in_it_is_due(acked: tuple[int, int], due: bool) -> None:
    world = World()
    world.publish("x.x.x.")
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.ACK, acked)
    assert (world.subscription.holds(world.segments[0]) is not None) is due


def test_the_oldest_message_is_in_whichever_hand() -> None:
    world = World()
    world.publish(".xxx")
    assert world.subscription.oldest(world.segments, 5) == 2
    consumer = world.attach()
    world.deliver(consumer)
    assert world.subscription.oldest(world.segments, 5) == 2
    world.settle(consumer, Verb.ACK, (2, 3))
    assert world.subscription.oldest(world.segments, 5) == 4
    world.settle(consumer, Verb.ACK, (4, 4))
    assert world.subscription.oldest(world.segments, 5) is None


def test_a_pull_that_has_its_answer_is_no_consumer_any_more() -> None:
    world = World()
    world.attach()
    pull = world.attach(once=True)
    assert world.subscription.statistics(None).consumers == 2
    pull.block()
    assert world.subscription.statistics(None).consumers == 1


def test_redeliveries_and_expired_leases_are_counted() -> None:
    world = World()
    world.publish("xxx")
    consumer = world.attach()
    world.deliver(consumer)
    world.pass_time(LEASE_MS)
    world.deliver(consumer)
    assert (world.subscription.redelivered, world.subscription.expired_leases) == (3, 1)


# -------------------------------------------------------------------------------------------------------- flow control


def test_what_is_recalled_before_it_was_handed_over_is_no_attempt() -> None:
    world = World()
    world.publish("xxxx")
    stuck, other = world.attach(), world.attach()
    assert world.deliver(stuck, count_max=1) == [1]
    unsent = world.take(stuck, count_max=2)
    world.subscription.recall(stuck, world.now)
    assert (stuck.in_flight, world.subscription.in_flight) == (1, 1)
    for lease in unsent:  # the socket has taken them after all: too late
        assert not lease.held
    assert world.deliver(other) == [2, 3]
    assert [lease.slice.attempts for lease in other.leases] == [1]
    assert world.deliver(other) == [4]


def test_a_window_of_zero_pauses_and_what_is_beyond_a_smaller_one_stays() -> None:
    world = World()
    world.publish("x" * 30)
    consumer = world.attach(window=20)
    assert len(world.deliver(consumer, count_max=10)) == 10
    consumer.resize(0, 1_000_000)
    assert (consumer.credit, world.subscription.choose()) == (-10, None)
    consumer.resize(5, 1_000_000)
    world.settle(consumer, Verb.ACK, (1, 6))
    assert (consumer.in_flight, consumer.credit, world.subscription.choose()) == (4, 1, consumer)


def test_leases_that_run_out_are_counted_with_their_consumer() -> None:
    world = World()
    world.publish("xxx")
    consumer = world.attach()
    world.deliver(consumer)
    world.settle(consumer, Verb.ACK, (2, 2))
    world.pass_time(LEASE_MS)
    assert (consumer.acked, consumer.expired) == (1, 2)


# --------------------------------------------------------------------------------------------------------------- close


def test_nothing_of_a_closed_subscription_stays_in_the_wheel_or_comes_into_it() -> None:
    world = World()
    world.publish("xxxx")
    consumer = world.attach()
    world.deliver(consumer, count_max=2)
    world.settle(consumer, Verb.NACK, (1, 1))
    [unsent] = world.take(consumer)
    world.subscription.close()
    assert world.clockwork.records() == (0, 0, 0)
    assert not unsent.held  # so that nobody starts it
    assert (consumer.leases, consumer.in_flight) == ([], 0)
    assert world.subscription.choose() is None
    assert not world.subscription.consumers
