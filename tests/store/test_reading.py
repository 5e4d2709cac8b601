from __future__ import annotations

import errno
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store.files import Files
from gateway.store.reading import HEADER_BYTES_MAX, Gap, Header, passages, read_all, read_header
from gateway.store.record import MAGIC, Kind, Record, encode
from gateway.testing.faulty import FaultyFiles
from tests.store.building import EPOCH, NOW_MS, SegmentFile


@pytest.fixture
def file() -> SegmentFile:
    """A segment with three records behind its header."""
    made = SegmentFile.begin(2, 40)
    for number in range(3):
        made.add(Kind.SETTLE, bytes(range(50)), number=number)
    return made


def written(directory: Path, data: bytes) -> Path:
    path = directory / "0000000002.log"
    path.write_bytes(data)
    return path


# --------------------------------------------------------------------------------------------------------- the header


def test_a_header_says_what_the_segment_is(file: SegmentFile, tmp_path: Path) -> None:
    path = file.write(tmp_path)
    assert read_header(Files(), path) == Header(EPOCH, 2, 2, f"{2:016x}", 40, None, NOW_MS, file.offsets[0])


def test_that_of_a_merged_segment_says_what_it_stands_for(tmp_path: Path) -> None:
    header = read_header(Files(), SegmentFile.begin(2, 40, last=5, end=900).write(tmp_path))
    assert header is not None
    assert (header.segment, header.last, header.base, header.end) == (2, 5, 40, 900)


def test_every_byte_of_a_header_counts(file: SegmentFile, tmp_path: Path) -> None:
    for at in range(file.offsets[0]):
        data = bytearray(file.data)
        data[at] ^= 1
        assert read_header(Files(), written(tmp_path, bytes(data))) is None, at


def test_a_header_that_is_not_whole_is_none(file: SegmentFile, tmp_path: Path) -> None:
    for size in range(file.offsets[0]):
        assert read_header(Files(), written(tmp_path, bytes(file.data[:size]))) is None, size


def test_a_file_that_has_only_grown_is_not_somebody_else_s(tmp_path: Path) -> None:
    assert read_header(Files(), written(tmp_path, bytes(4096))) is None


@pytest.mark.parametrize("data", [b"PK\x03\x04 and so on", b"{}", b"pushlog1" + bytes(100)])
def test_a_file_that_does_not_begin_like_ours_is_refused(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path, data)
    with pytest.raises(StoreError, match=f"{path}: is not a segment of this store"):
        read_header(Files(), path)


def test_another_record_in_the_place_of_the_header_is_none(tmp_path: Path) -> None:
    assert read_header(Files(), written(tmp_path, MAGIC + encode(Kind.ROUTE, b"{}"))) is None


def test_a_header_of_another_format_names_the_version_that_wrote_it(tmp_path: Path) -> None:
    path = SegmentFile.begin(format=1, version="0.0.9").write(tmp_path)
    with pytest.raises(StoreError, match=r"was written by version 0\.0\.9 in format 1; this version reads format 2"):
        read_header(Files(), path)


def test_only_the_beginning_is_read_for_it(file: SegmentFile, tmp_path: Path) -> None:
    disk = FaultyFiles()
    read_header(disk, file.write(tmp_path))
    assert [(call.verb, call.size) for call in disk.calls] == [("open", 0), ("read", HEADER_BYTES_MAX)]
    assert disk.open_files == []


@pytest.mark.parametrize(("error", "name"), [(errno.EIO, "EIO"), (errno.EACCES, "EACCES")])
def test_what_the_disk_does_not_give_is_said_with_the_file_that_is_closed(
    file: SegmentFile, tmp_path: Path, error: int, name: str
) -> None:
    disk = FaultyFiles()
    disk.fail("read", error=error)
    path = file.write(tmp_path)
    with pytest.raises(StoreError, match=rf"{path}: cannot be read \({name}\); check the disk"):
        read_header(disk, path)
    assert disk.open_files == []


def test_a_file_is_read_whole(file: SegmentFile, tmp_path: Path) -> None:
    files = Files()
    opened = files.open(file.write(tmp_path))
    assert read_all(files, opened, Path()) == file.data
    files.close(opened)


# --------------------------------------------------------------------------------------------------- records and gaps


def told(data: bytes, offset: int) -> list[int | Gap]:
    """Numbers of records, and gaps."""
    return [each.number if isinstance(each, Record) else each for each in passages(data, offset)]


def test_records_come_one_behind_the_other(file: SegmentFile) -> None:
    data = bytes(file.data)
    assert told(data, file.offsets[0]) == [0, 1, 2]
    assert told(data, file.offsets[2]) == [2]
    assert told(data, len(data)) == []


def test_a_gap_ends_where_the_next_record_is_whole_and_right(file: SegmentFile) -> None:
    for at in range(file.offsets[1], file.offsets[2]):
        data = bytearray(file.data)
        data[at] ^= 0x40
        assert told(bytes(data), file.offsets[0]) == [0, Gap(file.offsets[1], file.offsets[2]), 2], at


def test_bytes_between_records_are_a_gap(file: SegmentFile) -> None:
    first, *_ = file.offsets
    assert told(bytes(first) + file.data[first:], 0) == [Gap(0, first), 0, 1, 2]


def test_what_is_torn_at_the_end_is_a_gap_up_to_the_end(file: SegmentFile) -> None:
    last = file.offsets[2]
    for size in range(last + 1, len(file.data)):
        assert told(bytes(file.data[:size]), file.offsets[0]) == [0, 1, Gap(last, size)]
