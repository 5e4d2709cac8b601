from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Http
from gateway.errors import TABLE, GatewayError
from gateway.principal import ANONYMOUS
from gateway.wire.http import (
    CONTINUE,
    RequestParser,
    Response,
    encode_response,
    error_response,
)
from gateway.wire.request import Request

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
SMALL = Http(request_line_bytes_max=64, header_bytes_max=256, headers_max=4, body_bytes_max=1024)

PUBLISH = (
    b"POST /v1/topics/trade.order.paid/messages?x=1 HTTP/1.1\r\n"
    b"Host: gateway\r\nPush-Id: a1\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
    b'{"amount":42}'
)
CHUNKED = (
    b"POST /v1/messages HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\nTrailer: push-id\r\n\r\n"
    b'6;name=value;other="a b"\r\n[{"top\r\n'
    b'00011\r\nic":"a","data":1}\r\n'
    b"1\r\n]\r\n"
    b"0\r\nPush-Id: smuggled\r\nHost: other\r\n\r\n"
)
GET = b"GET /v1/connect HTTP/1.1\r\nhost: gateway\r\n\r\n"


def parse(*pieces: bytes, limits: Http | None = None) -> RequestParser:
    parser = RequestParser(limits or Http())
    for piece in pieces:
        parser.feed(piece)
    return parser


def only(parser: RequestParser) -> Request:
    assert parser.error is None
    (request,) = parser.requests
    return request


def plain(request: Request) -> dict[str, object]:
    return {name: getattr(request, name) for name in Request.__slots__}


def code(parser: RequestParser) -> str | None:
    return parser.error.code if parser.error else None


# ---------------------------------------------------------------------------------------------------- requests


def test_a_request_is_handed_out_whole() -> None:
    request = only(parse(PUBLISH))
    assert plain(request) == {
        "method": "POST",
        "target": b"/v1/topics/trade.order.paid/messages?x=1",
        "version": "1.1",
        "headers": [
            (b"host", b"gateway"),
            (b"push-id", b"a1"),
            (b"content-type", b"application/json"),
            (b"content-length", b"13"),
        ],
        "body": b'{"amount":42}',
        "keep_alive": True,
        "upgrade": False,
        "principal": ANONYMOUS,
        "origin": None,
        "notes": {},
    }
    assert (request.path, request.query) == (b"/v1/topics/trade.order.paid/messages", b"x=1")
    assert request.header(b"push-id") == b"a1"
    assert request.header(b"push-key") is None


@pytest.mark.parametrize("whole", [PUBLISH, CHUNKED, GET], ids=["length", "chunked", "no body"])
def test_every_split_over_two_feeds_gives_the_same_request(whole: bytes) -> None:
    expected = plain(only(parse(whole)))
    for place in range(len(whole) + 1):
        assert plain(only(parse(whole[:place], whole[place:]))) == expected, place


@pytest.mark.parametrize("whole", [PUBLISH, CHUNKED, GET], ids=["length", "chunked", "no body"])
def test_a_request_that_comes_byte_by_byte_is_the_same_request(whole: bytes) -> None:
    assert plain(only(parse(*(whole[i : i + 1] for i in range(len(whole)))))) == plain(only(parse(whole)))


@given(st.lists(st.sampled_from([PUBLISH, CHUNKED, GET]), min_size=1, max_size=6), st.lists(st.integers(0, 1500)))
def test_pipelined_requests_come_out_in_order_however_they_are_cut(wholes: list[bytes], places: list[int]) -> None:
    data = b"".join(wholes)
    cuts = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    parser = parse(*(data[low:high] for low, high in pairwise(cuts)))
    assert parser.error is None
    assert [plain(r) for r in parser.requests] == [plain(only(parse(whole))) for whole in wholes]


def test_chunks_are_joined_and_extensions_and_trailers_are_not_taken() -> None:
    request = only(parse(CHUNKED))
    assert request.body == b'[{"topic":"a","data":1}]'
    assert request.header(b"push-id") is None
    assert [value for name, value in request.headers if name == b"host"] == [b"gateway"]


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/v1/messages", b"/v1/messages", b""),
        (b"/v1/messages?a=/b?c", b"/v1/messages", b"a=/b?c"),
        (b"http://gateway:8080/v1/messages?a=b", b"/v1/messages", b"a=b"),
        (b"HTTPS://gateway/", b"/", b""),
        (b"http://gateway", b"/", b""),
        (b"*", b"*", b""),
        (b"/http://x/y", b"/http://x/y", b""),
    ],
)
def test_a_target_has_a_path_and_a_query_in_whichever_form(target: bytes, path: bytes, query: bytes) -> None:
    request = only(parse(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: gateway\r\n\r\n"))
    assert (request.path, request.query) == (path, query)


def test_the_parser_says_where_it_stands() -> None:
    parser = parse(b"POST / HTTP/1.1\r\nHo")
    assert (parser.started, parser.in_body) == (True, False)
    parser.feed(b"st: x\r\nContent-Length: 2\r\n\r\n1")
    assert (parser.started, parser.in_body) == (True, True)
    parser.feed(b"2")
    assert (parser.started, parser.in_body) == (False, False)


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_a_connection_is_kept_as_its_version_and_header_say(head: bytes, keep_alive: bool) -> None:
    assert only(parse(head)).keep_alive is keep_alive


# ----------------------------------------------------------------------------------------------------- refusal


def with_head(*lines: bytes, start: bytes = b"POST / HTTP/1.1\r\nHost: x\r\n") -> bytes:
    return start + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


MALFORMED: dict[str, bytes] = {
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a word that is no method": b"PUBLISH / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": with_head(b"Host: y"),
    "the same Host twice": with_head(b"host: x"),
    "two lengths that differ": with_head(b"Content-Length: 3", b"Content-Length: 4") + b"abcd",
    "two lengths in one line": with_head(b"Content-Length: 3, 4") + b"abcd",
    "the same length twice": with_head(b"Content-Length: 3", b"Content-Length: 3") + b"abc",
    "a length with a sign": with_head(b"Content-Length: +3") + b"abc",
    "a negative length": with_head(b"Content-Length: -1"),
    "a length in hexadecimal": with_head(b"Content-Length: 0x3") + b"abc",
    "a length beyond 64 bits": with_head(b"Content-Length: 18446744073709551617") + b"abc",
    "a length without digits": with_head(b"Content-Length:"),
    "a length and chunks": with_head(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunks and a length": with_head(b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"0\r\n\r\n",
    "an encoding that does not end in chunks": with_head(b"Transfer-Encoding: gzip") + b"0\r\n\r\n",
    "chunks that are encoded again": with_head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n",
    "a chunk size that is no number": with_head(b"Transfer-Encoding: chunked") + b"x\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a sign": with_head(b"Transfer-Encoding: chunked") + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size in C's notation": with_head(b"Transfer-Encoding: chunked") + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": with_head(b"Transfer-Encoding: chunked") + b"fffffffffffffffff\r\nabc\r\n",
    "a chunk longer than its size": with_head(b"Transfer-Encoding: chunked") + b"3\r\nabcd\r\n0\r\n\r\n",
    "a header continued on the next line": with_head(b"Push-Id: a", b" b"),
    "a space before the colon": with_head(b"Push-Id : a"),
    "a space within a header name": with_head(b"Push Id: a"),
    "a header without a colon": with_head(b"Push-Id"),
    "a header without a name": with_head(b": a"),
    "a NUL in a header": with_head(b"Push-Id: a\x00b"),
    "a NUL in a header name": with_head(b"Push\x00Id: a"),
    "a bare carriage return in a header": with_head(b"Push-Id: a\rX: b"),
    "a space before the first header": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_plainly_http_is_refused(data: bytes) -> None:
    parser = parse(data)
    assert code(parser) == "bad_request"
    assert not parser.requests


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_nothing_behind_an_error_is_taken(data: bytes) -> None:
    parser = parse(*(data[i : i + 1] for i in range(len(data))), GET, GET)
    assert code(parser) == "bad_request"
    assert not parser.requests


def test_what_came_whole_before_an_error_is_still_a_request() -> None:
    parser = parse(GET + PUBLISH + b"nonsense\r\n\r\n")
    assert code(parser) == "bad_request"
    assert [request.method for request in parser.requests] == ["GET", "POST"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {"bad_request", "version_not_supported"}),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", {"version_not_supported"}),
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", {"bad_request", "version_not_supported"}),
        (b"GET / HTTP/0.9\r\nHost: x\r\n\r\n", {"version_not_supported"}),
        (b"GET /\r\n\r\n", {"version_not_supported"}),
        (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", {"bad_request", "version_not_supported"}),
    ],
    ids=["preface", "2.0", "3.0", "0.9", "no version", "1.2"],
)
def test_another_version_of_http_is_refused(data: bytes, expected: set[str]) -> None:
    parser = parse(data)
    assert code(parser) in expected
    assert not parser.requests


@pytest.mark.parametrize(
    ("expect", "version", "body", "error", "waits"),
    [
        (b"100-continue", b"1.1", b"", None, True),
        (b"100-Continue", b"1.1", b"", None, True),
        (b"100-continue", b"1.1", b"a", None, False),  # the body is on its way already
        (b"100-continue", b"1.1", b"abc", None, False),
        (b"100-continue", b"1.0", b"", None, False),
        (b"200-ok", b"1.1", b"", "expectation_failed", False),
    ],
)
def test_leave_to_send_a_body_is_given_where_it_is_asked_for(
    expect: bytes, version: bytes, body: bytes, error: str | None, waits: bool
) -> None:
    head = with_head(b"Content-Length: 3", b"Expect: " + expect, start=b"POST / HTTP/" + version + b"\r\nHost: x\r\n")
    parser = parse(head + body)
    assert (code(parser), parser.expects_continue) == (error, waits)
    if waits:
        assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"
        parser.feed(b"abc")
        assert not parser.expects_continue
        assert only(parser).body == b"abc"


# ------------------------------------------------------------------------------------------------------ limits


def target(size: int) -> bytes:
    return b"GET /" + b"a" * (size - 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n"


def headers(count: int, size: int) -> bytes:
    """So many headers, Host among them, of so many bytes in all."""
    rest = size - len(b"hostx") - (count - 2) * len(b"aa")
    return with_head(*[b"a: a"] * (count - 2), b"b: " + b"b" * (rest - 1))


def body(size: int) -> bytes:
    return with_head(b"Content-Length: %d" % size) + b"b" * size


def chunks(sizes: Iterable[int]) -> bytes:
    parts = [b"%x\r\n%b\r\n" % (size, b"c" * size) for size in sizes]
    return with_head(b"Transfer-Encoding: chunked") + b"".join(parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("fits", "too_much", "refusal"),
    [
        (target(64), target(65), "request_line_too_long"),
        (headers(4, 200), headers(5, 200), "headers_too_large"),
        (headers(3, 256), headers(3, 257), "headers_too_large"),
        (body(1024), body(1025), "payload_too_large"),
        (chunks([1024]), chunks([1025]), "payload_too_large"),
        (chunks([1] * 1024), chunks([1] * 1025), "payload_too_large"),
    ],
    ids=["target", "header count", "header bytes", "declared body", "one chunk", "many chunks"],
)
def test_a_limit_is_the_largest_that_fits(fits: bytes, too_much: bytes, refusal: str) -> None:
    assert only(parse(fits, limits=SMALL))
    for parser in (parse(too_much, limits=SMALL), parse(*map(bytes, zip(too_much)), limits=SMALL)):
        assert code(parser) == refusal
        assert not parser.requests


def test_a_body_that_is_declared_too_large_is_refused_before_it_comes() -> None:
    assert code(parse(with_head(b"Content-Length: 1025"), limits=SMALL)) == "payload_too_large"


@pytest.mark.parametrize(
    ("start", "forever", "refusal"),
    [
        (b"GET /", b"a" * 1000, "request_line_too_long"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"a" * 1000, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"a" * 1000, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n" * 100, "headers_too_large"),
        (with_head(b"Transfer-Encoding: chunked") + b"1;", b"e" * 1000, "payload_too_large"),
        (with_head(b"Transfer-Encoding: chunked"), b"1;e=" + b"e" * 995 + b"\r\nb\r\n", "payload_too_large"),
        (with_head(b"Transfer-Encoding: chunked"), b"0" * 1000, "payload_too_large"),
        (with_head(b"Transfer-Encoding: chunked") + b"0\r\n", b"T: t\r\n" * 100, "payload_too_large"),
        (with_head(b"Transfer-Encoding: chunked") + b"0\r\nT: ", b"t" * 1000, "payload_too_large"),
    ],
    ids=[
        "target",
        "header value",
        "header name",
        "headers",
        "chunk extension",
        "chunks of extensions",
        "chunk size",
        "trailers",
        "trailer value",
    ],
)
def test_what_never_ends_is_refused_in_time(start: bytes, forever: bytes, refusal: str) -> None:
    parser = parse(start, limits=SMALL)
    fed = 0
    while parser.error is None and fed < 1 << 20:
        parser.feed(forever)
        fed += len(forever)
    assert code(parser) in {refusal, "bad_request"}
    assert fed <= 160 * 1024  # http's limits, four times the body, and 128 KiB of framing
    assert not parser.requests


def test_endless_requests_are_not_one_request() -> None:
    parser = RequestParser(SMALL)
    for _ in range(10_000):
        parser.feed(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert parser.error is None
        parser.requests.clear()


# ----------------------------------------------------------------------------------------------------- upgrade

UPGRADE = b"GET /v1/connect HTTP/1.1\r\nHost: x\r\nConnection: %b\r\nUpgrade: %b\r\n\r\n"


@pytest.mark.parametrize("connection", [b"Upgrade", b"keep-alive, Upgrade"])
@pytest.mark.parametrize("protocol", [b"websocket", b"WebSocket"])
def test_behind_a_websocket_upgrade_nothing_is_parsed(connection: bytes, protocol: bytes) -> None:
    parser = parse(UPGRADE % (connection, protocol) + b"\x81\x85frame")
    assert only(parser).upgrade
    assert parser.rest == b"\x81\x85frame"


@pytest.mark.parametrize(
    ("connection", "protocol"),
    [(b"Upgrade, HTTP2-Settings", b"h2c"), (b"Upgrade", b"TLS/1.0"), (b"keep-alive", b"websocket")],
)
def test_another_upgrade_is_not_taken_and_the_request_still_works(connection: bytes, protocol: bytes) -> None:
    parser = parse(UPGRADE % (connection, protocol) + PUBLISH)
    assert parser.error is None
    assert [(request.method, request.upgrade) for request in parser.requests] == [("GET", False), ("POST", False)]


@pytest.mark.parametrize(
    "framed",
    [
        with_head(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5") + b"hello",
        with_head(b"Connection: Upgrade", b"Upgrade: h2c", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
def test_an_upgrade_that_is_not_taken_keeps_its_body(framed: bytes) -> None:
    data = framed + GET
    for place in range(len(data) + 1):
        parser = parse(data[:place], data[place:])
        assert parser.error is None
        assert [(request.method, request.body) for request in parser.requests] == [("POST", b"hello"), ("GET", b"")]
    assert code(parse(*(with_head(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 1025"),), limits=SMALL))


def test_a_tunnel_is_not_made_and_what_would_go_through_it_is_not_parsed() -> None:
    parser = parse(b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\nContent-Length: 5\r\n\r\nhello" + GET)
    request = only(parser)
    assert (request.method, request.keep_alive) == ("CONNECT", False)


# --------------------------------------------------------------------------------------------------- responses


@pytest.mark.parametrize(
    ("response", "options", "expected"),
    [
        (
            Response(200, b"{}"),
            {},
            b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        ),
        (
            Response(201, b"{}"),
            {"keep_alive": False},
            b"HTTP/1.1 201 Created\r\ndate: %b\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
            b"connection: close\r\n\r\n{}",
        ),
        (
            Response(200, b"text", [(b"content-type", b"text/plain")]),
            {"head_only": True},
            b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\n",
        ),
        (
            Response(204, b"", [(b"allow", b"GET")]),
            {"http_1_0": True},
            b"HTTP/1.1 204 No Content\r\ndate: %b\r\nallow: GET\r\nconnection: keep-alive\r\n\r\n",
        ),
        (
            Response(204, b"", [(b"allow", b"GET")]),
            {"origin": b"https://app.example.org"},
            b"HTTP/1.1 204 No Content\r\ndate: %b\r\nallow: GET\r\n"
            b"access-control-allow-origin: https://app.example.org\r\nvary: origin\r\n\r\n",
        ),
    ],
    ids=["json", "closing", "head", "nothing, to HTTP/1.0", "to a page"],
)
def test_a_response_is_these_bytes(response: Response, options: dict[str, Any], expected: bytes) -> None:
    assert encode_response(response, DATE, **options) == expected % DATE


@pytest.mark.parametrize("name", TABLE)
def test_an_error_is_answered_with_its_object_and_status(name: str) -> None:
    error = GatewayError(name, "what and why", retry_after_s=7)
    response = error_response(error)
    assert response.status == TABLE[name].status
    assert response.body == error.as_json()
    told = dict(response.headers or []).get(b"retry-after")
    assert told == (b"7" if error.kind.temporary and error.kind.status in (429, 503) else None)
    assert encode_response(response, DATE).startswith(b"HTTP/1.1 %d " % response.status)


def test_limits_are_those_of_the_configuration() -> None:
    smaller = attrs.evolve(Http(), body_bytes_max=1024)
    assert code(parse(body(1025), limits=smaller)) == "payload_too_large"
    assert only(parse(body(1025)))
