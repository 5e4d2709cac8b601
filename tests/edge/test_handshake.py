from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from websockets.frames import Frame, Opcode

from gateway.config import Http
from gateway.edge.handshake import BorrowedStream, check_upgrade, replay
from gateway.edge.stream import OutboxStream
from gateway.errors import GatewayError
from gateway.wire.http import RequestParser
from gateway.wire.request import Request
from tests.edge.raw import HANDSHAKE, request_bytes


def request_with(**changed: str | None) -> Request:
    """A handshake with headers changed, or left out where None; `_` stands for the hyphen."""
    headers = HANDSHAKE | {name.replace("_", "-"): value for name, value in changed.items()}
    parser = RequestParser(Http())
    parser.feed(request_bytes("GET", "/v1/connect", headers={k: v for k, v in headers.items() if v is not None}))
    return parser.requests[0]


@pytest.mark.parametrize(
    "offered", ["push.v1.json", "a, push.v1.json", "push.v1.json,b", "a ,\tpush.v1.json , b"], ids=repr
)
def test_the_subprotocol_must_be_among_those_that_are_offered(offered: str) -> None:
    check_upgrade(request_with(Sec_WebSocket_Protocol=offered), "push.v1.json")


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"Sec_WebSocket_Version": None}, "upgrade_required", "Sec-WebSocket-Version: 13"),
        ({"Sec_WebSocket_Version": "8"}, "upgrade_required", "Sec-WebSocket-Version: 13"),
        ({"Sec_WebSocket_Version": "13, 8"}, "upgrade_required", "Sec-WebSocket-Version: 13"),
        ({"Sec_WebSocket_Key": None}, "bad_request", "16 bytes in base64"),
        ({"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA"}, "bad_request", "16 bytes in base64"),
        ({"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAAA="}, "bad_request", "16 bytes in base64"),
        ({"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAA-=="}, "bad_request", "16 bytes in base64"),
        ({"Sec_WebSocket_Protocol": None}, "bad_request", "subprotocol push.v1.json"),
        ({"Sec_WebSocket_Protocol": ""}, "bad_request", "subprotocol push.v1.json"),
        ({"Sec_WebSocket_Protocol": "PUSH.V1.JSON"}, "bad_request", "subprotocol push.v1.json"),
        ({"Sec_WebSocket_Protocol": "push.v1.json.gz"}, "bad_request", "subprotocol push.v1.json"),
    ],
)
def test_a_handshake_that_lacks_something_is_refused(changed: dict[str, str | None], code: str, words: str) -> None:
    with pytest.raises(GatewayError) as caught:
        check_upgrade(request_with(**changed), "push.v1.json")
    assert caught.value.code == code
    assert words in caught.value.message


def test_the_library_gets_what_it_needs_and_no_more() -> None:
    again = RequestParser(Http())
    again.feed(replay(request_with(Cookie="a=b", Sec_WebSocket_Protocol="x, push.v1.json, y"), "push.v1.json"))
    request = again.requests[0]
    assert request.upgrade
    assert request.header(b"sec-websocket-key") == HANDSHAKE["Sec-WebSocket-Key"].encode()
    assert request.header(b"sec-websocket-protocol") == b"push.v1.json"
    assert request.header(b"cookie") is None


@pytest.fixture
async def pair(nursery: trio.Nursery) -> AsyncIterator[tuple[OutboxStream, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield OutboxStream(ours, nursery), theirs


async def test_the_handshake_comes_first_and_the_rest_once_it_is_accepted(
    pair: tuple[OutboxStream, socket.socket], nursery: trio.Nursery
) -> None:
    stream, peer = pair
    borrowed = BorrowedStream(stream, b"handshake", b"the rest", 1000)
    received: list[bytes] = []

    async def read() -> None:
        while True:
            received.append(await borrowed.receive_some(65536))

    nursery.start_soon(read)
    peer.send(b"later")
    await trio.testing.wait_all_tasks_blocked()
    assert received == [b"handshake"]
    borrowed.accepted.set()
    await trio.testing.wait_all_tasks_blocked()
    assert received == [b"handshake", b"the rest", b"later"]


async def test_what_the_library_closes_is_only_its_own(pair: tuple[OutboxStream, socket.socket]) -> None:
    stream, peer = pair
    borrowed = BorrowedStream(stream, b"", b"", 1000)
    await borrowed.send_all(b"frame")
    await borrowed.wait_send_all_might_not_block()
    await borrowed.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await borrowed.receive_some()
    stream.offer(b", last words")
    assert peer.recv(100) == b"frame, last words"
    peer.send(b"heard")
    assert await stream.receive_some() == b"heard"


async def test_messages_are_carried_out_where_they_are_read_and_the_rest_is_the_librarys(
    pair: tuple[OutboxStream, socket.socket], nursery: trio.Nursery
) -> None:
    stream, peer = pair
    borrowed = BorrowedStream(stream, b"", b"", 1000)
    messages: list[str | bytes] = []

    def carry_out(message: str | bytes) -> None:
        messages.append(message)
        if message == "last":
            borrowed.pass_all()

    borrowed.on_message = carry_out
    borrowed.accepted.set()
    ping = Frame(Opcode.PING, b"?").serialize(mask=True)
    later = Frame(Opcode.TEXT, b"later").serialize(mask=True)
    texts = [Frame(Opcode.TEXT, text).serialize(mask=True) for text in (b"one", b"two", b"last")]
    peer.send(texts[0] + ping + texts[1] + texts[2] + later)
    assert await borrowed.receive_some() == ping
    assert messages == ["one"]
    assert await borrowed.receive_some() == later
    assert messages == ["one", "two", "last"]


async def test_a_thousand_messages_in_one_read_let_others_run(pair: tuple[OutboxStream, socket.socket]) -> None:
    stream, _ = pair
    frame = Frame(Opcode.TEXT, b"small").serialize(mask=True)
    borrowed = BorrowedStream(stream, b"", frame * 1000 + b"\x89\x80\0\0\0\0", 1000)
    passes = 0

    def carry_out(_: str | bytes) -> None:
        time.sleep(0.0001)  # work, not waiting

    async def count() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    borrowed.on_message = carry_out
    borrowed.accepted.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await borrowed.receive_some()
        nursery.cancel_scope.cancel()
    assert passes >= 10
