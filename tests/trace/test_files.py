from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import Config, Store, Trace
from gateway.errors import StoreError
from gateway.testing.faulty import FaultyFiles
from gateway.trace.event import Step
from gateway.trace.files import TraceFiles, directory_of, file_path, numbers, read_index, scan, scan_index
from tests.trace.told import Told


def test_the_trace_lies_in_the_store_unless_another_place_is_named(tmp_path: Path) -> None:
    assert directory_of(Config(store=Store(directory="here"))) == Path("here/trace")
    assert directory_of(Config(trace=Trace(directory="there"))) == Path("there")


def test_a_new_process_begins_a_new_file_and_reads_those_before(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.stored(1)
    told.write()
    again = Told(tmp_path)
    again.stored(2)
    again.write()
    assert numbers(again.trace.files, tmp_path) == [1, 2]
    assert [len(again.about(position)) for position in (1, 2)] == [1, 1]


@pytest.mark.parametrize("clean", [True, False])
def test_whether_the_process_before_had_written_all_it_knew_is_seen(tmp_path: Path, clean: bool) -> None:
    told = Told(tmp_path)
    told.stored(1)
    if clean:
        told.finish()
    else:
        told.write()
    files = TraceFiles(tmp_path)
    assert files.open() == 2
    assert files.stopped is clean
    assert files.last_ms > 0


def test_a_file_sealed_because_it_was_full_is_no_clean_end(tmp_path: Path) -> None:
    told = Told(tmp_path, file_bytes=10)
    told.stored(1)
    told.write()
    files = TraceFiles(tmp_path)
    files.open()
    assert not files.stopped


def test_the_index_of_a_sealed_file_is_that_of_its_records(tmp_path: Path) -> None:
    told = Told(tmp_path, buffer_bytes=200)
    for position in range(1, 3000):
        told.stored(position)
        if position % 3:
            told.write()
        told.handed([position], attempts=position)
    assert told.buffer.lost
    told.finish()
    path = told.trace.all[0].path
    sealed, scanned = read_index(told.trace.files, path), scan_index(told.trace.files, path)
    assert sealed is not None
    assert len(sealed.blocks) > 10
    assert (sealed.blocks, sealed.names, sealed.losses) == (scanned.blocks, scanned.names, scanned.losses)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nothing behind the magic": lambda data: data[:8],
    "an empty file": lambda data: b"",
    "no index": lambda data: data[:-60],
    "an index with a wrong byte": lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    "an offset beyond the file": lambda data: data[:-8] + b"\xff" * 8,
    "an offset of nothing": lambda data: data[:-8] + bytes(8),
    "another program's file": lambda data: b"x" * len(data),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_read_as_far_as_it_can_be(tmp_path: Path, name: str) -> None:
    told = Told(tmp_path)
    for position in range(1, 4):
        told.stored(position)
    told.finish()
    path = told.trace.all[0].path
    damaged = DAMAGE[name](path.read_bytes())
    path.write_bytes(damaged)
    again = Told(tmp_path)
    assert not again.trace.stopped
    again.stored(4)
    again.write()
    found = [len(again.about(position)) for position in (1, 2, 3, 4)]
    assert found in ([1, 1, 1, 1], [0, 0, 0, 1])
    assert (found[0] == 1) is (len(damaged) > 200 and damaged.startswith(b"PUSH"))


@pytest.mark.parametrize(("place", "hidden"), [(4, 600), (16, 1), (40, 1)])
def test_damage_hides_the_event_or_where_its_length_is_hit_the_rest_of_the_block(
    tmp_path: Path, place: int, hidden: int
) -> None:
    told = Told(tmp_path)
    for position in range(1, 4001):
        told.stored(position)
    told.finish()
    path = told.trace.all[0].path
    data = bytearray(path.read_bytes())
    event = next(r for r in scan(told.trace.files, path) if r.kind == Step.ACCEPTED and r.position == 1200)
    data[event.offset + place] ^= 0xFF
    path.write_bytes(data)
    again = Told(tmp_path)
    assert again.about(1199)
    assert not again.about(1200)
    assert bool(again.about(1201)) is (hidden == 1)
    assert bool(again.about(1220)) is (hidden == 1)
    assert again.about(1200 + 1000)  # a block has less than a thousand events of 68 bytes


def test_the_oldest_files_go_by_size_and_by_age_and_never_the_last(tmp_path: Path) -> None:
    told = Told(tmp_path, file_bytes=1000)
    for position in range(1, 100):
        told.now += 1000
        told.stored(position)
        told.write()
    files = told.trace
    before = len(files.all)
    assert before > 4
    size = sum(file.written for file in files.all[-3:])
    files.retain(size, 0)
    assert len(files.all) == 3
    files.retain(2**60, files.all[0].last_ms)
    assert len(files.all) == 3
    files.retain(2**60, files.all[0].last_ms + 1)
    assert len(files.all) == 2
    files.retain(0, 2**60)
    assert [file.path for file in files.all] == [file_path(tmp_path, numbers(files.files, tmp_path)[0])]
    assert bool(told.about(1)) is False


def test_a_file_that_was_deleted_while_it_was_searched_is_passed_over(tmp_path: Path) -> None:
    told = Told(tmp_path, file_bytes=10)
    told.stored(1)
    told.write()
    told.stored(2)
    told.write()
    told.trace.all[0].path.unlink()
    assert told.about(1) == []
    assert len(told.about(2)) == 1


def test_a_file_that_could_not_be_begun_leaves_nothing(tmp_path: Path) -> None:
    disk = FaultyFiles()
    told = Told(tmp_path, files=disk)
    told.stored(1)
    disk.fail("write", error=errno.ENOSPC, kept=20)
    with pytest.raises(OSError, match="space"):
        told.write()
    assert os.listdir(tmp_path) == []
    assert told.trace.all == []


def test_a_directory_that_cannot_be_made_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"file/trace.*trace\.directory"):
        TraceFiles(tmp_path / "file" / "trace").open()
