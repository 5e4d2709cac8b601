from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gateway import client
from tests.client.fake import URL, FakeGateway, Peer

Connect = Callable[..., AbstractAsyncContextManager[client.Gateway]]
Connected = Callable[..., AbstractAsyncContextManager[tuple[client.Gateway, Peer]]]


FOREVER_S = 1000.0


def _run(main: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    async def within_reason() -> Any:
        with trio.fail_after(FOREVER_S):  # a test that waits for nothing fails at once, instead of hanging
            return await main()

    options["clock"] = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(within_reason, **options)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time leaps to the next deadline whenever nothing else happens, in every test of this folder.

    pytest-trio takes a clock only from a test's own arguments, not from those of its fixtures, and its trio mode marks
    each test with a runner of its own: ours must stand before it.
    """
    for item in items:
        ours = item.path.parent == Path(__file__).parent
        if ours and isinstance(item, pytest.Function) and iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.trio(run=_run), append=False)


@pytest.fixture
def fake(nursery: trio.Nursery) -> FakeGateway:
    """A scripted gateway."""
    return FakeGateway(nursery)


@pytest.fixture
def connect(fake: FakeGateway) -> Connect:
    """`client.connect` to the fake."""

    def connect(**options: Any) -> AbstractAsyncContextManager[client.Gateway]:
        return client.connect(URL, open_stream=fake.open_stream, **options)

    return connect


@pytest.fixture
def connected(fake: FakeGateway, connect: Connect, nursery: trio.Nursery) -> Connected:
    """The same, past its welcome, with the other end of the connection."""

    @asynccontextmanager
    async def connected(limits: dict[str, int] | None = None, **options: Any) -> AsyncIterator[Any]:
        send_peer, receive_peer = trio.open_memory_channel[Peer](1)

        async def welcome() -> None:
            await send_peer.send(await fake.welcomed_peer(**(limits or {})))

        nursery.start_soon(welcome)
        async with connect(**options) as gateway:
            yield gateway, await receive_peer.receive()

    return connected
