"""What a start finds: named corruptions, and for each either the records that survive or the refusal, byte by byte."""

import shutil
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import checkpoint as checkpoints
from gateway.store.files import Files
from gateway.store.record import MAGIC, Columns, Kind
from gateway.store.recovery import recover, segment_name
from gateway.store.shelf import Shelf
from gateway.testing.faulty import FaultyFiles
from tests.store.building import (
    EPOCH,
    NOW_MS,
    SegmentFile,
    Told,
    body_of,
    contents,
    recovered,
    save_checkpoint,
    segments,
)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def refusal(directory: Path) -> str:
    """Why recovery refuses; it must not have touched a byte, but for hint files."""
    before = contents(directory)
    with pytest.raises(StoreError) as caught:
        recovered(directory)
    assert {name: data for name, data in contents(directory).items() if not name.endswith(".hint")} == before
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------- sound stores


def test_an_empty_directory_is_a_new_store(tmp_path: Path) -> None:
    found, told = recovered(tmp_path)
    assert (found.epoch, found.segments, found.cut_bytes, found.foreign) == ("", [], 0, [])
    assert told == Told()


def test_a_sound_store_is_found_whole(tmp_path: Path) -> None:
    built = segments(tmp_path, 3, 4, 2)
    told = Told()
    found = recover(Files(), tmp_path, told, Shelf(Files(), 4, 4))
    assert (found.epoch, found.cut_bytes, found.foreign, found.lost) == (EPOCH, 0, [], [])
    assert told.found == [(1, 3, (1,)), (4, 7, (1,)), (8, 9, (1,))]
    for segment, file in zip(found.segments, built, strict=True):
        assert (segment.number, segment.base, segment.end) == (file.number, file.base, file.end)
        assert list(segment.index.offsets) == file.offsets[1:]
        assert segment.size == len(file.data)
        assert segment.index.routes == [("trade.paid", (1,))]
        assert list(segment.index.queues[1]) == [0, file.end - file.base - 1]


def test_messages_are_told_with_their_route_and_times(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "a", [3, 5])
    file.route(2, "b", [])
    file.message(b'{"n":1}', 2)
    file.message(b'{"n":2}', 1, due_ms=10, expires_ms=20)
    file.message(b'{"n":3}', 1, expires_ms=30)
    file.write(tmp_path)
    found, told = recovered(tmp_path)
    assert told.found == [(1, 1, ()), (2, 3, (3, 5))]
    index = found.segments[0].index
    assert [index.times_of(ordinal) for ordinal in range(3)] == [(0, 0), (10, 20), (0, 30)]
    assert {number: list(queue) for number, queue in index.queues.items()} == {3: [1, 2], 5: [1, 2]}


def test_a_segment_knows_when_its_last_id_of_a_producer_came(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "a", [])
    file.message(b"{}")
    file.write(tmp_path)
    assert recovered(tmp_path)[0].segments[0].ids_ms == 0
    file.record([b"{}"], 1, Columns(array("I"), ids=bytes(range(16)), digests=bytes(8)))
    file.write(tmp_path)
    found, told = recovered(tmp_path)
    assert found.segments[0].ids_ms == NOW_MS
    assert told.recalled == [2]


def test_control_records_are_told_in_order(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    for kind in (Kind.SUBSCRIPTION, Kind.BACKFILL, Kind.SETTLE):
        file.add(kind, kind.name.encode(), number=kind + 10)
    file.write(tmp_path)
    _, told = recovered(tmp_path)
    assert [(record.kind, record.number, record.body) for record in told.controls] == [
        (Kind.SUBSCRIPTION, 15, b"SUBSCRIPTION"),
        (Kind.BACKFILL, 16, b"BACKFILL"),
        (Kind.SETTLE, 14, b"SETTLE"),
    ]


def test_files_that_are_not_ours_are_reported_and_left_alone(tmp_path: Path) -> None:
    segments(tmp_path, 1)
    foreign = ["0000000001 (copy).log", "00000000001.log", "0000000002.log.gz", "1.log", "README"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "lock").write_bytes(b"1\n")
    (tmp_path / "checkpoint.tmp").write_bytes(b"half")
    found, told = recovered(tmp_path)
    assert found.foreign == sorted(foreign)
    assert told.positions == [1]
    assert all((tmp_path / name).read_bytes() == b"?" for name in foreign)


# ---------------------------------------------------------------------------------------------------------- torn tails


def test_a_last_record_torn_at_any_byte_is_cut_and_the_rest_survives(tmp_path: Path) -> None:
    [file] = segments(tmp_path, 4, each=1)
    last = file.offsets[-1]
    for length in range(last, len(file.data)):
        path = file.write(tmp_path)
        path.write_bytes(file.data[:length])
        found, told = recovered(tmp_path)
        assert told.positions == [1, 2, 3]
        assert (found.segments[0].size, found.cut_bytes) == (last, length - last)
        assert path.read_bytes() == file.data[:last]


TAILS: dict[str, Callable[[SegmentFile], bytes]] = {
    "zeros, as a file system leaves that had grown the file": lambda file: bytes(4096),
    "the last record with a wrong byte in its head": lambda file: _damaged(file, 12),
    "the last record with a wrong byte in its body": lambda file: _damaged(file, 40),
    "somebody else's bytes": lambda file: b"\xff" * 100,
}


def _record(file: SegmentFile) -> bytes:
    return bytes(file.data[file.offsets[-1] :])


def _damaged(file: SegmentFile, at: int) -> bytes:
    data = bytearray(_record(file))
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize("name", TAILS)
def test_a_tail_that_is_no_record_is_cut(tmp_path: Path, name: str) -> None:
    [file] = segments(tmp_path, 4, each=1)
    last = file.offsets[-1]
    path = tmp_path / segment_name(1)
    path.write_bytes(file.data[:last] + TAILS[name](file))
    _, told = recovered(tmp_path)
    assert told.positions == [1, 2, 3]
    assert path.read_bytes() == file.data[:last]


def test_recovering_twice_is_recovering_once(tmp_path: Path) -> None:
    built = segments(tmp_path, 3, 3)
    (tmp_path / segment_name(2)).write_bytes(built[1].data[:-1])
    first_found, first_told = recovered(tmp_path)
    once = contents(tmp_path)
    found, told = recovered(tmp_path)
    assert contents(tmp_path) == once
    assert told == first_told
    assert (first_found.cut_bytes > 0, found.cut_bytes) == (True, 0)
    assert [(s.base, s.end, s.size) for s in found.segments] == [(s.base, s.end, s.size) for s in first_found.segments]


def test_what_was_read_is_synced_before_it_is_relied_upon(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2)
    disk = FaultyFiles()
    recovered(tmp_path, disk)
    assert disk.verbs(segment_name(1)).count("sync") == 0  # it was synced before the next was made
    assert disk.verbs(segment_name(2))[-1] == "sync"


def test_a_cut_is_synced(tmp_path: Path) -> None:
    [file] = segments(tmp_path, 2)
    (tmp_path / segment_name(1)).write_bytes(file.data[:-1])
    disk = FaultyFiles()
    recovered(tmp_path, disk)
    assert disk.verbs(segment_name(1))[-2:] == ["truncate", "sync"]


# ------------------------------------------------------------------------------------------- a segment just being made


def header_bytes() -> int:
    return len(SegmentFile.begin().data)


@pytest.mark.parametrize("alone", [True, False])
def test_a_header_torn_at_any_byte_is_a_segment_that_was_never_begun(tmp_path: Path, alone: bool) -> None:
    built = segments(tmp_path, *([] if alone else [3]), 1)
    path = tmp_path / segment_name(built[-1].number)
    for length in range(header_bytes()):
        path.write_bytes(built[-1].data[:length])
        found, told = recovered(tmp_path)
        assert told.positions == ([] if alone else [1, 2, 3])
        assert not path.exists()
        assert (len(found.segments), found.cut_bytes) == (len(built) - 1, length)


def test_zeros_alone_are_a_segment_that_was_never_begun(tmp_path: Path) -> None:
    segments(tmp_path, 3)
    (tmp_path / segment_name(2)).write_bytes(bytes(10_000))
    found, told = recovered(tmp_path)
    assert (told.positions, found.cut_bytes) == ([1, 2, 3], 10_000)
    assert not (tmp_path / segment_name(2)).exists()


def test_the_segment_before_one_that_was_never_begun_is_written_on(tmp_path: Path) -> None:
    segments(tmp_path, 3)
    (tmp_path / segment_name(2)).touch()
    files = Files()
    found = recover(files, tmp_path, Told(), Shelf(files, 4, 4))
    files.write(found.segments[-1].file, b"more")
    files.close(found.segments[-1].file)
    assert (tmp_path / segment_name(1)).read_bytes().endswith(b"more")


# -------------------------------------------------------------------------------------------------------------- damage


def test_damage_in_a_sealed_segment_is_named_and_all_else_is_there(tmp_path: Path) -> None:
    sealed, _ = segments(tmp_path, 4, 1, each=1)
    ends = [*sealed.offsets[1:], len(sealed.data)]
    for lost, (offset, end) in enumerate(zip(sealed.offsets, ends, strict=True)):
        if lost == 0:
            continue  # the route: see below
        for at in range(offset, end, 5):
            path = sealed.write(tmp_path)
            flip(path, at)
            path.with_suffix(".hint").unlink(missing_ok=True)
            found, told = recovered(tmp_path)
            [damage] = found.lost
            assert (damage.segment, damage.offset, damage.first, damage.end) == (str(path), offset, lost, lost + 1)
            assert told.positions == [position for position in range(1, 6) if position != lost]
            assert found.segments[0].end == 5


def test_messages_whose_route_is_damaged_are_lost_and_named(tmp_path: Path) -> None:
    sealed, _ = segments(tmp_path, 4, 1)
    flip(tmp_path / segment_name(1), sealed.offsets[0] + 40)
    found, told = recovered(tmp_path)
    assert told.positions == [5]
    assert [(item.first, item.end) for item in found.lost] == [(1, 5), (1, 5), (3, 5)]


@pytest.mark.parametrize("length", [-1, -20, -40])
def test_a_sealed_segment_that_ends_early_has_lost_its_end(tmp_path: Path, length: int) -> None:
    sealed, _ = segments(tmp_path, 3, 1, each=1)
    path = tmp_path / segment_name(1)
    path.write_bytes(sealed.data[:length])
    found, told = recovered(tmp_path)
    [damage] = found.lost
    assert (damage.offset, damage.first, damage.end) == (sealed.offsets[-1], 3, 4)
    assert told.positions == [1, 2, 4]
    assert path.read_bytes() == sealed.data[:length], "what is left is left as it is"


def test_a_damaged_header_of_a_sealed_segment_takes_nothing_with_it(tmp_path: Path) -> None:
    built = segments(tmp_path, 3, 1)
    save_checkpoint(tmp_path, 2, 200, kept=built)
    flip(tmp_path / segment_name(1), len(MAGIC) + 40)
    found, _ = recovered(tmp_path)
    [damage] = found.lost
    assert (damage.offset, damage.size, damage.first, damage.end) == (0, header_bytes(), 1, 1)
    assert [(segment.base, segment.end, segment.count) for segment in found.segments[:1]] == [(1, 4, 3)]


@pytest.mark.parametrize("at", [len(MAGIC), len(MAGIC) + 4, len(MAGIC) + 5, len(MAGIC) + 8, len(MAGIC) + 50])
def test_a_damaged_header_that_no_checkpoint_makes_up_for_is_refused(tmp_path: Path, at: int) -> None:
    segments(tmp_path, 30)
    flip(tmp_path / segment_name(1), at)
    assert refusal(tmp_path) == (f"{tmp_path}/0000000001.log: its header is damaged; restore it from a backup")


def test_a_file_that_does_not_begin_as_ours_do_is_refused(tmp_path: Path) -> None:
    segments(tmp_path, 3, 1)
    (tmp_path / segment_name(1)).write_bytes(b"PK and so on")
    assert "0000000001.log: is not a segment of this store" in refusal(tmp_path)


def test_a_record_out_of_order_is_passed_over_and_named(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "a", [])
    file.messages(3, each=1)
    file.record([b"{}"], position=2)
    file.write(tmp_path)
    found, told = recovered(tmp_path)
    assert told.positions == [1, 2, 3]
    assert [item.reason for item in found.lost] == ["a record stands where it does not belong"]


def test_damage_within_the_last_segment_is_no_torn_tail_and_nothing_more_is_added_to_it(tmp_path: Path) -> None:
    [file] = segments(tmp_path, 5, each=1)
    path = tmp_path / segment_name(1)
    flip(path, file.offsets[3] + 10)
    found, told = recovered(tmp_path)
    assert told.positions == [1, 2, 4, 5]
    assert (found.cut_bytes, found.next_base) == (0, 6)
    assert [(item.first, item.end) for item in found.lost] == [(3, 4)]
    assert len(path.read_bytes()) == len(file.data)


def test_a_disk_that_cannot_read_ends_the_start(tmp_path: Path) -> None:
    segments(tmp_path, 3)
    disk = FaultyFiles()
    disk.fail("read", name="*.log")
    with pytest.raises(StoreError, match=r"0000000001\.log: cannot be read \(EIO\); check the disk"):
        recovered(tmp_path, disk)


# ------------------------------------------------------------------------------------- wrong, foreign, missing segments


@pytest.mark.parametrize("gone", [2, 3])
def test_a_missing_segment_is_named(tmp_path: Path, gone: int) -> None:
    segments(tmp_path, 1, 1, 1, 1)
    (tmp_path / segment_name(gone)).unlink()
    assert refusal(tmp_path) == f"{tmp_path}/{segment_name(gone)}: is missing; restore it from a backup"


def test_a_renamed_segment_is_told_to_get_its_name_back(tmp_path: Path) -> None:
    segments(tmp_path, 1, 1)
    (tmp_path / segment_name(2)).rename(tmp_path / segment_name(3))
    (tmp_path / segment_name(1)).rename(tmp_path / segment_name(2))
    save_checkpoint(tmp_path, 2, 0)
    assert "0000000002.log: says that it is segment 1; it was renamed: give it back its name" in refusal(tmp_path)


def test_a_duplicated_segment_is_refused(tmp_path: Path) -> None:
    segments(tmp_path, 1, 1)
    shutil.copy(tmp_path / segment_name(1), tmp_path / segment_name(3))
    assert "0000000003.log: says that it is segment 1; it was renamed" in refusal(tmp_path)


def test_a_segment_of_another_store_is_refused(tmp_path: Path) -> None:
    segments(tmp_path, 1)
    SegmentFile.begin(2, 2, epoch="feedbeef").write(tmp_path)
    assert "0000000002.log: belongs to another store (epoch feedbeef, not 0badf00d); move it away" in refusal(tmp_path)


def test_a_checkpoint_of_another_store_is_refused(tmp_path: Path) -> None:
    SegmentFile.begin(epoch="feedbeef").write(tmp_path)
    save_checkpoint(tmp_path, 1, 20)
    assert "0000000001.log: belongs to another store (epoch feedbeef, not 0badf00d)" in refusal(tmp_path)


def test_a_segment_of_a_later_format_names_the_version_that_reads_it(tmp_path: Path) -> None:
    SegmentFile.begin(format=1, version="0.0.9").write(tmp_path)
    assert "was written by version 0.0.9 in format 1; this version reads format 2: use that version" in refusal(
        tmp_path
    )


def test_positions_between_two_segments_are_lost_and_named(tmp_path: Path) -> None:
    segments(tmp_path, 3)
    segments(tmp_path, 1, first=2, base=9)
    found, told = recovered(tmp_path)
    assert told.positions == [1, 2, 3, 9]
    assert [(item.first, item.end) for item in found.lost] == [(4, 9)]


# ----------------------------------------------------------------------------------------------------- the checkpoint


def test_only_what_stands_behind_the_checkpoint_is_new(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "a", [1])
    file.message(body_of(1))
    file.add(Kind.SETTLE, b"before", number=1)
    offset = len(file.data)
    file.add(Kind.SETTLE, b"behind", number=1)
    file.message(body_of(2))
    file.write(tmp_path)
    save_checkpoint(tmp_path, 1, offset, {"subscriptions": 1}, kept=[file])
    found, told = recovered(tmp_path)
    assert told.restored == [{"subscriptions": 1}]
    assert told.found == [(2, 2, (1,))]
    assert [record.body for record in told.controls] == [b"behind"]
    assert list(found.segments[0].index.queues[1]) == [0, 1]


def test_a_store_without_a_checkpoint_is_told_from_its_beginning(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2)
    _, told = recovered(tmp_path)
    assert told.restored == []
    assert told.positions == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", [b"", b"nonsense\n", b'{"format":1}\ncrc32c 00000000\n'])
def test_a_damaged_checkpoint_is_done_without_while_the_first_segment_is_there(tmp_path: Path, damage: bytes) -> None:
    segments(tmp_path, 2, 2)
    (tmp_path / checkpoints.NAME).write_bytes(damage)
    _, told = recovered(tmp_path)
    assert told.restored == []
    assert told.positions == [1, 2, 3, 4]


def test_a_damaged_checkpoint_is_made_up_for_by_the_one_before(tmp_path: Path) -> None:
    built = segments(tmp_path, 2, 2, first=3, base=50)
    save_checkpoint(tmp_path, 3, built[0].offsets[1], {"which": "before"}, kept=built[:1])
    save_checkpoint(tmp_path, 4, 20, {"which": "after"}, kept=built)
    assert recovered(tmp_path)[1].restored == [{"which": "after"}]
    flip(tmp_path / checkpoints.NAME, 30)
    _, told = recovered(tmp_path)
    assert told.restored == [{"which": "before"}]
    assert told.positions == [50, 51, 52, 53]


def test_damaged_checkpoints_are_refused_once_segments_have_been_deleted(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2, first=3, base=50)
    (tmp_path / checkpoints.NAME).write_bytes(b"nonsense\n")
    assert refusal(tmp_path) == (
        f"{tmp_path}/checkpoint: {tmp_path}/checkpoint: is damaged (its CRC does not match); segments before "
        f"{segment_name(3)} are gone, so the log alone does not tell what was settled: "
        f"restore the checkpoint from a backup"
    )


def test_a_missing_checkpoint_is_refused_once_segments_have_been_deleted(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2, first=3, base=50)
    assert refusal(tmp_path) == (
        f"{tmp_path}/checkpoint: is missing; segments before "
        f"{segment_name(3)} are gone, so the log alone does not tell what was settled: "
        f"restore the checkpoint from a backup"
    )


def test_segments_that_the_checkpoint_does_not_name_any_more_are_deleted(tmp_path: Path) -> None:
    built = segments(tmp_path, 2, 2, 2, 2, first=3, base=50)
    recovered_hints = tmp_path / "0000000004.hint"
    recovered_hints.write_bytes(b"of a segment that was let go")
    save_checkpoint(tmp_path, 6, 20, kept=[built[0], built[2], built[3]])
    found, _ = recovered(tmp_path)
    assert [segment.number for segment in found.segments] == [3, 5, 6]
    assert not (tmp_path / segment_name(4)).exists()
    assert not recovered_hints.exists()


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_segment_that_the_checkpoint_needs_is_named_where_it_is_missing(tmp_path: Path, gone: int) -> None:
    built = segments(tmp_path, 2, 2, 2)
    save_checkpoint(tmp_path, 3, 20, kept=built)
    (tmp_path / segment_name(gone)).unlink()
    assert refusal(tmp_path) == f"{tmp_path}/{segment_name(gone)}: is missing; restore it from a backup"


def test_what_is_missing_before_the_checkpoint_s_place_is_no_torn_tail(tmp_path: Path) -> None:
    """What the checkpoint was made behind had been synced: its positions are never given again."""
    [file] = segments(tmp_path, 5, each=1)
    save_checkpoint(tmp_path, 1, len(file.data), kept=[file])
    file.write(tmp_path).write_bytes(file.data[: file.offsets[-2]])
    found, told = recovered(tmp_path)
    assert (told.positions, found.next_base) == ([], 6)
    assert {(item.first, item.end) for item in found.lost} == {(4, 6)}


@pytest.mark.parametrize("length", [0, 10, 60])
def test_a_torn_header_before_the_checkpoint_is_damage(tmp_path: Path, length: int) -> None:
    built = segments(tmp_path, 2, 2)
    save_checkpoint(tmp_path, 2, 200, kept=built)
    path = tmp_path / segment_name(2)
    path.write_bytes(path.read_bytes()[:length])
    found, _ = recovered(tmp_path)
    assert found.next_base == 5
    assert {(item.first, item.end) for item in found.lost} == {(3, 5)}


def test_a_tail_behind_the_checkpoint_is_cut_as_ever(tmp_path: Path) -> None:
    [file] = segments(tmp_path, 5, each=1)
    save_checkpoint(tmp_path, 1, file.offsets[3], kept=[SegmentFile(1, 1, end=3)])
    (tmp_path / segment_name(1)).write_bytes(file.data[: file.offsets[4] + 9])
    found, told = recovered(tmp_path)
    assert (told.positions, found.lost) == ([3], [])
    assert found.segments[0].end == 4
