"""What a start finds: named corruptions, and for each either the records that survive or the refusal, byte by byte."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import checkpoint as checkpoints
from gateway.store.files import Files
from gateway.store.record import MAGIC, Flag, Kind
from gateway.store.recovery import recover, segment_name
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
    """Why recovery refuses; it must not have touched a byte."""
    before = contents(directory)
    with pytest.raises(StoreError) as caught:
        recovered(directory)
    assert contents(directory) == before
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------- sound stores


def test_an_empty_directory_is_a_new_store(tmp_path: Path) -> None:
    found, told = recovered(tmp_path)
    assert (found.epoch, found.segments, found.cut_bytes, found.foreign) == ("", [], 0, [])
    assert told == Told()


def test_a_sound_store_is_found_whole(tmp_path: Path) -> None:
    built = segments(tmp_path, 3, 4, 2)
    found, told = recovered(tmp_path)
    assert (found.epoch, found.cut_bytes, found.foreign) == (EPOCH, 0, [])
    assert told.messages == [(position, "trade.paid", (1,), True) for position in range(1, 10)]
    for segment, file in zip(found.segments, built, strict=True):
        assert (segment.number, segment.base, segment.end) == (file.number, file.base, file.end)
        assert list(segment.offsets) == file.offsets[1:]
        assert segment.size == len(file.data)
        assert segment.routes == {("trade.paid", (1,)): 1}
        assert list(segment.queues[1]) == [file.base, file.end - 1]


def test_messages_are_told_with_their_route_and_times(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "a", [3, 5])
    file.route(2, "b", [])
    file.message(b'{"n":1}', 2)
    file.message(b'{"n":2}', 1, due_ms=10, expires_ms=20)
    file.message(b'{"n":3}', 1, expires_ms=30)
    file.write(tmp_path)
    found, told = recovered(tmp_path)
    assert told.messages == [(1, "b", (), True), (2, "a", (3, 5), True), (3, "a", (3, 5), True)]
    assert found.segments[0].timed == {2: (10, 20), 3: (0, 30)}
    assert {number: list(queue) for number, queue in found.segments[0].queues.items()} == {3: [2, 3], 5: [2, 3]}


def test_a_segment_knows_when_its_last_id_of_a_producer_came(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "a", [])
    file.message(b"{}")
    file.write(tmp_path)
    assert recovered(tmp_path)[0].segments[0].ids_ms == 0
    file.add(Kind.MESSAGE, b"{}", number=1, flags=Flag.OWN_ID)
    file.write(tmp_path)
    assert recovered(tmp_path)[0].segments[0].ids_ms == NOW_MS


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
    [file] = segments(tmp_path, 4)
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
    "the last record lost, and one behind it there": lambda file: bytes(30) + _record(file),
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
    [file] = segments(tmp_path, 4)
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
    found = recover(files, tmp_path, Told())
    files.write(found.segments[-1].file, b"more")
    files.close(found.segments[-1].file)
    assert (tmp_path / segment_name(1)).read_bytes().endswith(b"more")


@pytest.mark.parametrize("at", [len(MAGIC), len(MAGIC) + 4, len(MAGIC) + 5, len(MAGIC) + 8, len(MAGIC) + 50])
def test_a_damaged_header_with_records_behind_it_is_damage_and_never_removed(tmp_path: Path, at: int) -> None:
    segments(tmp_path, 30)
    flip(tmp_path / segment_name(1), at)
    assert refusal(tmp_path) == (f"{tmp_path}/0000000001.log: its header is damaged; restore it from a backup")


# -------------------------------------------------------------------------------------------------------------- damage


def test_damage_in_a_sealed_segment_is_refused_with_file_byte_and_mend(tmp_path: Path) -> None:
    sealed, _ = segments(tmp_path, 3, 1)
    ends = [*sealed.offsets[1:], len(sealed.data)]
    for offset, end in zip(sealed.offsets, ends, strict=True):
        for at in range(offset, end, 5):
            path = sealed.write(tmp_path)
            flip(path, at)
            why = refusal(tmp_path)
            assert why == f"{path}: the record at byte {offset} is damaged; restore the file from a backup"


@pytest.mark.parametrize("length", [-1, -20, -40])
def test_a_sealed_segment_that_ends_early_is_refused(tmp_path: Path, length: int) -> None:
    sealed, _ = segments(tmp_path, 3, 1)
    (tmp_path / segment_name(1)).write_bytes(sealed.data[:length])
    assert f"{tmp_path}/0000000001.log: the record at byte {sealed.offsets[-1]} is damaged" in refusal(tmp_path)


def test_a_sealed_segment_that_lacks_whole_records_is_refused(tmp_path: Path) -> None:
    sealed, _ = segments(tmp_path, 3, 1)
    (tmp_path / segment_name(1)).write_bytes(sealed.data[: sealed.offsets[-1]])
    assert "0000000002.log: begins at position 4 but the segment before ends at 3" in refusal(tmp_path)


def test_a_damaged_header_of_a_sealed_segment_is_refused(tmp_path: Path) -> None:
    segments(tmp_path, 3, 1)
    flip(tmp_path / segment_name(1), len(MAGIC) + 40)
    assert "0000000001.log: its header is damaged; restore it from a backup" in refusal(tmp_path)


def test_a_file_that_does_not_begin_as_ours_do_is_refused(tmp_path: Path) -> None:
    segments(tmp_path, 3, 1)
    flip(tmp_path / segment_name(1), 0)
    assert "0000000001.log: is not a segment of this store" in refusal(tmp_path)


def test_positions_out_of_order_are_refused(tmp_path: Path) -> None:
    file = SegmentFile.begin()
    file.route(1, "a", [])
    file.message(b"{}")
    file.add(Kind.MESSAGE, b"{}", number=1, position=7)
    file.write(tmp_path)
    assert f"position 7 at byte {file.offsets[-1]} where 2 is due; the file was put together wrongly" in refusal(
        tmp_path
    )


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
    save_checkpoint(tmp_path, 2, 0, first=2)
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
    SegmentFile.begin(format=2, version="3.1.4").write(tmp_path)
    assert "was written by version 3.1.4 in format 2; this version reads format 1: use that version" in refusal(
        tmp_path
    )


def test_a_segment_that_does_not_follow_on_is_refused(tmp_path: Path) -> None:
    segments(tmp_path, 3)
    segments(tmp_path, 1, first=2, base=9)
    assert (
        "0000000002.log: begins at position 9 but the segment before ends at 4: a segment is missing or foreign; "
        "restore it from a backup" in refusal(tmp_path)
    )


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
    save_checkpoint(tmp_path, 1, offset, {"subscriptions": 1})
    found, told = recovered(tmp_path)
    assert told.restored == [{"subscriptions": 1}]
    assert told.messages == [(1, "a", (1,), False), (2, "a", (1,), True)]
    assert [record.body for record in told.controls] == [b"behind"]
    assert list(found.segments[0].queues[1]) == [1, 2]


def test_a_store_without_a_checkpoint_is_told_from_its_beginning(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2)
    _, told = recovered(tmp_path)
    assert told.restored == []
    assert [new for *_, new in told.messages] == [True] * 4


@pytest.mark.parametrize("damage", [b"", b"nonsense\n", b'{"format":1}\ncrc32c 00000000\n'])
def test_a_damaged_checkpoint_is_done_without_while_the_first_segment_is_there(tmp_path: Path, damage: bytes) -> None:
    segments(tmp_path, 2, 2)
    (tmp_path / checkpoints.NAME).write_bytes(damage)
    _, told = recovered(tmp_path)
    assert told.restored == []
    assert [new for *_, new in told.messages] == [True] * 4


def test_a_damaged_checkpoint_is_refused_once_segments_have_been_deleted(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2, first=3, base=50)
    (tmp_path / checkpoints.NAME).write_bytes(b"nonsense\n")
    assert refusal(tmp_path) == (
        f"{tmp_path}/checkpoint: is damaged (its CRC does not match); "
        f"restore it from a backup: segments before {segment_name(3)} are gone"
    )


def test_a_missing_checkpoint_is_refused_once_segments_have_been_deleted(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2, first=3, base=50)
    assert refusal(tmp_path) == (
        f"{tmp_path}/checkpoint: is missing, and segments before {segment_name(3)} are gone; restore it from a backup"
    )


def test_segments_that_the_checkpoint_says_were_deleted_are_not_missed(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2, first=3, base=50)
    save_checkpoint(tmp_path, 4, 20, first=3)
    assert recovered(tmp_path)[1].positions == [50, 51, 52, 53]


def test_a_segment_that_was_to_be_deleted_is_read_where_the_crash_kept_it(tmp_path: Path) -> None:
    segments(tmp_path, 2, 2, first=3, base=50)
    save_checkpoint(tmp_path, 4, 20, first=4)
    assert recovered(tmp_path)[1].positions == [50, 51, 52, 53]


@pytest.mark.parametrize("kept", [[], [2], [3], [2, 3]])
def test_a_first_segment_that_the_checkpoint_needs_is_named_where_it_is_missing(
    tmp_path: Path, kept: list[int]
) -> None:
    segments(tmp_path, 2, 2, 2)
    save_checkpoint(tmp_path, 3, 20)
    for number in {1, 2, 3} - set(kept):
        (tmp_path / segment_name(number)).unlink()
    assert refusal(tmp_path) == f"{tmp_path}/{segment_name(1)}: is missing; restore it from a backup"


@pytest.mark.parametrize("kept", [[1], [1, 2]])
def test_a_last_segment_that_the_checkpoint_knows_of_is_named_where_it_is_missing(
    tmp_path: Path, kept: list[int]
) -> None:
    segments(tmp_path, 2, 2, 2)
    save_checkpoint(tmp_path, 3, 20)
    for number in {1, 2, 3} - set(kept):
        (tmp_path / segment_name(number)).unlink()
    assert refusal(tmp_path) == f"{tmp_path}/{segment_name(3)}: is missing; restore it from a backup"


def test_damage_before_the_checkpoint_is_no_torn_tail(tmp_path: Path) -> None:
    """What the checkpoint was made behind had been synced."""
    [file] = segments(tmp_path, 5)
    save_checkpoint(tmp_path, 1, len(file.data))
    path = tmp_path / segment_name(1)
    for offset in file.offsets:
        file.write(tmp_path)
        flip(path, offset + 10)
        why = refusal(tmp_path)
        assert why == f"{path}: the record at byte {offset} is damaged; restore the file from a backup"
    file.write(tmp_path).write_bytes(file.data[:-1])
    assert f"the record at byte {file.offsets[-1]} is damaged" in refusal(tmp_path)


@pytest.mark.parametrize("length", [0, 10, 60])
def test_a_torn_header_before_the_checkpoint_is_damage(tmp_path: Path, length: int) -> None:
    segments(tmp_path, 2, 2)
    save_checkpoint(tmp_path, 2, 200)
    path = tmp_path / segment_name(2)
    path.write_bytes(path.read_bytes()[:length])
    assert refusal(tmp_path) == f"{path}: its header is damaged; restore it from a backup"


def test_a_tail_behind_the_checkpoint_is_cut_as_ever(tmp_path: Path) -> None:
    [file] = segments(tmp_path, 5)
    save_checkpoint(tmp_path, 1, file.offsets[3])
    (tmp_path / segment_name(1)).write_bytes(file.data[: file.offsets[4] + 9])
    assert recovered(tmp_path)[1].messages == [(p, "trade.paid", (1,), p > 2) for p in (1, 2, 3)]
