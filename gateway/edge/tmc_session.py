"""One TMC client: wire protocol 2 between a WebSocket and the flow (protocol.md §6).

The same session as that of `push.v1.json`, with other words: CONNECT in place of credentials and subscribe, a frame a
message in place of a frame a batch. The group of the CONNECT is the subscription; the first PullRequest attaches, and
from then on messages are pushed as they come. Ids are positions, so a Confirm needs no table.

Public clients have habits that the page does not tell: some send PullRequest alone to show that they live and answer no
pings, some leave the token out of what they refuse, some write integers as text. All of that is taken. What is wrong is
answered with a SENDACK that carries a status code, or a CONNECTACK where it was a CONNECT.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import structlog
import trio

from gateway.edge.flow_control import Feed
from gateway.edge.stream import OutboxStream
from gateway.edge.tmc_applications import Application, Applications
from gateway.edge.tmc_calls import to_gateway, to_top
from gateway.edge.tmc_messages import Pushed, decode_pushed, to_message, unzip
from gateway.edge.websocket import Services, Session
from gateway.errors import GatewayError
from gateway.flow.ring import Wait
from gateway.model import POSITION_MAX, Batch, Delivery, Durability, Settle, Settlement, Verb
from gateway.wire import tmc_v2, top
from gateway.wire.payload import split_bodies
from gateway.wire.request import Request
from gateway.wire.tmc_v2 import Format, Frame, Kind, MessageType, Value
from gateway.wire.top import TopError
from gateway.wire.websocket import binary_frame

_log = structlog.get_logger("gateway.tmc")
_SIGNED: Final = ("app_key", "group_name", "timestamp")
_REASON_CHARS_MAX: Final = 1024
_NICK_MAX: Final = 256

Push = Callable[[int, bytes, int, bytes, bytes], bytes]


@attrs.define
class TmcStatistics:
    """Counters since the start."""

    connects: int = 0
    refused: dict[int, int] = attrs.field(factory=dict)
    """CONNECTs refused, by status code."""
    pushed: int = 0
    confirmed: int = 0
    failed: int = 0
    published: int = 0
    wrong: int = 0
    """Frames that could not be carried out."""


class TmcSession(Session):
    """See the module."""

    protocol = "tmc.v2"
    subprotocol = None

    def __init__(
        self,
        services: Services,
        applications: Applications,
        statistics: TmcStatistics,
        request: Request,
        rest: bytes,
        stream: OutboxStream,
        remote: str,
    ) -> None:
        super().__init__(services, request, rest, stream, remote)
        self._applications = applications
        self._statistics = statistics
        self._application: Application | None = None
        self._subscription = ""
        self._token = ""
        self._push: Push | None = None
        now = trio.current_time()
        self._connect_by = now + self._settings.handshake_timeout_s
        self._heard_at = now

    def _welcome(self) -> None:
        """The client speaks first."""

    # ------------------------------------------------------------------------------------------------- frames in

    def _carry_out(self, data: str | bytes) -> Wait | None:
        try:
            frame = tmc_v2.decode(data.encode() if isinstance(data, str) else data)
        except GatewayError as error:
            self._refuse(error, None)
            self.close(error.kind.close, error.message)
            return None
        if frame.type is MessageType.CONNECT:
            self._connect(frame)
        elif self._application is None:
            self._refuse(GatewayError("bad_request", "the first message must be a CONNECT"), frame)
            self.close(3502, "the first message must be a CONNECT")
        elif frame.token not in (None, self._token):
            self._refuse(TopError("invalid_token", "the token is not the one that was given"), frame)
            self.close(3500, "the token is not the one that was given")
        else:
            try:
                wait = self._carry_out_kind(self._application, frame)
            except (GatewayError, TopError) as error:
                self._refuse(error, frame)
            else:
                return wait and partial(self._go_on_with, frame, wait)
        return None

    async def _go_on_with(self, frame: Frame, wait: Wait) -> None:
        try:
            await wait()
        except (GatewayError, TopError) as error:
            self._refuse(error, frame)

    def _carry_out_kind(self, application: Application, frame: Frame) -> Wait | None:
        kind = frame.kind
        if kind == Kind.PULL_REQUEST:
            self._pull()
        elif kind == Kind.CONFIRM:
            wait = self._settle_one(frame, Verb.ACK)
            self._statistics.confirmed += 1
            return wait
        elif kind == Kind.FAILED:
            wait = self._settle_one(frame, Verb.NACK, frame.text("msg")[:_REASON_CHARS_MAX])
            self._statistics.failed += 1
            return wait
        elif kind == Kind.DATA and frame.type is MessageType.SEND:
            return self._publish_one(application, frame)
        elif kind is not None:
            raise GatewayError("unknown_operation", f"the kind {kind} is unknown; use 1, 2, 3 or 20")
        return None  # without a kind: some clients answer answers with an empty message, which means nothing

    # --------------------------------------------------------------------------------------------------- CONNECT

    def _connect(self, frame: Frame) -> None:
        try:
            if self._application is not None:
                raise TopError("invalid_argument", "this connection is connected already")
            self._services.access.failures.check(self._remote)
            application = self._authenticate(frame)
        except (TopError, GatewayError) as error:
            refusal = to_top(error)
            self._statistics.refused[refusal.code] = self._statistics.refused.get(refusal.code, 0) + 1
            why = to_gateway(refusal)
            self._services.audit.refused(None, "tmc CONNECT", _key_of(frame), why, self._remote)
            if refusal.code in top.UNPROVEN:
                self._services.access.failures.note(self._remote, why)
            self._answer(MessageType.CONNECTACK, frame, refusal)
            self.close(3500, str(refusal))
            return
        self._statistics.connects += 1
        self._application = application
        self._standing.principal = application.principal
        self._subscription = application.subscription(frame.text("group_name"))
        self._client = (frame.text("sdk") or frame.text("sdk_version"))[:256]
        self._token = secrets.token_hex(16)
        self._push = tmc_v2.push_template(self._token)
        self._answer(MessageType.CONNECTACK, frame, None)

    def _authenticate(self, frame: Frame) -> Application:
        """Whose connection it is; TopError where that is not proven, or the application has no such group."""
        services = self._services
        if self._draining:
            raise GatewayError("draining", "the gateway is going down; connect again")
        for name, error in (
            ("app_key", "missing_app_key"),
            ("timestamp", "missing_timestamp"),
            ("sign", "missing_signature"),
        ):
            if not frame.text(name):
                raise TopError(error)
        application = self._applications.get(frame.text("app_key"))
        if application is None:
            raise TopError("invalid_app_key")
        window_ms = services.config.tmc.timestamp_window_s * 1000
        if not top.is_current(frame.text("timestamp"), services.clock(), window_ms):
            raise TopError("invalid_timestamp", f"it must be within {window_ms // 1000} s of now")
        signed: dict[str, str] = {name: frame.text(name) for name in (*_SIGNED, "sign") if name in frame.customs}
        if not top.is_signed(signed, application.secret):
            raise TopError("invalid_signature")
        group = frame.text("group_name")
        try:
            services.engine.subscription_exists(application.subscription(group))
        except GatewayError:
            raise top.invalid("group_name", f"there is no group {group[:64]!r}") from None
        return application

    # ------------------------------------------------------------------------------------------- pull and settle

    def _pull(self) -> None:
        """The first one attaches; the others say that the client lives."""
        if self._feeds or self._draining or self._closing:
            return
        feed = Feed(self._services.flow_control, self)
        consumer = self._services.engine.attach(
            self._subscription,
            window=None,
            send=partial(self._deliver, feed),
            label=self.name,
            on_deleted=partial(self._subscription_deleted, self._subscription),
        )
        feed.begin(consumer)
        self._feeds[self._subscription] = feed
        if self._stream.unsent:
            consumer.block()

    def _settle_one(self, frame: Frame, verb: Verb, reason: str = "") -> Wait | None:
        position = frame.integer("id")
        if position is None or not 0 <= position <= POSITION_MAX:
            raise top.invalid("id", "must be the id of a message")
        feed = self._feeds.get(self._subscription)
        ranges = ((position, position),)
        if feed is not None:
            feed.heard(ranges, self._services.clock(), settles=True)
        consumer = None if feed is None else feed.consumer
        wait = self._services.settle.offer(Settlement(consumer, [Settle(verb, ranges, reason=reason)]))
        self._perhaps_drained()
        return wait

    # --------------------------------------------------------------------------------------------------- publish

    def _publish_one(self, application: Application, frame: Frame) -> Wait | None:
        topic, given = frame.text("topic"), frame.customs.get("content")
        if not topic:
            raise top.missing("topic")
        bytes_max = self._services.config.limits.payload_bytes_max
        if given is not None and isinstance(given.content, bytes):
            content = unzip(given.content, bytes_max)
        else:
            content = frame.text("content")
        if not content:
            raise top.missing("content")
        message = to_message(
            topic,
            content,
            publisher=application.key,
            target_group=frame.text("target_group"),
            nick=frame.text("session")[:_NICK_MAX],
        )
        batch = Batch(
            [message], Durability.FSYNCED, len(content), partial(self._published_one, frame), application.principal
        )
        return self._submit(batch)

    def _published_one(self, frame: Frame, batch: Batch) -> None:
        self._unanswered -= 1
        error = batch.error or (batch.results[0] if batch.results else None)
        if isinstance(error, GatewayError):
            self._refuse(error, frame)
        else:
            self._statistics.published += 1
            if frame.flag is not None:  # the client waits for it
                self._answer(MessageType.SENDACK, frame, None)
        self._perhaps_drained()

    # ---------------------------------------------------------------------------------------------------- answers

    def _refuse(self, error: GatewayError | TopError, frame: Frame | None) -> None:
        self._statistics.wrong += 1
        self._answer(MessageType.SENDACK, frame, to_top(error))

    def _answer(self, type_: MessageType, frame: Frame | None, error: TopError | None) -> None:
        """Answers carry the flag of what they answer, and the token, by which clients know them."""
        answer = Frame(
            type=type_,
            token=self._token or None,
            flag=None if frame is None else frame.flag,
            status=None if error is None else error.code,
            phrase=None if error is None else str(error),
        )
        self._offer_frame(binary_frame(tmc_v2.encode(answer)))

    def _say_error(self, error: GatewayError) -> None:
        """Its words have no error that answers nothing; the close code says it."""

    def say_window(self, subscription: str, size: int, reason: str) -> None:
        """Nor a word for this; it is shown in /v1/connections."""

    # ------------------------------------------------------------------------------------------------- frames out

    def _encode(self, delivery: Delivery) -> bytes:
        """One frame for each message, in one piece."""
        push = self._push
        assert push is not None
        self._statistics.pushed += delivery.count
        frames: list[bytes] = []
        for body in split_bodies(delivery.bodies):
            pushed = decode_pushed(body)
            more = _more(pushed) if pushed.attributes else b""
            data = push(pushed.position, pushed.topic.encode(), pushed.time_ms, pushed.content, more)
            frames.append(binary_frame(data))
        return b"".join(frames)

    def reauthorize(self) -> None:
        """Applications are part of the configuration: what they may does not change while the process lives."""

    def _say_drain(self) -> None:
        """Nor for this: the connection closes once nothing is under way, and clients connect again by themselves."""

    # ---------------------------------------------------------------------------------------------------- watched

    def check(self, now: float) -> None:
        """Whatever comes shows that the client lives; not all of them answer pings."""
        self._pong_due = 0.0
        if self._borrowed.heard:
            self._borrowed.heard = False
            self._heard_at = now
        if not self._closing:
            if self._application is None and now > self._connect_by:
                self.close(3502, "no CONNECT came in time")
            elif now - self._heard_at > self._services.config.tmc.idle_timeout_s:
                self.close(3012, "nothing was heard in time (tmc.idle_timeout_s)")
        super().check(now)


def _key_of(frame: Frame) -> str:
    """Whose key a refused CONNECT named, for the audit log."""
    value = frame.customs.get("app_key")
    return "" if value is None else str(value.content)


def _more(pushed: Pushed) -> bytes:
    """What is known of a message's origin. Clients cast: the user's id must be an int64."""
    parts = []
    if pushed.publisher:
        parts.append(tmc_v2.custom("publisher", tmc_v2.text(pushed.publisher)))
    if pushed.nick:
        parts.append(tmc_v2.custom("nick", tmc_v2.text(pushed.nick)))
    if pushed.user_id is not None:
        parts.append(tmc_v2.custom("userid", Value(Format.INT64, pushed.user_id)))
    return b"".join(parts)
