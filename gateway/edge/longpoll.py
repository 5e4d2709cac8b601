"""Pull turned to push, and settling over HTTP (protocol.md §3).

A pull is a consumer that takes one delivery. It waits without a task, a timer or a poll of its own: the delivery is
written to the socket from the deliver stage, the waiting pulls' deadlines stand in one wheel, and the watchdog does not
come by. What it was given stays leased to it, under a name that only its client was told, until it is settled or the
lease runs out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, TypeVar

import attrs
import msgspec
import orjson
import trio

from gateway.broker.lease import Consumer
from gateway.config import Pull as PullSettings
from gateway.edge.http import HttpConnection
from gateway.engine.base import Engine
from gateway.errors import GatewayError
from gateway.flow.ring import Ring, Wait
from gateway.kit.wheel import Wheel
from gateway.model import POSITION_MAX, Delivery, Settle, Settlement, Verb
from gateway.principal import ANONYMOUS, Principal
from gateway.wire import payload, push_v1
from gateway.wire.http import Response, error_response
from gateway.wire.request import Request

_Natural = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]
_RangeList = list[tuple[_Natural, _Natural]]
TICK_MS = 50
_NAME_BYTES = 12
_NAMES_AT_ONCE = 100
_S = TypeVar("_S", bound=msgspec.Struct)


class PullBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a pull; every member has a default, and so has the body."""

    max: Annotated[int, msgspec.Meta(ge=1)] = 100
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 1_048_576
    wait_ms: _Natural = 20_000


class SettleBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a settle."""

    lease: str
    ack: _RangeList = []
    nack: _RangeList = []
    nack_delay_ms: _Natural | None = None
    extend: _RangeList = []
    extend_ms: Annotated[int, msgspec.Meta(ge=1, le=POSITION_MAX)] | None = None
    term: _RangeList = []
    reason: str = ""

    def settles(self) -> list[Settle]:
        """Its verbs in the order ack, term, extend, nack: where ranges overlap the most final one wins."""
        check = push_v1.check_ranges
        found: list[Settle] = []
        if self.ack:
            found.append(Settle(Verb.ACK, check(self.ack)))
        if self.term:
            found.append(Settle(Verb.TERM, check(self.term), reason=self.reason))
        if self.extend:
            found.append(Settle(Verb.EXTEND, check(self.extend), lease_ms=self.extend_ms))
        if self.nack:
            found.append(Settle(Verb.NACK, check(self.nack), delay_ms=self.nack_delay_ms, reason=self.reason))
        return found


_decode_pull = msgspec.json.Decoder(PullBody).decode
_decode_settle = msgspec.json.Decoder(SettleBody).decode


Encode = Callable[[str, Delivery], Sequence[bytes | memoryview]]
"""The body of an answer, of the lease's name and what it gives; an empty delivery where nothing came in time."""
Refuse = Callable[[GatewayError], Response]


@attrs.define(eq=False)
class _Pull:
    """One pull: until it is answered, and then until nothing is leased to it any more.

    There are as many as messages that were pulled singly and are not settled, so it is kept small: what is called
    later is a method of it, and it lets go of the connection once that has its answer.
    """

    polls: LongPoll
    connection: HttpConnection | None
    lease: str
    principal: Principal
    encode: Encode
    refuse: Refuse
    on_forgotten: Callable[[str], None] | None
    consumer: Consumer | None = None
    delivery: Delivery | None = None  # that its answer holds, until that is sent
    answered: bool = False

    def answer(self, delivery: Delivery) -> None:
        """There is something: the deliver stage hands it over."""
        connection, polls = self.connection, self.polls
        assert self.consumer is not None
        assert connection is not None
        polls.stop_waiting(self)
        self.answered = True
        self.delivery = delivery
        polls.consumers[self.lease] = self.consumer
        connection.on_abandoned[self] = self.abandon
        response = Response(200, parts=self.encode(self.lease, delivery))
        response.sent = self.sent
        connection.respond(response)

    def sent(self) -> None:
        """The kernel has taken its answer: the leases begin."""
        connection, self.connection = self.connection, None
        delivery, self.delivery = self.delivery, None
        assert connection is not None
        assert delivery is not None
        connection.on_abandoned.pop(self, None)
        self.polls.handed(delivery)

    def give_up(self) -> None:
        """Nothing came in time: an empty list. Something that is being read from the disk is still waited for."""
        if self.consumer is None or not self.consumer.in_flight:
            self.finish(Response(200, parts=self.encode(self.lease, Delivery("", 0))))

    def released(self, _: Consumer) -> None:
        """It holds nothing any more. Where that comes before its answer, reading that took too long for its lease."""
        if self.answered:
            self.forget()
        else:
            self.give_up()

    def deleted(self) -> None:
        """Its subscription is gone."""
        if self.answered or self.consumer is None:
            self.forget()
        else:
            name = self.consumer.subscription.name
            error = GatewayError("subscription_deleted", f"subscription {name!r} was deleted while the pull waited")
            self.finish(self.refuse(error))

    def renew(self, renew: Callable[[Principal], Principal]) -> None:
        """Its principal as it is now; GatewayError where that may not go on waiting."""
        assert self.consumer is not None
        self.principal, name = renew(self.principal), self.consumer.subscription.name
        if not self.principal.may_subscribe(name):
            raise self.principal.denied(f"consume the subscription {name!r} any more")

    def finish(self, response: Response) -> None:
        """Answer without a delivery."""
        connection = self.connection
        assert connection is not None
        self.answered = True
        connection.on_abandoned.pop(self, None)
        self.abandon()
        connection.respond(response)

    def abandon(self) -> None:
        """The client left before it had its answer: what it was given goes back at once."""
        self.polls.stop_waiting(self)
        self.forget()

    def forget(self) -> None:
        """Nothing is leased to it any more, or it never took anything."""
        if self.polls.consumers.pop(self.lease, None) is not None and self.on_forgotten is not None:
            self.on_forgotten(self.lease)
        consumer, self.consumer = self.consumer, None  # they know each other: no cycle stays
        if consumer is not None:
            self.polls.detach(consumer)


class LongPoll:
    """All pulls of a node."""

    def __init__(
        self,
        engine: Engine,
        settle_ring: Ring[Settlement],
        settings: PullSettings,
        clock: Callable[[], int],
        deliver: Callable[[Consumer], None],
    ) -> None:
        """`deliver` hands a new consumer what is there for it, if anything is (`flow.deliver.Deliver.at_once`)."""
        self._engine = engine
        self._deliver = deliver
        self._ring = settle_ring
        self._settings = settings
        self._clock = clock
        self._wheel: Wheel[_Pull] = Wheel(TICK_MS, clock())
        self._some_wait = trio.Event()
        self.consumers: dict[str, Consumer] = {}
        """Of answered pulls that still hold messages, by the names of their leases."""
        self._names = _draw_names()
        self.draining = False
        self.pulls = 0

    @property
    def waiting(self) -> int:
        return len(self._wheel)

    @property
    def leases(self) -> int:
        """Answered pulls that still hold messages."""
        return len(self.consumers)

    async def run(self) -> None:
        """The clock of waiting pulls; it stands while none waits."""
        while True:
            if not self._wheel:
                self._some_wait = trio.Event()
                await self._some_wait.wait()
            await trio.sleep(TICK_MS / 1000)
            for pull in self._wheel.advance(self._clock()):
                pull.give_up()

    # ------------------------------------------------------------------------------------------------- pull

    def pull(self, request: Request, connection: HttpConnection, name: str) -> None:
        """POST /v1/subscriptions/{name}/pull"""
        body = _decode(_decode_pull, request.body, PullBody)
        size_max = min(body.max_bytes, self._settings.bytes_max)
        wait_ms = min(body.wait_ms, self._settings.wait_ms_max)
        self.wait(
            connection,
            name,
            window=min(body.max, self._settings.messages_max),
            size_max=size_max,
            wait_ms=wait_ms,
            encode=push_v1.encode_pulled,
            principal=request.principal,
        )

    def wait(
        self,
        connection: HttpConnection,
        name: str,
        *,
        window: int,
        size_max: int,
        wait_ms: int,
        encode: Encode,
        refuse: Refuse = error_response,
        principal: Principal = ANONYMOUS,
        on_forgotten: Callable[[str], None] | None = None,
    ) -> None:
        """Have the pending request answered with the next delivery of `name`, or with none once `wait_ms` is over.

        `principal` is asked again while it waits, where permissions change. `on_forgotten` is called with the lease's
        name once it holds nothing any more.
        """
        if self.draining:
            raise GatewayError("draining", "the gateway is going down; pull again elsewhere, or a little later")
        if len(self._wheel) >= self._settings.waiting_max:
            raise GatewayError("pull_limit", f"{self.waiting} pulls wait already (pull.waiting_max); pull later")
        pull = _Pull(self, connection, next(self._names), principal, encode, refuse, on_forgotten)
        self.pulls += 1
        consumer = pull.consumer = self._engine.attach(
            name,
            window=window,
            size_max=size_max,
            send=pull.answer,
            label=f"pull {connection.remote}",
            on_deleted=pull.deleted,
            once=True,
            waits=False,
        )
        consumer.on_released = pull.released
        self._deliver(consumer)
        if not pull.answered:
            self._go_on_waiting(pull, connection, wait_ms)

    def _go_on_waiting(self, pull: _Pull, connection: HttpConnection, wait_ms: int) -> None:
        expires_ms = pull.principal.expires_ms
        connection.rest()
        self._some_wait.set()
        connection.on_abandoned[pull] = pull.abandon
        deadline_ms = self._clock() + max(TICK_MS, wait_ms)  # at least one turn of the deliver stage
        if expires_ms is not None:
            deadline_ms = min(deadline_ms, expires_ms)
        self._wheel.add(pull, deadline_ms)

    def consumer(self, lease: str) -> Consumer | None:
        """Whoever holds what an answered pull was given; None where it holds nothing any more."""
        return self.consumers.get(lease)

    def handed(self, delivery: Delivery) -> None:
        """The kernel has taken the answer that holds `delivery`."""
        self._engine.handed(delivery, self._clock())

    def stop_waiting(self, pull: _Pull) -> None:
        self._wheel.discard(pull)

    def detach(self, consumer: Consumer) -> None:
        """It takes no more, and what it holds goes back."""
        self._engine.detach(consumer, self._clock())

    def reauthorize(self, renew: Callable[[Principal], Principal]) -> None:
        """What is permitted may have changed: who may not go on waiting is told so. `renew` as `Access.renew`."""
        for pull in self._wheel:
            try:
                pull.renew(renew)
            except GatewayError as error:
                pull.finish(pull.refuse(error))

    def drain(self) -> None:
        """The gateway ends: every waiting pull is answered."""
        self.draining = True
        for pull in self._wheel.clear():
            pull.give_up()

    # ----------------------------------------------------------------------------------------------- settle

    def settle(self, request: Request, connection: HttpConnection, name: str) -> Wait | None:
        """POST /v1/subscriptions/{name}/settle"""
        body = _decode(_decode_settle, request.body, SettleBody)
        self._engine.subscription_exists(name)
        consumer = self.consumers.get(body.lease)
        if consumer is not None and consumer.subscription.name != name:
            consumer = None  # a lease of another subscription is not leased here
        settlement = Settlement(consumer, body.settles(), lambda done: _answer_settled(connection, done))
        return self._ring.offer(settlement)


def _draw_names() -> Iterator[str]:
    """Names of leases, that nobody can guess. Many are drawn at a time: to ask the system for each takes 3 us."""
    while True:
        drawn = secrets.token_hex(_NAME_BYTES * _NAMES_AT_ONCE)
        for at in range(0, len(drawn), 2 * _NAME_BYTES):
            yield f"l-{drawn[at : at + 2 * _NAME_BYTES]}"


def _answer_settled(connection: HttpConnection, settlement: Settlement) -> None:
    if settlement.error is not None:
        connection.respond(error_response(settlement.error))
        return
    counts = {push_v1.PARTICIPLES[verb]: number for verb, number in settlement.counts.items()}
    connection.respond(Response(200, orjson.dumps({**counts, "unknown": settlement.unknown})))


def _decode(decode: Callable[[str], _S], body: bytes, struct: type[_S]) -> _S:
    try:
        return decode(payload.decode_text(body) or "{}")
    except msgspec.ValidationError as error:
        raise GatewayError("bad_request", payload.explain(error, struct)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise GatewayError("bad_request", f"the body is not JSON: {error}") from None
