from __future__ import annotations

import pytest
import trio
import trio.testing

from gateway.errors import GatewayError, StoreError
from gateway.flow.append import Append
from gateway.model import Batch, Durability, Message
from tests.flow.engine import ScriptedEngine


def batch_of(count: int, done: list[Batch] | None = None) -> Batch:
    return Batch([Message("a")] * count, Durability.FSYNCED, 1, (done if done is not None else []).append)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def append(engine: ScriptedEngine, nursery: trio.Nursery) -> Append:
    append = Append(engine.as_engine, 100, lambda: 1000)
    nursery.start_soon(append.run)
    return append


async def test_what_waits_is_appended_together_in_order(append: Append, engine: ScriptedEngine) -> None:
    batches = [batch_of(2) for _ in range(10)]
    for batch in batches:
        append.ring.put_nowait(batch)
    await trio.testing.wait_all_tasks_blocked()
    assert [batch for call in engine.appended for batch in call] == batches
    assert len(engine.appended) == 1


async def test_no_more_is_appended_in_one_go_than_keeps_others_waiting(append: Append, engine: ScriptedEngine) -> None:
    for _ in range(10):
        append.ring.put_nowait(batch_of(400))
    await trio.testing.wait_all_tasks_blocked()
    sizes = [sum(len(batch.messages) for batch in call) for call in engine.appended]
    assert sum(sizes) == 4000
    assert max(sizes) <= 1400  # the last of them passes the mark


async def test_nothing_is_appended_while_too_much_waits_for_the_disk(append: Append, engine: ScriptedEngine) -> None:
    engine.room = trio.Event()
    append.ring.put_nowait(batch_of(1))
    await trio.testing.wait_all_tasks_blocked()
    assert engine.appended == []
    engine.room.set()
    await trio.testing.wait_all_tasks_blocked()
    assert len(engine.appended) == 1


async def test_few_wait_for_the_commit_under_way_and_go_together(append: Append, engine: ScriptedEngine) -> None:
    engine.turn = trio.Event()
    for _ in range(10):
        append.ring.put_nowait(batch_of(1))
        await trio.testing.wait_all_tasks_blocked()
    assert engine.appended == []
    engine.turn.set()
    await trio.testing.wait_all_tasks_blocked()
    assert list(map(len, engine.appended)) == [10]


async def test_many_are_appended_while_a_commit_is_under_way(append: Append, engine: ScriptedEngine) -> None:
    engine.turn = trio.Event()
    append.ring.put_nowait(batch_of(200))
    await trio.testing.wait_all_tasks_blocked()
    assert len(engine.appended) == 1


async def test_a_store_that_has_failed_is_said_of_every_batch(append: Append, engine: ScriptedEngine) -> None:
    engine.error = StoreError("/data: no space left on device: the store has failed")
    done: list[Batch] = []
    batches = [batch_of(1, done), batch_of(2, done)]
    for batch in batches:
        append.ring.put_nowait(batch)
    await trio.testing.wait_all_tasks_blocked()
    assert done == batches
    for batch in done:
        assert isinstance(batch.error, GatewayError)
        assert (batch.error.code, batch.error.kind.temporary) == ("store_failed", True)
        assert "no space left" in batch.error.message
