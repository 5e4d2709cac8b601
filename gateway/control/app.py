"""The control plane: a Starlette application made from one table of calls, behind our own HTTP code.

Every endpoint is async and runs on trio's loop, so Starlette never reaches for a thread. What is raised becomes the one
error object of protocol.md §2: GatewayError here, anything else in `edge.http`, which logs it and answers `internal`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import groupby

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.control import asgi
from gateway.control.call import Call, Right, error
from gateway.control.connections import ConnectionCalls
from gateway.control.health import HealthCalls
from gateway.control.messages import MessageCalls
from gateway.control.metrics import MetricsCall
from gateway.control.openapi import OpenApi
from gateway.control.sources import Sources
from gateway.control.subscriptions import SubscriptionCalls
from gateway.edge.guard import Guard, check_known
from gateway.edge.http import HttpConnection
from gateway.errors import GatewayError, StoreError
from gateway.flow.ring import Wait
from gateway.wire import http as wire
from gateway.wire.request import Request as HttpRequest


class ControlPlane:
    """Stands behind every connection of the control listener."""

    def __init__(self, sources: Sources) -> None:
        rooms = (
            SubscriptionCalls(sources),
            ConnectionCalls(sources),
            MessageCalls(sources),
            HealthCalls(sources),
            MetricsCall(sources),
        )
        self.calls = OpenApi((call for room in rooms for call in room.calls()), sources.config.has_credentials).calls
        guard = sources.guard
        by_path = groupby(sorted(self.calls, key=lambda call: call.path), key=lambda call: call.path)
        self.app = Starlette(
            routes=[Route(path, Resource(list(calls), guard)) for path, calls in by_path],
            exception_handlers={GatewayError: _gateway_error, StoreError: _store_error, HTTPException: _http_exception},
        )
        self.app.router.redirect_slashes = False

        self._guard = guard

    def handle(self, request: HttpRequest, connection: HttpConnection) -> Wait | None:
        if (answer := self._guard.look_only(request, connection.remote)) is not None:
            connection.respond(answer)
            return None
        if request.method == "OPTIONS" and request.target == b"*":
            connection.respond(wire.Response(204, b"", [(b"allow", b"GET, HEAD, OPTIONS, POST, PUT, DELETE")]))
            return None
        return partial(asgi.answer, self.app, request, connection)


class Resource:
    """One path: its calls by method. HEAD is answered as GET, without the body; OPTIONS says what there is."""

    def __init__(self, calls: Iterable[Call], guard: Guard) -> None:
        self._guard = guard
        self._by_method = {call.method: call for call in calls}
        if "GET" in self._by_method:
            self._by_method["HEAD"] = self._by_method["GET"]
        self.allow = ", ".join(sorted([*self._by_method, "OPTIONS"]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        call = self._by_method.get(request.method)
        if call is not None:
            response = await self._answer(call, request)
        elif request.method == "OPTIONS":
            response = Response(status_code=204, headers={"allow": self.allow})
        else:
            cause = GatewayError("method_not_allowed", f"{request.method} is not taken here; use {self.allow}")
            response = error(cause, {"allow": self.allow})
        await response(scope, receive, send)

    async def _answer(self, call: Call, request: Request) -> Response:
        """Make the call for who may; what changes something stands in the audit log, however it ends."""
        asked: HttpRequest = request.scope["gateway"]
        remote: str = request.scope["remote"]
        if call.needs is Right.OPEN:
            return await call.respond(request)
        await self._guard.admit(asked, remote)
        try:
            check_known(asked)
            call.permit(asked.principal, request.path_params.get("name"))
        except GatewayError as cause:
            self._guard.refuse(asked, cause, remote)
            raise
        if call.method == "GET":
            try:
                return await call.respond(request)
            except GatewayError as cause:
                if cause.kind.status == 403:
                    self._guard.refuse(asked, cause, remote)
                raise
        status = 500
        try:
            response = await call.respond(request)
            status = response.status_code
        except GatewayError as cause:
            status = cause.kind.status
            if status == 403:
                self._guard.refuse(asked, cause, remote)
            raise
        finally:
            path = asked.path.decode("ascii", "backslashreplace")
            self._guard.audit.changed(asked.principal, call.name, path, status, remote)
        return response


async def _gateway_error(request: Request, cause: Exception) -> Response:
    assert isinstance(cause, GatewayError)
    return error(cause)


async def _store_error(request: Request, cause: Exception) -> Response:
    return error(GatewayError("store_failed", f"{cause}; the gateway is going down"))


async def _http_exception(request: Request, cause: Exception) -> Response:
    """Starlette's own: no route fits."""
    assert isinstance(cause, HTTPException)
    if cause.status_code != 404:
        return error(GatewayError("bad_request", cause.detail))
    path = request.scope["raw_path"].decode("ascii", "replace")
    return error(GatewayError("not_found", f"{path} is not a call of the control plane; /openapi.json lists them"))
