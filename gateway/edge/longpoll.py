"""Pull turned to push, and settling over HTTP (protocol.md §3).

A pull is a consumer that takes one delivery. It waits without a task, a timer or a poll of its own: the delivery is
written to the socket from the deliver stage, the waiting pulls' deadlines stand in one wheel, and the watchdog does not
come by. What it was given stays leased to it, under a name that only its client was told, until it is settled or the
lease runs out.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
class _Waiting:
    """One pull until it is answered."""

    connection: HttpConnection
    lease: str
    subscription: str
    principal: Principal
    encode: Encode
    refuse: Refuse
    on_forgotten: Callable[[str], None] | None = None
    consumer: Consumer | None = None
    answered: bool = False


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
        self._wheel: Wheel[_Waiting] = Wheel(TICK_MS, clock())
        self._some_wait = trio.Event()
        self._leases: dict[str, Consumer] = {}
        self._names = _draw_names()
        self.draining = False
        self.pulls = 0

    @property
    def waiting(self) -> int:
        return len(self._wheel)

    @property
    def leases(self) -> int:
        """Answered pulls that still hold messages."""
        return len(self._leases)

    async def run(self) -> None:
        """The clock of waiting pulls; it stands while none waits."""
        while True:
            if not self._wheel:
                self._some_wait = trio.Event()
                await self._some_wait.wait()
            await trio.sleep(TICK_MS / 1000)
            for waiting in self._wheel.advance(self._clock()):
                self._give_up(waiting)

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
        waiting = _Waiting(connection, next(self._names), name, principal, encode, refuse, on_forgotten)
        self.pulls += 1
        waiting.consumer = self._engine.attach(
            name,
            window=window,
            size_max=size_max,
            send=partial(self._answer, waiting),
            label=f"pull {connection.remote}",
            on_deleted=partial(self._deleted, waiting, name),
            once=True,
            waits=False,
        )
        waiting.consumer.on_released = lambda _consumer: self._released(waiting)
        self._deliver(waiting.consumer)
        if not waiting.answered:
            self._go_on_waiting(waiting, wait_ms)

    def _go_on_waiting(self, waiting: _Waiting, wait_ms: int) -> None:
        connection, expires_ms = waiting.connection, waiting.principal.expires_ms
        connection.rest()
        self._some_wait.set()
        connection.on_abandoned[waiting] = lambda: self._abandon(waiting)
        deadline_ms = self._clock() + max(TICK_MS, wait_ms)  # at least one turn of the deliver stage
        if expires_ms is not None:
            deadline_ms = min(deadline_ms, expires_ms)
        self._wheel.add(waiting, deadline_ms)

    def consumer(self, lease: str) -> Consumer | None:
        """Whoever holds what an answered pull was given; None where it holds nothing any more."""
        return self._leases.get(lease)

    def _answer(self, waiting: _Waiting, delivery: Delivery) -> None:
        """There is something: the deliver stage hands it over."""
        assert waiting.consumer is not None
        self._wheel.discard(waiting)
        waiting.answered = True
        self._leases[waiting.lease] = waiting.consumer
        connection, is_sent = waiting.connection, False
        response = Response(200, parts=waiting.encode(waiting.lease, delivery))

        def sent() -> None:
            nonlocal is_sent
            is_sent = True
            connection.on_abandoned.pop(waiting, None)
            self._engine.handed(delivery, self._clock())

        response.sent = sent
        connection.respond(response)
        if not is_sent:
            connection.on_abandoned[waiting] = lambda: self._abandon(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        """Nothing came in time: an empty list. Something that is being read from the disk is still waited for."""
        if waiting.consumer is not None and waiting.consumer.in_flight:
            return
        self._finish(waiting, Response(200, parts=waiting.encode(waiting.lease, Delivery("", 0))))

    def _released(self, waiting: _Waiting) -> None:
        """It holds nothing any more. Where that comes before its answer, reading that took too long for its lease."""
        if waiting.answered:
            self._forget(waiting)
        else:
            self._give_up(waiting)

    def _deleted(self, waiting: _Waiting, name: str) -> None:
        if waiting.answered:
            self._forget(waiting)
        else:
            error = GatewayError("subscription_deleted", f"subscription {name!r} was deleted while the pull waited")
            self._finish(waiting, waiting.refuse(error))

    def _finish(self, waiting: _Waiting, response: Response) -> None:
        """Answer without a delivery."""
        waiting.answered = True
        self._wheel.discard(waiting)
        waiting.connection.on_abandoned.pop(waiting, None)
        self._forget(waiting)
        waiting.connection.respond(response)

    def _abandon(self, waiting: _Waiting) -> None:
        """The client left before it had its answer: what it was given goes back at once."""
        self._wheel.discard(waiting)
        self._forget(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        """Nothing is leased to it any more, or it never took anything."""
        if self._leases.pop(waiting.lease, None) is not None and waiting.on_forgotten is not None:
            waiting.on_forgotten(waiting.lease)
        consumer, waiting.consumer = waiting.consumer, None  # they know each other: no cycle stays
        if consumer is not None:
            self._engine.detach(consumer, self._clock())

    def reauthorize(self, renew: Callable[[Principal], Principal]) -> None:
        """What is permitted may have changed: who may not go on waiting is told so. `renew` as `Access.renew`."""
        for waiting in self._wheel:
            try:
                waiting.principal = renew(waiting.principal)
                if not waiting.principal.may_subscribe(waiting.subscription):
                    raise waiting.principal.denied(f"consume the subscription {waiting.subscription!r} any more")
            except GatewayError as error:
                self._finish(waiting, waiting.refuse(error))

    def drain(self) -> None:
        """The gateway ends: every waiting pull is answered."""
        self.draining = True
        for waiting in self._wheel.clear():
            self._give_up(waiting)

    # ----------------------------------------------------------------------------------------------- settle

    def settle(self, request: Request, connection: HttpConnection, name: str) -> Wait | None:
        """POST /v1/subscriptions/{name}/settle"""
        body = _decode(_decode_settle, request.body, SettleBody)
        self._engine.subscription_exists(name)
        consumer = self._leases.get(body.lease)
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
