from __future__ import annotations

from pathlib import Path

import trio

from gateway.engine.base import DeadLetter
from gateway.model import Verb
from gateway.store.recovery import segment_name
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import driven, message


async def test_a_message_whose_attempts_are_used_up_becomes_a_dead_letter(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(attempts_max=2)
        client = gateway.attach()
        await gateway.publish(message(data="one"), message(data="two"))
        for _ in range(2):
            await gateway.deliver()
            gateway.pass_time(30_000)
        letters = await gateway.engine.dead_letters()
        assert [(dead.topic, dead.subscription, dead.attempts, dead.cause) for dead in letters] == [
            ("dead.orders", "orders", 2, "lease")
        ] * 2
        assert [dead.body for dead in letters] == client.bodies[:2]
        assert await gateway.engine.dead_letters() == []
        assert gateway.statistics().in_flight == 2
        gateway.engine.bury(letters[1], gateway.now)
        assert (gateway.statistics().in_flight, gateway.statistics().dead_lettered) == (1, 1)


async def test_a_crash_before_a_dead_letter_is_stored_loses_nothing(tmp_path: Path) -> None:
    async with driven(tmp_path, crash=True) as gateway:
        await gateway.subscribe(attempts_max=1)
        gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        gateway.pass_time(30_000)
        first, _ = await gateway.engine.dead_letters()
        gateway.engine.bury(first, gateway.now)
        await gateway.publish_many(1, "nobody")
    async with driven(tmp_path) as gateway:
        assert await gateway.consume() == [2]
        assert (gateway.statistics().dead_lettered, gateway.statistics().acked) == (1, 1)


async def test_a_term_carries_its_reason(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(dead_letter="graveyard")
        client = gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        await gateway.settle(client, Verb.TERM, (1, 1), reason="no such order")
        [dead] = await gateway.engine.dead_letters()
        assert (dead.topic, dead.cause, dead.reason) == ("graveyard", "term", "no such order")


async def test_without_a_dead_letter_topic_the_message_ends(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(dead_letter="", attempts_max=1)
        gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        gateway.pass_time(30_000)
        assert await gateway.engine.dead_letters() == []
        assert gateway.statistics().dead_lettered == 1


async def test_a_subscription_that_would_get_its_own_dead_letters_goes_on(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe("orders", ">", attempts_max=1, backoff_ms=(1000,))
        client = gateway.attach()
        await gateway.publish_many(1)
        for attempt in range(1, 5):
            await gateway.deliver()
            assert client.received == [1] * attempt
            gateway.pass_time(30_000)
            gateway.pass_time(1000)
        assert await gateway.engine.dead_letters() == []
        assert gateway.statistics().waiting == 1


async def test_the_dead_letters_of_a_deleted_subscription_are_forgotten(tmp_path: Path) -> None:
    """Its messages may be gone by the time somebody asks for them."""
    async with driven(tmp_path, cache_bytes=0, segment_bytes=3000) as gateway:
        await gateway.subscribe(attempts_max=1)
        gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        gateway.pass_time(30_000)
        await gateway.delete()
        await gateway.seal()
        await gateway.seal()
        assert not (tmp_path / segment_name(1)).exists()
        assert await gateway.engine.dead_letters() == []


async def test_a_dead_letter_of_a_subscription_deleted_since_is_buried_without_a_trace(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.subscribe(attempts_max=1)
        gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        gateway.pass_time(30_000)
        [dead] = await gateway.engine.dead_letters()
        await gateway.delete()
        gateway.engine.bury(dead, gateway.now)
        assert gateway.engine.statistics().pending_bytes == 0


async def test_no_segment_is_deleted_while_a_dead_letter_is_read_from_it(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, cache_bytes=0, segment_bytes=3000) as gateway, trio.open_nursery() as nursery:
        await gateway.subscribe(attempts_max=1)
        gateway.attach()
        await gateway.publish_many(1)
        await gateway.deliver()
        gateway.pass_time(30_000)
        held = disk.hold("read")
        letters: list[DeadLetter] = []

        async def read() -> None:
            letters.extend(await gateway.engine.dead_letters())

        nursery.start_soon(read)
        await trio.to_thread.run_sync(held.reached.wait, 5)
        await gateway.delete()
        await gateway.seal()
        assert (tmp_path / segment_name(1)).exists()
        held.release()
        while not letters:
            await trio.lowlevel.checkpoint()
        assert b'"position":1' in letters[0].body


async def test_dead_letters_are_taken_as_far_as_there_is_room_for_their_bodies(tmp_path: Path) -> None:
    """A subscription that gives up thousands at once has a bounded part of their bodies in memory."""
    async with driven(tmp_path, deliver_dead_letter_bytes_max=3000) as gateway:
        await gateway.subscribe()
        client = gateway.attach()
        await gateway.publish_many(20, size=400)
        await gateway.deliver()
        await gateway.settle(client, Verb.TERM, (1, 20))
        first = await gateway.engine.dead_letters()
        assert 0 < len(first) < 5
        assert await gateway.engine.dead_letters() == [], "those that are out have taken the room"
        for dead in first:
            gateway.engine.bury(dead, gateway.now)
        found = len(first)
        while letters := await gateway.dead_letters():
            found += len(letters)
        assert found == 20
        assert gateway.statistics().dead_lettered == 20


async def test_a_dead_letter_that_cannot_be_read_is_set_aside_and_ends_nothing(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, cache_bytes=0) as gateway:
        await gateway.subscribe(attempts_max=1)
        gateway.attach()
        await gateway.publish_many(2)
        await gateway.deliver()
        gateway.pass_time(30_000)
        disk.fail("read", ever=True)
        assert await gateway.engine.dead_letters() == []
        shown = gateway.statistics()
        assert (shown.waiting, shown.in_flight, shown.dead_lettered) == (2, 0, 0)
