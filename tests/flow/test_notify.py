from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import trio
import trio.testing

from gateway.errors import GatewayError
from gateway.flow.notify import Notify, NotifyStatistics
from gateway.model import Batch, Durability, Message, Result, Settlement, Stored
from tests.flow.engine import ScriptedEngine

NO = GatewayError("bad_topic", "no")


def batch_of(count: int, *results: Result, error: GatewayError | None = None) -> Batch:
    batch = Batch([Message("a")] * count, Durability.FSYNCED, 1, lambda _: None)
    batch.results = list(results) or None
    batch.error = error
    return batch


@pytest.mark.parametrize(
    ("batch", "accepted", "refused", "duplicates"),
    [
        (batch_of(5), 5, 0, 0),
        (batch_of(5, error=NO), 0, 5, 0),
        (batch_of(4, Stored("a", 1), NO, Stored("b", 2, duplicate=True), Stored("c", 3)), 2, 1, 1),
        (batch_of(1, NO), 0, 1, 0),
    ],
    ids=["all", "none", "some", "one"],
)
async def test_messages_are_counted_as_they_were_answered(
    nursery: trio.Nursery, batch: Batch, accepted: int, refused: int, duplicates: int
) -> None:
    engine = ScriptedEngine()
    notify = Notify(engine.as_engine)
    nursery.start_soon(notify.run)
    await engine.committing.send([batch])
    await trio.testing.wait_all_tasks_blocked()
    assert notify.statistics == NotifyStatistics(1, 1, accepted, refused, duplicates, 0)


async def test_the_answers_of_a_commit_are_given_together(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    order: list[str] = []

    class Gathering(AbstractContextManager[None]):
        def __enter__(self) -> None:
            order.append("begin")

        def __exit__(self, *_: object) -> None:
            order.append("end")

    notify = Notify(engine.as_engine, gathering=Gathering())
    nursery.start_soon(notify.run)
    for _ in range(2):
        await engine.committing.send(
            [Batch([Message("a")], Durability.FSYNCED, 1, lambda _: order.append("told")) for _ in range(2)]
        )
        await trio.testing.wait_all_tasks_blocked()
    assert order == ["begin", "told", "told", "end"] * 2


async def test_everyone_of_a_commit_is_told_once_and_in_order(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    notify = Notify(engine.as_engine)
    nursery.start_soon(notify.run)
    told: list[str] = []
    first = Batch([Message("a")], Durability.FSYNCED, 1, lambda _: told.append("first"))
    settled = Settlement(None, [], lambda _: told.append("settled"))
    silent = Settlement(None, [])
    second = Batch([Message("a")], Durability.WRITTEN, 2, lambda _: told.append("second"))
    second.on_finished = lambda size: told.append(f"{size} bytes given back")
    await engine.committing.send([first, settled, silent])
    await engine.committing.send([])
    await engine.committing.send([second])
    await trio.testing.wait_all_tasks_blocked()
    assert told == ["first", "settled", "2 bytes given back", "second"]
    assert notify.statistics == NotifyStatistics(commits=3, batches=2, accepted=2, settlements=2)
