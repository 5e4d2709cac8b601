"""An ASGI application behind our own HTTP/1.1 code: one request in, one response out, both whole.

Only what the control plane needs of ASGI 3: no lifespan, no WebSocket, and a response is gathered before it is sent, so
that an application that fails halfway has sent nothing yet and is answered as an error.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote

import trio

from gateway.edge.http import HttpConnection
from gateway.wire.http import Response
from gateway.wire.request import Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_KEPT: Final = re.compile(r"%(2F|0A)", re.IGNORECASE)
_FRAMING: Final = (b"content-length", b"connection", b"date")


def decode_path(path: bytes) -> str:
    """The path with its percent-encoding undone, but for `/` and line feeds.

    An encoded slash is part of a name and never separates two; a line feed would end the patterns of routes early.
    """
    return unquote(_KEPT.sub(r"%25\1", path.decode("latin-1")))


def scope(request: Request, remote: str) -> Scope:
    """The connection scope of ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html)."""
    host, _, port = remote.rpartition(":")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.version,
        "method": request.method,
        "scheme": "http",
        "path": decode_path(request.path),
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "client": (host, int(port)) if port.isdigit() else None,
        "server": None,
        "gateway": request,  # who asks, and from where: of our own, beside what ASGI names
        "remote": remote,
    }


async def answer(application: Application, request: Request, connection: HttpConnection) -> None:
    """Run `application` for `request`, and answer it. What it raises goes to the caller; nothing is sent then."""
    exchange = _Exchange(request)
    await application(scope(request, connection.remote), exchange.receive, exchange.send)
    connection.respond(exchange.response())


class _Exchange:
    """One request and the response to it, as the application's `receive` and `send`."""

    def __init__(self, request: Request) -> None:
        self._body: bytes | None = request.body
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._complete = trio.Event()

    async def receive(self) -> Message:
        if self._body is None:
            await self._complete.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self._status = message["status"]
                self._headers = [(n, v) for n, v in message.get("headers", ()) if n.lower() not in _FRAMING]
            case "http.response.body":
                self._parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    self._complete.set()
            case other:
                raise RuntimeError(f"ASGI message {other!r} is not spoken here")

    def response(self) -> Response:
        if not self._complete.is_set():
            raise RuntimeError("the application ended before its response was complete")
        return Response(self._status, b"".join(self._parts), self._headers)
