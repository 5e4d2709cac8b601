"""One WebSocket client: the subprotocol `push.v1.json` (protocol.md §4) between a socket and the flow.

trio-websocket does the handshake, answers pings and closes. Data frames of ours go straight to the outbox of the stream
beneath it, and those of the client are taken out of that stream before the library sees them. The task that reads
carries operations out one after the other; answers that have to wait for the disk are written by the stage that knows
them, so a client may have any number of publishes under way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final

import attrs
import structlog
import trio
import trio_websocket

from gateway.auth.access import Access
from gateway.auth.audit import Audit
from gateway.broker.lease import Consumer
from gateway.config import Config
from gateway.edge.connections import Connections, ConnectionView
from gateway.edge.flow_control import Feed, FlowControl
from gateway.edge.handshake import BorrowedStream, replay
from gateway.edge.ladder import State
from gateway.edge.publish import check_batch
from gateway.edge.standing import Standing
from gateway.edge.stream import RECEIVE_BYTES, OutboxStream
from gateway.edge.watchdog import Watchdog
from gateway.engine.base import Engine
from gateway.errors import GatewayError
from gateway.flow.admit import Admit
from gateway.flow.ring import Ring, Wait
from gateway.model import NAME_BYTES_MAX, Batch, Delivery, Settlement, Verb
from gateway.principal import NOBODY
from gateway.wire import push_v1
from gateway.wire.push_v1 import BadOperationError
from gateway.wire.request import Request
from gateway.wire.websocket import PING_FRAME, close_frame, text_frame, text_front

_log = structlog.get_logger("gateway.websocket")
ABNORMAL: Final = 1006
_STATES: Final = tuple(State)
"""In the order of the ladder: a connection stands where its worst consumer does."""
_FAILED: Final = (1002, 1007)
"""A client that speaks no WebSocket, or text that is not UTF-8: the library ends, but does not say so."""


@attrs.frozen
class Services:
    """What every session stands on; built once by the node."""

    config: Config
    engine: Engine
    admit: Admit
    settle: Ring[Settlement]
    ack: Callable[[Consumer, int, int, int], bool]
    """The short way of an ack: `flow.settle.Settle.ack`."""
    connections: Connections
    flow_control: FlowControl
    watchdog: Watchdog
    clock: Callable[[], int]
    node: str
    access: Access
    audit: Audit


class Session:
    """One connection from its upgrade to its end.

    Its words are those of `push.v1.json`; an edge with other words overrides how frames are carried out and written.
    """

    protocol: ClassVar[str] = push_v1.SUBPROTOCOL
    """What it is called in /v1/connections."""
    subprotocol: ClassVar[str | None] = push_v1.SUBPROTOCOL
    """What the handshake agrees on; None: nothing."""

    def __init__(self, services: Services, request: Request, rest: bytes, stream: OutboxStream, remote: str) -> None:
        self.name = services.connections.new_name()
        self._services = services
        self._settings = services.config.websocket
        self._stream = stream
        self._borrowed = BorrowedStream(stream, replay(request, self.subprotocol), rest, self._settings.frame_bytes_max)
        self._borrowed.on_message = self._take_in
        self._remote = remote
        self._client = ""
        hello_by = trio.current_time() + services.access.settings.hello_timeout_s
        self._standing = Standing(services.access, request.principal, hello_by, remote)
        self._since_ms = services.clock()
        self._feeds: dict[str, Feed] = {}
        self._ws: trio_websocket.WebSocketConnection | None = None
        self._nursery: trio.Nursery | None = None
        self._unanswered = 0  # operations whose outcome is not known yet
        self._draining = False
        self._close_code = ABNORMAL
        self._closing = False
        self._next_ping = trio.current_time() + self._settings.heartbeat_s
        self._pong_due = 0.0  # set while a ping is unanswered
        self._quiet_until = 0.0  # before that nothing is overdue; set back where something is begun that may be
        self.heard_ms = 0
        stream.on_unblocked = self._unblock
        stream.on_cut = self._note_cut

    # ------------------------------------------------------------------------------------------------ life

    async def serve(self) -> None:
        """The whole life of the connection. Raises nothing but cancellation."""
        services = self._services
        services.connections.add(self)
        services.watchdog.add(self)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    if await self._shake_hands(nursery):
                        await self._read()
                    if self._closing:
                        await trio.sleep_forever()  # until the closing handshake, which is under way, has ended
                finally:
                    self._nursery = None  # it takes no more tasks: the connection is over
                nursery.cancel_scope.cancel()
        except* (trio_websocket.ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the library's reader may raise these while the connection ends
        except* Exception:
            if not self._closing:  # the library's reader fails where the client pings while we close
                _log.exception("a connection failed", connection=self.name)
        finally:
            self._leave()

    async def _shake_hands(self, nursery: trio.Nursery) -> bool:
        with trio.move_on_after(self._settings.handshake_timeout_s):
            handshake = await trio_websocket.wrap_server_stream(
                nursery,
                self._borrowed,
                max_message_size=self._settings.frame_bytes_max,
                receive_buffer_size=RECEIVE_BYTES,
            )
            self._ws = await handshake.accept(subprotocol=self.subprotocol)
            self._borrowed.accepted.set()
            self._welcome()
            return True
        return False

    def _welcome(self) -> None:
        limits = attrs.asdict(self._services.config.limits)
        self._offer(push_v1.encode_welcome(self.name, self._services.node, self._settings.heartbeat_s, limits))

    async def _read(self) -> None:
        """What is left to the library, a client's fragments for one; and how the connection ends."""
        assert self._ws is not None
        try:
            while not self._closing:
                wait = self._take_in(await self._ws.get_message())
                if wait is not None:
                    await wait()
        except trio_websocket.ConnectionClosed as closed:
            if not self._closing and closed.reason is not None:
                self._close_code = closed.reason.code
                if self._close_code in _FAILED:
                    self._stream.offer(close_frame(self._close_code))

    def _take_in(self, frame: str | bytes) -> Wait | None:
        if self._closing:
            return None
        wait = self._carry_out(frame)
        if wait is None and self._stream.unsent <= self._settings.unsent_bytes_max:
            return None
        return partial(self._catch_up, wait)

    async def _catch_up(self, wait: Wait | None) -> None:
        if wait is not None:
            await wait()
        if self._stream.unsent > self._settings.unsent_bytes_max and not self._closing:
            await self._stream.wait_drained()  # a client that does not read its answers gets no more of them

    def _leave(self) -> None:
        """Everything the client held goes back at once."""
        services = self._services
        services.watchdog.discard(self)
        now = services.clock()
        for feed in self._feeds.values():
            feed.leave()
            services.engine.detach(feed.consumer, now)
        self._feeds.clear()
        services.connections.remove(self, self._close_code)

    # ------------------------------------------------------------------------------------------- operations

    def _carry_out(self, frame: str | bytes) -> Wait | None:
        """One operation; what is left of it, where it has to wait."""
        try:
            if isinstance(frame, bytes):
                raise BadOperationError("bad_request", "binary frames are not spoken here; send text", fatal=True)
            if self._standing.principal is NOBODY:
                self._standing.check_size(len(frame))
            operation = push_v1.decode(frame)
        except BadOperationError as error:
            self._offer(push_v1.encode_error(error, error.reference))
            if error.fatal:
                self.close(error.kind.close, error.message)
            return None
        except GatewayError as error:
            self._end_with(error)
            return None
        try:
            if self._standing.principal is NOBODY and not isinstance(operation, push_v1.Hello):
                self._standing.check_known()
            wait: Wait | None = None
            match operation:
                case push_v1.Ack() | push_v1.Nack() | push_v1.Extend() | push_v1.Term():
                    wait = self._settle(operation)
                case push_v1.Publish():
                    wait = self._publish(operation, len(frame))
                case push_v1.Subscribe():
                    self._subscribe(operation)
                case push_v1.Unsubscribe():
                    wait = self._unsubscribe(operation)
                case push_v1.Hello():
                    wait = partial(self._hello, operation)
        except GatewayError as error:
            self._refuse_operation(operation, error)
            return None
        return wait and partial(self._go_on, operation, wait)

    async def _go_on(self, operation: push_v1.AnyOperation, wait: Wait) -> None:
        try:
            await wait()
        except GatewayError as error:
            self._refuse_operation(operation, error)

    def _refuse_operation(self, operation: push_v1.AnyOperation, error: GatewayError) -> None:
        if error.kind.status in (401, 403) or error.code == "too_many_failures":
            self._audit_refusal(operation, error)
        self._offer(push_v1.encode_error(error, operation.id))
        if isinstance(operation, push_v1.Hello) and error.code in ("invalid_token", "credentials_expired"):
            self.close(error.kind.close, error.message)

    async def _hello(self, operation: push_v1.Hello) -> None:
        if operation.client:
            self._client = operation.client
        await self._standing.hello(operation.token)
        self._quiet_until = 0.0  # its credentials may be others
        self._ok(operation.id)
        self._check_subscriptions()

    def _audit_refusal(self, operation: push_v1.AnyOperation, error: GatewayError) -> None:
        target = getattr(operation, "subscription", "")
        name = type(operation).__name__.lower()
        self._services.audit.refused(self._standing.principal, name, target, error, self._remote)

    def _ok(self, reference: push_v1.Reference, **more: object) -> None:
        if reference is not None:
            self._offer(push_v1.encode_ok(reference, **more))

    def _publish(self, operation: push_v1.Publish, size: int) -> Wait | None:
        check_batch(operation.messages, self._services.config.limits, size)
        done = partial(self._published, operation.id)
        batch = Batch(operation.messages, operation.durability, size, done, self._standing.principal)
        for index, error in operation.errors.items():
            batch.answer(index, error)
        return self._submit(batch)

    def _submit(self, batch: Batch) -> Wait | None:
        batch.origin = self.name
        self._unanswered += 1
        try:
            wait = self._services.admit.offer(batch)
        except BaseException:
            self._unanswered -= 1
            raise
        return wait and partial(self._wait_for_room, wait)

    async def _wait_for_room(self, wait: Wait) -> None:
        try:
            await wait()
        except BaseException:
            self._unanswered -= 1
            raise

    def _published(self, reference: push_v1.Reference, batch: Batch) -> None:
        self._unanswered -= 1
        if reference is not None:
            self._offer(push_v1.encode_published(reference, batch))
        else:  # nobody asked for an answer, but an error is never silent
            errors = [batch.error, *(batch.results or ())]
            error = next((e for e in errors if isinstance(e, GatewayError)), None)
            if error is not None:
                self._offer(push_v1.encode_error(error))
        self._perhaps_drained()

    def _subscribe(self, operation: push_v1.Subscribe) -> None:
        name = operation.subscription
        if self._draining:
            raise GatewayError("draining", "the gateway is going down; reconnect and subscribe there")
        if name in self._feeds:
            raise GatewayError("already_subscribed", f"this connection is subscribed to {name!r} already")
        if len(self._feeds) >= self._settings.subscriptions_max:
            raise GatewayError(
                "subscription_limit",
                f"this connection has {len(self._feeds)} subscriptions (websocket.subscriptions_max); "
                f"unsubscribe from one, or open another connection",
            )
        if not self._standing.principal.may_subscribe(name):
            raise self._standing.principal.denied(f"consume the subscription {name[:NAME_BYTES_MAX]!r}")
        feed = Feed(self._services.flow_control, self)
        consumer = self._services.engine.attach(
            name,
            window=operation.window,
            send=partial(self._deliver, feed),
            label=self.name,
            on_deleted=partial(self._subscription_deleted, name),
        )
        feed.begin(consumer)
        self._feeds[name] = feed
        if self._stream.unsent:
            consumer.block()
        self._ok(operation.id, subscription=name, window=consumer.window)

    def _unsubscribe(self, operation: push_v1.Unsubscribe) -> Wait | None:
        """The consumer leaves by the way its acks went, so that none of them comes too late."""
        feed = self._feeds.get(operation.subscription)
        if feed is None:
            raise GatewayError("bad_request", f"this connection is not subscribed to {operation.subscription!r}")
        feed.leave()
        feed.consumer.block()
        self._unanswered += 1
        wait = self._services.settle.offer(
            Settlement(feed.consumer, [], partial(self._unsubscribed, operation.id), leaves=True)
        )
        if wait is not None:
            return partial(self._wait_to_leave, operation.subscription, wait)
        self._feeds.pop(operation.subscription, None)  # it may have been deleted meanwhile
        return None

    async def _wait_to_leave(self, name: str, wait: Wait) -> None:
        """Until then it is the connection's: where that ends meanwhile, what the consumer holds goes back with it."""
        await wait()
        self._feeds.pop(name, None)

    def _unsubscribed(self, reference: push_v1.Reference, settlement: Settlement) -> None:
        self._unanswered -= 1
        if settlement.error is not None:
            self._offer(push_v1.encode_error(settlement.error, reference))
        else:
            self._ok(reference)
        self._perhaps_drained()

    def _subscription_deleted(self, name: str) -> None:
        feed = self._feeds.pop(name, None)
        if feed is None:
            return  # this connection has unsubscribed, and its leaving is on its way
        feed.leave()
        error = GatewayError("subscription_deleted", f"subscription {name!r} was deleted")
        self._say_error(error)
        self.close(error.kind.close, error.message)

    def _settle(self, operation: push_v1.Settling) -> Wait | None:
        feed = self._feeds.get(operation.subscription)
        now = self._services.clock()
        if feed is not None and self._ack(operation, feed, now):
            return None
        settle = push_v1.to_settle(operation)
        if feed is not None:
            feed.heard(settle.ranges, now, settles=settle.verb is not Verb.EXTEND)
        consumer = None if feed is None else feed.consumer
        done = None
        if operation.id is not None:
            done = partial(self._settled, operation.id, settle.verb)
            self._unanswered += 1
        wait = self._services.settle.offer(Settlement(consumer, [settle], done))
        if self._draining:
            self._perhaps_drained()
        return wait

    def _ack(self, operation: push_v1.Settling, feed: Feed, now: int) -> bool:
        """Carry out what most clients say: that they are done with what one frame brought. False: it is not that."""
        ranges = operation.ranges
        if not isinstance(operation, push_v1.Ack) or operation.id is not None or len(ranges) != 1:
            return False
        if not self._services.ack(feed.consumer, *ranges[0], now):
            return False
        feed.heard(ranges, now, settles=True)
        if self._draining:
            self._perhaps_drained()
        return True

    def _settled(self, reference: push_v1.Reference, verb: Verb, settlement: Settlement) -> None:
        self._unanswered -= 1
        if settlement.error is not None:
            self._offer(push_v1.encode_error(settlement.error, reference))
        else:
            self._offer(push_v1.encode_settled(reference, verb, settlement))
        self._perhaps_drained()

    # ----------------------------------------------------------------------------------------------- sending

    def _offer(self, payload: bytes) -> None:
        self._offer_frame(text_frame(payload))

    def _offer_frame(self, frame: bytes) -> None:
        if not self._closing and self._ws is not None:  # before the handshake there are no frames
            self._stream.offer(frame)

    def _say_error(self, error: GatewayError) -> None:
        """Say an error that answers nothing."""
        self._offer(push_v1.encode_error(error))

    def _encode(self, delivery: Delivery) -> bytes | list[bytes | memoryview]:
        """A delivery as one frame, or as several; in one piece, or in parts."""
        payload = push_v1.encode_messages(delivery)
        if isinstance(payload, bytes):
            return text_frame(payload)
        return [text_front(sum(map(len, payload))), *payload]

    def _deliver(self, feed: Feed, delivery: Delivery) -> None:
        """A consumer's `send`; the leases begin when the kernel has it all."""
        frame = self._encode(delivery)
        sent = partial(self._handed, feed, delivery)
        if isinstance(frame, bytes):
            feed.deliver(delivery, len(frame))
            self._stream.offer(frame, sent)
        else:
            feed.deliver(delivery, sum(map(len, frame)))
            self._stream.offer_parts(frame, sent)
        if self._stream.unsent:
            served = self._feeds.pop(delivery.subscription, None)
            if served is not None:  # the last to be served is the last to accept again, or one would starve the others
                self._feeds[delivery.subscription] = served
            self._block()

    def _handed(self, feed: Feed, delivery: Delivery) -> None:
        now = self._services.clock()
        self._services.engine.handed(delivery, now)
        feed.handed(delivery, now)

    def _block(self) -> None:
        for feed in self._feeds.values():
            feed.consumer.block()

    def _unblock(self) -> None:
        """The socket has taken everything: its consumers accept again."""
        if not self._draining:
            for feed in self._feeds.values():
                self._services.engine.unblock(feed.consumer)

    # ------------------------------------------------------------------------------------------- flow control

    def stalled_s(self, now: float) -> float:
        return now - self._stream.progress_at if self._stream.unsent else 0.0

    def say_window(self, subscription: str, size: int, reason: str) -> None:
        self._offer(push_v1.encode_window(subscription, size, reason))

    def _note_cut(self) -> None:
        """Too much waits for all connections together, and this one has stood still for longest."""
        if not self._closing:
            self._close_code = GatewayError("slow_consumer", "").kind.close

    def close_slow(self, error: GatewayError) -> None:
        self._say_error(error)
        self.close(error.kind.close, error.message)

    # ----------------------------------------------------------------------------------------- ending, asking

    def close(self, code: int, reason: str) -> None:
        if self._closing or self._nursery is None:
            return
        self._closing = True
        self._close_code = code
        self._borrowed.pass_all()
        self._block()
        self._nursery.start_soon(self._close, code, reason, self._nursery.cancel_scope)

    async def _close(self, code: int, reason: str, life: trio.CancelScope) -> None:
        with trio.move_on_after(self._settings.close_timeout_s):
            if self._ws is not None:
                await self._ws.aclose(code, _short(reason))
        self._stream.abort()
        life.cancel()

    def reauthorize(self) -> None:
        """What is permitted may have changed: go on with what is permitted now, or end."""
        try:
            self._quiet_until = 0.0
            self._standing.renew()
        except GatewayError as error:
            self._end_with(error)
        else:
            self._check_subscriptions()

    def _check_subscriptions(self) -> None:
        principal = self._standing.principal
        lost = [name for name in self._feeds if not principal.may_subscribe(name)]
        if lost:
            self._end_with(principal.denied(f"consume the subscription {lost[0]!r} any more"))

    def _end_with(self, error: GatewayError) -> None:
        """The client may not go on."""
        if not self._closing and self._nursery is not None:
            self._services.audit.refused(self._standing.principal, "connection", self.name, error, self._remote)
            self._say_error(error)
            self.close(error.kind.close, error.message)

    def drain(self) -> None:
        """Say so, deliver no more, and close once nothing is under way."""
        self._draining = True
        self._quiet_until = 0.0
        self._say_drain()
        self._block()
        self._perhaps_drained()

    def _say_drain(self) -> None:
        shutdown = self._services.config.shutdown
        self._offer(push_v1.encode_drain((shutdown.reconnect_ms_min, shutdown.reconnect_ms_max)))

    def _perhaps_drained(self) -> None:
        if self._draining and not self._unanswered and not any(f.consumer.in_flight for f in self._feeds.values()):
            self.close(3013, "drained")

    def check(self, now: float) -> None:
        """Called by the watchdog: heartbeat, and a socket that takes nothing.

        Four times a second, so of one that is quiet nothing is asked: 0.1 us in place of 1.3.
        """
        if now >= self._quiet_until or self._stream.unsent:
            self._check(now)
            self._quiet_until = self._quiet(now)

    def _check(self, now: float) -> None:
        overdue = self._standing.overdue(now, self._services.clock())
        if overdue is not None:
            self._end_with(overdue)
        if self._stream.unsent:
            if self._feeds:  # flow control says what becomes of a slow consumer
                for feed in self._feeds.values():
                    feed.watch()
            elif self.stalled_s(now) > self._services.config.http.write_timeout_s:
                self._stream.abort()
        if self._borrowed.heard:
            self._pong_due = 0.0
        if self._pong_due and now > self._pong_due and not self._stream.has_unread():
            self.close(3012, f"no pong within {self._settings.pong_timeout_s:g} s")
        elif now >= self._next_ping and not self._closing and self._ws is not None:
            self._next_ping = now + self._settings.heartbeat_s
            self._stream.offer(PING_FRAME, self._pinged)
        if self._draining:
            self._perhaps_drained()

    def _quiet(self, now: float) -> float:
        """Until when nothing can be overdue that is under way now."""
        principal = self._standing.principal
        if self._pong_due or self._draining or self._ws is None or principal is NOBODY:
            return 0.0
        if principal.expires_ms is None:
            return self._next_ping
        rest_s = (principal.expires_ms - self._services.clock()) / 1000
        return min(self._next_ping, now + rest_s / 2)  # half: the two clocks need not agree

    def _pinged(self) -> None:
        """The socket has taken the ping: an answer is due from now on."""
        self._quiet_until = 0.0
        self._borrowed.heard = False
        self._pong_due = trio.current_time() + self._settings.pong_timeout_s

    def view(self) -> ConnectionView:
        now, feeds = self._services.clock(), list(self._feeds.values())
        worst = max(feeds, key=lambda feed: (_STATES.index(feed.state), feed.since_ms), default=None)
        latencies = [known for feed in feeds if (known := feed.latency_ms(now)) is not None]
        return ConnectionView(
            connection=self.name,
            protocol=self.protocol,
            remote=self._remote,
            principal=self._standing.principal.name,
            client=self._client,
            subscriptions=sorted(self._feeds),
            window=sum(feed.consumer.window for feed in feeds),
            in_flight=sum(feed.consumer.in_flight for feed in feeds),
            acked_per_s=round(sum(feed.acked_per_s(now) for feed in feeds), 1),
            ack_latency_ms=round(max(latencies), 1) if latencies else None,
            unsent_bytes=self._stream.unsent,
            state=_shown(worst, draining=self._draining),
            reason="drain" if self._draining else worst.reason.value if worst else "",
            since_ms=self._since_ms if worst is None else worst.since_ms,
        )


def _shown(worst: Feed | None, *, draining: bool) -> str:
    """The state of a connection, in the words of protocol.md §5; one that closes is paused."""
    if draining or (worst is not None and worst.state is State.CLOSED):
        return State.PAUSED.value
    return State.HEALTHY.value if worst is None else worst.state.value


def _short(reason: str) -> str:
    """A close reason has at most 123 bytes of UTF-8 (RFC 6455 §5.5)."""
    return reason.encode()[:120].decode(errors="ignore")
