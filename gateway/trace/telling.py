"""What the stages tell, made into events.

Hot paths, and they say so: `stored`, `handed` and `settled` are called once a batch and make one event each, in about
3 us, where the way of the batch takes a millisecond. Nothing here looks at single messages but for those that have
something of their own: an id, a trace context, an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol, cast

from gateway.errors import GatewayError
from gateway.model import POSITION_MAX, Batch, Delivery, Position, Ranges, is_traceparent
from gateway.store import record as records
from gateway.trace import event as events
from gateway.trace.buffer import Buffer
from gateway.trace.event import SPAN, Step

_CAUSES: Final = {1: Step.ACKED, 2: Step.EXPIRED, 3: Step.DEAD_LETTERED}


class Route(Protocol):
    """What the engine's own, one for each message of `Batch.routes`, is asked."""

    @property
    def topic(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Of the subscriptions it goes to."""


class _Later(NamedTuple):
    """What a stage did before the messages had positions; stands in `Batch.steps` until they have."""

    step: Step
    subscription: str
    stage: str
    outcome: str
    indexes: Sequence[int] | None
    time_ms: int


class Telling:
    """See `steps.Steps`."""

    def __init__(self, buffer: Buffer, clock: Callable[[], int], nudge: Callable[[], None]) -> None:
        self._buffer = buffer
        self._clock = clock
        self._nudge = nudge  # something waits to be written now

    # ------------------------------------------------------------------------------------------- publishing

    def stored(self, entries: Sequence[object]) -> None:
        now = self._clock()
        run: list[Batch] = []  # batches that went the same way to consecutive positions: one event
        end = -1
        for batch in entries:
            if not isinstance(batch, Batch):
                continue
            if batch.error is None and batch.results is None and batch.steps is None and len(batch.routes) == 1:
                if run and not (
                    batch.first == end and batch.routes[0] is run[0].routes[0] and batch.durability is run[0].durability
                ):
                    self._accepted_plain(run, now)
                    run = []
                run.append(batch)
                end = batch.first + len(batch.messages)
                if batch.plain:
                    continue
            if run:
                self._accepted_plain(run, now)
                run = []
            if batch.error is not None:
                self.refused(batch, batch.error, "append")
            else:
                self._particulars(batch, now)
        if run:
            self._accepted_plain(run, now)

    def _accepted_plain(self, run: Sequence[Batch], now: int) -> None:
        first, last = run[0], run[-1]
        tail = b""
        if not self._buffer.room(now):
            return
        if len(run) > 1 or first.origins:
            pairs: list[int] = []
            for batch in run:
                for index in range(len(batch.origins) or 1):
                    count = 1 if batch.origins else len(batch.messages)
                    pairs += (count, self._buffer.name(_producer(batch, index), now))
            tail = events.encode_numbers(pairs)
        high = last.first + len(last.messages) - 1
        self._accepted(first, first.first, high, cast("Route", first.routes[0]), tail, now)

    def _accepted(
        self, batch: Batch, low: Position, high: Position, route: Route, tail: bytes, now: int, index: int = 0
    ) -> None:
        """`index`: of the first message, in the batch."""
        if self._buffer.room(now):
            name = self._buffer.name
            self._add(
                Step.ACCEPTED,
                low,
                high,
                now,
                number=self._buffer.route(route.names, now),
                other=batch.time_ms if batch.steps is None else cast("_Later", batch.steps[0]).time_ms,
                messages=high - low + 1,
                who=name(_producer(batch, index), now),
                what=name(route.topic, now),
                why=name(batch.durability.value, now),
                tail=tail,
            )

    def _particulars(self, batch: Batch, now: int) -> None:
        """Whatever single messages of a batch have of their own: routes, results, ids, a trace context, stages."""
        positions = _positions(batch)
        for step in batch.steps or ():
            self._staged(cast("_Later", step), positions)
        if batch.steps or batch.results is not None or len(batch.routes) > 1:
            self._accepted_each(batch, positions, now)
        if batch.plain:
            ids: list[int] = []
        else:
            ids = [
                number
                for message, position in zip(batch.messages, positions, strict=True)
                if message.id is not None and position
                for number in (position, events.hash_id(message.id))
            ]
        if ids and self._buffer.room(now):
            tail = events.encode_hashes(ids)
            self._add(Step.IDS, ids[0], ids[-2], now, messages=len(ids) // 2, tail=tail)
        parents = [
            (position, message.attributes["traceparent"])
            for message, position in zip(batch.messages, positions, strict=True)
            if message.attributes and position and is_traceparent(message.attributes.get("traceparent", ""))
        ]
        if parents and self._buffer.room(now):
            tail = events.encode_parents(parents)
            self._add(Step.TRACEPARENT, parents[0][0], parents[-1][0], now, messages=len(parents), tail=tail)

    def _accepted_each(self, batch: Batch, positions: Sequence[Position], now: int) -> None:
        """Runs of messages that went the same way; and those that were refused, or are repeats."""
        routes = cast("Sequence[Route]", batch.routes)
        if isinstance(positions, range) and len(routes) == 1 and not batch.origins:
            self._accepted(batch, positions[0], positions[-1], routes[0], b"", now)
            return
        low = high = first = 0
        route: Route | None = None
        for index, position in enumerate(positions):
            if not position:
                continue
            same = route is not None and routes[index if len(routes) > 1 else 0] is route and not batch.origins
            if same and position == high + 1:
                high = position
                continue
            if route is not None:
                self._accepted(batch, low, high, route, b"", now, first)
            low, high, first = position, position, index
            route = routes[index if len(routes) > 1 else 0]
        if route is not None:
            self._accepted(batch, low, high, route, b"", now, first)
        for index, result in enumerate(batch.results or ()):
            if isinstance(result, GatewayError):
                self._refused(batch, (index,), result.code, "", now)
            elif result is not None and result.duplicate:
                self._duplicate(batch, index, result.position, now)

    def _duplicate(self, batch: Batch, index: int, position: Position, now: int) -> None:
        message = batch.messages[index]
        if self._buffer.room(now):
            name = self._buffer.name
            self._add(
                Step.DUPLICATE,
                position,
                position,
                now,
                messages=1,
                who=name(_producer(batch), now),
                what=name(message.topic, now),
                tail=events.encode_hashes([events.hash_id(message.id or "")]),
            )

    def refused(self, batch: Batch, error: GatewayError, stage: str) -> None:
        self._refused(batch, range(len(batch.messages)), error.code, stage, self._clock())

    def _refused(self, batch: Batch, indexes: Sequence[int], code: str, stage: str, now: int) -> None:
        """The code only: the text of an error may repeat what was sent."""
        if batch.origins and len(indexes) > 1:
            for index in indexes:
                self._refused(batch, (index,), code, stage, now)
            return
        if self._buffer.room(now):
            name = self._buffer.name
            hashes = [events.hash_id(message_id) for i in indexes if (message_id := batch.messages[i].id)]
            self._add(
                Step.REFUSED,
                0,
                0,
                now,
                number=name(stage, now),
                messages=len(indexes),
                who=name(_producer(batch, indexes[0]), now),
                what=name(batch.messages[indexes[0]].topic[:256], now),
                why=name(code, now),
                tail=events.encode_hashes(hashes),
            )

    def stage(self, batch: Batch, stage: str, outcome: str, indexes: Sequence[int] | None = None) -> None:
        self._later(batch, _Later(Step.STAGE, "", stage, outcome, indexes, self._clock()))

    def filtered(self, batch: Batch, subscription: str, outcome: str, indexes: Sequence[int]) -> None:
        self._later(batch, _Later(Step.FILTERED, subscription, "filter", outcome, indexes, self._clock()))

    def _later(self, batch: Batch, step: _Later) -> None:
        if batch.steps is None:
            batch.steps = []
        batch.steps.append(step)

    def _staged(self, later: _Later, positions: Sequence[Position]) -> None:
        step, subscription, stage, outcome, indexes, at = later
        chosen = positions if indexes is None else [positions[index] for index in indexes]
        if not isinstance(chosen, range):
            chosen = [position for position in chosen if position]
        if chosen and self._buffer.room(at):
            name = self._buffer.name
            low, high, flags, tail = events.listing(chosen)
            self._add(
                step,
                low,
                high,
                at,
                flags=flags,
                number=name(subscription, at),
                messages=len(chosen),
                who=name(stage, at),
                what=name(outcome, at),
                tail=tail,
            )

    # ---------------------------------------------------------------------------------------------- pushing

    def handed(self, delivery: Delivery, now: int) -> None:
        for lease in delivery.leases:
            piece = lease.slice
            if not lease.held:
                continue
            if len(piece.positions) == 1:
                name, who = delivery.subscription, lease.consumer.label
                until_ms, attempt = now + delivery.lease_ms, piece.attempts + 1
                if self._buffer.add_row(Step.HANDED, piece.positions[0], now, name, who, until_ms, attempt):
                    self._nudge()
            elif self._buffer.room(now):
                low, high, flags, tail = events.listing(piece.positions)
                self._add(
                    Step.HANDED,
                    low,
                    high,
                    now,
                    flags=flags,
                    number=self._buffer.name(delivery.subscription, now),
                    other=now + delivery.lease_ms,
                    messages=len(piece),
                    attempt=piece.attempts + 1,
                    who=self._buffer.name(lease.consumer.label, now),
                    tail=tail,
                )

    def settled(self, subscription: str, positions: Sequence[Position], cause: int, now: int | None = None) -> None:
        if len(positions) == 1:
            now = self._clock() if now is None else now
            if self._buffer.add_row(_CAUSES[cause], positions[0], now, subscription):
                self._nudge()
        else:
            self._back(_CAUSES[cause], subscription, positions)

    def extended(self, subscription: str, positions: Sequence[Position], until_ms: int) -> None:
        self._back(Step.EXTENDED, subscription, positions, other=until_ms)

    def returned(
        self, subscription: str, positions: Sequence[Position], attempts: int, cause: str, reason: str, due_ms: int
    ) -> None:
        self._back(Step.RETURNED, subscription, positions, attempts, cause, reason, due_ms)

    def doomed(self, subscription: str, positions: Sequence[Position], attempts: int, cause: str, reason: str) -> None:
        self._back(Step.DOOMED, subscription, positions, attempts, cause, reason)

    def _back(
        self,
        step: Step,
        subscription: str,
        positions: Sequence[Position],
        attempts: int = 0,
        cause: str = "",
        reason: str = "",
        other: int = 0,
    ) -> None:
        """What becomes of delivered messages. Who had them is not told again: see HANDED."""
        now = self._clock()
        if self._buffer.room(now):
            name = self._buffer.name
            low, high, flags, tail = events.listing(positions)
            self._add(
                step,
                low,
                high,
                now,
                flags=flags,
                number=name(subscription, now),
                other=other,
                messages=len(positions),
                attempt=attempts,
                what=name(cause, now) if cause else 0,
                why=name(reason, now) if reason else 0,
                tail=tail,
            )

    def dead_lettered(self, subscription: str, original: Position, position: Position, topic: str) -> None:
        self._link(Step.BURIED, subscription, original, position, topic)
        self._link(Step.DEAD_LETTER, subscription, position, original, topic)

    def redriven(self, subscription: str, ranges: Ranges) -> None:
        self._ranges(Step.REDRIVEN, subscription, ranges, "")

    def sought(self, subscription: str, position: Position) -> None:
        now = self._clock()
        if self._buffer.room(now):
            number = self._buffer.name(subscription, now)
            self._add(Step.SOUGHT, 0, POSITION_MAX, now, flags=SPAN, number=number, other=position)

    def _link(self, step: Step, subscription: str, position: Position, other: Position, what: str) -> None:
        now = self._clock()
        if self._buffer.room(now):
            name = self._buffer.name
            self._add(
                step,
                position,
                position,
                now,
                number=name(subscription, now),
                other=other,
                messages=1,
                what=name(what, now),
            )

    # ---------------------------------------------------------------------------------------- subscriptions

    def routed(self, subscription: str, ranges: Ranges, why: str) -> None:
        self._ranges(Step.ROUTED, subscription, ranges, why)

    def _ranges(self, step: Step, subscription: str, ranges: Ranges, why: str) -> None:
        now = self._clock()
        if ranges and self._buffer.room(now):
            low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
            tail = records.encode_ranges(ranges) if len(ranges) > 1 else b""
            flags = 0 if step is Step.ROUTED else SPAN  # others' messages lie between those of a subscription
            number, cause = self._buffer.name(subscription, now), self._buffer.name(why, now)
            self._add(step, low, high, now, flags=flags, number=number, why=cause, tail=tail)

    def changed(self, subscription: str, what: str) -> None:
        now = self._clock()
        if self._buffer.room(now):
            number, word = self._buffer.name(subscription, now), self._buffer.name(what, now)
            self._add(Step.CHANGED, 0, POSITION_MAX, now, flags=SPAN, number=number, what=word)

    # ------------------------------------------------------------------------------------------------- node

    def started(self, epoch: str, first: Position, end: Position, before_ms: int, how: str) -> None:
        """The node runs; positions first..end-1 were in the store. It was alive last at `before_ms`; 0 never."""
        now = self._clock()
        who, why = self._buffer.name(epoch, now), self._buffer.name(how, now)
        low, high = (first, end - 1) if first < end else (0, 0)
        self._add(Step.STARTED, low, high, now, other=before_ms, messages=end - first, who=who, why=why)

    def stopped(self) -> None:
        self._add(Step.STOPPED, 0, 0, self._clock())

    def _add(
        self,
        step: Step,
        low: Position,
        high: Position,
        now: int,
        *,
        flags: int = 0,
        number: int = 0,
        other: int = 0,
        messages: int = 0,
        attempt: int = 0,
        who: int = 0,
        what: int = 0,
        why: int = 0,
        tail: bytes = b"",
    ) -> None:
        record = events.encode(step, low, high, now, flags, number, other, messages, attempt, who, what, why, tail)
        if self._buffer.add(record, step <= Step.FILTERED, low, high):
            self._nudge()


def _positions(batch: Batch) -> Sequence[Position]:
    """Of each message of the batch; 0 where it has none of its own."""
    if batch.results is None:
        return range(batch.first, batch.first + len(batch.messages))
    return [
        0 if isinstance(result, GatewayError) or result is None or result.duplicate else result.position
        for result in batch.results
    ]


def _producer(batch: Batch, index: int = 0) -> str:
    """Who published message `index`, for people: the principal where there is one, and where from."""
    principal = batch.principal.name
    origin = batch.origins[index] if batch.origins else batch.origin
    return f"{principal} at {origin}" if principal else origin
