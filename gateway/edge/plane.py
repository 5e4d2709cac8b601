"""The data plane: which path is which call, and who may make it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final, cast

import attrs

from gateway.edge.guard import Guard, check_known
from gateway.edge.handshake import check_upgrade
from gateway.edge.http import HttpConnection
from gateway.edge.longpoll import LongPoll
from gateway.edge.publish import Publisher
from gateway.edge.stream import OutboxStream
from gateway.edge.tmc import PATH as TMC_PATH
from gateway.edge.tmc import TmcEdge
from gateway.edge.websocket import Services, Session
from gateway.errors import GatewayError
from gateway.flow.ring import Wait
from gateway.model import NAME_BYTES_MAX
from gateway.wire.http import Response, error_response
from gateway.wire.request import Request

CONNECT: Final = b"/v1/connect"
_TAKEN: Final = (b"/v1/", TMC_PATH)
"""Paths that TMC clients cannot connect to; they may use any other."""
Handle = Callable[[Request, HttpConnection, bytes], Wait | None]
"""(request, connection, the part of the path that stands for a name); what is left of it, where it has to wait."""


@attrs.frozen
class DataCall:
    """One call of the data plane: POST on `path`, a pattern with at most one group."""

    name: str
    path: re.Pattern[bytes]
    handle: Handle


class DataPlane:
    """Stands behind every connection of the data listener."""

    def __init__(
        self, services: Services, guard: Guard, publisher: Publisher, longpoll: LongPoll, tmc: TmcEdge | None = None
    ) -> None:
        self._services = services
        self._guard = guard
        self._publisher = publisher
        self._longpoll = longpoll
        self._tmc = tmc
        self.calls = (
            DataCall("publish", re.compile(rb"/v1/topics/([^/]*)/messages"), publisher.publish_one),
            DataCall("publishMany", re.compile(rb"/v1/messages()"), self._publish_many),
            DataCall("pull", re.compile(rb"/v1/subscriptions/([^/]*)/pull"), self._pull),
            DataCall("settle", re.compile(rb"/v1/subscriptions/([^/]*)/settle"), self._settle),
        )
        """What is taken by POST, most frequent first. Permission to publish is asked by `flow.admit`."""

    def handle(self, request: Request, connection: HttpConnection) -> Wait | None:
        known = request.notes.get(self)
        if known is None and self._tmc is not None and request.path == TMC_PATH:
            return self._call_tmc(self._tmc, request, connection)
        wait = self._guard.admit_now(request, connection.remote)
        if wait is not None:
            return partial(self._once_admitted, wait, request, connection)
        if known is None:
            return self._find(request, connection)
        call, name = cast("tuple[DataCall, bytes]", known)
        return self._make(call, request, connection, name)

    async def _once_admitted(self, wait: Wait, request: Request, connection: HttpConnection) -> None:
        await wait()
        then = self._find(request, connection)
        if then is not None:
            await then()

    def _find(self, request: Request, connection: HttpConnection) -> Wait | None:
        """The call that a head is seen to be for the first time."""
        if request.method == "OPTIONS" and (answer := self._guard.preflight(request)) is not None:
            connection.respond(answer)
            return None
        path = request.path
        for call in self.calls:
            match = call.path.fullmatch(path)
            if match is not None:
                if request.method == "POST":
                    request.notes[self] = call, match[1]
                    return self._make(call, request, connection, match[1])
                _wrong_method(request, connection, b"POST, OPTIONS")
                return None
        if path == CONNECT:
            self._no_upgrade(request, connection)
        elif request.method == "OPTIONS" and request.target == b"*":
            connection.respond(Response(204, b"", [(b"allow", b"GET, HEAD, OPTIONS, POST")]))
        else:
            raise GatewayError("not_found", f"{path.decode('ascii', 'replace')} is not a call of the data plane")
        return None

    def _call_tmc(self, tmc: TmcEdge, request: Request, connection: HttpConnection) -> Wait | None:
        """Its calls are signed, and ask for no other credentials; where a browser's page comes from counts here too."""
        answer = self._guard.look_only(request, connection.remote)
        if answer is not None:
            connection.respond(answer)
        elif request.method == "POST":
            return partial(tmc.rest.handle, request, connection)
        else:
            _wrong_method(request, connection, b"POST, OPTIONS")
        return None

    def _make(self, call: DataCall, request: Request, connection: HttpConnection, name: bytes) -> Wait | None:
        try:
            check_known(request)
            return call.handle(request, connection, name)
        except GatewayError as error:
            if error.kind.status in (401, 403):
                self._guard.refuse(request, error, connection.remote)
            raise

    def _publish_many(self, request: Request, connection: HttpConnection, _: bytes) -> Wait | None:
        return self._publisher.publish_many(request, connection)

    def _pull(self, request: Request, connection: HttpConnection, name: bytes) -> None:
        self._longpoll.pull(request, connection, _permitted(request, name))

    def _settle(self, request: Request, connection: HttpConnection, name: bytes) -> Wait | None:
        return self._longpoll.settle(request, connection, _permitted(request, name))

    def _no_upgrade(self, request: Request, connection: HttpConnection) -> None:
        if request.method in ("GET", "HEAD"):
            raise GatewayError("upgrade_required", "this is a WebSocket endpoint; connect with a WebSocket client")
        _wrong_method(request, connection, b"GET, OPTIONS")

    async def upgrade(self, request: Request, rest: bytes, stream: OutboxStream, remote: str) -> Session:
        """What takes a connection over for WebSocket. GatewayError refuses it."""
        is_ours = request.path == CONNECT
        tmc = None if is_ours or request.path.startswith(_TAKEN) else self._tmc
        if not is_ours and tmc is None:
            raise GatewayError("not_found", "WebSocket connects to /v1/connect")
        check_upgrade(request, Session.subprotocol if is_ours else None)
        if is_ours:
            await self._guard.admit(request, remote)  # without a token: `hello` must bring it
        else:
            self._guard.look_only(request, remote)  # its CONNECT says who it is
        if self._services.admit.closed:
            raise self._services.admit.closed
        if tmc is not None:
            return tmc.session(request, rest, stream, remote)
        return Session(self._services, request, rest, stream, remote)


def _permitted(request: Request, raw: bytes) -> str:
    """The name of a subscription that the principal may consume. It learns nothing of those that it may not."""
    name = raw.decode("ascii", "replace")
    if not request.principal.may_subscribe(name):
        raise request.principal.denied(f"consume the subscription {name[:NAME_BYTES_MAX]!r}")
    return name


def _wrong_method(request: Request, connection: HttpConnection, allow: bytes) -> None:
    if request.method == "OPTIONS":
        connection.respond(Response(204, b"", [(b"allow", allow)]))
        return
    error = GatewayError("method_not_allowed", f"{request.method} is not taken here; use {allow.decode()}")
    response = error_response(error)
    assert response.headers is not None
    response.headers.append((b"allow", allow))
    connection.respond(response)
