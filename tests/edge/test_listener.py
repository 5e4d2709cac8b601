from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from gateway.edge.listener import Listener
from gateway.edge.stream import OutboxStream
from gateway.errors import ConfigError
from tests.conftest import Log


async def echo(stream: OutboxStream, remote: str) -> None:
    stream.offer(remote.encode() + b" ")
    while data := await stream.receive_some():
        if data == b"fail":
            raise ZeroDivisionError("a bug")
        await stream.send_all(data)


@pytest.fixture
def listener(nursery: trio.Nursery) -> Listener:
    listener = Listener("data", "127.0.0.1:0", 16)
    nursery.start_soon(listener.run, echo)
    return listener


async def open_stream(listener: Listener) -> trio.SocketStream:
    host, _, port = listener.address.rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def test_each_connection_is_served_in_a_task_of_its_own(listener: Listener) -> None:
    async with await open_stream(listener) as first, await open_stream(listener) as second:
        for stream in (second, first):
            local = "{}:{}".format(*stream.socket.getsockname())
            assert await stream.receive_some() == local.encode() + b" "
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        assert (listener.open, listener.accepted) == (2, 2)
    with trio.fail_after(5):
        while listener.open:
            await trio.sleep(0.001)
    listener.close()


async def test_a_connection_that_fails_ends_alone_and_the_log_says_why(listener: Listener, log: Log) -> None:
    async with await open_stream(listener) as good, await open_stream(listener) as bad:
        await good.receive_some()
        await bad.receive_some()
        await bad.send_all(b"fail")
        assert await bad.receive_some() == b""
        await good.send_all(b"still")
        assert await good.receive_some() == b"still"
    (entry,) = log
    assert (entry["event"], entry["exc_info"]) == ("a connection failed", True)
    log.clear()
    listener.close()


async def test_closing_accepts_no_more_and_leaves_what_is_open(listener: Listener) -> None:
    async with await open_stream(listener) as open_before:
        await open_before.receive_some()
        address = listener.address
        listener.close()
        listener.close()
        host, _, port = address.rpartition(":")
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(host, int(port))
        await open_before.send_all(b"still")
        assert await open_before.receive_some() == b"still"


async def test_a_burst_of_connections_is_accepted(listener: Listener) -> None:
    streams = [await open_stream(listener) for _ in range(200)]
    for stream in streams:
        await stream.receive_some()
    assert listener.open == 200
    for stream in streams:
        await stream.aclose()
    listener.close()


class Failing:
    """A listening socket whose accept fails a few times, as it does where descriptors run out."""

    def __init__(self, sock: socket.socket, error: int, times: int) -> None:
        self._sock = sock
        self._error = error
        self._times = times

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if self._times:
            self._times -= 1
            raise OSError(self._error, "no")
        return self._sock.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


@pytest.mark.parametrize(("error", "logged"), [(errno.EMFILE, True), (errno.ENOMEM, True), (errno.ECONNABORTED, False)])
async def test_an_accept_that_fails_is_tried_again(
    nursery: trio.Nursery, log: Log, error: int, logged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener("data", "127.0.0.1:0", 16)
    (sock,) = listener._sockets
    monkeypatch.setattr(listener, "_sockets", [Failing(sock, error, times=2)])
    nursery.start_soon(listener.run, echo)
    async with await open_stream(listener) as stream:
        with trio.fail_after(5):
            await stream.receive_some()
    assert [entry["log_level"] for entry in log] == ["error"] * (2 if logged else 0)
    log.clear()
    listener.close()


@pytest.mark.parametrize(
    ("make_address", "words"),
    [
        (lambda taken: taken, "stop what listens there, or choose another address"),
        (lambda _: "192.0.2.1:0", "Cannot assign requested address"),
        (lambda _: "no.such.host.invalid:80", "name an address of this machine"),
    ],
    ids=["taken", "not ours", "unknown"],
)
async def test_an_address_that_cannot_be_had_is_named(make_address: Callable[[str], str], words: str) -> None:
    taken = Listener("data", "127.0.0.1:0", 16)
    address = make_address(taken.address)
    with pytest.raises(ConfigError, match=r"listen\.control: ") as caught:
        Listener("control", address, 16)
    assert words in str(caught.value)
    taken.close()


async def test_an_ipv6_address_stands_in_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        listener = Listener("data", "[::1]:0", 16)
    except ConfigError:
        pytest.skip("no IPv6 here")
    assert listener.address.startswith("[::1]:")
    listener.close()
