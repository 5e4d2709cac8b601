from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
import trio

from gateway.config import Trace
from gateway.errors import StoreError
from gateway.testing.faulty import FaultyFiles
from gateway.trace.lines import follow
from gateway.trace.recorder import Recorder
from tests.conftest import Log
from tests.trace.told import BEGAN_MS, Told, plain

SETTINGS = Trace(flush_ms=10, segment_bytes=2000, retention_bytes=20_000)


def lines(directory: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in follow(directory, 0, lambda: False)]


@asynccontextmanager
async def recording(
    directory: Path, disk: FaultyFiles | None = None, settings: Trace = SETTINGS
) -> AsyncIterator[Recorder]:
    recorder = Recorder(settings, directory, "node", lambda: BEGAN_MS, disk)
    await recorder.open()
    recorder.started("0badcafe", 1, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        yield recorder
        nursery.cancel_scope.cancel()
    await recorder.aclose()


def files_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


class FullDisk(FaultyFiles):
    """Files can be made, and nothing be written to them."""

    def write(self, file: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def until(recorder: Recorder, **levels: int) -> None:
    with trio.fail_after(5):
        while any(getattr(recorder.statistics(), name) < level for name, level in levels.items()):
            await trio.sleep(0.005)


async def test_what_is_told_is_written_soon_without_being_asked(tmp_path: Path) -> None:
    async with recording(tmp_path) as recorder:
        recorder.steps.stored([plain(1, 5)])
        await until(recorder, bytes=1)
        assert [line["step"] for line in lines(tmp_path)] == ["node_started", "accepted"]
    assert [line["step"] for line in lines(tmp_path)] == ["node_started", "accepted", "node_stopped"]


async def test_a_second_life_knows_how_the_first_one_ended(tmp_path: Path) -> None:
    for _ in range(2):
        async with recording(tmp_path):
            pass
    told = Told(tmp_path)  # and this one is killed
    told.stored(1)
    told.write()
    async with recording(tmp_path):
        pass
    how = [line["how"] for line in lines(tmp_path) if line["step"] == "node_started"]
    assert how == ["for the first time", "after a clean end", "after a sudden end"]


async def test_statistics_count_events_bytes_losses_and_files(tmp_path: Path) -> None:
    async with recording(tmp_path) as recorder:
        for position in range(1, 200):
            recorder.steps.stored([plain(position)])
            if position % 20 == 0:
                await recorder.flush()
        await recorder.flush()
        shown = recorder.statistics()
        sizes = [file.stat().st_size for file in files_in(tmp_path)]
        assert shown.events == 200
        assert shown.lost == 0
        assert shown.pending_bytes == 0 or shown.pending_bytes < 200  # the beginning of a file not yet made
        assert (shown.segments, shown.segments_bytes) == (len(sizes), sum(sizes))
        assert shown.bytes == shown.segments_bytes


async def test_old_files_are_deleted_as_new_ones_come(tmp_path: Path) -> None:
    async with recording(tmp_path, settings=attrs.evolve(SETTINGS, retention_bytes=6000)) as recorder:
        for position in range(1, 500):
            recorder.steps.stored([plain(position)])
            await recorder.flush()
        assert recorder.statistics().segments_bytes < 6000 + 2500
        assert recorder.statistics().bytes > 30_000
        positions = [line["positions"][0][0] for line in lines(tmp_path) if "positions" in line]
        assert positions == list(range(positions[0], 500))


async def test_a_disk_that_is_full_loses_events_and_counts_them_and_nothing_else(tmp_path: Path, log: Log) -> None:
    disk = FaultyFiles()
    async with recording(tmp_path, disk) as recorder:
        recorder.steps.stored([plain(1)])
        await recorder.flush()
        for position in (2, 3, 4):
            disk.fail("write", error=errno.ENOSPC, kept=30)
            recorder.steps.stored([plain(position)])
            await recorder.flush()
        recorder.steps.stored([plain(5)])
        await recorder.flush()
        assert recorder.statistics().lost == 3
        shown = lines(tmp_path)
        assert [line.get("positions") for line in shown if line["step"] == "accepted"] == [[[1, 1]], [[5, 5]]]
        (lost,) = (line for line in shown if line["step"] == "lost")
        assert lost["events"] == 3
    said = [entry["event"] for entry in log]
    assert said == ["the trace cannot be written; its events are lost until it can"]
    log.clear()


async def test_a_disk_that_stays_full_is_left_without_files(tmp_path: Path, log: Log) -> None:
    async with recording(tmp_path, FullDisk()) as recorder:
        for position in range(1, 20):
            recorder.steps.stored([plain(position)])
            await recorder.flush()
        assert files_in(tmp_path) == []
        shown = recorder.statistics()
        assert (shown.segments, shown.bytes, shown.lost) == (0, 0, 20)
    assert len(log) == 1
    log.clear()


async def test_a_disk_that_refuses_is_left_alone_for_a_while(tmp_path: Path, log: Log) -> None:
    disk = FullDisk()
    async with recording(tmp_path, disk) as recorder:
        with trio.fail_after(5):
            while not disk.calls:
                await trio.sleep(0.005)
        for position in range(1, 20):
            recorder.steps.stored([plain(position)])
            await trio.sleep(0.01)  # as long as it takes to write, where the disk does
        tried = sum(call.verb == "create" for call in disk.calls)
        assert tried == 1
    log.clear()


async def test_events_that_come_while_the_disk_is_slow_wait_up_to_the_bound(tmp_path: Path) -> None:
    disk = FaultyFiles()
    held = disk.hold("write")
    async with recording(tmp_path, disk, attrs.evolve(SETTINGS, buffer_bytes_max=3000)) as recorder:
        await trio.to_thread.run_sync(held.reached.wait)
        for position in range(1, 1000):
            recorder.steps.stored([plain(position)])
        assert recorder.statistics().pending_bytes < 3200
        lost = recorder.statistics().lost
        assert 900 < lost < 1000
        held.release()
        await recorder.flush()
    accepted = [line for line in lines(tmp_path) if line["step"] == "accepted"]
    assert len(accepted) == 999 - lost
    assert [line["events"] for line in lines(tmp_path) if line["step"] == "lost"] == [lost]


async def test_the_export_gets_what_the_trace_gets(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    settings = attrs.evolve(SETTINGS, export_file=str(out))
    async with recording(tmp_path / "trace", settings=settings) as recorder:
        for position in range(1, 100):
            recorder.steps.stored([plain(position)])
            await recorder.flush()
    assert [orjson.loads(line) for line in out.read_bytes().splitlines()] == lines(tmp_path / "trace")


async def test_an_export_that_cannot_be_written_loses_nothing_of_the_trace(tmp_path: Path, log: Log) -> None:
    settings = attrs.evolve(SETTINGS, export_file=str(tmp_path))
    async with recording(tmp_path / "trace", settings=settings) as recorder:
        recorder.steps.stored([plain(1)])
    assert recorder.statistics().lost == 0
    assert [line["step"] for line in lines(tmp_path / "trace")] == ["node_started", "accepted", "node_stopped"]
    assert log
    log.clear()


async def test_a_place_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    recorder = Recorder(SETTINGS, tmp_path / "file", "node", lambda: BEGAN_MS)
    with pytest.raises(StoreError, match=r"trace\.enabled"):
        await recorder.open()
