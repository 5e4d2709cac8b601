from __future__ import annotations

import ssl
from functools import partial
from pathlib import Path

import pytest
import trio

from gateway import client
from gateway.client.dialing import PATH, parse_url


@pytest.mark.parametrize(
    ("url", "host", "port", "resource", "secure"),
    [
        ("ws://127.0.0.1:8080/v1/connect", "127.0.0.1", 8080, "/v1/connect", False),
        ("ws://gateway.test", "gateway.test", 80, PATH, False),
        ("wss://gateway.test/", "gateway.test", 443, PATH, True),
        ("https://[::1]:9/own/path/", "::1", 9, "/own/path", True),
        ("http://gateway.test:8080", "gateway.test", 8080, PATH, False),
    ],
)
def test_an_address_is_taken_apart(url: str, host: str, port: int, resource: str, secure: bool) -> None:
    parts = parse_url(url, None)
    assert parts[:3] == (host, port, resource)
    assert (parts[3] is not None) is secure


def test_a_context_of_one_s_own_is_used_for_tls_only() -> None:
    context = ssl.create_default_context()
    assert parse_url("wss://gateway.test", context)[3] is context
    assert parse_url("ws://gateway.test", context)[3] is None


def test_tls_that_fails_says_why() -> None:
    """Over a real socket, and so in real time: a test of its own run."""

    async def answer_in_plain_text(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, answer_in_plain_text, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]
            with pytest.raises(client.NotConnectedError, match=r"TLS with 127\.0\.0\.1:\d+ failed: .*SSL"):
                await client.connect(f"wss://127.0.0.1:{port}").__aenter__()
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_socket_is_a_way_to_a_gateway_too(tmp_path: Path) -> None:
    """`open_stream` may go where there is no TCP."""

    async def main() -> None:
        path = str(tmp_path / "nobody.sock")
        with pytest.raises(client.NotConnectedError, match="No such file"):
            await client.connect("ws://gateway", open_stream=partial(trio.open_unix_socket, path)).__aenter__()

    trio.run(main)
