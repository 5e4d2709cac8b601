"""A subscription: a durable named reader with its own place in the log.

Every message routed to it is in exactly one of these hands, and moves only through the methods below:

    waiting     from `front` on in the log, in `revisit`, or in the pile `ready` (came back, due now)
    delayed     in the log, and not due yet by its own delay; or in the pile `delays`, where it backs off
    in flight   held by a consumer's lease, or by `doomed` until its dead letter is stored
    settled     acked, expired, dead-lettered or skipped by a seek: in `settled`, and counted

so that routed = acked + in flight + waiting + delayed + expired + dead-lettered (promise 6). Seek and redrive make
settled ones due once more: see revisit.py.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice, takewhile

import attrs
import msgspec

from gateway.broker.attempts import Attempts
from gateway.broker.backoffs import Backoffs
from gateway.broker.choosing import Takers
from gateway.broker.clockwork import STEP, Clockwork
from gateway.broker.delay import counting_delayed
from gateway.broker.keyorder import KeyOrder
from gateway.broker.lease import Consumer, Keeper, Lease, Returned
from gateway.broker.owned import owned
from gateway.broker.queue import NO_PAST, end_of, fit, keys_of, measure, times_of, unsettled, walk
from gateway.broker.shelf import Pile
from gateway.broker.slice import Slice
from gateway.kit.backoff import redelivery_ms
from gateway.kit.ranges import RangeSet, count, normalise
from gateway.kit.topics import matches
from gateway.model import (
    LEASE_MS_MAX,
    POSITION_MAX,
    Ranges,
    Settle,
    Start,
    SubscriptionSettings,
    SubscriptionStatistics,
    Verb,
)
from gateway.steps import UNTRACED, Steps
from gateway.store.segment import Segment, consecutive


class Cause(enum.IntEnum):
    """Why a message was settled; the number stands in SETTLE records."""

    ACKED = 1
    EXPIRED = 2
    DEAD_LETTERED = 3
    SKIPPED = 4


class _Fate(enum.Enum):
    """What becomes of a message that `take` has come to."""

    DUE = enum.auto()
    EARLY = enum.auto()
    LATE = enum.auto()


class Settled(msgspec.Struct, frozen=True, eq=False):
    """Something to be written to the log."""

    subscription: Subscription
    cause: Cause
    count: int
    ranges: list[tuple[int, int]]


class Tried(msgspec.Struct, frozen=True, eq=False):
    """Messages that came back, and how often they have been delivered: to be written to the log."""

    attempts: int
    due_ms: int
    """When they are due again; 0: at once."""
    ranges: list[tuple[int, int]]


@attrs.frozen
class Doomed:
    """Messages whose deliveries are over and whose dead letters must be stored before they are settled."""

    subscription: Subscription
    slice: Slice
    cause: str
    reason: str
    restarts: int
    """Of the subscription, when it gave them up: a seek since then has taken them back."""


_ROUNDS_MAX = 64
_LOOK_MAX = 1000
"""Pieces, and messages in them, looked at in one `take`: bounds the pause where many have expired or are not due."""


KEYS_MAX = 100_000


class Subscription:
    """State and decisions of one subscription. `now` is in milliseconds since the epoch, everywhere."""

    __slots__ = (  # more than 30, beyond which instances share no keys and each has a dictionary of its own
        "_clockwork",
        "_delays",
        "_keeps_dead",
        "_keys",
        "_keys_max",
        "_nothing",
        "_ready",
        "attempts",
        "backoffs",
        "buried",
        "consumers",
        "counting",
        "counts",
        "created",
        "damaged",
        "delayed",
        "deleted",
        "doomed",
        "expired_leases",
        "front",
        "in_flight",
        "loading",
        "name",
        "news",
        "not_due",
        "number",
        "oldest_known",
        "past",
        "redelivered",
        "restarting",
        "restarts",
        "revisit",
        "routed",
        "routed_end",
        "settings",
        "settled",
        "steps",
        "takers",
        "tried",
        "unfilled",
    )

    def __init__(
        self,
        number: int,
        name: str,
        settings: SubscriptionSettings,
        front: int,
        clockwork: Clockwork,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self.number = number
        self.name = name
        self.settings = settings
        self.front = front
        self.routed_end = POSITION_MAX  # one past the last message routed to it; as long as none was, not known
        self._nothing = (0, 0)  # while `front` is the first, none of its messages stands before the second
        self.settled = RangeSet(front)
        self.created = front  # the first position routed to it as it came; older ones by backfill
        self.past = NO_PAST  # older positions that were routed to it afterwards
        self.unfilled = settings.start is Start.START  # that has still to be found out
        self.consumers: dict[Consumer, None] = {}
        self.takers = Takers()  # those of them that accept something now
        self.loading = False  # a delivery is being read from the disk; the next waits, to keep the order
        self.deleted = False
        self.routed = 0
        self.counts = dict.fromkeys(Cause, 0)
        self.oldest_known: tuple[int, int | None] = (0, None)  # position of the oldest unsettled message, its time
        self.in_flight = 0
        self.delayed = 0  # in the pile
        self.not_due = 0  # in the log: unsettled, and behind the cursor of delay.py
        self.redelivered = 0
        self.restarting = False  # everything is being taken back, or counted anew
        self.counting: Iterator[None] | None = None  # what of it is not due yet
        self.restarts = 0  # times that this was done
        self.buried = RangeSet(0)  # what was given up, and may be redriven
        self.revisit = RangeSet(0)  # what is behind `front` and to be come to: it is due now, or once more
        self.expired_leases = 0
        self._clockwork = clockwork
        self.damaged: list[Slice] = []  # cannot be read; still waiting
        self._ready: Pile[Keeper] = Pile(clockwork.shelf, self)  # came back and due
        self._delays: Pile[Keeper] = Pile(clockwork.shelf, self)
        self._keys_max = keys_max
        self._keys = KeyOrder(keys_max) if settings.ordered else None
        self._keeps_dead = _receives(settings, settings.dead_letter_topic(name))
        self.steps: Steps = UNTRACED  # told what comes back
        self.news: list[Settled] = []  # to be written; emptied by the engine
        self.attempts = Attempts()  # of what is not settled, as the log knows it
        self.backoffs = Backoffs()  # the same
        self.tried: list[Tried] = []  # to be written; emptied by the engine
        self.doomed: list[Doomed] = []  # to be dead-lettered; emptied by the engine

    # ------------------------------------------------------------------------------------------- delivering

    @property
    def held_up(self) -> bool:
        """Whether nothing may be taken now: it is searched, read, sought, paused, or deleted."""
        return self.unfilled or self.loading or self.restarting or self.settings.paused or self.deleted

    @property
    def searching(self) -> bool:
        """Whether a `take` has something to do, though it may lead to nothing that is due."""
        return self._keys is not None and self._keys.searching

    def has_more(self, limit: int) -> bool:
        """Whether a `take` may find something below the position `limit`: so idle ones cost no turn."""
        front, until = self._nothing
        start = until if front == self.front else self.front
        if start < limit and start < self.routed_end:
            return True
        return bool(self._ready or self.revisit or self.searching)

    def look_again(self) -> None:
        """Something ahead of the front is due once more."""
        self._nothing = (0, 0)

    @property
    def keys(self) -> int:
        """Keys with a message out."""
        return 0 if self._keys is None else len(self._keys)

    def behind(self, segments: Sequence[Segment], position: int) -> int | None:
        """The message of its key that `position` waits for; 0 while the next is looked for; None where it does not."""
        if self._keys is None:
            return None
        out = self._keys.out_before(keys_of(segments, (position,))[0])
        return None if out == position else out

    def choose(self) -> Consumer | None:
        """The consumer with the largest free share of its window; None where none accepts anything."""
        return self.takers.best()

    def take(
        self, consumer: Consumer, segments: Sequence[Segment], limit: int, count_max: int, size_max: int, now: int
    ) -> list[Lease]:
        """Lease the next messages to `consumer`: what came back first, then new ones; none where nothing is due.

        At most `count_max`, and at most `size_max` bytes on disk (but at least one). `limit`: positions below it are
        durable. The leases start with `start`.
        """
        leases: list[Lease] = []
        count_max = min(count_max, consumer.credit)
        looked = 0
        for _ in range(_ROUNDS_MAX):
            if count_max <= 0 or looked >= _LOOK_MAX:
                break
            if leases and measure(segments, (self._ready.first,)) > size_max:
                break
            pieces = self._next(segments, limit, count_max, size_max)
            if pieces is None:
                break
            if not pieces:
                looked += count_max
            for piece in pieces:
                looked += len(piece.positions)
                for part in self._due_parts(piece, segments, now):
                    leases.append(self._lease_out(part, consumer, now))
                    count_max -= len(part.positions)
            if leases and not self._ready:
                break  # new messages of one segment are one frame; the rest is the next frame's
            if leases:
                size_max -= sum(measure(segments, piece.positions) for piece in pieces)
        return leases

    def take_newest(self, consumer: Consumer, segment: Segment, limit: int, now: int) -> Lease | None:
        """Lease the one message that a subscription is due that had been given all before: what `take` does, in a step.

        `segment`: the active one. None, and nothing done, where there may be more to it: something came back, or is to
        be come to once more; it goes by keys; messages have times of their own, or deliveries from before a start; more
        than one is new, or it lies elsewhere.
        """
        queue = segment.index.queues.get(self.number)
        if queue is None or segment.due_ms or segment.expires_ms or self.past.end > segment.base:
            return None
        if self._keys is not None or self._ready or self.revisit or self.buried or self.attempts:
            return None
        base, position = segment.base, segment.base + queue[-1]
        before = position - 1  # the last but one of its messages; where it has none in this segment, the end before
        if queue[-2] == queue[-1]:
            before = base + queue[-3] if len(queue) > 2 else base - 1
        passed, until = self._nothing
        if not before < (until if passed == self.front else self.front) <= position < limit:
            return None
        if consumer.filed is None or position in self.settled:
            return None
        piece = Slice(range(position, position + 1), self.front)
        self.front = position + 1
        return self._lease_out(piece, consumer, now)

    def _lease_out(self, piece: Slice, consumer: Consumer, now: int) -> Lease:
        lease = Lease(consumer, piece)
        consumer.hold(lease)
        self._clockwork.add(lease, now + max(self._clockwork.handing_ms, self.settings.lease_ms))
        self.in_flight += len(piece.positions)
        return lease

    def _next(self, segments: Sequence[Segment], limit: int, count_max: int, size_max: int) -> Sequence[Slice] | None:
        """The next pieces to look at; none of them where all that was come to waits behind its key."""
        if self._keys is not None and self._keys.searching:
            for piece in self._keys.freed(partial(self._passed, segments), partial(keys_of, segments)):
                self._ready.add(piece)
        if self._ready:
            piece = self._ready.pop(count_max, end_of(segments, self._ready.first))
            taken = len(fit(segments, piece.positions[:count_max], size_max))
            if taken < len(piece):
                piece, rest = piece.cut(taken)
                self._ready.add(rest)
            return (piece,)
        if self.revisit:
            found = self._revisited(segments, limit, count_max, size_max)
            if found is not None:
                return found
        before = self.front
        start = self._nothing[1] if self._nothing[0] == before else before
        if start >= limit:
            return None
        positions, front = walk(segments, self.number, start, limit, self.settled, count_max, size_max, self.past)
        if not positions:
            self._nothing = (before, limit)  # the next look begins there, and not in segments that are long sealed
            return None  # foreign positions belong to the span of the next message
        if self._keys is None:
            self.front = front
            return self._slices(positions, before)
        pieces, self.front = self._sorted_out(positions, before, segments)
        return pieces if self.front > before else None

    def _revisited(
        self, segments: Sequence[Segment], limit: int, count_max: int, size_max: int
    ) -> Sequence[Slice] | None:
        """The next pieces of one segment that are to be come to behind the front; None where there are none."""
        found: list[Slice] = []
        done = end = 0
        for low, high in islice(self.revisit, _ROUNDS_MAX):
            stop = min(high + 1, limit)
            if low >= stop or (found and (low >= end or count_max <= 0 or size_max <= 0)):
                break
            positions, _ = walk(segments, self.number, low, stop, self.settled, count_max, max(size_max, 1), self.past)
            pieces, front = self._sorted_out(positions, low, segments)
            if positions:
                if found and positions[0] >= end:
                    break
                end = end_of(segments, positions[0])
            done = front - 1 if positions else high
            found += pieces
            count_max -= len(positions)
            size_max -= sum(measure(segments, piece.positions) for piece in pieces)
            if positions and front <= high:
                break  # the rest of it is for the next frame, or waits for room for its key
        if done:
            self.revisit.remove(1, done)
        return found if done else None

    def _sorted_out(
        self, positions: Sequence[int], span_low: int, segments: Sequence[Segment]
    ) -> tuple[Sequence[Slice], int]:
        """The slices of what the front, or a redrive, has come to, and the front behind them."""
        if not positions:
            return (), span_low
        pieces = self._slices(positions, span_low)
        if self._keys is None:
            return pieces, positions[-1] + 1
        found: list[Slice] = []
        front = span_low
        for piece in pieces:
            keys = keys_of(segments, piece.positions)
            slices, between, front = self._keys.sort_out(piece.positions, piece.span_low, keys)
            found += slices
            for low, high in between:
                self.settled.add(low, high)
            if front <= piece.last:
                break  # no room for another key
        return found, front

    def _slices(self, positions: Sequence[int], span_low: int) -> Sequence[Slice]:
        """A new slice; or several, where what was given up stands between: a redrive must not find it in a span."""
        if not self.buried or not self.buried.count_in(span_low, positions[-1]):
            return (Slice(positions, span_low),)
        slices: list[Slice] = []
        for low, high in consecutive(positions):
            if span_low < low:
                self.settled.add(span_low, low - 1)  # foreign, or settled already
            slices.append(Slice(range(low, high + 1), low))
            span_low = high + 1
        return slices

    def _passed(self, segments: Sequence[Segment], position: int, count_max: int) -> Sequence[int]:
        """What the front has passed and is not settled, from `position` on."""
        return walk(segments, self.number, position, self.front, self.settled, count_max, POSITION_MAX, self.past)[0]

    def _due_parts(self, piece: Slice, segments: Sequence[Segment], now: int) -> Iterable[Slice]:
        """What of `piece` may be delivered now; the rest is put among the delayed or the expired."""
        times = times_of(segments, piece.positions)
        return self._timely(piece, times, now) if times else self._as_tried(piece, now)

    def _timely(self, piece: Slice, times: Mapping[int, tuple[int, int]], now: int) -> Iterator[Slice]:
        rest: Slice | None = piece
        for fate, group in groupby(piece.positions, partial(self._fate, times, now)):
            assert rest is not None
            stop = len(list(group))
            piece, rest = rest.cut(stop) if stop < len(rest) else (rest, None)
            if fate is _Fate.DUE:
                yield from self._as_tried(piece, now)
            elif fate is _Fate.EARLY:
                self.pass_over(piece)
            else:
                self._settle(piece, Cause.EXPIRED)

    def _as_tried(self, piece: Slice, now: int) -> Iterable[Slice]:
        """Parts of `piece` that know their attempts; what came back before a start may still have to wait."""
        parts = self.attempts.parts(piece)
        return self._backed_off(parts, now) if self.backoffs and not piece.attempts else parts

    def _backed_off(self, parts: Iterable[Slice], now: int) -> Iterator[Slice]:
        for part in parts:
            if not part.attempts:
                yield part
                continue
            for each, due_ms in self.backoffs.parts(part, now):
                if due_ms:
                    self.delay(each, due_ms)
                else:
                    yield each

    def _fate(self, times: Mapping[int, tuple[int, int]], now: int, position: int) -> _Fate:
        due_ms, expires_ms = times.get(position, (0, 0))
        if not self._clockwork.delays.is_due(position, due_ms):
            return _Fate.EARLY
        return _Fate.LATE if expires_ms and expires_ms <= now else _Fate.DUE

    def pass_over(self, piece: Slice) -> None:
        """It is not due yet: the cursor of what is delayed comes to it, and nothing of it is kept meanwhile."""
        low = piece.span_low
        for first, last in consecutive(piece.positions):
            if low < first:
                self.settled.add(low, first - 1)  # foreign, or settled already: no slice spans it any more
            low = last + 1

    def come_due(self, low: int, high: int, segment: Segment) -> None:
        """The delays of all messages in [low, high], which are its own, are over."""
        for first, last in list(self.settled.gaps(low, high)):
            self.not_due -= last - first + 1
            if self._keys is not None:
                self._come_due_in_order(range(first, last + 1), segment)
            elif first < self.front and not self.deleted:
                self.revisit.add(first, min(last, self.front - 1))

    def _come_due_in_order(self, positions: Sequence[int], segment: Segment) -> None:
        """One that is out of its key goes on; one that waits behind another is come to by its key."""
        for position, key in zip(positions, keys_of((segment,), positions), strict=True):
            if self.is_ahead(position):
                continue
            if not key:
                self.revisit.add(position, position)
            elif self._keys is not None and self._keys.out_before(key) == position:
                self._ready.add(Slice(range(position, position + 1), position))

    def start(self, lease: Lease, now: int) -> None:
        """The frame has been handed to the socket: the lease begins to run."""
        if lease.started or self.deleted:
            return
        lease.started = True
        piece = lease.slice
        piece.attempts += 1
        if piece.attempts > 1:
            self.redelivered += len(piece)
        self._clockwork.add(lease, now + self.settings.lease_ms)

    # --------------------------------------------------------------------------------------------- settling

    def settle(self, consumer: Consumer, settle: Settle, now: int, random: float) -> tuple[int, int]:
        """Carry out one verb over what `consumer` is leased inside the ranges: (messages met, positions unknown)."""
        met = 0
        ranges = normalise(settle.ranges)
        for low, high in ranges:
            self._clockwork.call_back(consumer, low, high)
            for lease in consumer.overlapping(low, high):
                if not lease.started:
                    continue  # nobody has seen it: its frame still waits for the socket
                start, stop = lease.slice.within(low, high)
                if start < stop:
                    met += stop - start
                    if settle.verb is not Verb.EXTEND:
                        self._clockwork.settled[lease.tier] += stop - start
                    piece = self._cut_out(lease, start, stop)
                    self._apply(consumer, piece, settle, now, random)
        return met, count(ranges) - met

    def ack(self, consumer: Consumer, low: int, high: int, now: int) -> Slice | None:
        """Acknowledge the lease of the heap tier that holds all of [low, high] and nothing else, as most acks do.

        What was in it, which the caller writes to the log: it does not stand in `news`. None, and nothing done, where
        there is no such lease. `settle` does the same, and knows the rest.
        """
        lease = consumer.lease_from(low)
        if lease is None or not lease.started:
            return None
        piece = lease.slice
        positions = piece.positions
        if positions[-1] != high:
            return None
        self._let_go(lease)
        size = len(positions)
        self._clockwork.settled[lease.tier] += size
        consumer.acked += size
        self._end(positions, piece.span_low, Cause.ACKED, now)
        return piece

    def _cut_out(self, lease: Lease, start: int, stop: int) -> Slice:
        """Take messages [start, stop) out of a lease; what is left of it keeps its deadline."""
        self._let_go(lease)
        piece = lease.slice
        if stop < len(piece.positions):
            piece, after = piece.cut(stop)
            self._lease_again(lease.consumer, after, lease.deadline_ms)
        if start > 0:
            before, piece = piece.cut(start)
            self._lease_again(lease.consumer, before, lease.deadline_ms)
        return piece

    def _lease_again(self, consumer: Consumer, piece: Slice, deadline: int) -> None:
        again = Lease(consumer, piece)
        again.started = True
        consumer.hold(again)
        self.in_flight += len(piece)
        self._clockwork.add(again, deadline)

    def _apply(self, consumer: Consumer, piece: Slice, settle: Settle, now: int, random: float) -> None:
        match settle.verb:
            case Verb.ACK:
                consumer.acked += len(piece.positions)
                self._settle(piece, Cause.ACKED, now)
            case Verb.NACK:
                delay = settle.delay_ms
                if delay is None:
                    delay = redelivery_ms(self.settings.backoff_ms, max(piece.attempts, 1), random)
                self.give_back(piece, now, delay, "nack", settle.reason)
            case Verb.TERM:
                self._doom(piece, "term", settle.reason)
            case Verb.EXTEND:
                until_ms = now + min(settle.lease_ms or self.settings.lease_ms, LEASE_MS_MAX)
                self.steps.extended(self.name, piece.positions, until_ms)
                self._lease_again(consumer, piece, until_ms)

    def _let_go(self, lease: Lease) -> None:
        self._clockwork.discard(lease)
        lease.consumer.drop(lease)
        self.in_flight -= len(lease.slice.positions)

    def settle_all(self, pieces: Sequence[Slice], cause: Cause) -> None:
        """Settle them together: one record for all."""
        before = len(self.news)
        for piece in pieces:
            self._settle(piece, cause)
        news = self.news[before:]
        if len(news) > 1:
            ranges = [pair for settled in news for pair in settled.ranges]
            self.news[before:] = [Settled(self, cause, sum(map(len, pieces)), normalise(ranges))]

    def _settle(self, piece: Slice, cause: Cause, now: int | None = None) -> None:
        positions, low = piece.positions, piece.span_low
        ranges = [(low, positions[-1])]
        if cause is Cause.DEAD_LETTERED:  # what others had settled between is not to be redriven
            ranges = list(self.settled.gaps(low, positions[-1]))
            self.bury_at(ranges)
        self._end(positions, low, cause, now)
        self.news.append(Settled(self, cause, len(positions), ranges))

    def _end(self, positions: Sequence[int], span_low: int, cause: Cause, now: int | None) -> None:
        """Note that these are settled, everywhere but for the log."""
        self.steps.settled(self.name, positions, cause, now)
        self.settled.add(span_low, positions[-1])
        if self.attempts:
            self.attempts.forget(positions[0], positions[-1])
        if self._keys is not None:
            self._keys.settled(positions)
        self.counts[cause] += len(positions)

    # ------------------------------------------------------------------------------------------ giving back

    def expire(self, lease: Lease, now: int) -> None:
        """The lease's deadline has passed: its messages are due again, and its window slots are free."""
        self._let_go(lease)
        self.expired_leases += 1
        lease.consumer.expired += len(lease.slice)
        self.give_back(lease.slice, now, 0, "lease", "")

    def attach(self, consumer: Consumer, *, waits: bool = True) -> None:
        """Where it does not `wait` it may `take`, and stands among the takers only once it is told to `update`."""
        self.consumers[consumer] = None
        if waits:
            consumer.update()

    def detach(self, consumer: Consumer, now: int) -> None:
        """It left: everything it holds goes back at once, or, where that is much, in the next steps of the clock."""
        del self.consumers[consumer]
        consumer.block()
        if self.release(consumer, now):
            self._clockwork.leaving.append(consumer)

    def release(self, consumer: Consumer, now: int) -> bool:
        """One step of giving back what a consumer that has left holds; whether it holds more."""
        for lease in consumer.some(STEP):
            self._let_go(lease)
            self.give_back(lease.slice, now, 0, "disconnect", "")
        return consumer.in_flight > 0

    def recall(self, consumer: Consumer, now: int) -> None:
        """What its socket has not taken goes back: nobody has seen it, and it counts as no attempt."""
        for lease in [lease for lease in consumer.leases if not lease.started]:
            self._let_go(lease)
            self.give_back(lease.slice, now, 0, "recall", "")

    def set_aside(self, lease: Lease, lost: Container[int]) -> None:
        """The messages in `lost` cannot be read: they stay here, waiting, until a restart finds them mended."""
        self._let_go(lease)
        rest: Slice | None = lease.slice
        while rest is not None:
            piece, rest = rest, None
            is_lost = piece.first in lost
            stop = next((i for i, position in enumerate(piece.positions) if (position in lost) != is_lost), len(piece))
            if stop < len(piece):
                piece, rest = piece.cut(stop)
            if is_lost:
                self.damaged.append(piece)
            else:
                self._ready.add(piece)

    def keep_damaged(self, piece: Slice) -> None:
        """The same for what was on its way to the dead letters."""
        self.in_flight -= len(piece)
        self.damaged.append(piece)

    def give_back(self, piece: Slice, now: int, delay_ms: int, cause: str, reason: str) -> None:
        """Deliver `piece` again after a delay, or give it to the dead letters where its attempts are used up."""
        if self.deleted:
            return
        if piece.attempts >= self.settings.attempts_max:
            if not self._keeps_dead:
                self._doom(piece, cause, reason)
                return
            delay_ms = max(delay_ms, self.settings.backoff_ms[-1])
        due_ms = now + delay_ms if delay_ms > 0 else 0
        self.steps.returned(self.name, piece.positions, piece.attempts, cause, reason, due_ms)
        if piece.attempts and cause != "recall":
            self._note_attempts(piece, now, due_ms)
        if delay_ms > 0:
            self.delay(piece, now + delay_ms)
        else:
            self._ready.add(piece)

    def _note_attempts(self, piece: Slice, now: int, due_ms: int) -> None:
        ranges = consecutive(piece.positions)
        self.attempts.note(piece.attempts, ranges)
        if due_ms:
            self.backoffs.note(due_ms, ranges, now)
        if self.tried and (self.tried[-1].attempts, self.tried[-1].due_ms) == (piece.attempts, due_ms):
            self.tried[-1].ranges.extend(ranges)
        else:
            self.tried.append(Tried(piece.attempts, due_ms, ranges))

    def delay(self, piece: Slice, due_ms: int) -> None:
        """Keep `piece` until then."""
        self.delayed += len(piece)
        self._delays.add(piece, self._clockwork.tick_of(due_ms))

    def due(self, returned: Returned) -> None:
        """A backoff is over."""
        self.delayed -= len(returned.slice)
        if not self.deleted:
            self._ready.add(returned.slice)

    def keep(self, piece: Slice, segments: Sequence[Segment]) -> None:
        """What `next_ahead` took is to be delivered, now or when it is due."""
        if self.is_due(segments, piece.first):
            self._ready.add(piece)
        else:
            self.pass_over(piece)

    def recount(self, segments: Iterable[Segment]) -> None:
        """Another part of the log is its own, or due, than was: count what of it is not due yet."""
        for _ in self.recounting(segments):
            pass

    def recounting(self, segments: Iterable[Segment]) -> Iterator[None]:
        """The same in steps; nothing of it may be settled until the last. It ends where another has begun."""
        counting = self.counting = counting_delayed(segments, self._clockwork.delays.passed, (self,))
        for _ in counting:
            yield
            if self.counting is not counting:
                return
        self.counting = None

    def _doom(self, piece: Slice, cause: str, reason: str) -> None:
        if self._keeps_dead and cause == "term":
            self._settle(piece, Cause.DEAD_LETTERED)  # a dead letter that is refused itself ends here
        elif self.settings.dead_letter_topic(self.name) is None:
            self._settle(piece, Cause.DEAD_LETTERED)
        else:
            self.in_flight += len(piece)
            self.doomed.append(Doomed(self, piece, cause, reason, self.restarts))

    def bury(self, piece: Slice) -> None:
        """The dead letters of `piece` are stored."""
        self.in_flight -= len(piece)
        self._settle(piece, Cause.DEAD_LETTERED)

    # ------------------------------------------------------------------------------------------ time is over

    def next_ahead(self, segments: Sequence[Segment], limit: int, count_max: int) -> Slice | None:
        """Take the next messages that `take` has still to come to, below `limit`; whatever their keys are."""
        while self.revisit:
            low, high = next(iter(self.revisit))
            if low >= limit:
                break
            stop = min(high + 1, limit)
            positions, front = walk(segments, self.number, low, stop, self.settled, count_max, POSITION_MAX, self.past)
            self.revisit.remove(low, front - 1)
            if positions:
                return self._first(positions, low)
        before = self.front
        if before >= limit:
            return None
        positions, front = walk(segments, self.number, before, limit, self.settled, count_max, POSITION_MAX, self.past)
        if not positions:
            return None
        self.front = front
        return self._first(positions, before)

    def _first(self, positions: Sequence[int], span_low: int) -> Slice:
        first, *others = self._slices(positions, span_low)
        for piece in reversed(others):
            self.put_back(piece)
        return first

    def put_back(self, piece: Slice) -> None:
        """What `next_ahead` took is still to be come to."""
        self.revisit.add(max(piece.span_low, 1), piece.last)

    def is_passed_over(self, segments: Sequence[Segment], position: int) -> bool:
        """Whether an unsettled `position` waits behind its key, in nobody's hand."""
        return not self.is_ahead(position) and self.behind(segments, position) is not None

    def ready_before(self, limit: int) -> Iterator[Slice]:
        """What came back and is due, as far as it begins before `limit`; it stays."""
        return takewhile(lambda piece: piece.first < limit, (piece for piece, _ in self._ready))

    def take_out(self, position: int) -> Slice | None:
        """Take `position` out of what came back, is delayed, or cannot be read; None where it is in none of them."""
        for pile in (self._ready, self._delays):
            if pile.find(position) is None:
                continue
            [(piece, tick, _)] = pile.overlapping(position, position)
            before, piece, after = piece.singled_out(position)
            for rest in (before, after):
                if rest is not None:
                    pile.add(rest, tick)
            if pile is self._delays:
                self.delayed -= 1
            return piece
        for number, piece in enumerate(self.damaged):
            if position in piece.positions:
                before, piece, after = piece.singled_out(position)
                self.damaged[number : number + 1] = [rest for rest in (before, after) if rest is not None]
                return piece
        return None

    def bury_at(self, ranges: Ranges) -> None:
        """What was given up in `ranges` may be redriven, where dead letters are kept at all."""
        if self.settings.dead_letter_topic(self.name) is not None:
            for low, high in ranges:
                self.buried.add(max(low, 1), high)

    def take_back(self, count_max: int) -> bool:
        """One step of taking everything back: what is out or waits for its time is in no hand then, but in the log.

        Whether there is more. Who begins sets `restarting` until the front has been set anew, or it would be forgotten.
        """
        for consumer in self._holders():
            leases = consumer.some(count_max)
            for lease in leases:
                self._let_go(lease)
            count_max -= len(leases)
        records = len(self._ready)
        self._ready.drop(count_max)
        count_max -= records - len(self._ready)
        self.delayed -= self._delays.drop(max(count_max, 0))
        return bool(self._ready or self._delays) or any(consumer.in_flight for consumer in self._holders())

    def _holders(self) -> list[Consumer]:
        """Everybody who may hold something: also those that left, and have not given back everything yet."""
        return [*self.consumers, *(each for each in self._clockwork.leaving if each.subscription is self)]

    def begin_at(self, position: int) -> None:
        """Nothing is out any more: read on from `position`, and forget what was to be dead-lettered or redriven."""
        assert not self._ready
        assert not self._delays
        self.restarts += 1
        self.restarting = self.counting is not None
        self.doomed.clear()
        self.damaged.clear()
        self.revisit = RangeSet(0)
        if self._keys is not None:
            self._keys.clear()
        self.in_flight = self.delayed = 0
        self.front = position
        self.look_again()

    def close(self) -> None:
        """The subscription is deleted: what it has in memory goes at once, or, where that is much, with the clock."""
        self.deleted = True
        for consumer in list(self.consumers):
            self.detach(consumer, 0)
        self._clockwork.drop(self._ready)
        self._clockwork.drop(self._delays)

    # --------------------------------------------------------------------------------------------- changing

    def change(self, settings: SubscriptionSettings) -> None:
        """Go on with other settings. Where `ordered` is another, everything is taken back, as by a start."""
        if settings.ordered != self.settings.ordered:
            while self.take_back(STEP):
                pass
            self.begin_at(self.settled.floor)
            self._keys = KeyOrder(self._keys_max) if settings.ordered else None
        self.settings = settings
        self._keeps_dead = _receives(settings, settings.dead_letter_topic(self.name))

    # ------------------------------------------------------------------------------------------------ asking

    def holds(self, segment: Segment) -> int | None:
        """A position of `segment` that is still due to this subscription, or may be made so by a redrive; or None."""
        due = next((low for low, _ in unsettled(segment, self.number, self.settled, self.past)), None)
        if due is not None or not self.buried.count_in(segment.base, segment.end - 1):
            return due
        for low, high in owned([segment], self.number, segment.base, segment.end - 1, self.past):
            if self.buried.count_in(low, high):
                gap_low, gap_high = next(self.buried.gaps(low, high), (high + 1, high))
                return low if gap_low > low else gap_high + 1
        return None

    @property
    def unsettled(self) -> int:
        """Messages that are due, in whichever hand."""
        return self.routed - sum(self.counts.values())

    def lease_of(self, position: int) -> tuple[Consumer, Slice, int | None] | None:
        """Who is leased `position`, in which slice, until when; None for the time before its frame is handed over."""
        for consumer in self._holders():
            found = consumer.lease_of(position, self._clockwork.tick_ms)
            if found is not None:
                return consumer, *found
        return None

    def delay_of(self, position: int) -> tuple[Slice, int] | None:
        """The delayed slice that `position` is in, and when it is due."""
        found = self._delays.find(position)
        return None if found is None else (found[0], found[1] * self._clockwork.tick_ms)

    def ready_of(self, position: int) -> Slice | None:
        """The slice that came back, and is due, that `position` is in."""
        found = self._ready.find(position)
        return None if found is None else found[0]

    def is_ahead(self, position: int) -> bool:
        """Whether `take` has still to come to `position`."""
        return position >= self.front or position in self.revisit

    def is_due(self, segments: Sequence[Segment], position: int) -> bool:
        """Whether the message has no delay of its own, or it is over."""
        due_ms, _ = times_of(segments, (position,)).get(position, (0, 0))
        return self._clockwork.delays.is_due(position, due_ms)

    def oldest(self, segments: Sequence[Segment], limit: int) -> int | None:
        """Position of the oldest message that is not settled, in whichever hand; None where there is none."""
        positions, _ = walk(segments, self.number, self.settled.floor, limit, self.settled, 1, 1, self.past)
        return positions[0] if positions else None

    def statistics(self, oldest_ms: int | None) -> SubscriptionStatistics:
        delayed = self.delayed + max(self.not_due, 0)  # while it is counted, more may have come due than were found
        counts = self.counts
        return SubscriptionStatistics(
            waiting=self.unsettled - self.in_flight - delayed,
            in_flight=self.in_flight,
            delayed=delayed,
            routed=self.routed,
            acked=counts[Cause.ACKED],
            expired=counts[Cause.EXPIRED] + counts[Cause.SKIPPED],
            dead_lettered=counts[Cause.DEAD_LETTERED],
            oldest_ms=oldest_ms,
            consumers=sum(not (c.once and c.blocked) for c in self.consumers),
            skipped=counts[Cause.SKIPPED],
        )


def _receives(settings: SubscriptionSettings, topic: str | None) -> bool:
    """Whether a subscription would be given its own dead letters: then it keeps its messages instead."""
    return topic is not None and any(matches(pattern, topic) for pattern in settings.topics)
