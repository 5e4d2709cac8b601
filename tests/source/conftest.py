"""What the tests of sources share: a database server, an outbox in it, and a gateway to publish to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

import attrs
import pytest
import trio

from gateway.config import Limits, Ring
from gateway.config.settings import Source as SourceSettings
from gateway.errors import GatewayError
from gateway.flow.admit import Admit
from gateway.model import Batch, Durability, Message, Result, Stored
from gateway.source.base import Source
from gateway.source.watch import Watch
from tests.source.server import PostgresServer, programs

OUTBOX = (
    "DROP TABLE IF EXISTS outbox",
    "CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topic text, key text, attributes jsonb,"
    " payload json, error text, done timestamptz)",
    "CREATE OR REPLACE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN NOTIFY outbox; RETURN NULL; END $$",
    "CREATE TRIGGER outbox_notify AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify()",
)


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    found = programs()
    if found is None:
        pytest.skip("needs the PostgreSQL server (Debian: apt-get install postgresql; `make test` does it as root)")
    server = PostgresServer(found)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def database(server: PostgresServer) -> PostgresServer:
    """The server, running, with an empty outbox."""
    for statement in OUTBOX:
        server.execute(statement)
    return server


def outbox_settings(server: PostgresServer, **more: Any) -> SourceSettings:
    """Fast enough for tests to see that it is the notification, and not the poll, that wakes it."""
    return attrs.evolve(SourceSettings(name="db", type="postgres", url=server.url), **more)


class Taker:
    """A gateway in a dictionary: takes each id once, as the real one does."""

    def __init__(self, *, strict: bool = False) -> None:
        self.messages: dict[str, Message] = {}
        self.published = 0
        """Messages it was given, repeats and all."""
        self.calls = 0
        self.largest = 0
        self.errors: list[GatewayError] = []
        """Raised by the next calls."""
        self.refuse_once: dict[str, GatewayError] = {}
        self.hold: trio.Event | None = None
        self._admit = None
        if strict:
            self._admit = Admit(Limits(), Ring(), cast("Any", None))

    async def publish(self, messages: Sequence[Message]) -> list[Result]:
        self.calls += 1
        self.largest = max(self.largest, len(messages))
        await trio.lowlevel.checkpoint()
        if self.hold is not None:
            await self.hold.wait()
        if self.errors:
            raise self.errors.pop(0)
        return [self._take(message) for message in messages]

    def _take(self, message: Message) -> Result:
        assert message.id is not None
        self.published += 1
        if message.id in self.refuse_once:
            return self.refuse_once.pop(message.id)
        if self._admit is not None:
            batch = Batch([message], Durability.FSYNCED, 0, lambda _batch: None)
            self._admit.check(batch)
            if batch.results is not None:
                error = batch.results[0]
                assert isinstance(error, GatewayError)
                return error
        seen = message.id in self.messages
        self.messages.setdefault(message.id, message)
        return Stored(message.id, len(self.messages), seen)

    def data(self) -> list[bytes]:
        return [bytes(cast("bytes", message.data)) for message in self.messages.values()]


KeepWatch = Callable[[Source, Taker], Awaitable[Watch]]


@pytest.fixture
async def keep_watch(nursery: trio.Nursery) -> AsyncIterator[KeepWatch]:
    """Keep a source running; it is stopped behind the test."""
    watches: list[Watch] = []

    async def start(source: Source, taker: Taker) -> Watch:
        watch = Watch([source], lambda _name: taker.publish)
        watches.append(watch)
        nursery.start_soon(watch.run)
        await trio.lowlevel.checkpoint()
        return watch

    yield start
    for watch in watches:
        watch.stop()


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that another process, or the gateway, is about to do."""
    with trio.fail_after(seconds):
        while not holds():
            await trio.sleep(0.005)
