"""One subscription against a plain dictionary, whatever happens in whatever order.

The model knows for each message in whose hand it is, and until when. After every step the subscription must agree with
it on every number it shows (promise 6), on what each consumer holds, on what is settled, and on what is due.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import attrs
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.broker import revisit
from gateway.broker.clockwork import GENERATION_MS, HANDING_MS, Clockwork
from gateway.broker.delay import wake
from gateway.broker.lease import Consumer, Keeper, Lease
from gateway.broker.queue import Past, measure
from gateway.broker.shelf import PERIOD_MS, RECORD_BYTES, Shelf
from gateway.broker.subscription import Cause, Doomed, Subscription
from gateway.kit.ranges import RangeSet, count, normalise
from gateway.kit.table import Table
from gateway.model import Settle, Start, SubscriptionSettings, Verb
from tests.store.building import in_memory, note

NUMBER, FOREIGN = 1, 2
TICK_MS = 100
BEGAN_MS = 1_000_000
DEAD_LETTERS = (None, "", "own.dead")  # to a topic of theirs, nowhere, and to the subscription itself
EVERYTHING = (0, 2**53 - 1)
MESSAGES_MAX = 60  # fewer than the pieces that one `take` looks at


class Hand(enum.Enum):
    """Where a message is."""

    NEW = enum.auto()  # `take` has not come to it
    READY = enum.auto()  # came back, due
    DELAYED = enum.auto()  # backs off
    LEASED = enum.auto()
    DOOMED = enum.auto()
    ACKED = enum.auto()
    EXPIRED = enum.auto()
    DEAD = enum.auto()
    SKIPPED = enum.auto()


SETTLED = {
    Hand.ACKED: Cause.ACKED,
    Hand.EXPIRED: Cause.EXPIRED,
    Hand.DEAD: Cause.DEAD_LETTERED,
    Hand.SKIPPED: Cause.SKIPPED,
}


@attrs.define
class Known:
    """One message of the subscription."""

    due_ms: int
    expires_ms: int
    hand: Hand = Hand.NEW
    attempts: int = 0
    until_ms: int = 0  # of a running lease, or of a delay
    consumer: Consumer | None = None
    started: bool = False
    buried: bool = False  # given up, and kept for a redrive
    noted: int = 0  # attempts that a restart knows of

    def again(self) -> Known:
        """As it was before its first delivery."""
        return Known(self.due_ms, self.expires_ms)

    def restarted(self) -> Known:
        """As a start finds it."""
        return Known(self.due_ms, self.expires_ms, attempts=self.noted, noted=self.noted)


def clockwork(now: int, generation_ms: int = GENERATION_MS, period_ms: int = PERIOD_MS) -> Clockwork:
    """Everything beyond the first 256 records is in the file, as far as the counting goes."""
    shelf: Shelf[Keeper] = Shelf(TICK_MS, Table(RECORD_BYTES, 256), 1, period_ms=period_ms)
    return Clockwork(TICK_MS, now, shelf, generation_ms=generation_ms)


def never(_delivery: object) -> None:
    raise AssertionError("nothing is sent at this floor")


class SubscriptionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = BEGAN_MS
        self.limit = 1  # positions below it are durable
        self.known: dict[int, Known] = {}  # the model, by position
        self.consumers: list[Consumer] = []
        self.sent: list[Lease] = []  # whose frame has not been handed to the socket yet
        self.doomed: list[Doomed] = []
        self.journal: list[Callable[[Subscription], object]] = []  # what the log would do to it at a start
        self.undone: Counter[Hand] = Counter()  # settled once, and due once more since
        self.sought = False
        self.redriven: set[int] = set()
        self.delayed: set[int] = set()  # what the front has passed over because it was not due
        self.segments = [in_memory(1, 1)]
        self.seen = 0  # positions below it have been delivered or looked at once
        self.clockwork: Clockwork
        self.subscription: Subscription

    # --------------------------------------------------------------------------------------------------- beginning

    @initialize(
        past=st.lists(st.booleans(), max_size=8),
        dead=st.sampled_from(DEAD_LETTERS),
        attempts_max=st.integers(1, 3),
        ages_quickly=st.booleans(),
    )
    def begin(self, past: list[bool], dead: str | None, attempts_max: int, ages_quickly: bool) -> None:
        """A subscription that starts at the end of what there is, or, where some of it is its own, at its start."""
        self.settings = SubscriptionSettings(
            topics=("own.>",),
            start=Start.START if any(past) else Start.END,
            lease_ms=1000,
            attempts_max=attempts_max,
            backoff_ms=(250, 700),
            dead_letter=dead,
        )
        self.tiers = {"generation_ms": TICK_MS, "period_ms": 2 * TICK_MS} if ages_quickly else {}
        self.began = self.settings
        self.past = [position for position, is_own in enumerate(past, 1) if is_own]
        for is_own in past:
            self.store(is_own, 0, 0, 100)
        self.created = self.end
        self.limit = self.end
        self.build()
        self.subscription.routed = len(self.past)
        self.attach(4, 350)

    def build(self) -> None:
        """The subscription as a start rebuilds it from its SETTLE records."""
        self.clockwork = clockwork(self.now, **self.tiers)
        self.subscription = Subscription(NUMBER, "orders", self.settings, self.created, self.clockwork)
        self.subscription.unfilled = False
        if self.past:
            self.subscription.settled = RangeSet(0)
            self.subscription.front = 0
            self.subscription.past = Past(RangeSet(0, [(p, p) for p in self.past]), self.created)
        self.subscription.change(self.began)
        for replay in self.journal:
            replay(self.subscription)
            self.subscription.front = self.subscription.settled.floor
        self.subscription.recount(self.segments)

    @property
    def end(self) -> int:
        return self.segments[-1].end

    def in_hand(self, *hands: Hand) -> list[int]:
        return [position for position, known in self.known.items() if known.hand in hands]

    def leased_to(self, consumer: Consumer) -> list[int]:
        return [p for p, known in self.known.items() if known.hand is Hand.LEASED and known.consumer is consumer]

    def tick_of(self, deadline_ms: int) -> int:
        """When a deadline is noticed: at the first tick that has not passed at or behind it."""
        return max(-(-deadline_ms // TICK_MS), self.now // TICK_MS + 1) * TICK_MS

    # -------------------------------------------------------------------------------------------------- publishing

    def store(self, is_own: bool, due_ms: int, expires_ms: int, size: int) -> None:
        segment = self.segments[-1]
        timed = {"due_ms": due_ms, "expires_ms": expires_ms} if is_own else {}
        position = note(segment, size, route=1 if is_own and hasattr(self, "subscription") else 2, **timed)
        if is_own:
            self.known[position] = Known(due_ms, expires_ms)
        if not is_own or position not in getattr(self, "past", ()):
            segment.growing.route_to(NUMBER if is_own else FOREIGN, position, position)

    @precondition(lambda self: len(self.known) < MESSAGES_MAX)
    @rule(
        messages=st.lists(st.tuples(st.booleans(), st.sampled_from([40, 100, 1000])), min_size=4, max_size=8),
        durable=st.sampled_from([True, True, True, False]),
    )
    def publish_and_deliver(self, messages: list[tuple[bool, int]], durable: bool) -> None:
        for is_own, size in messages:
            self.store(is_own, 0, 0, size)
            self.subscription.routed += is_own
        if durable:
            self.limit = self.end
        self.deliver(500, True)

    @precondition(lambda self: len(self.known) < MESSAGES_MAX)
    @rule(delay_ms=st.sampled_from([0, 50, 400]), ttl_ms=st.sampled_from([0, 100, 1500]), handed=st.booleans())
    def publish_timed_and_deliver(self, delay_ms: int, ttl_ms: int, handed: bool) -> None:
        """A message with times of its own between two without, and one of another."""
        due_ms = self.now + delay_ms if delay_ms else 0
        self.store(True, 0, 0, 40)
        self.store(True, due_ms, self.now + delay_ms + ttl_ms if ttl_ms else 0, 100)
        self.store(False, 0, 0, 1000)
        self.store(True, 0, 0, 40)
        self.subscription.routed += 3
        self.subscription.not_due += due_ms > 0
        self.limit = self.end
        self.deliver(500, handed)

    @rule(what=st.sampled_from(["seal", "release", "restart", "restart", "change", "seek", "redrive"]), data=st.data())
    def administer(self, what: str, data: st.DataObject) -> None:
        """What happens seldom, in one rule, so that it is drawn seldom."""
        if what == "change":
            attempts_max = data.draw(st.integers(1, 3), label="attempts_max")
            lease_ms = data.draw(st.sampled_from([150, 1000]), label="lease_ms")
            self.change(attempts_max, lease_ms, data.draw(st.sampled_from(DEAD_LETTERS), label="dead_letter"))
        elif what == "seek":
            self.seek(data.draw(st.integers(0, self.end + 1), label="position"))
        else:
            getattr(self, what)()

    def seal(self) -> None:
        last = self.segments[-1]
        if last.end > last.base:
            self.segments.append(in_memory(last.number + 1, last.end))

    def release(self) -> None:
        """A segment is deleted exactly when nothing in it is due."""
        while len(self.segments) > 1:
            first = self.segments[0]
            here = [known for position, known in self.known.items() if first.base <= position < first.end]
            due = [known for known in here if known.hand not in SETTLED or known.buried]
            assert (self.subscription.holds(first) is not None) is bool(due)
            if due:
                break
            del self.segments[0]

    # --------------------------------------------------------------------------------------------------- consumers

    @precondition(lambda self: len(self.consumers) < 3)
    @rule(window=st.integers(1, 5), size_max=st.sampled_from([100, 350, 10_000]))
    def attach(self, window: int, size_max: int) -> None:
        consumer = Consumer(self.subscription, window, size_max, never, "test")
        self.subscription.attach(consumer)
        self.consumers.append(consumer)

    @precondition(lambda self: self.consumers)
    @rule(data=st.data(), what=st.sampled_from(["detach", "block", "unblock", "unblock"]))
    def disturb(self, data: st.DataObject, what: str) -> None:
        consumer = data.draw(st.sampled_from(self.consumers), label="consumer")
        if what == "detach":
            self.detach(consumer)
        else:
            consumer.blocked = what == "block"
            consumer.update()

    def detach(self, consumer: Consumer) -> None:
        self.consumers.remove(consumer)
        held = self.leased_to(consumer)
        self.subscription.detach(consumer, self.now)
        assert (consumer.leases, consumer.aged, consumer.in_flight, consumer.credit) == ([], 0, 0, 0)
        self.gave_back(held, 0)

    # -------------------------------------------------------------------------------------------------- delivering

    @rule(count_max=st.sampled_from([500, 3, 1]), handed=st.sampled_from([True, True, False]), short=st.booleans())
    def deliver(self, count_max: int, handed: bool, short: bool = True) -> None:
        """Take what is due; and the frame has been handed to the socket at once, or will be later.

        `short`: by the step that is made for the newest message alone, where that can be.
        """
        before = len(self.sent)
        self.take(count_max, short=short)
        if handed:
            for lease in self.sent[before:]:
                self.hand(lease)

    def take(self, count_max: int, *, short: bool) -> None:
        consumer = self.subscription.choose()
        willing = [c for c in self.consumers if c.credit > 0]
        if consumer is None:
            assert willing == []
            return
        assert consumer.free_share == max(c.free_share for c in willing)
        credit = consumer.credit
        due = [p for p, known in self.known.items() if p < self.limit and self.is_due(known)]
        came_back = [p for p in due if self.known[p].hand is Hand.READY]
        newest = self.subscription.take_newest(consumer, self.segments[-1], self.limit, self.now) if short else None
        leases = [newest] if newest else self.take_any(consumer, count_max)
        positions = [position for lease in leases for position in lease.slice.positions]
        self.told(leases)

        assert set(positions) <= set(due)
        assert len(positions) == len(set(positions)) <= min(count_max, credit)
        assert bool(positions) is bool(due), "something is due and somebody takes it"
        if came_back:
            assert positions[0] == min(came_back), "what came back goes first"
        if len(positions) > 1:
            assert sum(self.size_of(position) for position in positions) <= consumer.size_max
        first_time = [p for p in positions if self.known[p].hand is Hand.NEW]
        assert first_time == sorted(first_time)
        assert all(position >= self.seen for position in first_time if position not in self.redriven | self.delayed)

        for lease in leases:
            assert lease.consumer is consumer
            assert lease.held
            for position in lease.slice.positions:
                known = self.known[position]
                assert lease.slice.attempts == known.attempts
                known.hand, known.consumer, known.started = Hand.LEASED, consumer, False
                known.until_ms = self.tick_of(self.now + HANDING_MS)
        self.sent += leases
        self.seen = max(self.seen, self.subscription.front)
        for position in self.in_hand(Hand.NEW):
            if not self.subscription.is_ahead(position):
                known = self.known[position]
                assert known.due_ms > self.now, "passed over"
                self.delayed.add(position)

    def take_any(self, consumer: Consumer, count_max: int) -> list[Lease]:
        return self.subscription.take(consumer, self.segments, self.limit, count_max, consumer.size_max, self.now)

    def is_due(self, known: Known) -> bool:
        expired = known.expires_ms and known.expires_ms <= self.now
        return known.hand in (Hand.NEW, Hand.READY) and known.due_ms <= self.now and not expired

    def size_of(self, position: int) -> int:
        return measure(self.segments, [position])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        self.hand(data.draw(st.sampled_from(self.sent), label="lease"))

    def hand(self, lease: Lease) -> None:
        """As the engine does, for a lease that is still held."""
        self.sent.remove(lease)
        if not lease.held:
            return
        for position in lease.slice.positions:
            known = self.known[position]
            known.started = True
            known.attempts += 1
            known.until_ms = self.tick_of(self.now + self.settings.lease_ms)
        self.subscription.start(lease, self.now)

    # ---------------------------------------------------------------------------------------------------- settling

    @precondition(lambda self: any(consumer.in_flight for consumer in self.consumers))
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        self.settle(data, Verb.ACK, None, None)

    @precondition(lambda self: any(consumer.in_flight for consumer in self.consumers))
    @rule(data=st.data(), spoilt=st.sampled_from(["", "", "", "low", "high"]))
    def ack_a_lease(self, data: st.DataObject, spoilt: str) -> None:
        """The short way: what is said is just what one frame has brought, or nearly so."""
        consumer = data.draw(st.sampled_from([c for c in self.consumers if c.in_flight]), label="consumer")
        heap = {lease.slice.first: list(lease.slice.positions) for lease in consumer.leases if lease.started}
        held = data.draw(st.sampled_from([*heap.values(), self.leased_to(consumer)]), label="lease")
        low, high = held[0] - (spoilt == "low"), held[-1] + (spoilt == "high")
        met = heap.get(low, [])
        met = met if met and met[-1] == high else []
        acked = consumer.acked
        piece = self.subscription.ack(consumer, low, high, self.now)
        assert met == ([] if piece is None else list(piece.positions))
        if piece is not None:
            self.journal.append(partial(replay_settle, Cause.ACKED, len(piece), [(piece.span_low, high)]))
        assert consumer.acked == acked + len(met)
        self.move(met, Hand.ACKED)
        self.told()

    @precondition(lambda self: any(consumer.in_flight for consumer in self.consumers))
    @rule(data=st.data(), verb=st.sampled_from([Verb.NACK, Verb.NACK, Verb.EXTEND, Verb.TERM]))
    def say_something_else(self, data: st.DataObject, verb: Verb) -> None:
        delay_ms = data.draw(st.sampled_from([None, 0, 150]), label="delay_ms") if verb is Verb.NACK else None
        lease_ms = data.draw(st.sampled_from([None, 300, 5000]), label="lease_ms") if verb is Verb.EXTEND else None
        self.settle(data, verb, delay_ms, lease_ms)

    def settle(self, data: st.DataObject, verb: Verb, delay_ms: int | None, lease_ms: int | None) -> None:
        consumer = data.draw(st.sampled_from([c for c in self.consumers if c.in_flight]), label="consumer")
        held = self.leased_to(consumer)
        bounds = st.sampled_from(held) | st.integers(0, self.end + 1)
        some = st.lists(st.tuples(bounds, bounds).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=2)
        ranges = data.draw(some | st.just([EVERYTHING]), label="ranges")
        met = [p for p in held if self.known[p].started and any(low <= p <= high for low, high in ranges)]
        acked = consumer.acked

        said = Settle(verb, ranges, delay_ms, lease_ms, "because")
        assert self.subscription.settle(consumer, said, self.now, 0.0) == (
            len(met),
            count(normalise(ranges)) - len(met),
        )
        assert consumer.acked == acked + (len(met) if verb is Verb.ACK else 0)
        if verb is Verb.ACK:
            self.move(met, Hand.ACKED)
        elif verb is Verb.TERM:
            self.doom(met, terminated=True)
        elif verb is Verb.EXTEND:
            for position in met:
                self.known[position].until_ms = self.tick_of(self.now + (lease_ms or self.settings.lease_ms))
        else:
            for position in met:
                backoff_ms = self.settings.backoff_ms[min(self.known[position].attempts, 2) - 1]
                self.gave_back([position], backoff_ms if delay_ms is None else delay_ms)
        self.told()

    def gave_back(self, positions: Iterable[int], delay_ms: int) -> None:
        """The model of what happens to messages that were not acked."""
        for position in positions:
            known = self.known[position]
            delay = delay_ms
            if known.attempts >= self.settings.attempts_max:
                if not self.keeps_dead:
                    self.doom([position], terminated=False)
                    continue
                delay = max(delay, self.settings.backoff_ms[-1])
            known.hand, known.consumer, known.started = (Hand.DELAYED if delay else Hand.READY), None, False
            known.noted = known.attempts
            known.until_ms = self.tick_of(self.now + delay)
        self.told()

    @property
    def keeps_dead(self) -> bool:
        """Its own dead letters would come back to it."""
        return self.settings.dead_letter == "own.dead"

    def doom(self, positions: list[int], *, terminated: bool) -> None:
        at_once = self.settings.dead_letter == "" or (terminated and self.keeps_dead)
        self.move(positions, Hand.DEAD if at_once else Hand.DOOMED)

    def move(self, positions: Iterable[int], hand: Hand) -> None:
        for position in positions:
            known = self.known[position]
            known.hand, known.consumer, known.started = hand, None, False
            known.buried = hand is Hand.DEAD and self.settings.dead_letter != ""

    def told(self, leases: Iterable[Lease] = ()) -> None:
        """Read what the subscription wants written, as the engine does; what ran out of time must have."""
        taken = {position for lease in leases for position in lease.slice.positions}
        for settled in self.subscription.news:
            assert settled.subscription is self.subscription
            here = [p for p in self.known if any(low <= p <= high for low, high in settled.ranges)]
            if settled.cause is Cause.EXPIRED:
                gone = [p for p in here if self.known[p].hand in (Hand.NEW, Hand.READY) and p not in taken]
                assert all(0 < self.known[p].expires_ms <= self.now for p in gone)
                assert len(gone) == settled.count
                self.move(gone, Hand.EXPIRED)
            self.journal.append(partial(replay_settle, settled.cause, settled.count, settled.ranges))
        self.subscription.news.clear()
        for tried in self.subscription.tried:
            self.journal.append(partial(replay_attempts, tried.attempts, tried.ranges))
        self.subscription.tried.clear()
        self.doomed += self.subscription.doomed
        self.subscription.doomed.clear()

    @precondition(lambda self: self.doomed)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        """Its dead letters have been stored, one by one, in any order."""
        doomed = data.draw(st.sampled_from(self.doomed), label="doomed")
        self.doomed.remove(doomed)
        pieces = []
        rest = doomed.slice
        while len(rest) > 1:
            piece, rest = rest.cut(1)
            pieces.append(piece)
        for piece in data.draw(st.permutations([*pieces, rest]), label="order"):
            self.subscription.bury(piece)
            assert self.known[piece.first].hand is Hand.DOOMED
            self.move([piece.first], Hand.DEAD)
        self.told()

    # -------------------------------------------------------------------------------------------------------- time

    @rule(milliseconds=st.sampled_from([1, 60, 100, 299, 1100, 100_000]))
    def tick(self, milliseconds: int) -> None:
        self.now += milliseconds
        over = [p for p, k in self.known.items() if k.hand is Hand.LEASED and k.until_ms <= self.now]
        due = [p for p, k in self.known.items() if k.hand is Hand.DELAYED and k.until_ms <= self.now]
        expired: list[int] = []
        returned: list[int] = []
        behind = True
        while behind:
            for item in self.clockwork.advance(self.now):
                if isinstance(item, Lease):
                    expired += item.slice.positions
                    self.subscription.expire(item, self.now)
                else:
                    returned += item.slice.positions
                    self.subscription.due(item)
            wake(self.clockwork.delays.advance(self.segments, self.now), {NUMBER: self.subscription}, ())
            behind = self.clockwork.behind or self.clockwork.delays.behind
        assert sorted(expired) == sorted(over)
        assert sorted(returned) == due
        self.move(due, Hand.READY)
        self.gave_back(over, 0)

    # ---------------------------------------------------------------------------------------------- change, restart

    def change(self, attempts_max: int, lease_ms: int, dead: str | None) -> None:
        self.settings = attrs.evolve(self.settings, attempts_max=attempts_max, lease_ms=lease_ms, dead_letter=dead)
        self.subscription.change(self.settings)
        self.journal.append(partial(replay_change, self.settings))

    def seek(self, position: int) -> None:
        """It reads on from there: what is behind is settled, what is ahead is due, whatever it was before."""
        sought = revisit.seek(self.subscription, position, self.segments)
        self.subscription.recount(self.segments)
        assert sought.position == min(max(position, self.segments[0].base), self.end)
        skipped = again = 0
        for place, known in self.known.items():
            if place < sought.position and known.hand not in SETTLED:
                self.known[place] = attrs.evolve(known.again(), hand=Hand.SKIPPED)
                skipped += 1
            elif place >= sought.position:
                again += known.hand in SETTLED
                self.undone[known.hand] += known.hand in SETTLED
                self.known[place] = known.again()
        assert (sought.skipped, sought.again) == (skipped, again)
        self.journal.append(
            partial(revisit.replay_seek, position=sought.position, again=sought.again, skipped=sought.skipped)
        )
        self.seen = 0
        self.sought = True
        self.doomed.clear()
        assert all(consumer.in_flight == 0 for consumer in self.consumers)

    def redrive(self) -> None:
        """What was given up, and is kept, is due once more; nothing else is touched."""
        buried = [position for position, known in self.known.items() if known.buried]
        messages, ranges = revisit.redrive(self.subscription, self.segments) or (0, [])
        assert messages == len(buried)
        assert revisit.redrive(self.subscription, self.segments) is None
        self.undone[Hand.DEAD] += messages
        for position in buried:
            self.known[position] = self.known[position].again()
        self.redriven.update(buried)
        self.journal.append(partial(revisit.replay_redrive, messages=messages, ranges=ranges))

    def restart(self) -> None:
        """What was in somebody's hand waits again; what was settled is."""
        routed = self.subscription.routed
        self.limit = self.end
        self.build()
        self.subscription.routed = routed
        self.seen = 0
        self.consumers.clear()
        self.sent.clear()
        self.doomed.clear()
        for position in self.in_hand(Hand.READY, Hand.DELAYED, Hand.LEASED, Hand.DOOMED):
            self.known[position] = self.known[position].restarted()
        for position in self.in_hand(Hand.NEW):
            self.known[position] = self.known[position].restarted()
        self.attach(4, 350)

    # -------------------------------------------------------------------------------------------------- agreement

    @invariant()
    def agree(self) -> None:
        self.every_message_is_in_one_hand()
        self.every_consumer_holds_what_it_was_leased_and_no_more_than_its_window()
        self.whatever_runs_stands_in_the_clockwork_and_nothing_else()
        self.what_is_settled_is_told_by_the_fewest_ranges()
        self.the_oldest_is_the_first_that_is_not_settled()

    def every_message_is_in_one_hand(self) -> None:
        shown = attrs.asdict(self.subscription.statistics(None))
        hands = Counter(known.hand for known in self.known.values())
        ever = hands + self.undone
        not_yet = sum(known.hand is Hand.NEW and known.due_ms > self.now for known in self.known.values())
        expected: dict[str, Any] = {
            "routed": len(self.known) + self.undone.total(),
            "acked": ever[Hand.ACKED],
            "expired": ever[Hand.EXPIRED] + ever[Hand.SKIPPED],
            "dead_lettered": ever[Hand.DEAD],
            "skipped": ever[Hand.SKIPPED],
            "in_flight": hands[Hand.LEASED] + hands[Hand.DOOMED],
            "delayed": hands[Hand.DELAYED] + not_yet,
            "waiting": hands[Hand.NEW] - not_yet + hands[Hand.READY],
            "oldest_ms": None,
            "consumers": len(self.consumers),
        }
        assert shown == expected

    def every_consumer_holds_what_it_was_leased_and_no_more_than_its_window(self) -> None:
        for consumer in self.consumers:
            held = [position for lease in consumer.leases for position in lease.slice.positions]
            aged = [position for piece, _ in consumer._aged or () for position in piece.positions]
            assert held == sorted(held)
            assert aged == sorted(aged)
            assert sorted(held + aged) == sorted(self.leased_to(consumer))
            assert consumer.in_flight == len(held + aged) <= consumer.window
            for position in self.leased_to(consumer):
                known = self.known[position]
                assert consumer.deadline_ms(position, TICK_MS) == (known.until_ms if known.started else None)
            assert all(lease.held and lease.first == lease.slice.first for lease in consumer.leases)
        takers = [consumer for consumer in self.consumers if consumer.credit > 0]
        assert set(self.subscription.takers) == set(takers)

    def whatever_runs_stands_in_the_clockwork_and_nothing_else(self) -> None:
        leases = [lease for consumer in self.consumers for lease in consumer.leases]
        for lease in leases:
            assert lease.place is not None
            assert {lease.deadline_ms} == {self.known[p].until_ms for p in lease.slice.positions}
        aged = [(piece, tick) for consumer in self.consumers for piece, tick in consumer._aged or ()]
        delays = list(self.subscription._delays)
        for piece, tick in aged + delays:
            assert {tick * TICK_MS} == {self.known[p].until_ms for p in piece.positions}
        ready = [position for piece, _ in self.subscription._ready for position in piece.positions]
        assert ready == sorted(self.in_hand(Hand.READY))
        on_the_shelf = len(aged) + len(delays) + len(self.subscription._ready)
        assert self.clockwork.records() == (len(leases), on_the_shelf, 0)

    def what_is_settled_is_told_by_the_fewest_ranges(self) -> None:
        """Each message's range reaches back to the one before it, so foreign positions leave no gaps."""
        assert all((p in self.subscription.settled) is (known.hand in SETTLED) for p, known in self.known.items())
        if self.sought or self.subscription.buried or self.undone or self.delayed:
            return  # it has begun in the middle of what is foreign, or goes around what may be redriven, or is not due
        low = 0 if self.past else self.created
        settled = RangeSet(low)
        for position in sorted(self.known):
            if self.known[position].hand in SETTLED:
                settled.add(low, position)
            low = position + 1
        found = self.subscription.settled
        assert (max(found.floor, 1), list(found)) == (max(settled.floor, 1), list(settled))  # nothing stands at 0
        if not self.in_hand(*set(Hand) - SETTLED.keys()):
            assert not self.subscription.settled

    def the_oldest_is_the_first_that_is_not_settled(self) -> None:
        due = [p for p, known in self.known.items() if known.hand not in SETTLED and p < self.limit]
        assert self.subscription.oldest(self.segments, self.limit) == min(due, default=None)


def replay_settle(cause: Cause, number: int, ranges: list[tuple[int, int]], subscription: Subscription) -> None:
    """What the catalogue does with a SETTLE record."""
    for low, high in ranges:
        subscription.settled.add(low, high)
        subscription.attempts.forget(low, high)
    if cause is Cause.DEAD_LETTERED:
        subscription.bury_at(ranges)
    subscription.counts[cause] += number


def replay_attempts(attempts: int, ranges: list[tuple[int, int]], subscription: Subscription) -> None:
    """With an ATTEMPTS record."""
    subscription.attempts.note(attempts, [gap for each in ranges for gap in subscription.settled.gaps(*each)])


def replay_change(settings: SubscriptionSettings, subscription: Subscription) -> None:
    subscription.change(settings)


SubscriptionMachine.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=50, deadline=None)
TestSubscription = SubscriptionMachine.TestCase
