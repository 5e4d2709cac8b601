"""Merging, over an engine: what was nearly empty goes, and nobody is due anything else than before."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.model import SeekTo, Start, Stored, Verb, WhyReason
from gateway.store.log import Log
from gateway.store.segment import Segment
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import BEGAN_MS, Client, Driven, answer_of, driven, message

SETTINGS: Final[dict[str, Any]] = {"segment_bytes": 6000, "cache_bytes": 0}
MINUTE_MS: Final = 60_000


async def fill(gateway: Driven, segments: int, topic: str = "trade.paid") -> None:
    """Publish until there are so many more; somebody must be due them, or they vanish."""
    wanted = gateway.engine.statistics().segments + segments
    while gateway.engine.statistics().segments < wanted:
        await gateway.publish(*(message(topic, f"{number} " + "x" * 100) for number in range(7)))


async def ack_all_but(gateway: Driven, client: Client, kept: Iterable[int]) -> dict[int, bytes]:
    """Deliver everything, and ack it but for `kept`, whose bodies are returned."""
    await gateway.deliver()
    bodies = dict(zip(client.received, client.bodies, strict=True))
    left = {position: bodies[position] for position in kept}
    acked = [(position, position) for position in bodies if position not in left]
    assert await gateway.ack(client, *acked) == len(acked)
    return left


async def leave_stragglers(gateway: Driven, client: Client, every: int = 40) -> dict[int, bytes]:
    """Deliver everything; ack all but every so-manyeth message. What is left."""
    await gateway.deliver()
    return await ack_all_but(gateway, client, [position for position in client.received if position % every == 0])


async def emptied(gateway: Driven, segments: int = 12) -> dict[int, bytes]:
    """A store of so many segments in which only stragglers are due, to the subscription `orders`. What they are."""
    await gateway.subscribe()
    client = gateway.attach(window=100_000)
    await fill(gateway, segments)
    left = await leave_stragglers(gateway, client)
    await gateway.seal()
    gateway.engine.detach(client.consumer, gateway.now)
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
    assert len(client.received) == gateway.statistics(name).in_flight == len(set(client.received))
    gateway.engine.detach(client.consumer, gateway.now)
    return dict(zip(client.received, client.bodies, strict=True))


def segments_of(gateway: Driven) -> list[Segment]:
    return log_of(gateway).segments


def log_of(gateway: Driven) -> Log:
    return gateway.engine._log


def on_disk(directory: Path) -> int:
    return len(list(directory.glob("*.log")))


# ------------------------------------------------------------------------------------------------- what is left


async def test_stragglers_are_moved_and_stay_byte_for_byte(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        left = await emptied(gateway)
        before = gateway.engine.statistics().segments
        assert await merge_all(gateway) > 0
        shown = gateway.engine.statistics()
        assert shown.segments <= before - 8
        assert shown.merged_segments >= shown.merges > 0 == shown.merge_failures
        assert shown.merge_freed_bytes > 10 * shown.merged_bytes > 0
        assert on_disk(tmp_path / "s") == shown.segments
        assert await due(gateway) == left
        assert gateway.statistics().waiting == len(left)
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        assert await due(gateway) == left
        assert gateway.statistics().waiting == len(left)
        assert await gateway.consume() == sorted(left)


async def test_a_crash_behind_a_merge_changes_nothing(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), crash=True, **SETTINGS) as gateway:
        left = await emptied(gateway)
        assert await merge_all(gateway) > 0
    for _ in range(2):
        async with driven(tmp_path / "s", FaultyFiles(), crash=True, **SETTINGS) as gateway:
            assert await due(gateway) == left
            assert gateway.statistics().waiting == len(left)


async def test_bodies_in_memory_are_not_taken_for_those_of_the_copy(tmp_path: Path) -> None:
    """The record of a copy may begin at the position at which another began that is still in memory."""
    async with driven(tmp_path / "s", FaultyFiles(), segment_bytes=6000) as gateway:
        await gateway.subscribe()
        client = gateway.attach(window=100_000)
        await fill(gateway, 6)
        firsts = [
            segment.index.position(first) for segment in segments_of(gateway)[:-1] for first in segment.index.firsts
        ]
        left = await ack_all_but(gateway, client, firsts[::3])
        await gateway.seal()
        assert await merge_all(gateway) > 0
        gateway.engine.detach(client.consumer, gateway.now)
        assert await due(gateway) == left


async def test_keys_times_ids_and_attributes_go_along(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe(ordered=True)
        await gateway.publish(
            message(data="a", id="own", key="k", attributes={"a": "b"}),
            message(data="b", key="k"),
            message(data="late", delay_ms=10 * MINUTE_MS),
            message(data="short", ttl_ms=20 * MINUTE_MS),
        )
        client = gateway.attach(window=100_000)
        await fill(gateway, 6)
        await ack_all_but(gateway, client, [1, 4])
        gateway.engine.detach(client.consumer, gateway.now)
        await gateway.seal()
        gateway.now += 5 * MINUTE_MS
        assert await merge_all(gateway) > 0
        assert segments_of(gateway)[0].merged
        there = await due(gateway)
        assert list(there) == [1, 4]
        assert b'"id":"own"' in there[1]
        assert b'"attributes":{"a":"b"}' in there[1]
        assert await gateway.consume() == [1, 4, 2]  # 2 waits for its key
        gateway.pass_time(6 * MINUTE_MS)
        assert await gateway.consume() == [3]


async def test_what_expires_in_a_copy_is_swept(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(ttl_ms=20 * MINUTE_MS))
        client = gateway.attach(window=100_000)
        await fill(gateway, 6)
        await ack_all_but(gateway, client, [1])
        gateway.engine.detach(client.consumer, gateway.now)
        await gateway.engine.sweep(gateway.now)
        await gateway.seal()
        assert await merge_all(gateway) > 0
        gateway.pass_time(21 * MINUTE_MS)
        await gateway.engine.sweep(gateway.now)
        assert gateway.statistics().expired == 1


async def test_what_one_of_two_is_due_is_kept_for_that_one(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe("all", ">")
        await gateway.subscribe("some", "trade.>")
        everything, some = gateway.attach("all", 100_000), gateway.attach("some", 100_000)
        await fill(gateway, 8)
        await ack_all_but(gateway, everything, [])
        left = await leave_stragglers(gateway, some)
        gateway.engine.detach(some.consumer, gateway.now)
        gateway.engine.detach(everything.consumer, gateway.now)
        await gateway.seal()
        assert await merge_all(gateway) > 0
        assert await due(gateway, "some") == left
        assert gateway.statistics("all").waiting == 2 * 2  # what `seal` published since
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        assert await due(gateway, "some") == left


async def test_what_was_given_up_can_still_be_redriven(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe(dead_letter="dead.orders")
        client = gateway.attach(window=100_000)
        await fill(gateway, 8)
        await gateway.deliver()
        given_up = client.received[10::100]
        for position in given_up:
            await gateway.settle(client, Verb.TERM, (position, position))
        await gateway.dead_letters()
        await gateway.ack(client)
        gateway.engine.detach(client.consumer, gateway.now)
        await gateway.seal()
        assert await merge_all(gateway) > 0
        assert await gateway.engine.redrive("orders", gateway.now) == len(given_up)
        assert list(await due(gateway)) == given_up


async def test_a_merged_segment_goes_whole_once_nothing_in_it_is_due(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await emptied(gateway)
        assert await merge_all(gateway) > 0
        await gateway.consume()
        await gateway.seal()
        await gateway.seal()
        assert not any(segment.merged for segment in segments_of(gateway))
        assert on_disk(tmp_path / "s") <= 3


async def test_merged_segments_are_merged_again_with_what_came_behind_them(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        left = await emptied(gateway, 6)
        assert await merge_all(gateway) > 0
        client = gateway.attach(window=100_000)
        await fill(gateway, 6)
        left |= await leave_stragglers(gateway, client)
        await gateway.seal()
        gateway.engine.detach(client.consumer, gateway.now)
        assert await merge_all(gateway) > 0
        assert sum(segment.merged for segment in segments_of(gateway)) == 1
        assert await due(gateway) == left


# ------------------------------------------------------------------------------------------------ what may not go


async def test_ids_that_are_recognised_stay_where_they_are(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        await gateway.publish(message(data="once", id="own"))
        client = gateway.attach(window=100_000)
        await fill(gateway, 6)
        await ack_all_but(gateway, client, [1, 30])
        gateway.engine.detach(client.consumer, gateway.now)
        await gateway.seal()
        await merge_all(gateway)
        assert not segments_of(gateway)[0].merged
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        answer = answer_of(await gateway.publish(message(data="once", id="own")))
        assert answer == Stored("own", 1, duplicate=True)
        gateway.now += 3 * MINUTE_MS
        await gateway.seal()
        assert await merge_all(gateway) > 0
        assert segments_of(gateway)[0].merged


async def test_segments_in_which_much_is_due_are_left_alone(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        await fill(gateway, 6)
        await gateway.seal()
        assert await merge_all(gateway) == 0
        assert not any(segment.merged for segment in segments_of(gateway))


async def test_a_segment_is_looked_at_again_once_enough_of_it_is_settled(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        client = gateway.attach(window=100_000)
        await fill(gateway, 6)
        await gateway.seal()
        assert await merge_all(gateway) == 0
        left = await leave_stragglers(gateway, client)
        assert await merge_all(gateway) > 0
        gateway.engine.detach(client.consumer, gateway.now)
        assert await due(gateway) == left


async def test_a_message_that_was_left_behind_is_not_in_the_store_any_more(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        left = await emptied(gateway)
        assert await merge_all(gateway) > 0
        kept = min(left)
        assert await gateway.engine.read(kept) == left[kept]
        assert await gateway.engine.read(kept + 1) is None
        assert gateway.engine.standing(kept) == {"orders": False}
        assert gateway.engine.standing(kept + 1) is None
        assert (await gateway.engine.why("orders", kept + 1, gateway.now)).reason is WhyReason.SETTLED


# --------------------------------------------------------------------------------------------- what comes between


async def held_up(gateway: Driven, disk: FaultyFiles, between: Any) -> bool:
    """A merge whose copy is made; `between` happens before it is adopted. Whether it was."""
    held = disk.hold("sync", "*.log.tmp")
    merged: list[bool] = []

    async def merge() -> None:
        merged.append(await gateway.engine.merge(gateway.now))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(merge)
            await trio.to_thread.run_sync(held.reached.wait, 5)
            await between()
            held.release()
    return merged[0]


async def test_what_a_seek_wants_again_is_not_left_out(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        await emptied(gateway)
        first = segments_of(gateway)[0].base

        async def seek() -> None:
            await gateway.engine.seek("orders", SeekTo(edge=Start.START), gateway.now)

        assert not await held_up(gateway, disk, seek)
        assert gateway.engine.statistics().merge_failures == 1
        assert list(await due(gateway))[:50] == list(range(first, first + 50))
        assert not list((tmp_path / "s").glob("*.log.tmp"))


async def test_what_a_new_subscription_is_due_of_the_past_is_not_left_out(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        await emptied(gateway)
        first = segments_of(gateway)[0].base

        async def subscribe() -> None:
            await gateway.subscribe("late", start=Start.START)

        assert not await held_up(gateway, disk, subscribe)
        assert list(await due(gateway, "late"))[:50] == list(range(first, first + 50))


async def test_whoever_counts_the_segments_is_waited_for(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        left = await emptied(gateway)
        before = list(segments_of(gateway))
        done = trio.Event()

        async def pin() -> None:
            with gateway.engine._held.all():
                await trio.sleep(0.1)
                assert segments_of(gateway) == before
                done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pin)
            await wait_all_tasks_blocked()
            assert await gateway.engine.merge(gateway.now)
        assert done.is_set()
        assert await due(gateway) == left


async def test_deliveries_and_acks_go_on_while_a_copy_is_made(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        left = await emptied(gateway)
        one = min(left)

        async def go_on() -> None:
            assert await due(gateway) == left
            client = gateway.attach(window=100_000)
            await gateway.deliver()
            assert await gateway.ack(client, (one, one)) == 1
            gateway.engine.detach(client.consumer, gateway.now)
            await gateway.publish(message("nobody"))

        assert await held_up(gateway, disk, go_on)
        del left[one]
        assert await due(gateway) == left
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        assert await due(gateway) == left


async def test_one_merge_is_under_way_at_a_time(tmp_path: Path) -> None:
    """Their copies would have one name."""
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        left = await emptied(gateway)

        async def merge_too() -> None:
            assert not await gateway.engine.merge(gateway.now)

        assert await held_up(gateway, disk, merge_too)
        assert await due(gateway) == left


async def test_a_frame_that_is_being_read_keeps_its_bytes(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        left = await emptied(gateway)
        client = gateway.attach(window=100_000)
        taken = gateway.engine.take(gateway.now)
        assert taken is not None
        consumer, delivery = taken
        first = segments_of(gateway)[0]
        copied = disk.hold("sync", "*.log.tmp")
        with trio.fail_after(10):
            async with trio.open_nursery() as reading, trio.open_nursery() as merging:
                merging.start_soon(gateway.engine.merge, gateway.now)
                await trio.to_thread.run_sync(copied.reached.wait, 5)
                read = disk.hold("read", "*.log")
                reading.start_soon(gateway.engine.load, delivery)
                await trio.to_thread.run_sync(read.reached.wait, 5)
                copied.release()
                while segments_of(gateway)[0] is first:
                    await trio.sleep(0.001)
                read.release()
        gateway.engine.send(consumer, delivery, gateway.now)
        gateway.engine.handed(delivery, gateway.now)
        await gateway.deliver()
        assert dict(zip(client.received, client.bodies, strict=True)) == left


async def test_where_the_first_source_is_let_go_meanwhile_the_copy_is_thrown_away(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        await emptied(gateway)

        async def settle_everything() -> None:
            await gateway.consume()
            await log_of(gateway).checkpoint()

        assert not await held_up(gateway, disk, settle_everything)
        assert not list((tmp_path / "s").glob("*.log.tmp"))
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        assert await due(gateway) == {}


# ------------------------------------------------------------------------------------------------------- faults


async def test_it_can_be_left_at_any_step(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        left = await emptied(gateway)
        before = list(segments_of(gateway))
        for verb in ("create", "write", "sync"):
            held = disk.hold(verb, "*.log.tmp")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gateway.engine.merge, gateway.now)
                await trio.to_thread.run_sync(held.reached.wait, 5)
                nursery.cancel_scope.cancel()
                held.release()
            await log_of(gateway).checkpoint()  # behind its last step the copy is put in place all the same
            assert not list((tmp_path / "s").glob("*.log.tmp"))
            assert segments_of(gateway) == before or verb == "sync"
        await log_of(gateway).checkpoint()  # its file is closed with its hint file
        assert not [name for name in disk.open_files if name.endswith(".tmp")]
        await merge_all(gateway)
        assert any(segment.merged for segment in segments_of(gateway))
        assert await due(gateway) == left


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("verb", ["create", "write", "sync"])
async def test_a_fault_of_the_disk_gives_the_copy_up_and_nothing_else(tmp_path: Path, verb: str, error: int) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        left = await emptied(gateway)
        disk.fail(verb, name="*.log.tmp", error=error)
        assert not await gateway.engine.merge(gateway.now)
        assert gateway.engine.statistics().merge_failures == 1
        assert not list((tmp_path / "s").glob("*.log.tmp"))
        assert (await gateway.publish(message("trade.more"))).error is None
        assert await merge_all(gateway) > 0
        assert len(await due(gateway)) == len(left) + 1


async def test_a_segment_that_cannot_be_read_whole_is_not_merged_and_what_can_be_is_served(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        left = await emptied(gateway)
        victim = sorted(left)[1]
        segment = log_of(gateway).segment_of(victim)
        assert segment is not None
        data = bytearray(segment.path.read_bytes())
        data[data.find(left[victim]) + 5] ^= 1
        segment.path.write_bytes(data)
        assert not await gateway.engine.merge(gateway.now)
        await merge_all(gateway)
        assert segment in segments_of(gateway)
        assert any(other.merged for other in segments_of(gateway))
        there = await due(gateway)
        del left[victim]
        assert there == left


async def test_there_is_room_for_the_copy_but_not_for_its_checkpoint(tmp_path: Path) -> None:
    """The copy is in its place, and what it replaces stays until a checkpoint could be made."""
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, crash=True, **SETTINGS) as gateway:
        left = await emptied(gateway)
        disk.fail("create", name="checkpoint.tmp", error=errno.ENOSPC)
        assert await gateway.engine.merge(gateway.now)
        assert await due(gateway) == left
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


async def test_the_checkpoint_that_came_with_it_may_be_damaged(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), crash=True, **SETTINGS) as gateway:
        left = await emptied(gateway)
        assert await gateway.engine.merge(gateway.now)
    (tmp_path / "s" / "checkpoint").write_bytes(b"nonsense")
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        assert await due(gateway) == left
        assert gateway.statistics().waiting == len(left)


async def test_it_does_nothing_where_it_is_switched_off(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), now=BEGAN_MS, merge_live_share=0.0, **SETTINGS) as gateway:
        await emptied(gateway)
        assert await merge_all(gateway) == 0
