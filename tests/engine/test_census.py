"""What is counted from the files is what the engine counts."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import pytest
import trio

from gateway.engine import census
from gateway.engine.census import Census, SubscriptionCount
from gateway.errors import StoreError
from gateway.store.files import Files
from gateway.store.recovery import segment_name
from tests.engine.driving import BEGAN_MS, Driven, driven, message
from tests.store.building import contents


def small(directory: Path) -> AbstractAsyncContextManager[Driven]:
    """An engine whose segments are."""
    return driven(directory, segment_bytes=2000, limits_dedup_window_s=0)


async def counted(directory: Path) -> Census:
    return await trio.to_thread.run_sync(census.take, Files(), directory)


def only(found: Census, name: str) -> SubscriptionCount:
    return next(each for each in found.subscriptions if each.name == name)


def forget(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).unlink(missing_ok=True)


async def busy(gateway: Driven) -> None:
    """Several segments, acks in and out of order."""
    await gateway.subscribe("orders", "trade.>")
    await gateway.subscribe("idle", "trade.paid")
    client = gateway.attach("orders")
    for _ in range(12):
        gateway.pass_time(1000)
        await gateway.publish(*(message(topic, "x" * 100) for topic in ("trade.paid", "trade.sent", "stock.low")))
        await gateway.deliver()
    await gateway.ack(client, (1, 6))
    await gateway.ack(client, (10, 11))


async def test_while_a_gateway_runs_the_files_tell_what_it_knows(tmp_path: Path) -> None:
    async with small(tmp_path) as gateway:
        await busy(gateway)
        before = contents(tmp_path)
        found = await counted(tmp_path)
        assert contents(tmp_path) == before
        for name in ("orders", "idle"):
            one, known = only(found, name), gateway.statistics(name)
            assert (one.routed, one.acked, one.expired, one.dead_lettered) == (
                known.routed,
                known.acked,
                known.expired,
                known.dead_lettered,
            )
            assert one.waiting == known.waiting + known.in_flight + known.delayed
            assert one.oldest_ms == known.oldest_ms
        assert only(found, "orders").oldest_position == 7
        assert only(found, "orders").floor == 6  # that one goes to nobody
        assert (only(found, "idle").oldest_position, only(found, "idle").oldest_ms) == (1, BEGAN_MS + 1000)
        assert found.epoch == gateway.engine.epoch
    stopped = await counted(tmp_path)
    assert stopped.subscriptions == found.subscriptions
    assert stopped.checkpoint is not None


async def test_segments_are_counted_with_what_is_due_in_them(tmp_path: Path) -> None:
    async with small(tmp_path) as gateway:
        await busy(gateway)
    found = await counted(tmp_path)
    assert len(found.segments) > 2
    assert [each.active for each in found.segments] == [False] * (len(found.segments) - 1) + [True]
    assert all(each.hint for each in found.segments[:-1])
    assert sum(each.messages for each in found.segments) == 36
    assert [each.bytes for each in found.segments] == [
        (tmp_path / segment_name(each.number)).stat().st_size for each in found.segments
    ]
    waiting = {p for p in range(1, 37) if p % 3 == 1} | {p for p in range(7, 37) if p % 3 == 2 and p != 11}
    for each in found.segments:
        assert each.due_messages == len(waiting & set(range(each.base, each.end)))
        assert 100 * each.due_messages < each.due_bytes < each.bytes


async def test_without_hint_files_and_without_a_checkpoint_it_is_the_same(tmp_path: Path) -> None:
    async with small(tmp_path) as gateway:
        await busy(gateway)
    found = await counted(tmp_path)
    forget(tmp_path, *(f"{each.number:010d}.hint" for each in found.segments))
    blind = await counted(tmp_path)
    assert blind.subscriptions == found.subscriptions
    assert not any(each.hint for each in blind.segments)
    assert [attrs.evolve(each, hint=False) for each in found.segments] == list(blind.segments)
    forget(tmp_path, "checkpoint", "checkpoint.old")
    told = await counted(tmp_path)
    assert told.checkpoint is None
    assert told.subscriptions == found.subscriptions


async def test_where_there_is_no_store_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store in it"):
        await counted(tmp_path)
