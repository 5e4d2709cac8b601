from __future__ import annotations

from typing import Any, cast

import pytest
import trio
import trio.testing

from gateway.control.asgi import Message, Receive, Scope, Send, answer, decode_path
from gateway.edge.http import HttpConnection
from gateway.wire.http import Response
from gateway.wire.request import Request


class FakeConnection:
    """Keeps what it is answered."""

    def __init__(self, remote: str = "192.0.2.1:4711") -> None:
        self.remote = remote
        self.responses: list[Response] = []

    def respond(self, response: Response) -> None:
        self.responses.append(response)


def request(target: bytes = b"/a/b?c=%20d", body: bytes = b"") -> Request:
    request = Request()
    request.method, request.target, request.body = "PUT", target, body
    request.headers = [(b"host", b"h"), (b"x-one", b"1"), (b"x-one", b"2")]
    return request


async def run(application: Any, request_: Request, remote: str = "192.0.2.1:4711") -> list[Response]:
    connection = FakeConnection(remote)
    await answer(application, request_, cast("HttpConnection", connection))
    return connection.responses


def start(status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers or []}


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        (b"/v1/subscriptions/orders", "/v1/subscriptions/orders"),
        (b"/v1/%73ubscriptions/a%2Eb", "/v1/subscriptions/a.b"),
        (b"/v1/subscriptions/%E4%B8%AD", "/v1/subscriptions/\u4e2d"),
        (b"/v1/subscriptions/a%2Fb", "/v1/subscriptions/a%2Fb"),
        (b"/v1/subscriptions/a%2fb", "/v1/subscriptions/a%2fb"),
        (b"/v1/subscriptions/a%252Fb", "/v1/subscriptions/a%2Fb"),
        (b"/livez%0A", "/livez%0A"),
        (b"/%FF", "/\ufffd"),
        (b"/%", "/%"),
    ],
)
def test_a_path_is_decoded_but_for_what_would_change_its_shape(path: bytes, decoded: str) -> None:
    assert decode_path(path) == decoded


async def test_the_application_sees_the_request_as_it_was_sent() -> None:
    seen: dict[str, Any] = {}

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope)
        seen["body"] = await receive()
        await send(start(204))
        await send(part(b""))

    await run(application, request(body=b"{}"))

    assert seen["type"] == "http"
    assert (seen["method"], seen["http_version"]) == ("PUT", "1.1")
    assert (seen["path"], seen["raw_path"], seen["query_string"]) == ("/a/b", b"/a/b", b"c=%20d")
    assert seen["headers"] == [(b"host", b"h"), (b"x-one", b"1"), (b"x-one", b"2")]
    assert seen["client"] == ("192.0.2.1", 4711)
    assert seen["body"] == {"type": "http.request", "body": b"{}", "more_body": False}


async def test_an_ipv6_client_is_named_by_its_address_and_port() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["client"] == ("::1", 80)
        await send(start())
        await send(part(b""))

    assert len(await run(application, request(), remote="::1:80")) == 1


async def test_the_parts_of_a_response_are_sent_as_one() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(201, [(b"x-a", b"1"), (b"Content-Length", b"99"), (b"connection", b"close"), (b"x-a", b"2")]))
        await send(part(b"one ", more=True))
        await send(part(b"two"))

    [response] = await run(application, request())

    assert (response.status, response.body) == (201, b"one two")
    assert response.headers == [(b"x-a", b"1"), (b"x-a", b"2")]


async def test_nothing_is_sent_where_the_application_fails_halfway() -> None:
    connection = FakeConnection()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(part(b"one ", more=True))
        raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        await answer(application, request(), cast("HttpConnection", connection))
    assert connection.responses == []


async def test_a_response_without_an_end_is_an_error() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(part(b"one ", more=True))

    with pytest.raises(RuntimeError, match="before its response was complete"):
        await run(application, request())


async def test_a_message_that_is_not_spoken_is_an_error() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.push"})

    with pytest.raises(RuntimeError, match=r"http\.response\.push"):
        await run(application, request())


async def test_the_end_of_the_request_is_told_once_the_response_is_complete() -> None:
    heard: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            heard.append((await receive())["type"])

        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            assert heard == []
            await send(start())
            await send(part(b""))

    await run(application, request())

    assert heard == ["http.disconnect"]
