"""One HTTP/1.1 connection: requests in, responses in their order, until it ends or becomes something else.

A handler may answer later and from any task (`respond` never waits): the connection goes on reading, so a client that
leaves while its pull waits is noticed at once. What needs no waiting is carried out where it is read (edge/poller.py),
and no task is woken for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import structlog
import trio

from gateway.config import Http as HttpSettings
from gateway.edge.stream import OutboxStream
from gateway.edge.watchdog import Watchdog
from gateway.errors import GatewayError
from gateway.flow.ring import Wait
from gateway.wire import http as wire
from gateway.wire.heads import Heads
from gateway.wire.http import RequestParser, Response
from gateway.wire.request import Request

_log = structlog.get_logger("gateway.http")
_LINGER_S: Final = 2.0
"""How long a closed connection is still read, so that the answer is not lost to a reset (RFC 9112 §9.6)."""
_UNSENT_MAX: Final = 1 << 20
"""Bytes of answers that may wait for a client before its next request is looked at."""
_READS_AT_ONCE: Final = 4
"""The rest of a large body is mostly there when its beginning has been read."""
_REQUESTS_AT_ONCE: Final = 16
"""Pipelined requests carried out before others run."""


class Handler(Protocol):
    """What stands behind a plane's connections."""

    def handle(self, request: Request, connection: HttpConnection) -> Wait | None:
        """See to it that `connection.respond` is called once, now or later. What is left to do, where it has to wait.

        GatewayError is answered as such, from the waiting too.
        """


class Successor(Protocol):
    """What a connection becomes."""

    async def serve(self) -> None:
        """Until it ends. Raises nothing but cancellation."""


Upgrade = Callable[[Request, bytes, OutboxStream, str], Awaitable[Successor]]
"""(request, bytes read behind it, stream, remote): what takes the connection over; GatewayError refuses to."""


class HttpConnection:
    """See the module. One task runs `serve`."""

    def __init__(
        self,
        stream: OutboxStream,
        remote: str,
        settings: HttpSettings,
        watchdog: Watchdog,
        handler: Handler,
        upgrade: Upgrade | None = None,
        heads: Heads | None = None,
    ) -> None:
        self.stream = stream
        self.remote = remote
        self.closing = False
        """Set while the gateway drains: the next response is the last."""
        self.on_abandoned: dict[object, Callable[[], None]] = {}
        """Called where the client leaves before an answer has been handed to its socket in full."""
        self._settings = settings
        self._watchdog = watchdog
        self._handler = handler
        self._upgrade = upgrade
        self._parser = RequestParser(settings, heads)
        self._pending: Request | None = None
        self._responded: trio.Event | None = None  # made where somebody waits
        self._deadline = 0.0
        self._overdue: GatewayError | None = None
        self._wait: Wait | None = None  # for the task
        self._left = False  # the client sends no more, and has its answer
        self._ended = False
        self._upgraded = False  # it is another protocol's connection now
        self._upgrading: Request | None = None
        self._resting = False  # the watchdog does not know it
        self._scope = trio.CancelScope()

    # ------------------------------------------------------------------------------------------------ serve

    async def serve(self) -> None:
        """Until the connection ends. Raises nothing but cancellation."""
        self._watchdog.add(self)
        try:
            with self._scope:
                await self._serve()
                if self._upgrading is not None and self._upgrade is not None:
                    await self._hand_over(self._upgrade)
            if self._overdue is not None:
                self._refuse(self._overdue)
            if self._ended:
                await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self._watchdog.discard(self)
            self._abandon()
            self._pending = None
            self._tell_responded()
            self.stream.abort()

    async def _serve(self) -> None:
        """What has come is carried out where it is received; this task does what has to be waited for."""
        self._deadline = self._watchdog.now + self._settings.idle_timeout_s
        while not self._over:
            if self._wait is None:
                await self.stream.attend(self._receive)
            else:
                wait, self._wait = self._wait, None
                await wait()
                self._wait = self._carry_out()

    @property
    def _over(self) -> bool:
        return self._ended or self._left or self._upgrading is not None

    def _receive(self) -> bool:
        """Read, and carry it out. False where the task is needed, for `_wait` or because it is over."""
        parser, stream = self._parser, self.stream
        for _ in range(_READS_AT_ONCE):
            data = stream.receive_now(parser.missing)
            if data is None:
                break
            if not data:
                self._wait = self._finish
                return False
            self._feed(data)
            if not parser.missing:
                break
        self._wait = self._carry_out()
        return self._wait is None and not self._over

    def _carry_out(self) -> Wait | None:
        """All that has come in full; what to wait for before it goes on."""
        parser = self._parser
        for _ in range(_REQUESTS_AT_ONCE):
            if self._pending is not None:
                if parser.requests or parser.error or parser.expects_continue:
                    return self._wait_responded  # pipelined: one after the other
                return None
            if parser.requests:
                request = parser.requests.popleft()
                if request.upgrade and self._upgrade is not None:
                    self._upgrading = request
                    return None
                request.keep_alive = request.keep_alive and not request.upgrade  # nothing is parsed behind that
                wait = self._handle(request)
                if wait is not None:
                    return wait
            elif parser.error is not None:
                self._refuse(parser.error)
            elif parser.expects_continue:
                parser.expects_continue = False
                self.stream.offer(wire.CONTINUE)
            else:
                return None
            if self._ended:
                return None
        return trio.lowlevel.checkpoint  # let others run

    async def _hand_over(self, upgrade: Upgrade) -> None:
        """Nothing of the request is kept by what may stand idle for days."""
        self._upgraded = True
        self._watchdog.discard(self)
        try:
            successor = await self._succeed(upgrade)
        except GatewayError as error:
            self._refuse(error)
            return
        await successor.serve()
        self._ended = True  # a close frame that was sent must not be lost to a reset either

    async def _succeed(self, upgrade: Upgrade) -> Successor:
        request, self._upgrading = self._upgrading, None
        assert request is not None
        successor = await upgrade(request, self._parser.rest, self.stream, self.remote)
        self._parser.release()
        return successor

    async def _finish(self) -> None:
        """The client sends no more."""
        self._abandon()
        self.closing = True
        await self._wait_responded()  # perhaps only its sending half is closed
        self._left = True

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        was_started, was_in_body = parser.started, parser.in_body
        parser.feed(data)
        if parser.in_body != was_in_body or parser.started != was_started:
            self._set_deadline()

    def _set_deadline(self) -> None:
        settings, parser = self._settings, self._parser
        if parser.in_body:
            timeout = settings.body_timeout_s
        elif parser.started:
            timeout = settings.header_timeout_s
        else:
            timeout = settings.idle_timeout_s
        self._deadline = self._watchdog.now + timeout

    def _handle(self, request: Request) -> Wait | None:
        self._pending = request
        try:
            wait = self._handler.handle(request, self)
        except Exception as error:
            self._fail(request, error)
        else:
            if wait is not None:
                return partial(self._go_on, request, wait)
        return self.stream.wait_drained if self.stream.unsent > _UNSENT_MAX else None

    async def _go_on(self, request: Request, wait: Wait) -> None:
        try:
            await wait()
        except Exception as error:
            self._fail(request, error)
        if self.stream.unsent > _UNSENT_MAX:
            await self.stream.wait_drained()

    def _fail(self, request: Request, error: Exception) -> None:
        if not isinstance(error, GatewayError):
            path = request.path.decode("ascii", "replace")
            _log.exception("a request failed", method=request.method, path=path)
            error = GatewayError("internal", "the gateway failed to handle this request; its log says why")
        self.respond(wire.error_response(error))

    # ---------------------------------------------------------------------------------------------- respond

    def rest(self) -> None:
        """Its answer may take minutes, and there is no deadline meanwhile: the watchdog need not come by."""
        if not self.stream.unsent:
            self._resting = True
            self._watchdog.discard(self)

    def respond(self, response: Response) -> None:
        """Answer the pending request. Never waits; nothing happens where the client has left."""
        request = self._pending
        if request is None:
            return
        self._pending = None
        if self._resting:
            self._resting = False
            self._watchdog.add(self)
        keep_alive = request.keep_alive and not self.closing
        head_only = request.method == "HEAD"
        data = wire.encode_response(
            response,
            self._watchdog.date,
            keep_alive=keep_alive,
            head_only=head_only,
            http_1_0=request.version == "1.0",
            origin=request.origin,
        )
        if response.parts and not head_only:
            self.stream.offer_parts([data, *response.parts], response.sent)
        else:
            self.stream.offer(data, response.sent)
        self._set_deadline()
        if not keep_alive:
            self._end()
        if self._responded is not None:
            self._tell_responded()

    async def _wait_responded(self) -> None:
        """Wait until nothing is pending, or the connection has ended."""
        if self._pending is None:
            return
        if self._responded is None:
            self._responded = trio.Event()
        await self._responded.wait()

    def _tell_responded(self) -> None:
        if self._responded is not None:
            self._responded.set()
            self._responded = None

    def _refuse(self, error: GatewayError) -> None:
        """Answer something that is no request, and end."""
        self.stream.offer(wire.encode_response(wire.error_response(error), self._watchdog.date, keep_alive=False))
        self._end()

    def _end(self) -> None:
        """Nothing more is read. The task lingers for what is unsent."""
        self._ended = True
        self._scope.cancel()

    async def _linger(self) -> None:
        with trio.move_on_after(self._settings.write_timeout_s):
            await self.stream.wait_drained()
            self.stream.shutdown()
            with trio.move_on_after(_LINGER_S):
                while await self.stream.receive_some():
                    pass

    def _abandon(self) -> None:
        abandoned, self.on_abandoned = self.on_abandoned, {}
        for call in abandoned.values():
            self._pending = None
            call()

    # ---------------------------------------------------------------------------------------------- watched

    def check(self, now: float) -> None:
        if self.stream.unsent:
            if now - self.stream.progress_at > self._settings.write_timeout_s:
                self.stream.abort()
        elif self._pending is None and not self._ended and now > self._deadline:
            if self._parser.started:
                part = "body" if self._parser.in_body else "headers"
                self._overdue = GatewayError(
                    "request_timeout", f"the {part} did not arrive in time (http.{part.rstrip('s')}_timeout_s)"
                )
            self._scope.cancel()

    async def wait_answered(self) -> None:
        """Wait until nothing is pending and what was answered is sent, or the connection has ended."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._wait_responded()
            await self.stream.wait_drained()

    def drain(self) -> None:
        """The gateway ends: finish what is pending, then close."""
        self.closing = True
        if self._pending is None and not self._upgraded:
            self._end()
