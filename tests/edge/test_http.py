from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from gateway.config import Http
from gateway.edge.http import HttpConnection
from gateway.edge.poller import Poller
from gateway.edge.stream import OutboxStream
from gateway.edge.watchdog import Watchdog
from gateway.node import Node
from gateway.wire.http import Response
from gateway.wire.request import Request
from tests.conftest import Log, StartNode
from tests.edge.bystander import positions, statistics, subscription, untouched
from tests.edge.raw import RawHttp, open_http, request_bytes

ONE = "/v1/topics/trade.order.paid/messages"
PUBLISH = request_bytes("POST", ONE, b'{"amount":42}')


# ----------------------------------------------------------------------------------------- kept, pipelined, ended


async def test_a_connection_is_kept_for_many_requests(node: Node, http: RawHttp) -> None:
    for place in range(1, 51):
        answer = await http.post(ONE, b"1")
        assert (answer.status, answer.json["position"]) == (201, place)
        assert "connection" not in answer.headers


async def test_pipelined_requests_are_answered_in_order(node: Node, http: RawHttp) -> None:
    await http.send(PUBLISH * 20 + request_bytes("GET", "/nothing") + PUBLISH)
    answers = [await http.answer() for _ in range(22)]
    assert [answer.json["position"] for answer in answers[:20]] == list(range(1, 21))
    assert answers[20].status == 404
    assert answers[21].json["position"] == 21


async def test_every_answer_has_a_date_a_type_and_a_length(http: RawHttp) -> None:
    for target in (ONE, "/nothing"):
        answer = await http.post(target, b"1")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["date"].endswith(" GMT")
        assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize(
    ("version", "connection", "answered"),
    [("1.1", "close", "close"), ("1.0", None, "close"), ("1.0", "keep-alive", "keep-alive")],
)
async def test_a_connection_ends_as_the_client_wants_it(
    http: RawHttp, version: str, connection: str | None, answered: str
) -> None:
    request = request_bytes("POST", ONE, b"1", {"Connection": connection} if connection else {})
    await http.send(request.replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
    answer = await http.answer()
    assert (answer.status, answer.headers["connection"]) == (201, answered)
    if answered == "close":
        assert await http.end() == b""


async def test_a_client_that_only_stops_sending_is_still_answered(http: RawHttp) -> None:
    await http.send(PUBLISH)
    await http.stream.send_eof()
    assert (await http.answer()).status == 201
    assert await http.end() == b""


@pytest.mark.parametrize("padding", [b"\r\n", b"\r\n\r\n"])
async def test_empty_lines_between_requests_are_passed_over(http: RawHttp, padding: bytes) -> None:
    for _ in range(2):
        await http.send(padding + PUBLISH)
        assert (await http.answer()).status == 201


# -------------------------------------------------------------------------------------------------------- expect


async def test_a_client_that_waits_for_leave_gets_it(http: RawHttp) -> None:
    head = request_bytes("POST", ONE, b"", {"Content-Length": "4", "Expect": "100-continue"})
    for _ in range(2):
        await http.send(head)
        leave = await http.answer()
        assert (leave.status, leave.headers) == (100, {})
        await http.send(b"true")
        assert (await http.answer()).status == 201


async def test_a_client_that_does_not_wait_is_not_told_to(http: RawHttp) -> None:
    await http.send(request_bytes("POST", ONE, b"true", {"Expect": "100-continue"}))
    assert (await http.answer()).status == 201


async def test_leave_is_not_given_before_the_request_ahead_is_answered(http: RawHttp) -> None:
    head = request_bytes("POST", ONE, b"", {"Content-Length": "4", "Expect": "100-continue"})
    await http.send(PUBLISH + head)
    assert [(await http.answer()).status, (await http.answer()).status] == [201, 100]
    await http.send(b"true")
    assert (await http.answer()).status == 201


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Length": "4", "Expect": "a-miracle"}, 417, "expectation_failed"),
        ({"Content-Length": "10000000", "Expect": "100-continue"}, 413, "payload_too_large"),
    ],
)
async def test_a_body_that_will_be_refused_is_not_asked_for(
    http: RawHttp, headers: dict[str, str], status: int, code: str
) -> None:
    await http.send(request_bytes("POST", ONE, b"", headers))
    answer = await http.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (status, code, "close")
    assert await http.end() == b""


# ------------------------------------------------------------------------------------------------------- refusal

REFUSED = {
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 50, 400, "bad_request"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "smuggling": (
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "bad_request",
    ),
    "a long target": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "request_line_too_long"),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 128 + b"\r\n", 431, "headers_too_large"),
    "a large body": (request_bytes("POST", ONE, b"", {"Content-Length": "9999999"}), 413, "payload_too_large"),
    "another version": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "version_not_supported"),
}


@pytest.mark.parametrize(("data", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_taken_is_answered_and_the_connection_ends(
    node: Node, data: bytes, status: int, code: str
) -> None:
    async with untouched(node, stored=1), open_http(node.address) as http:
        await http.send(PUBLISH + data + PUBLISH)
        assert (await http.answer()).status == 201
        answer = await http.answer()
        assert (answer.status, answer.code, answer.headers["connection"]) == (status, code, "close")
        assert await http.end() == b""


async def test_a_refusal_reaches_a_client_that_goes_on_sending(node: Node) -> None:
    """A reset would take the answer away again (RFC 9112 §9.6)."""
    async with untouched(node), open_http(node.address) as http:
        await http.send(request_bytes("POST", ONE, b"", {"Content-Length": "99999999"}))
        for _ in range(32):
            await http.send(b"x" * 65536)
        assert (await http.answer()).status == 413


# ----------------------------------------------------------------------------------------------------- deadlines

SLOW = {
    "http.header_timeout_s": 0.2,
    "http.body_timeout_s": 0.2,
    "http.idle_timeout_s": 0.3,
    "http.write_timeout_s": 0.2,
}


@pytest.mark.parametrize(
    ("sent", "part"),
    [
        (b"P", "headers"),
        (b"POST /v1/messages HTTP/1.1\r\nHo", "headers"),
        (PUBLISH[: PUBLISH.index(b"\r\n\r\n") + 2], "headers"),
        (PUBLISH[: PUBLISH.index(b"\r\n\r\n") + 4], "body"),
        (PUBLISH[:-1], "body"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "body"),
    ],
)
async def test_a_request_that_does_not_come_in_time_is_answered_408(
    start_node: StartNode, sent: bytes, part: str
) -> None:
    node = await start_node(SLOW)
    async with untouched(node, stored=1), open_http(node.address) as http:
        await http.send(PUBLISH + sent)
        assert (await http.answer()).status == 201
        answer = await http.answer()
        assert (answer.status, answer.code, answer.json["temporary"]) == (408, "request_timeout", True)
        assert f"the {part} did not arrive in time (http.{part.removesuffix('s')}_timeout_s)" in answer.json["message"]
        assert answer.headers["connection"] == "close"
        assert await http.end() == b""


async def test_bytes_that_trickle_do_not_put_the_deadline_off(start_node: StartNode) -> None:
    node = await start_node({**SLOW, "http.idle_timeout_s": 60})
    async with open_http(node.address) as http:
        began = trio.current_time()
        with suppress(trio.BrokenResourceError):
            for place in range(len(PUBLISH)):
                await http.send(PUBLISH[place : place + 1])
                await trio.sleep(0.03)
        assert (await http.answer()).status == 408
        assert trio.current_time() - began < 3
        assert positions(node) == 1


@pytest.mark.parametrize("before", [b"", PUBLISH], ids=["new", "used"])
async def test_a_connection_without_a_request_is_closed(start_node: StartNode, before: bytes) -> None:
    node = await start_node(SLOW)
    async with open_http(node.address) as http:
        if before:
            await http.send(before)
            await http.answer()
        began = trio.current_time()
        assert await http.end() == b""
        assert 0.2 < trio.current_time() - began < 3


async def test_an_answer_is_waited_for_as_long_as_it_takes(start_node: StartNode) -> None:
    node = await start_node(SLOW)
    await subscription(node)
    async with open_http(node.address) as http:
        answer = await http.post("/v1/subscriptions/orders/pull", b'{"wait_ms":600}')
        assert (answer.status, answer.json["messages"]) == (200, [])


async def test_a_client_that_takes_nothing_is_cut(start_node: StartNode) -> None:
    flags = {**SLOW, "http.idle_timeout_s": 60, "deliver.frame_bytes_max": 2**26, "pull.bytes_max": 2**26}
    node = await start_node(flags)
    await subscription(node)
    async with untouched(node, stored=32), open_http(node.address) as http:
        for _ in range(8):
            payload = b'{"topic":"trade.a","data":"%b"}' % (b"x" * 900_000)
            assert (await http.post("/v1/messages", b"[%b]" % b",".join([payload] * 4))).status == 200
        await http.send(request_bytes("POST", "/v1/subscriptions/orders/pull", b'{"max_bytes":67108864}'))
        with trio.fail_after(5):
            while statistics(node).in_flight == 0:
                await trio.sleep(0.01)
            while statistics(node).in_flight != 0:
                await trio.sleep(0.01)  # it came back, without a lease's time having passed
        assert len(await http.end()) < 28_000_000


# ------------------------------------------------------------------------------------------ clients that disappear


async def test_a_client_may_leave_at_any_byte_and_only_a_whole_request_is_stored(node: Node) -> None:
    async with untouched(node, stored=1):
        for place in range(len(PUBLISH) + 1):
            async with open_http(node.address) as http:
                await http.send(PUBLISH[:place])
                if place == len(PUBLISH):
                    await http.answer()
    assert node.admit.budget.used == 0


async def test_a_reset_at_any_byte_stores_nothing_either(node: Node) -> None:
    async with untouched(node):
        for place in range(0, len(PUBLISH), 7):
            async with open_http(node.address) as http:
                await http.send(PUBLISH[:place])
                reset(http)


def reset(http: RawHttp) -> None:
    """Have the connection end with a reset in place of an orderly end."""
    http.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


@pytest.mark.parametrize("abrupt", [False, True], ids=["end", "reset"])
async def test_a_client_that_leaves_before_its_answer_has_published_all_the_same(node: Node, abrupt: bool) -> None:
    async with untouched(node, stored=20):
        for _ in range(20):
            async with open_http(node.address) as http:
                await http.send(PUBLISH)
                if abrupt:
                    await trio.sleep(0.005)  # so that the request is read before the reset takes it away
                    reset(http)
        with trio.fail_after(5):
            while node.notify.statistics.accepted != 21:
                await trio.sleep(0.005)


async def test_a_body_shorter_than_declared_is_not_stored(node: Node) -> None:
    async with untouched(node), open_http(node.address) as http:
        await http.send(request_bytes("POST", ONE, b"true", {"Content-Length": "5"}))
        await http.stream.send_eof()
        assert await http.end() == b""


# --------------------------------------------------------------------------------------------- handlers that fail


class Handler:
    """Does what a test tells it to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.connection: HttpConnection | None = None
        self.handled = 0

    def handle(self, request: Request, connection: HttpConnection) -> None:
        self.connection = connection
        self.handled += 1
        if self.error:
            raise self.error
        if request.path != b"/later":
            connection.respond(Response(200, request.path))


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[RawHttp]:
    """A connection to `handler`, over a socket pair."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    client = RawHttp(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
    async with trio.open_nursery() as nursery:
        connection = HttpConnection(OutboxStream(ours, nursery), "test", Http(), Watchdog(), handler)
        nursery.start_soon(connection.serve)
        async with client.stream:
            yield client
        nursery.cancel_scope.cancel()


async def test_a_handler_that_fails_is_an_internal_error_and_the_log_says_why(log: Log) -> None:
    handler = Handler()
    handler.error = ZeroDivisionError("a bug")
    async with served(handler) as http:
        answer = await http.request("GET", "/x")
        assert (answer.status, answer.code, answer.json["temporary"]) == (500, "internal", True)
        assert "ZeroDivision" not in answer.json["message"]
        handler.error = None
        assert (await http.request("GET", "/x")).body == b"/x"
    (entry,) = log
    assert (entry["event"], entry["path"], entry["exc_info"]) == ("a request failed", "/x", True)
    log.clear()


async def test_an_answer_may_come_from_anywhere_and_a_second_one_is_nothing() -> None:
    handler = Handler()
    async with served(handler) as http:
        await http.send(request_bytes("GET", "/later") + request_bytes("GET", "/x"))
        await trio.testing.wait_all_tasks_blocked()
        assert handler.connection is not None
        handler.connection.respond(Response(200, b"late"))
        handler.connection.respond(Response(200, b"twice"))
        assert [(await http.answer()).body, (await http.answer()).body] == [b"late", b"/x"]
        handler.connection.respond(Response(200, b"unasked"))
        assert (await http.request("GET", "/y")).body == b"/y"


async def test_a_drained_connection_ends_with_its_next_answer() -> None:
    handler = Handler()
    async with served(handler) as http:
        await http.send(request_bytes("GET", "/later"))
        await trio.testing.wait_all_tasks_blocked()
        assert handler.connection is not None
        handler.connection.drain()
        handler.connection.respond(Response(200, b"last"))
        answer = await http.answer()
        assert (answer.body, answer.headers["connection"]) == (b"last", "close")
        assert await http.end() == b""


async def test_many_requests_at_once_let_others_run() -> None:
    handler = Handler()
    async with served(handler) as http:
        await http.send(request_bytes("GET", "/x") * 100)
        most = before = 0
        while handler.handled < 100:
            await trio.lowlevel.checkpoint()
            most, before = max(most, handler.handled - before), handler.handled
        assert most <= 48  # two or three turns
        assert [(await http.answer()).body for _ in range(100)] == [b"/x"] * 100


@asynccontextmanager
async def looked_at_by_hand(handler: Handler) -> AsyncIterator[tuple[RawHttp, socket.socket, OutboxStream]]:
    """The same; its socket, and the stream of the connection, which reads when it is told to `look`."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    async with trio.open_nursery() as nursery:
        stream = OutboxStream(ours, nursery, poller=Poller())
        nursery.start_soon(HttpConnection(stream, "test", Http(), Watchdog(), handler).serve)
        await trio.testing.wait_all_tasks_blocked()
        client = RawHttp(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        async with client.stream:
            yield client, theirs, stream
        nursery.cancel_scope.cancel()


async def test_an_answer_may_come_before_the_connection_s_task_waits_for_it() -> None:
    handler = Handler()
    async with looked_at_by_hand(handler) as (client, sock, stream):
        sock.send(request_bytes("GET", "/later") + request_bytes("GET", "/x"))
        stream.look()
        assert handler.connection is not None
        handler.connection.respond(Response(200, b"late"))
        assert [(await client.answer()).body, (await client.answer()).body] == [b"late", b"/x"]


async def test_the_rest_of_a_body_is_read_at_once_where_the_head_is_known() -> None:
    async with looked_at_by_hand(Handler()) as (client, sock, stream):
        large = request_bytes("POST", "/x", b"1" * 50_000)
        sock.send(large)
        for _ in range(2):  # a small buffer, and then a large one
            stream.look()
        assert (await client.answer()).body == b"/x"
        sock.send(large)
        stream.look()
        assert (await client.answer()).body == b"/x"
