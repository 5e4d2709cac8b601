"""Copying: what comes out of it is read as a start would read it."""

from __future__ import annotations

import errno
from array import array
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.kit.ranges import RangeSet
from gateway.store import checkpoint as checkpoints
from gateway.store import record as records
from gateway.store.checkpoint import Checkpoint, Kept
from gateway.store.index import Index
from gateway.store.merge import CannotMergeError, Merge, abandon, begin, copy
from gateway.store.plan import Measured, Plan
from gateway.store.reading import read_header
from gateway.store.record import Columns, Kind
from gateway.store.recovery import segment_name
from gateway.store.segment import Segment
from gateway.testing.faulty import FaultyFiles
from tests.store.building import EPOCH, SegmentFile, body_of, opened, recovered, segments


def plan_of(found: list[Segment], *due: list[tuple[int, int]]) -> Plan:
    sources = []
    for segment, ranges in zip(found, due, strict=False):
        kept = RangeSet(0, ranges)
        count = sum(high - low + 1 for low, high in ranges)
        sources.append(Measured(segment, kept, count, 1))
    return Plan(tuple(sources))


def merged(directory: Path, *due: list[tuple[int, int]], files: FaultyFiles | None = None) -> Merge:
    """The first segments of a directory merged, and the copy put in its place; the checkpoint is behind them."""
    found, shelf = opened(directory)
    kept = tuple(Kept(s.number, s.last, s.base, s.end, s.uid) for s in found)
    checkpoints.save(FaultyFiles(), directory, Checkpoint(EPOCH, found[-1].number, 0, kept, {}))
    disk = files or FaultyFiles()
    plan = plan_of(found, *due)
    merge, header = begin(plan, EPOCH)
    assert all(size >= 0 for size in copy(disk, shelf, plan, merge, header))
    disk.close(merge.segment.file)
    assert merge.segment.moving_from is not None
    disk.replace(merge.segment.moving_from, merge.segment.path)
    return merge


def bodies(path: Path, index: Index) -> dict[int, bytes]:
    data = path.read_bytes()
    return {
        index.position(ordinal): data[piece.start : piece.stop]
        for ordinal in range(len(index))
        for piece in index.pieces(ordinal, ordinal)
    }


def test_the_copy_holds_what_is_due_at_its_positions(tmp_path: Path) -> None:
    segments(tmp_path, 10, 10, 10, 4, each=4)
    merge = merged(tmp_path, [(2, 3), (9, 9)], [(15, 15)], [(21, 22), (30, 30)])
    found, told = recovered(tmp_path)
    assert found.lost == []
    assert told.there == [2, 3, 9, 15, 21, 22, 30, 31, 32, 33, 34]
    first = found.segments[0]
    assert (first.number, first.last, first.base, first.end, first.count) == (1, 3, 1, 31, 7)
    assert first.merged
    assert bodies(first.path, first.index) == {p: body_of(p) for p in (2, 3, 9, 15, 21, 22, 30)}
    assert merge.messages == 7
    assert [path.name for path in sorted(tmp_path.glob("*.log"))] == [segment_name(1), segment_name(4)]
    assert [path.name for path in sorted(tmp_path.glob("*.hint"))] == ["0000000001.hint"]


def test_everything_that_a_message_has_goes_with_it(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "trade.paid", [1, 2])
    file.route(2, "stock.sent", [2])
    columns = Columns(
        array("I"),
        routes=array("I", [1, 2, 1, 2]),
        due_ms=array("Q", [0, 70, 0, 0]),
        expires_ms=array("Q", [0, 0, 90, 0]),
        keys=array("Q", [5, 0, 7, 8]),
        ids=b"".join(bytes([n]) * 16 if n else bytes(16) for n in (0, 1, 2, 3)),
        digests=b"".join(bytes([n]) * 8 for n in (0, 1, 2, 3)),
    )
    file.record([body_of(p) for p in (1, 2, 3, 4)], 1, columns)
    file.record([body_of(p) for p in (5, 6)], 2)
    file.write(tmp_path)
    segments(tmp_path, 2, first=2, base=7)
    merged(tmp_path, [(2, 3), (6, 6)])
    [first, _] = recovered(tmp_path)[0].segments
    index = first.index
    assert [index.position(ordinal) for ordinal in range(3)] == [2, 3, 6]
    topics = {"trade.paid": (1, 2), "stock.sent": (2,)}
    assert [index.route(ordinal) for ordinal in range(3)] == [
        (topic, topics[topic]) for topic in ("stock.sent", "trade.paid", "stock.sent")
    ]
    assert [index.times_of(ordinal) for ordinal in range(3)] == [(70, 0), (0, 90), (0, 0)]
    assert [index.key_of(ordinal) for ordinal in range(3)] == [0, 7, 0]
    assert index.find_id(int.from_bytes(bytes([1]) * 8, "little"), 9) == [2]
    assert index.find_id(int.from_bytes(bytes([3]) * 8, "little"), 9) == []
    assert bytes(index.digests) == bytes([1]) * 8 + bytes([2]) * 8
    assert {number: list(queue) for number, queue in index.queues.items()} == {1: [2, 2], 2: [1, 2, 5, 5]}
    assert (first.due_ms, first.expires_ms) == (70, 90)


def test_what_was_merged_is_merged_again(tmp_path: Path) -> None:
    segments(tmp_path, 10, 10, 10, 4, each=4)
    merged(tmp_path, [(2, 3), (9, 9)], [(15, 15)])
    merged(tmp_path, [(3, 3), (15, 15)], [(30, 30)])
    found, told = recovered(tmp_path)
    assert found.lost == []
    assert told.there == [3, 15, 30, 31, 32, 33, 34]
    assert (found.segments[0].number, found.segments[0].last, found.segments[0].end) == (1, 3, 31)
    assert bodies(found.segments[0].path, found.segments[0].index) == {p: body_of(p) for p in (3, 15, 30)}


def test_control_records_and_routes_of_nobody_stay_behind(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "gone", [9])
    file.route(2, "trade.paid", [1])
    file.message(b"{}", 1)
    file.message(b'{"data":1}', 2)
    file.add(Kind.SETTLE, records.encode_settle(1, 1, [(1, 1)]), number=9)
    file.write(tmp_path)
    segments(tmp_path, 2, first=2, base=3)
    merged(tmp_path, [(2, 2)])
    found, told = recovered(tmp_path)
    assert found.segments[0].index.routes == [("trade.paid", (1,))]
    assert told.controls == []


def test_the_hint_of_a_merged_segment_is_rebuilt_to_the_same_bytes(tmp_path: Path) -> None:
    segments(tmp_path, 10, 10, 4, each=4)
    merged(tmp_path, [(2, 3), (9, 9)], [(15, 15)])
    recovered(tmp_path)
    hint = tmp_path / "0000000001.hint"
    before = hint.read_bytes()
    hint.unlink()
    recovered(tmp_path)
    assert hint.read_bytes() == before


def test_a_merged_segment_that_was_cut_short_is_damaged(tmp_path: Path) -> None:
    segments(tmp_path, 10, 10, 4, each=4)
    merged(tmp_path, [(2, 3), (9, 9)], [(15, 15)])
    path = tmp_path / segment_name(1)
    data = path.read_bytes()
    index = recovered(tmp_path)[0].segments[0].index
    path.write_bytes(data[: index.offsets[len(index.offsets) - 1]])
    found, told = recovered(tmp_path)
    assert told.there[:3] == [2, 3, 9]
    [lost] = found.lost
    assert "missing or damaged" in lost.reason


def test_the_header_says_what_the_file_stands_for(tmp_path: Path) -> None:
    segments(tmp_path, 10, 10, 4)
    merge = merged(tmp_path, [(2, 2)], [(20, 20)])
    header = read_header(FaultyFiles(), tmp_path / segment_name(1))
    assert header is not None
    assert (header.segment, header.last, header.base, header.end, header.count) == (1, 2, 1, 21, 2)
    assert header.uid == merge.segment.uid


def test_it_is_written_and_synced_in_steps(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "trade.paid", [1])
    for _ in range(200):
        file.message(b'{"data":"%s"}' % (b"x" * 16_000))
    file.write(tmp_path)
    segments(tmp_path, 2, first=2, base=201)
    disk = FaultyFiles()
    merged(tmp_path, [(1, 200)], files=disk)
    sizes = [call.size for call in disk.calls if call.verb == "write"]
    assert max(sizes) < 200_000
    assert disk.count("sync") >= 3


def test_what_is_damaged_is_not_merged(tmp_path: Path) -> None:
    built = segments(tmp_path, 10, 10, 4)
    found, shelf = opened(tmp_path)
    data = bytearray(built[1].data)
    data[built[1].offsets[3] + records.HEAD_BYTES + 20] ^= 1
    (tmp_path / segment_name(2)).write_bytes(data)
    disk = FaultyFiles()
    plan = plan_of(found, [(1, 1)], [(15, 15)])
    merge, header = begin(plan, EPOCH)
    with pytest.raises(CannotMergeError, match=r"0000000002\.log: the record at byte \d+ is damaged") as caught:
        list(copy(disk, shelf, plan, merge, header))
    assert caught.value.segment is found[1]
    abandon(disk, merge)
    assert not list(tmp_path.glob("*.tmp"))
    assert disk.open_files == []


@pytest.mark.parametrize("verb", ["create", "write", "sync", "read", "open"])
def test_a_fault_leaves_the_sources_as_they_are(tmp_path: Path, verb: str) -> None:
    segments(tmp_path, 10, 10, 4)
    found, shelf = opened(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.log")}
    disk = FaultyFiles()
    disk.fail(verb, error=errno.EIO)
    plan = plan_of(found, [(1, 1)], [(15, 15)])
    merge, header = begin(plan, EPOCH)
    with pytest.raises((OSError, CannotMergeError)):
        list(copy(disk, shelf, plan, merge, header))
    abandon(disk, merge)
    assert disk.open_files == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".hint"} == before


# ------------------------------------------------------------------------------------------------- what a start finds


def test_the_sources_of_a_merged_segment_are_removed_with_their_hints(tmp_path: Path) -> None:
    segments(tmp_path, 10, 10, 10, 4, each=4)
    recovered(tmp_path)  # makes hints
    merged(tmp_path, [(2, 3)], [(15, 15)], [(21, 22)])
    _found, told = recovered(tmp_path)
    assert told.there == [2, 3, 15, 21, 22, 31, 32, 33, 34]
    assert sorted(path.name for path in tmp_path.glob("0*")) == [
        "0000000001.hint",
        "0000000001.log",
        "0000000004.log",
    ]


def test_a_checkpoint_that_names_the_sources_finds_them_in_the_merged_segment(tmp_path: Path) -> None:
    segments(tmp_path, 10, 10, 4, each=4)
    merged(tmp_path, [(2, 3)], [(15, 15)])
    (tmp_path / segment_name(2)).unlink()
    assert recovered(tmp_path)[1].there == [2, 3, 15, 21, 22, 23, 24]


def test_without_a_checkpoint_a_merged_segment_is_not_believed(tmp_path: Path) -> None:
    """What was settled behind it may have stood in its sources."""
    segments(tmp_path, 10, 10, 10, 4)
    merged(tmp_path, [(2, 3)], [(15, 15)])
    (tmp_path / checkpoints.NAME).unlink()
    with pytest.raises(StoreError, match="the log alone does not tell what was settled"):
        recovered(tmp_path)


def test_a_copy_that_was_never_adopted_is_removed(tmp_path: Path) -> None:
    segments(tmp_path, 10, 10, 4, each=4)
    (tmp_path / "0000000001.log.tmp").write_bytes(b"half a copy")
    assert recovered(tmp_path)[1].there == list(range(1, 25))
    assert not (tmp_path / "0000000001.log.tmp").exists()
