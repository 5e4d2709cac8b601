"""HTTP/1.1, sans-I/O: bytes in, whole requests out; responses to bytes. Parsing is httptools (llhttp).

A request is handed out when it is complete, so the edge never waits in the middle of one; what is too large is refused
as soon as it is known to be. llhttp refuses what smuggling is made of: conflicting lengths, a length beside chunks,
spaces in header names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final, Protocol

import httptools

from gateway.errors import GatewayError
from gateway.wire.heads import Head, Heads
from gateway.wire.request import Request

_FRAMING_BYTES_MAX: Final = 128 * 1024
"""One read of the edge, and the punctuation of the headers."""


_TELLING: Final = frozenset((b"host", b"content-length", b"upgrade", b"expect"))
"""Headers that say how a request is to be read."""
_TWICE: Final = b"(twice)"


class Limits(Protocol):
    """What of `config.Http` this file reads."""

    @property
    def request_line_bytes_max(self) -> int: ...
    @property
    def header_bytes_max(self) -> int: ...
    @property
    def headers_max(self) -> int: ...
    @property
    def body_bytes_max(self) -> int: ...


class RequestParser:
    """Feed it what arrives; complete requests collect in `requests`.

    `error` is set once something cannot be understood or is too large; nothing behind it is parsed. `expects_continue`
    is set while a client waits for leave to send its body. `started` says that a request has begun, `in_body` that its
    headers are complete. Behind an upgrade nothing is parsed either: `rest` holds what came after it.
    """

    def __init__(self, limits: Limits, heads: Heads | None = None) -> None:
        self.limits = limits
        self._heads = heads if heads is not None else Heads()
        self._head: Head | None = None  # known, and waits for the rest of its body
        self._first = b""  # what the request at hand began with
        self.requests: deque[Request] = deque()
        self.error: GatewayError | None = None
        self.expects_continue = False
        self.started = False
        self.in_body = False
        self.rest = b""
        self._request = Request()
        self._body: list[bytes] = []
        self._telling: dict[bytes, bytes] = {}
        self._size = 0  # of the headers, then of the body
        self._fed = 0  # bytes of this request, framing included
        self._fed_max = limits.request_line_bytes_max + limits.header_bytes_max + _FRAMING_BYTES_MAX
        self._parser = httptools.HttpRequestParser(self)

    def release(self) -> None:
        """Nothing more is parsed: give back what parsing needs, a few kilobytes."""
        del self._parser, self._body, self._telling, self._request
        self.requests.clear()
        self.rest = b""

    @property
    def missing(self) -> int:
        """Bytes of a body that are still to come, where they are known to be nothing else; else 0."""
        return 0 if self._head is None else self._head.length - self._size

    def feed(self, data: bytes) -> None:
        """Parse `data`."""
        if self._head is not None:
            data = self._go_on(self._head, data)
        elif not self.started and (head := self._heads.find(data)) is not None:
            data = self._begin(head, data)
        while data and self.error is None:
            if not self.started:
                self._first = data
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                request = self.requests[-1]
                if request.upgrade or request.method == "CONNECT":
                    self.rest = data
                    return
                self.requests.pop()  # the protocol is not taken, but llhttp has left the body to it: once more without
                self._parser = httptools.HttpRequestParser(self)
                data = _without_upgrade(request) + data
                continue
            except httptools.HttpParserCallbackError as error:
                self.error = _cause(error)
            except httptools.HttpParserError as error:
                self.error = GatewayError("bad_request", f"this is not HTTP/1.1: {error}")
            self._check_framing(len(data))
            return

    def _begin(self, head: Head, data: bytes) -> bytes:
        """A request that begins as one before. What `data` holds behind it."""
        end = head.size + head.length
        if len(data) >= end:
            self.requests.append(head.with_body(data[head.size : end]))
            return data[end:]
        self._head, self._body, self._size = head, [data[head.size :]], len(data) - head.size
        self.started = self.in_body = True
        return b""

    def _go_on(self, head: Head, data: bytes) -> bytes:
        """More of its body."""
        missing = head.length - self._size
        self._body.append(data[:missing])
        self._size += len(data)
        if len(data) < missing:
            return b""
        self.requests.append(head.with_body(b"".join(self._body)))
        self._head, self._body = None, []
        self.started = self.in_body = False
        return data[missing:]

    def _learn(self, request: Request) -> None:
        """Remember how it began, where the next that begins so can only be the same with another body."""
        telling = self._telling
        length = telling.get(b"content-length", b"0")
        if (
            request.version == "1.1"
            and b"expect" not in telling
            and b"upgrade" not in telling
            and length is not _TWICE
            and int(length) == len(request.body)
            and request.header(b"transfer-encoding") is None
        ):
            self._heads.learn(self._first, request, len(request.body))

    def _check_framing(self, size: int) -> None:
        """Bound what llhttp may gather without a callback: an endless header line, or chunks of nothing."""
        self._fed += size
        bound = self._fed_max + (4 * self.limits.body_bytes_max if self.in_body else 0)
        if not self.started:
            self._fed = 0
        elif self._fed > bound and self.error is None:
            what = "body_bytes_max" if self.in_body else "header_bytes_max"
            code = "payload_too_large" if self.in_body else "headers_too_large"
            self.error = GatewayError(code, f"the request goes on beyond http.{what}")

    # callbacks of httptools

    def on_message_begin(self) -> None:
        self._request = Request()
        self._telling = {}
        self._body = []
        self._size = 0
        self._fed = 0
        self.started = True

    def on_url(self, url: bytes) -> None:
        request = self._request
        request.target += url
        if len(request.target) > self.limits.request_line_bytes_max:
            raise GatewayError(
                "request_line_too_long",
                f"the request target is longer than {self.limits.request_line_bytes_max} bytes "
                f"(http.request_line_bytes_max)",
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body:
            return  # a trailer: never taken for a header (RFC 9110 §6.5.1)
        self._size += len(name) + len(value)
        headers = self._request.headers
        name = name.lower()
        headers.append((name, value))
        if name in _TELLING:
            self._telling[name] = _TWICE if name in self._telling else value
        if self._size > self.limits.header_bytes_max or len(headers) > self.limits.headers_max:
            raise GatewayError(
                "headers_too_large",
                f"the headers are more than {self.limits.header_bytes_max} bytes or {self.limits.headers_max} lines "
                f"(http.header_bytes_max, http.headers_max)",
            )

    def on_headers_complete(self) -> None:
        request, parser, telling = self._request, self._parser, self._telling
        request.method = parser.get_method().decode("ascii")
        request.version = parser.get_http_version()
        request.keep_alive = parser.should_keep_alive() and request.method != "CONNECT"
        self.in_body = True
        self._size = 0
        if request.version not in ("1.0", "1.1"):
            raise GatewayError("version_not_supported", f"HTTP/{request.version} is not spoken here; use HTTP/1.1")
        if request.version == "1.1" and telling.get(b"host", _TWICE) is _TWICE:
            raise GatewayError("bad_request", "HTTP/1.1 needs exactly one Host header")
        length = telling.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > self.limits.body_bytes_max):
            raise self._too_large()
        upgrade = telling.get(b"upgrade")
        request.upgrade = (
            upgrade is not None
            and upgrade.lower() == b"websocket"
            and parser.should_upgrade()
            and (request.method, request.version) == ("GET", "1.1")  # RFC 6455 §4.2.1; otherwise it is not taken
        )
        expect = telling.get(b"expect")
        if expect is not None:
            if expect.lower() != b"100-continue":
                raise GatewayError("expectation_failed", "only Expect: 100-continue can be met")
            self.expects_continue = request.version == "1.1"

    def _too_large(self) -> GatewayError:
        return GatewayError(
            "payload_too_large", f"the body is more than {self.limits.body_bytes_max} bytes (http.body_bytes_max)"
        )

    def on_body(self, body: bytes) -> None:
        self.expects_continue = False
        self._size += len(body)
        if self._size > self.limits.body_bytes_max:
            raise self._too_large()
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = self._request
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self.requests.append(request)
        if self._first:
            self._learn(request)
            self._first = b""  # the next may begin in the middle of what was fed
        self.started = self.in_body = self.expects_continue = False


def _without_upgrade(request: Request) -> bytes:
    """The head of a request as bytes again, as if it asked for no other protocol (RFC 9110 §7.8)."""
    lines = [b"%b: %b\r\n" % header for header in request.headers if header[0] != b"upgrade"]
    head = b"%b %b HTTP/%b\r\n" % (request.method.encode("ascii"), request.target, request.version.encode("ascii"))
    return head + b"".join(lines) + b"\r\n"


def _cause(error: Exception) -> GatewayError:
    """What a callback raised, out of httptools' wrapping."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, GatewayError):
            return inner
        inner = inner.__context__
    return GatewayError("bad_request", f"this is not HTTP/1.1: {error}")


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_JSON_HEAD: Final = b"content-type: application/json\r\ncontent-length: %d\r\n"


class Response:
    """A status, headers (without length, date and connection, which are added) and a body, whole or in parts."""

    __slots__ = ("body", "headers", "parts", "sent", "status")

    sent: Callable[[], None] | None
    """Called once the kernel has taken the last byte."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: list[tuple[bytes, bytes]] | None = None,
        parts: Sequence[bytes | memoryview] = (),
    ) -> None:
        self.status = status
        self.body = body
        self.parts = parts
        self.headers = headers  # None: the body is JSON
        self.sent = None


def encode_response(
    response: Response,
    date: bytes,
    *,
    keep_alive: bool = True,
    head_only: bool = False,
    http_1_0: bool = False,
    origin: bytes | None = None,
) -> bytes:
    """The whole response, but for a body in parts. `head_only`: to HEAD, with the length the body would have.

    `date`: as RFC 9110 §6.6.1.

    `origin`: of the web page that may read it.
    """
    status, body = response.status, response.body
    size = len(body) + sum(map(len, response.parts)) if response.parts else len(body)
    out = b"%bdate: %b\r\n" % (_LINES[status], date)
    if response.headers is None:
        out += _JSON_HEAD % size
    else:
        out += b"".join(b"%b: %b\r\n" % header for header in response.headers)
        if status >= 200 and status not in (204, 304):
            out += b"content-length: %d\r\n" % size
    if origin is not None:
        out += b"access-control-allow-origin: %b\r\nvary: origin\r\n" % origin
    if not keep_alive:
        out += b"connection: close\r\n"
    elif http_1_0:
        out += b"connection: keep-alive\r\n"
    return out + b"\r\n" if head_only else out + b"\r\n" + body


def error_response(error: GatewayError) -> Response:
    """The error object of protocol.md §2; temporary 429 and 503 say when to come back."""
    status = error.kind.status
    headers = [(b"content-type", b"application/json")]
    if status in (429, 503) and error.kind.temporary:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    elif status == 401:  # RFC 6750 §3: a reason only where a credential was sent
        reason = b"" if error.code == "no_credentials" else b', error="invalid_token"'
        headers.append((b"www-authenticate", b'Bearer realm="push gateway"' + reason))
    if error.code == "upgrade_required":  # RFC 9110 §15.5.22, RFC 6455 §4.4
        headers += [(b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"sec-websocket-version", b"13")]
    return Response(status, error.as_json(), headers)
