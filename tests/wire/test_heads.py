"""A request that begins as one before is read as if it had been parsed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Http
from gateway.wire.heads import Heads
from gateway.wire.http import RequestParser
from gateway.wire.request import Request


def post(body: bytes, *headers: bytes, target: bytes = b"/v1/topics/a/messages") -> bytes:
    lines = [b"POST %b HTTP/1.1" % target, b"Host: gateway", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = b"POST /v1/messages HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
GET = b"GET /v1/connect HTTP/1.1\r\nHost: gateway\r\n\r\n"
BODIES = st.binary(max_size=30) | st.sampled_from([b"\r\n\r\n", GET, b'{"a":1}', b"x" * 3000])
REQUESTS = (
    st.builds(post, BODIES)
    | st.builds(
        post, BODIES, st.sampled_from([b"Push-Key: k", b"Content-Type: application/json", b"x-long: " + b"y" * 2000])
    )
    | st.sampled_from([CHUNKED, GET])
)


def plain(request: Request) -> tuple[object, ...]:
    return request.method, request.target, request.version, request.headers, request.body, request.keep_alive


def read(heads: Heads, pieces: list[bytes]) -> list[Request]:
    parser = RequestParser(Http(), heads)
    for piece in pieces:
        parser.feed(piece)
    assert parser.error is None
    assert (parser.started, parser.in_body) == (False, False)
    return list(parser.requests)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[low:high] for low, high in pairwise(bounds) if low < high]


@given(st.lists(st.tuples(st.lists(REQUESTS, min_size=1, max_size=4), st.lists(st.integers(0, 10_000), max_size=5))))
def test_whatever_was_read_before_requests_are_what_they_are(
    connections: list[tuple[list[bytes], list[int]]],
) -> None:
    heads = Heads()
    for requests, places in [*connections, *connections]:
        expected = [plain(read(Heads(), [request])[0]) for request in requests]
        assert list(map(plain, read(heads, cut(b"".join(requests), places)))) == expected


def test_what_is_noted_of_a_head_is_there_with_every_body() -> None:
    heads = Heads()
    first, *_ = read(heads, [post(b"one")])
    assert first.notes == {}
    first.notes["call"] = "publish"
    second, *_ = read(heads, [post(b"two")])
    assert (second.body, second.notes) == (b"two", {"call": "publish"})
    other, *_ = read(heads, [post(b"two", b"Push-Key: k")])
    assert other.notes == {}


def test_a_principal_is_never_anothers() -> None:
    heads = Heads()
    first, second = (read(heads, [post(body)])[0] for body in (b"one", b"two"))
    first.origin = b"https://example.com"
    assert second.origin is None


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(post(b"abc", b"Expect: 100-continue"), id="it waits for leave"),
        pytest.param(CHUNKED, id="its length is not in its head"),
        pytest.param(GET[:-2] + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", id="an upgrade"),
        pytest.param(post(b"abc").replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param(post(b"abc", b"x: " + b"y" * 2000), id="a long head"),
    ],
)
def test_what_is_odd_is_parsed_each_time(odd: bytes) -> None:
    heads = Heads()
    for _ in range(2):
        parser = RequestParser(Http(), heads)
        parser.feed(odd)
        parser.requests[0].notes["seen"] = True
        assert heads.find(odd) is None


def test_heads_that_come_no_more_are_forgotten() -> None:
    heads = Heads()
    often = post(b"often")
    read(heads, [often])
    for number in range(3000):
        read(heads, [post(b"", b"traceparent: %d" % number)])
        if number % 100 == 0:
            assert heads.find(often) is not None
    assert heads.find(post(b"", b"traceparent: 1")) is None


def test_a_body_that_comes_in_pieces_is_whole_and_what_follows_is_read() -> None:
    heads = Heads()
    body, whole = b"x" * 100, post(b"x" * 100)
    read(heads, [whole])
    parser = RequestParser(Http(), heads)
    parser.feed(whole[:-60])
    assert (parser.started, parser.in_body, len(parser.requests)) == (True, True, 0)
    parser.feed(whole[-60:-10])
    parser.feed(whole[-10:] + GET)
    assert [request.body for request in parser.requests] == [body, b""]


def test_of_a_head_that_came_before_it_is_known_how_much_is_missing() -> None:
    heads, large = Heads(), post(b"x" * 3000)
    read(heads, [large[:500], large[500:]])  # learned, though its body was cut off
    parser = RequestParser(Http(), heads)
    parser.feed(large[:500])
    assert parser.missing == len(large) - 500
    parser.feed(large[500:] + large[:10])
    assert (parser.missing, [request.body for request in parser.requests]) == (0, [b"x" * 3000])
