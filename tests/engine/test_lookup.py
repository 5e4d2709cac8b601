from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import trio

from gateway.broker.body import own_id
from gateway.engine import lookup
from gateway.kit.hashes import half_id_hash
from gateway.model import Message
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import Driven, driven, message
from tests.engine.test_merging import ack_all_but, fill, log_of, merge_all, segments_of

SETTINGS: Final[dict[str, Any]] = {"segment_bytes": 6000, "cache_bytes": 0}
MINUTE_MS: Final = 60_000


async def named(gateway: Driven, *ids: str, topic: str = "trade.paid") -> list[int]:
    """Publish messages with these ids; their positions."""
    batch = await gateway.publish(*(message(topic, f"of {one}", id=one) for one in ids))
    assert batch.error is None
    return list(range(batch.first, batch.first + len(ids)))


async def test_an_id_is_found_wherever_its_message_is(tmp_path: Path) -> None:
    """In the active segment, in sealed ones, and behind a restart."""
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        places: dict[str, int] = {}
        for number in range(6):
            names = [f"id-{number}-{index}" for index in range(5)]
            places |= dict(zip(names, await named(gateway, *names), strict=True))
            await fill(gateway, 1)
        assert len(segments_of(gateway)) > 5
        for name, position in places.items():
            assert await gateway.engine.lookup(name) == [position]
        assert await gateway.engine.lookup("id-9-9") == []
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        for name, position in places.items():
            assert await gateway.engine.lookup(name) == [position]


@pytest.mark.parametrize("name", ["x", "x" * 128, "ä€😀", "with space/and-slash", '"quoted\\', "0badcafe-1", "-", "7"])
async def test_every_form_of_an_id_finds_its_message(tmp_path: Path, name: str) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        positions = await named(gateway, "other", name, "another")
        assert await gateway.engine.lookup(name) == [positions[1]]
        await fill(gateway, 2)
        assert await gateway.engine.lookup(name) == [positions[1]]


async def test_the_gateways_own_ids_say_where_they_are(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        await named(gateway, "a producer's")
        await gateway.publish_many(1)
        epoch = gateway.engine.epoch
        assert await gateway.engine.lookup(own_id(epoch, 1)) == [1]  # whatever its producer called it
        assert await gateway.engine.lookup(own_id(epoch, 2)) == [2]
        assert await gateway.engine.lookup(own_id(epoch, 3)) == []
        assert await gateway.engine.lookup(own_id("0badcafe", 2)) == []


async def test_a_producer_may_use_what_looks_like_an_id_of_the_gateways(tmp_path: Path) -> None:
    """Who sends a message on sends its id along."""
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        await gateway.publish_many(1)
        again = own_id(gateway.engine.epoch, 1)
        (position,) = await named(gateway, again)
        assert await gateway.engine.lookup(again) == [1, position]


async def test_an_id_that_is_used_again_is_found_at_all_its_places(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        places = await named(gateway, "again") + await named(gateway, "again", topic="trade.sent")
        await fill(gateway, 2)
        gateway.now += 10 * MINUTE_MS
        places += await named(gateway, "again")
        assert await gateway.engine.lookup("again") == places


async def test_no_more_than_the_last_hundred_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "FOUND_MAX", 3)
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        places: list[int] = []
        for number in range(5):
            places += await named(gateway, "again", topic=f"trade.{number}")
            await fill(gateway, 1)
        assert await gateway.engine.lookup("again") == places[-3:]


async def test_what_has_the_same_hash_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        (position,) = await named(gateway, "one")
        hashed = half_id_hash("one")
        monkeypatch.setattr(lookup, "half_id_hash", lambda _id: hashed)
        assert await gateway.engine.lookup("one") == [position]
        assert await gateway.engine.lookup("two") == []


async def test_it_is_found_in_a_merged_segment_and_not_where_it_was_left_behind(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        kept, gone = await named(gateway, "kept", "gone")
        client = gateway.attach(window=100_000)
        await fill(gateway, 6)
        await ack_all_but(gateway, client, [kept])
        gateway.engine.detach(client.consumer, gateway.now)
        await gateway.seal()
        gateway.now += 5 * MINUTE_MS
        assert await gateway.engine.lookup("gone") == [gone]
        assert await merge_all(gateway) > 0
        assert segments_of(gateway)[0].merged
        assert await gateway.engine.lookup("kept") == [kept]
        assert await gateway.engine.lookup("gone") == []
        assert await gateway.engine.lookup(own_id(gateway.engine.epoch, gone + 1)) == []


async def test_what_is_not_durable_yet_is_not_found(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, **SETTINGS) as gateway:
        await gateway.subscribe()
        held = disk.hold("sync")
        batch = gateway.batch(message(data=1, id="own"))
        gateway.engine.route(batch)
        gateway.engine.append([batch], gateway.now)
        assert await gateway.engine.lookup("own") == []
        held.release()
        with trio.fail_after(5):
            while not await gateway.engine.lookup("own"):
                await trio.sleep(0.001)


async def test_segments_without_ids_are_not_opened(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path / "s", disk, indexes_max=2, **SETTINGS) as gateway:
        await gateway.subscribe()
        await fill(gateway, 6)
        await log_of(gateway).sync()
        before = disk.count("open", "*.hint")
        assert await gateway.engine.lookup("nobody's") == []
        assert disk.count("open", "*.hint") == before


async def test_one_that_cannot_be_read_is_told_all_the_same(tmp_path: Path) -> None:
    async with driven(tmp_path / "s", FaultyFiles(), **SETTINGS) as gateway:
        await gateway.subscribe()
        (position,) = await named(gateway, "own")
        await fill(gateway, 2)
        path = segments_of(gateway)[0].path
        data = bytearray(path.read_bytes())
        data[data.find(b'"id":"own"')] ^= 1
        path.write_bytes(data)
        assert await gateway.engine.lookup("own") == [position]


def test_the_words_of_a_message_that_are_looked_at() -> None:
    assert lookup._decode(b'{"position":1,"id":"x","topic":"t","data":{"id":"y"}}').id == Message("t", id="x").id
