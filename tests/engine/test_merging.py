"""Merging, over an engine: what was nearly empty goes, and nobody is due anything else than before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import trio

from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import Client, Driven, driven, message

SETTINGS: Final[dict[str, Any]] = {"segment_bytes": 6000, "cache_bytes": 0}


async def fill(gateway: Driven, segments: int, topic: str = "trade.paid") -> None:
    """Publish until there are so many more; somebody must be due them, or they vanish."""
    wanted = gateway.engine.statistics().segments + segments
    while gateway.engine.statistics().segments < wanted:
        await gateway.publish(*(message(topic, f"{number} " + "x" * 100) for number in range(7)))


async def leave_stragglers(gateway: Driven, client: Client, every: int = 40) -> dict[int, bytes]:
    """Deliver everything; ack all but every so-manyeth message. What is left."""
    await gateway.deliver()
    bodies = dict(zip(client.received, client.bodies, strict=True))
    left = {position: body for position, body in bodies.items() if position % every == 0}
    acked = [(position, position) for position in bodies if position not in left]
    assert await gateway.ack(client, *acked) == len(acked)
    return left


async def merge_all(gateway: Driven) -> int:
    merges = 0
    with trio.fail_after(20):
        while await gateway.engine.merge(gateway.now):
            merges += 1
    return merges


async def due(gateway: Driven, name: str = "orders") -> dict[int, bytes]:
    client = gateway.attach(name, 100_000)
    await gateway.deliver()
    gateway.engine.detach(client.consumer, gateway.now)
    return dict(zip(client.received, client.bodies, strict=True))


async def test_stragglers_are_moved_and_stay_byte_for_byte(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        client = gateway.attach(window=100_000)
        await fill(gateway, 12)
        left = await leave_stragglers(gateway, client)
        await gateway.seal()
        before = gateway.engine.statistics().segments
        assert await merge_all(gateway) > 0
        assert gateway.engine.statistics().segments < before - 8
        gateway.engine.detach(client.consumer, gateway.now)
        assert await due(gateway) == left
        assert gateway.statistics().waiting == len(left)
    names = sorted(path.name for path in (tmp_path / "s").glob("*.log"))
    assert len(names) <= 5, names
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        assert await due(gateway) == left
        assert gateway.statistics().waiting == len(left)


async def test_a_merge_comes_to_an_end_where_more_may_be_due_than_heads_and_columns_leave(tmp_path: Path) -> None:
    settings = {**SETTINGS, "segment_bytes": 2000, "merge_live_share": 0.9}
    async with driven(tmp_path / "s", FaultyFiles(), **settings) as gateway:
        await gateway.subscribe()
        client = gateway.attach(window=100_000)
        for number in range(40):
            await gateway.publish(message(data=number))  # a record for a short body: heads are half of it
        left = await leave_stragglers(gateway, client, every=3)
        await gateway.seal()
        assert 0 < await merge_all(gateway) < 10
        gateway.engine.detach(client.consumer, gateway.now)
        assert await due(gateway) == left
