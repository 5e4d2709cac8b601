from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
import structlog.testing

from gateway.store.files import Files
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import Driven, driven

SMALL: dict[str, Any] = {"segment_bytes": 3000, "cache_bytes": 0}


def flip(gateway: Driven, position: int) -> None:
    """Damage the record of a message in a sealed segment."""
    segment = gateway.engine._log.segment_of(position)
    assert segment is not None
    assert segment.sealed
    at = segment.index.starts[segment.index.ordinal(position)] + 5
    with segment.path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


async def sealed(gateway: Driven) -> int:
    """Four segments or more, all but the last sealed, each message in a record of its own; bytes that are sealed."""
    await gateway.subscribe()
    for _ in range(12):
        await gateway.publish_many(1, size=900)
    await gateway.engine._log.checkpoint()
    assert len(gateway.engine._log.segments) > 3
    return gateway.engine.statistics().sealed_bytes


async def round_of(gateway: Driven, size: int = 2000) -> int:
    """Scrub until the first segment's turn comes again; the bytes."""
    scrubbing = gateway.engine._scrubbing
    scrubbing._begin = lambda _count: 0
    scrubbing._segment = None
    read = await gateway.engine.scrub(size)
    while True:
        upcoming = scrubbing._next()
        if upcoming is gateway.engine._log.segments[0] and not scrubbing._record:
            return read
        read += await gateway.engine.scrub(size)


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what the page cache was told to forget."""
    sizes: list[int] = []
    monkeypatch.setattr(Files, "forget", lambda _files, _file, _offset, size: sizes.append(size))
    return sizes


async def test_a_store_in_which_nothing_is_sealed_has_nothing_to_be_read(tmp_path: Path) -> None:
    async with driven(tmp_path) as gateway:
        await gateway.publish_many(1)
        assert await gateway.engine.scrub(1000) == 0


async def test_every_record_of_every_sealed_segment_is_read_in_its_turn(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, **SMALL) as gateway:
        size = await sealed(gateway)
        before = disk.count("read", "*.log")
        read = await round_of(gateway)
        messages = sum(segment.count for segment in gateway.engine._log.segments[:-1])
        assert disk.count("read", "*.log") - before == messages
        assert size - 3000 < read <= size, "all but headers and control records"
        statistics = gateway.engine.statistics()
        assert (statistics.scrubbed_bytes, statistics.scrub_damaged) == (read, 0)


async def test_what_is_read_comes_from_the_disk(tmp_path: Path, forgotten: list[int]) -> None:
    async with driven(tmp_path, **SMALL) as gateway:
        await sealed(gateway)
        assert sum(forgotten) == 0
        assert await round_of(gateway) == sum(forgotten)


async def test_damage_is_named_once_and_not_served_from_a_map_that_was_in_order(tmp_path: Path) -> None:
    async with driven(tmp_path, **SMALL) as gateway:
        await gateway.subscribe("late")
        await sealed(gateway)
        assert len(await gateway.consume()) == 12, "all of it has been checked, and is mapped"
        flip(gateway, 2)
        with structlog.testing.capture_logs() as log:
            for _ in range(2):
                await round_of(gateway)
            [said] = [entry for entry in log if entry["log_level"] == "error"]
            assert said["event"].startswith("a record of a sealed segment is damaged")
            assert (said["first"], said["file"]) == (2, str(tmp_path / "0000000001.log"))
            assert gateway.engine.statistics().scrub_damaged == 1
            assert gateway.engine.statistics().damaged_messages == 0
            late = await gateway.consume("late")
        assert late == [1, *range(3, 13)]
        assert gateway.engine.statistics().damaged_messages == 1


async def test_a_record_that_the_disk_does_not_give_is_damaged_too(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, **SMALL) as gateway:
        await sealed(gateway)
        disk.fail("read", name="0000000001.log")
        with structlog.testing.capture_logs() as log:
            await round_of(gateway)
        assert [entry["reason"] for entry in log] == ["cannot be read (Input/output error)"]


async def test_a_segment_whose_hint_file_is_gone_is_named_and_passed_over(tmp_path: Path) -> None:
    async with driven(tmp_path, **SMALL) as gateway:
        await sealed(gateway)
        first, second = gateway.engine._log.segments[:2]
        there, away = first.path.with_suffix(".hint"), tmp_path.parent / "away"
        there.rename(away)
        with structlog.testing.capture_logs() as log:
            await round_of(gateway)
        away.rename(there)
        assert [entry["event"] for entry in log] == ["a hint file is gone"]
        assert gateway.engine.statistics().scrubbed_bytes >= second.size // 2


async def test_a_segment_that_goes_meanwhile_is_left(tmp_path: Path) -> None:
    async with driven(tmp_path, limits_dedup_window_s=0, **SMALL) as gateway:
        await sealed(gateway)
        scrubbing = gateway.engine._scrubbing
        scrubbing._begin = lambda _count: 0
        await gateway.engine.scrub(100)
        await gateway.consume()
        for _ in range(2):
            await gateway.engine._log.checkpoint()
        assert await gateway.engine.scrub(100) == 0


def test_bytes_of_a_file_are_forgotten_and_can_be_read_again(tmp_path: Path) -> None:
    files = Files()
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 5000)
    file = files.open(path)
    files.forget(file, 0, 15000)
    assert files.read(file, 3, 3) == b"abc"
    files.close(file)
