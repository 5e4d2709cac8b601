from __future__ import annotations

from pathlib import Path

import pytest

from gateway.broker.body import own_id, own_position
from tests.engine.driving import driven, message

EPOCH = "0badcafe"


@pytest.mark.parametrize("position", [1, 10, 2**53 - 1])
def test_an_id_of_the_gateways_own_says_its_position(position: int) -> None:
    assert own_position(EPOCH, own_id(EPOCH, position)) == position


@pytest.mark.parametrize("text", ["", "-1", "0badcafe", "0badcafe-", "0badcafe-0", "0badcafe-01", "0badcafe-x", "1-1"])
@pytest.mark.parametrize("more", ["", "9" * 20, "\u0661"])
def test_another_id_says_none(text: str, more: str) -> None:
    assert own_position(EPOCH, text + more) is None or (text + more).removeprefix("0badcafe-").isdecimal()


async def test_a_message_is_settled_for_those_that_settled_it_alone(tmp_path: Path) -> None:
    async with driven(tmp_path) as run:
        await run.subscribe("orders")
        await run.subscribe("audit", "trade.>", "stock.>")
        paid, moved = await run.publish_many(1), await run.publish_many(1, "stock.moved")
        engine = run.engine
        assert engine.standing(paid[0]) == {"orders": False, "audit": False}
        assert await run.consume("audit") == paid + moved
        assert engine.standing(paid[0]) == {"orders": False, "audit": True}
        assert engine.standing(moved[0]) == {"audit": True}


async def test_what_the_store_does_not_hold_stands_nowhere(tmp_path: Path) -> None:
    async with driven(tmp_path) as run:
        (position,) = await run.publish_many(1)
        engine = run.engine
        assert engine.standing(position) == {}
        assert engine.standing(position + 1) is None
        assert engine.standing(0) is None
        assert engine.kept == (position, position + 1)


async def test_a_message_is_read_by_position_from_memory_and_from_the_disk(tmp_path: Path) -> None:
    async with driven(tmp_path, cache_bytes=0) as run:
        await run.subscribe()
        batch = await run.publish(message(data={"n": 1}))
        body = await run.engine.read(batch.first)
        assert body is not None
        assert b'"data":{"n":1}' in body
        assert await run.engine.read(batch.first + 1) is None


async def test_an_id_of_the_gateways_own_is_looked_up_while_it_is_stored(tmp_path: Path) -> None:
    async with driven(tmp_path) as run:
        await run.publish(message())
        epoch = run.engine.epoch
        assert await run.engine.lookup(own_id(epoch, 1)) == [1]
        assert await run.engine.lookup(own_id(epoch, 2)) == []
        assert await run.engine.lookup("a1") == []
