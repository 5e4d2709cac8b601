from array import array
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import StoreError
from gateway.store.files import Files
from gateway.store.record import Kind
from gateway.store.segment import Segment, consecutive, read_all
from gateway.testing.faulty import FaultyFiles
from tests.store.building import SegmentFile, body_of


def opened(path: Path, file: SegmentFile) -> Segment:
    """The segment of `file`, as recovery or the log would have it."""
    segment = Segment(file.number, path, file.base, 0)
    segment.offsets = array("I", file.offsets)
    segment.size = len(file.data)
    segment.file = Files().open(path)
    return segment


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    """Positions 10 to 29."""
    file = SegmentFile.begin(number=3, base=10)
    file.messages(20)
    return opened(file.write(tmp_path), file)


def test_consecutive_positions_of_a_subscription_are_one_pair() -> None:
    segment = Segment(1, Path(), 1, 0)
    for low, high in [(1, 3), (4, 4), (6, 6), (7, 9)]:
        segment.route_to(8, low, high)
    assert list(segment.queues[8]) == [1, 4, 6, 9]


def test_each_subscription_has_a_queue_of_its_own() -> None:
    segment = Segment(1, Path(), 1, 0)
    segment.route_to(1, 1, 1)
    segment.route_to(2, 2, 2)
    segment.route_to(1, 3, 3)
    assert {number: list(queue) for number, queue in segment.queues.items()} == {1: [1, 1, 3, 3], 2: [2, 2]}


def test_a_backfill_stands_before_what_came_later_and_within_the_segment() -> None:
    segment = Segment(1, Path(), 10, 0)
    segment.offsets = array("I", range(10))  # positions 10 to 19
    segment.route_to(1, 18, 19)
    segment.backfill(1, [(2, 4), (8, 11), (13, 13)])
    segment.backfill(2, [(15, 99)])
    segment.backfill(3, [(1, 9), (20, 30)])
    assert list(segment.queues[1]) == [10, 11, 13, 13, 18, 19]
    assert list(segment.queues[2]) == [15, 19]
    assert 3 not in segment.queues


@given(st.sets(st.integers(0, 60)))
def test_positions_are_joined_to_the_fewest_ranges(positions: set[int]) -> None:
    ranges = consecutive(sorted(positions))
    assert [p for low, high in ranges for p in range(low, high + 1)] == sorted(positions)
    assert all(after[0] - before[1] > 1 for before, after in pairwise(ranges))


def test_a_range_of_positions_is_joined_without_being_visited() -> None:
    assert consecutive(range(5, 10**12)) == [(5, 10**12 - 1)]
    assert consecutive(range(5, 5)) == []


def test_spread_is_the_bytes_from_one_record_to_another(segment: Segment) -> None:
    assert segment.spread(10, 11) == 32 + len(body_of(10))
    assert segment.spread(10, 12) == 64 + len(body_of(10)) + len(body_of(11))
    assert segment.spread(29, 30) == 32 + len(body_of(29))
    assert segment.spread(10, 30) == segment.size - segment.offsets[0]


@given(position=st.integers(10, 29), size_max=st.integers(0, 1500))
def test_what_fits_is_the_most_that_fits_and_at_least_one(position: int, size_max: int) -> None:
    file = SegmentFile.begin(base=10)
    file.messages(20)
    segment = Segment(1, Path(), 10, 0)
    segment.offsets = array("I", file.offsets)
    segment.size = len(file.data)
    if segment.spread(position, 30) <= size_max:
        return  # all of it fits, and nobody asks
    limit = segment.fitting(position, size_max)
    assert limit == position + 1 or segment.spread(position, limit) <= size_max
    assert segment.spread(position, limit + 1) > size_max


@given(st.sets(st.integers(10, 29)))
def test_bodies_are_read_back_byte_for_byte(positions: set[int]) -> None:
    file = SegmentFile.begin(base=10)
    file.messages(20)
    segment = Segment(1, Path("memory"), 10, 0)
    segment.offsets = array("I", file.offsets)
    segment.size = len(file.data)
    assert segment.read(Memory(bytes(file.data)), sorted(positions)) == [body_of(p) for p in sorted(positions)]


class Memory(Files):
    """One file in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, file: int, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]


def test_a_run_of_positions_is_one_read(segment: Segment) -> None:
    disk = FaultyFiles()
    segment.file = disk.open(segment.path)
    segment.read(disk, range(12, 20))
    assert disk.count("read") == 1
    segment.read(disk, [21, 22, 25])
    assert disk.count("read") == 3


def test_the_times_of_a_message_are_not_part_of_its_body(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.message(b'{"data":1}', due_ms=77, expires_ms=99)
    segment = opened(file.write(tmp_path), file)
    assert segment.read(Files(), [1]) == [b'{"data":1}']


def test_a_damaged_record_is_named_and_never_served(segment: Segment) -> None:
    data = bytearray(segment.path.read_bytes())
    data[segment.offsets[5] + 40] ^= 1
    segment.path.write_bytes(data)
    assert segment.read(Files(), [14]) == [body_of(14)]
    where = f"{segment.path}: the record of position 15 at byte {segment.offsets[5]} is damaged; .*restore the segment"
    with pytest.raises(StoreError, match=where):
        segment.read(Files(), [14, 15])


def test_a_record_of_another_position_is_never_served(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.add(Kind.MESSAGE, b"{}", number=1, position=2)
    segment = opened(file.write(tmp_path), file)
    with pytest.raises(StoreError, match="the record of position 1 "):
        segment.read(Files(), [1])


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0000000001.log"
    path.write_bytes(b"PNG or so")
    with pytest.raises(StoreError, match=r"0000000001\.log: is not a segment .*PUSHLOG1.*move it away"):
        read_all(Files(), Files().open(path), path)


def test_a_file_that_cannot_be_read_is_named_with_the_error(tmp_path: Path) -> None:
    path = SegmentFile.begin().write(tmp_path)
    disk = FaultyFiles()
    disk.fail("read")
    with pytest.raises(StoreError, match=r"0000000001\.log: cannot be read \(EIO\); check the disk"):
        read_all(disk, disk.open(path), path)
