from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from gateway.auth import jwk
from gateway.auth.keysource import FETCH_TIMEOUT_S, HttpFetch, KeySource
from gateway.config import Jwt
from gateway.errors import ConfigError
from tests.auth.making import jwks, public_jwk, settings
from tests.conftest import Log

OLD = jwks(public_jwk("RS256", kid="old"))
NEW = jwks(public_jwk("RS256", kid="old"), public_jwk("RS256", "second", kid="new"))


class Site:
    """An address that answers what a test says."""

    def __init__(self, answer: bytes | Exception = OLD) -> None:
        self.answer = answer
        self.asked_s: list[float] = []

    async def __call__(self, url: str) -> bytes:
        self.asked_s.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def address(**more: float) -> Jwt:
    return settings(keys="https://login.example.org/jwks", refresh_s=300.0, refresh_min_s=10.0, **more)


@asynccontextmanager
async def running(source: KeySource) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(source.run)
        await source.wait_tried()
        yield
        nursery.cancel_scope.cancel()


async def test_an_address_is_asked_at_the_start_and_every_now_and_then(autojump_clock: trio.testing.MockClock) -> None:
    site = Site()
    source = KeySource(address(), site, 1.0)
    async with running(source):
        assert await source.find("old", "RS256") is not None
        await trio.sleep(650)
    began = site.asked_s[0]
    assert [round(at - began) for at in site.asked_s] == [0, 300, 600]


async def test_the_last_good_keys_are_kept_through_an_outage(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    site = Site()
    source = KeySource(address(), site, 1.0)
    async with running(source):
        await trio.sleep(1)
        for failure in (OSError("no route"), ValueError("status 500"), b"<html>", jwks()):
            site.answer = failure
            await trio.sleep(300)
            assert await source.find("old", "RS256") is not None
            assert source.failing
        assert source.failures == 4
        site.answer = NEW
        await trio.sleep(300)
        assert source.failing == ""
        assert await source.find("new", "RS256") is not None
    assert [entry["event"] for entry in log][-1] == "keys are refreshed again"
    log.clear()


async def test_an_unknown_kid_asks_once_and_all_who_wait_have_the_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Site()
    source = KeySource(address(), site, 1.0)
    found: list[jwk.TrustedKey | None] = []

    async def find() -> None:
        found.append(await source.find("new", "RS256"))

    async with running(source):
        await trio.sleep(20)
        site.answer = NEW
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(find)
    assert len(site.asked_s) == 2
    assert len(found) == 50
    assert None not in found


async def test_made_up_kids_cannot_make_the_gateway_flood_an_issuer(autojump_clock: trio.testing.MockClock) -> None:
    site = Site()
    source = KeySource(address(), site, 1.0)
    async with running(source):
        began = trio.current_time()
        for number in range(1000):
            assert await source.find(f"k{number}", "RS256") is None
            await trio.sleep(0.1)
        passed = trio.current_time() - began
    assert len(site.asked_s) <= passed / 10 + 2
    assert passed < 101, "in between they are answered at once"


async def test_without_keys_yet_it_is_asked_more_often(autojump_clock: trio.testing.MockClock, log: Log) -> None:
    site = Site(OSError("down"))
    source = KeySource(address(), site, 1.0)
    async with running(source):
        await trio.sleep(25)
        site.answer = OLD
        await trio.sleep(10)
        assert source.ring
    assert len([entry for entry in log if entry["log_level"] == "error"]) == 1, "said once, not at every attempt"
    log.clear()


async def test_who_waits_for_an_address_that_hangs_waits_for_a_while_only(
    autojump_clock: trio.testing.MockClock, log: Log
) -> None:
    hangs = False

    async def fetch(_: str) -> bytes:
        if hangs:
            await trio.sleep_forever()
        return OLD

    source = KeySource(address(), fetch, 1.0)
    async with running(source):
        await trio.sleep(20)
        hangs = True
        began = trio.current_time()
        assert await source.find("new", "RS256") is None
        assert trio.current_time() - began <= FETCH_TIMEOUT_S
        assert await source.find("old", "RS256") is not None
        await trio.sleep(1)
        assert source.failing == f"no answer within {FETCH_TIMEOUT_S:g} s"
    log.clear()


async def test_a_file_is_read_at_the_start_and_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(OLD)
    source = KeySource(settings(keys=str(file)), Site(), 0.01)
    source.load()
    changed = trio.Event()
    source.on_change = changed.set
    async with running(source):
        assert await source.find("new", "RS256") is None
        written = tmp_path / "new"
        written.write_bytes(NEW)
        os.replace(written, file)
        with trio.fail_after(5):
            await changed.wait()
        assert await source.find("new", "RS256") is not None


@pytest.mark.parametrize("content", [None, b"", b"{", jwks(public_jwk("HS256"))])
def test_a_file_that_holds_no_key_is_an_error_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "jwks.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="jwt 'login': keys: "):
        KeySource(settings(keys=str(file)), Site(), 1.0).load()


# ------------------------------------------------------------------------------------------------------ over the net

Answer = Callable[[], bytes]
ServeSite = Callable[[bytes], Awaitable[str]]


@pytest.fixture
async def serve_site(nursery: trio.Nursery) -> ServeSite:
    """An HTTP server on loopback that answers these bytes to each request; gives its address."""

    async def serve(answer: bytes) -> str:
        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            await stream.send_all(answer)
            await stream.aclose()

        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        return f"http://127.0.0.1:{listener.socket.getsockname()[1]}/jwks"

    return serve


def http(status: str, body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n".encode() + body


async def test_an_address_is_fetched_over_http(serve_site: ServeSite) -> None:
    assert await HttpFetch()(await serve_site(http("200 OK", OLD))) == OLD


# httpx2 leaves its generators to the collector where an answer is not read to its end; trio ends them, with a warning
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http("500 Oh", b""), "HTTP status 500"),
        (http("302 Found", b"", "Location: http://127.0.0.1:1/\r\n"), "HTTP status 302"),
        (http("200 OK", b"x" * (jwk.KEY_BYTES_MAX + 1)), "more than 1048576 bytes"),
    ],
    ids=["failure", "redirect", "too large"],
)
async def test_what_is_no_answer_is_refused(serve_site: ServeSite, answer: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        await HttpFetch()(await serve_site(answer))
