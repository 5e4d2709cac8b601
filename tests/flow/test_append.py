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
    batches = [batch_of(40) for _ in range(10)]
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


async def test_few_wait_for_the_next_commit_and_go_together(append: Append, engine: ScriptedEngine) -> None:
    await trio.testing.wait_all_tasks_blocked()
    batches = [batch_of(1) for _ in range(10)]
    for number, batch in enumerate(batches, 1):
        append.ring.put_nowait(batch)
        assert (len(append), engine.expected) == (number, number)
    assert engine.appended == []
    append.bring_in()
    assert (engine.appended, len(append)) == ([batches], 0)
    append.bring_in()
    assert len(engine.appended) == 1


async def test_many_are_appended_behind_the_few_that_came_before(append: Append, engine: ScriptedEngine) -> None:
    await trio.testing.wait_all_tasks_blocked()
    few, many, later = batch_of(1), batch_of(200), batch_of(1)
    for batch in (few, many, later):
        append.ring.put_nowait(batch)
    await trio.testing.wait_all_tasks_blocked()
    assert [batch for call in engine.appended for batch in call] == [few, many, later]


async def test_no_more_wait_for_a_commit_than_are_written_in_one_go(append: Append, engine: ScriptedEngine) -> None:
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(101):
        append.ring.put_nowait(batch_of(10))
    assert len(append) == 100
    await trio.testing.wait_all_tasks_blocked()
    assert (len(append), list(map(len, engine.appended))) == (0, [100, 1])


async def test_where_filters_may_have_to_be_asked_nothing_waits_for_a_commit(
    append: Append, engine: ScriptedEngine
) -> None:
    await trio.testing.wait_all_tasks_blocked()
    engine.undecided.add(batch_of(1))
    append.ring.put_nowait(batch_of(1))
    await trio.testing.wait_all_tasks_blocked()
    assert (len(append), len(engine.appended)) == (0, 1)


async def test_a_store_that_has_failed_is_said_of_every_batch(append: Append, engine: ScriptedEngine) -> None:
    engine.error = StoreError("/data: no space left on device: the store has failed")
    done: list[Batch] = []
    await trio.testing.wait_all_tasks_blocked()
    batches = [batch_of(1, done), batch_of(40, done)]
    for batch in batches:
        append.ring.put_nowait(batch)
    await trio.testing.wait_all_tasks_blocked()
    assert done == batches
    for batch in done:
        assert isinstance(batch.error, GatewayError)
        assert (batch.error.code, batch.error.kind.temporary) == ("store_failed", True)
        assert "no space left" in batch.error.message
