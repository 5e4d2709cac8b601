"""A source that fails is started again, and nothing else notices."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from gateway.errors import GatewayError
from gateway.source.base import Publish, SourceError, SourceStatistics, State
from gateway.source.watch import CAP_S, Watch
from tests.conftest import Log
from tests.source.conftest import Taker


class Scripted:
    """Does what the test says, life by life."""

    unit = "rows"

    def __init__(self, name: str, *lives: Callable[[], None] | BaseException) -> None:
        self.name = name
        self.statistics = SourceStatistics()
        self.begun: list[float] = []
        self._lives = list(lives)

    async def run(self, publish: Publish) -> None:
        self.begun.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self._lives:
            life = self._lives.pop(0)
            if isinstance(life, BaseException):
                raise life
            life()
            return
        self.statistics.state = State.RUNNING
        await trio.sleep_forever()


@pytest.fixture
def random_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.source.watch.random", lambda: 1.0)


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (SourceError("the database is away"), "the database is away"),
        (GatewayError("draining", "going down"), "takes nothing from it for now: going down"),
        (ValueError("a fault"), "ValueError: a fault"),
        (lambda: None, "ended by itself"),
    ],
)
async def test_whatever_a_source_fails_with_it_is_tried_again_and_the_others_run(
    failure: Callable[[], None] | BaseException,
    words: str,
    log: Log,
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    random_is_one: None,
) -> None:
    failing, other = Scripted("failing", failure), Scripted("other")
    watch = Watch([failing, other], lambda _name: Taker().publish)
    nursery.start_soon(watch.run)
    await trio.testing.wait_all_tasks_blocked()
    assert failing.statistics.state is State.WAITING
    assert words in failing.statistics.error
    assert other.statistics.state is State.RUNNING
    await trio.sleep(1)
    assert (failing.statistics.state.value, failing.statistics.failures) == ("running", 1)
    assert len(other.begun) == 1
    log.clear()
    watch.stop()


async def test_tries_are_further_and_further_apart_up_to_a_cap(
    log: Log, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, random_is_one: None
) -> None:
    source = Scripted("failing", *[SourceError("away")] * 12)
    watch = Watch([source], lambda _name: Taker().publish)
    nursery.start_soon(watch.run)
    await trio.sleep(1000)
    waits = [round(b - a, 3) for a, b in zip(source.begun, source.begun[1:], strict=False)]
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == CAP_S
    watch.stop()


async def test_a_source_that_got_on_is_tried_again_soon(
    log: Log, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, random_is_one: None
) -> None:
    source = Scripted("failing", *[SourceError("away")] * 5)

    def publish_one() -> None:
        source.statistics.published += 1

    source._lives.append(publish_one)
    watch = Watch([source], lambda _name: Taker().publish)
    nursery.start_soon(watch.run)
    await trio.sleep(1000)
    assert round(source.begun[-1] - source.begun[-2], 3) == 0.2
    watch.stop()


async def test_stopping_ends_every_source(nursery: trio.Nursery) -> None:
    watch = Watch([Scripted("a"), Scripted("b")], lambda _name: Taker().publish)
    with trio.fail_after(5):
        async with trio.open_nursery() as inner:
            inner.start_soon(watch.run)
            await trio.testing.wait_all_tasks_blocked()
            watch.stop()
