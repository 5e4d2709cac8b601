"""The data plane: which path is which call."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.edge.handshake import check_upgrade
from gateway.edge.http import HttpConnection
from gateway.edge.longpoll import LongPoll
from gateway.edge.publish import Publisher
from gateway.edge.stream import OutboxStream
from gateway.edge.websocket import Services, Session
from gateway.errors import GatewayError
from gateway.wire.http import Request, Response, error_response

_TOPIC: Final = re.compile(rb"/v1/topics/([^/]*)/messages")
_PULL: Final = re.compile(rb"/v1/subscriptions/([^/]*)/pull")
_SETTLE: Final = re.compile(rb"/v1/subscriptions/([^/]*)/settle")
_CONNECT: Final = b"/v1/connect"
_BATCH: Final = b"/v1/messages"

Call = Callable[[Request, HttpConnection], Awaitable[None]]


class DataPlane:
    """Stands behind every connection of the data listener."""

    def __init__(self, services: Services, publisher: Publisher, longpoll: LongPoll) -> None:
        self._services = services
        self._publisher = publisher
        self._longpoll = longpoll

    async def handle(self, request: Request, connection: HttpConnection) -> None:
        path = request.path
        if (match := _TOPIC.fullmatch(path)) is not None:
            if request.method == "POST":
                await self._publisher.publish_one(request, connection, match.group(1))
                return
        elif path == _BATCH:
            if request.method == "POST":
                await self._publisher.publish_many(request, connection)
                return
        elif (match := _PULL.fullmatch(path)) is not None:
            if request.method == "POST":
                await self._longpoll.pull(request, connection, _name(match))
                return
        elif (match := _SETTLE.fullmatch(path)) is not None:
            if request.method == "POST":
                await self._longpoll.settle(request, connection, _name(match))
                return
        elif path == _CONNECT:
            self._no_upgrade(request, connection)
            return
        elif request.method == "OPTIONS" and request.target == b"*":
            connection.respond(Response(204, b"", [(b"allow", b"GET, HEAD, OPTIONS, POST")]))
            return
        else:
            raise GatewayError("not_found", f"{path.decode('ascii', 'replace')} is not a call of the data plane")
        _wrong_method(request, connection, b"POST, OPTIONS")

    def _no_upgrade(self, request: Request, connection: HttpConnection) -> None:
        if request.method in ("GET", "HEAD"):
            raise GatewayError("upgrade_required", "this is a WebSocket endpoint; connect with a WebSocket client")
        _wrong_method(request, connection, b"GET, OPTIONS")

    async def upgrade(self, request: Request, rest: bytes, stream: OutboxStream, remote: str) -> None:
        """Take a connection over for WebSocket. GatewayError refuses it."""
        if request.path != _CONNECT:
            raise GatewayError("not_found", "WebSocket connects to /v1/connect")
        check_upgrade(request)
        if self._services.admit.closed:
            raise self._services.admit.closed
        await Session(self._services, request, rest, stream, remote).serve()


def _name(match: re.Match[bytes]) -> str:
    name = match.group(1)
    return name.decode("ascii", "replace")


def _wrong_method(request: Request, connection: HttpConnection, allow: bytes) -> None:
    if request.method == "OPTIONS":
        connection.respond(Response(204, b"", [(b"allow", allow)]))
        return
    error = GatewayError("method_not_allowed", f"{request.method} is not taken here; use {allow.decode()}")
    response = error_response(error)
    assert response.headers is not None
    response.headers.append((b"allow", allow))
    connection.respond(response)
