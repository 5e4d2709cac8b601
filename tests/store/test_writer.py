from __future__ import annotations

import errno
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.store import hint
from gateway.store.checkpoint import NAME, OLD_NAME, Checkpoint, load
from gateway.store.record import Columns
from gateway.store.recovery import segment_name
from gateway.store.segment import Segment
from gateway.store.writer import SPARE_NAME, NoRoomError, Work, Writer
from gateway.testing.faulty import FaultyFiles
from tests.store.building import EPOCH, NOW_MS

FIRST, SECOND = segment_name(1), segment_name(2)


class Desk:
    """A writer over a watched disk. `told`: how often it said that all was written, and what the disk had seen then."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = FaultyFiles()
        self.told: list[list[str]] = []
        self.writer = Writer(self.disk, directory, 1000, lambda: self.told.append(self.calls()))
        self.writer.epoch = EPOCH

    def segment(self, number: int = 1, *, begun: bool = False) -> Segment:
        segment = Segment(number, self.directory / segment_name(number), 1, NOW_MS, f"{number:016x}")
        if begun:
            self.writer.carry_out(Work(chunks=[(segment, [b"PUSHLOG1"])]))
            segment.size = 8
            self.disk.calls.clear()
        return segment

    def sealed(self, number: int = 1) -> Segment:
        """One that was sealed, and has got no hint file as yet."""
        segment = self.segment(number, begun=True)
        segment.growing.routes.append(("a", (1,)))
        segment.growing.add(Columns(array("I", [3])), 8, 8, 5, 1, NOW_MS)
        segment.seal(lambda segment: segment.growing)
        return segment

    def calls(self) -> list[str]:
        return [f"{call.verb} {call.name}" for call in self.disk.calls]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def checkpoint(offset: int = 8) -> Checkpoint:
    return Checkpoint(EPOCH, 1, offset, (), {"offset": offset})


# ------------------------------------------------------------------------------------------------------------- records


def test_what_belongs_together_is_one_write_and_one_sync(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    work = Work(chunks=[(segment, [b"abc", b"de"])])
    desk.writer.carry_out(work)
    assert desk.calls() == [f"write {FIRST}", f"sync {FIRST}"]
    assert segment.path.read_bytes() == b"PUSHLOG1abcde"
    assert work.in_file


def test_the_name_of_a_new_file_is_synced_before_anything_in_it_is_answered_for(desk: Desk) -> None:
    desk.writer.carry_out(Work(chunks=[(desk.segment(), [b"abc"])]))
    assert desk.calls()[-3:] == [f"write {FIRST}", f"sync {FIRST}", f"sync_directory {desk.directory.name}"]


def test_a_segment_is_synced_before_the_next_is_written_to(desk: Desk) -> None:
    first, second = desk.segment(begun=True), desk.segment(2)
    desk.writer.carry_out(Work(chunks=[(first, [b"a"]), (second, [b"b"])]))
    assert [call for call in desk.calls() if call.split()[0] in ("write", "sync")] == [
        f"write {FIRST}",
        f"sync {FIRST}",
        f"write {SECOND}",
        f"sync {SECOND}",
    ]


def test_those_who_asked_for_no_more_are_told_once_all_is_written_and_before_it_is_synced(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    desk.writer.carry_out(Work(chunks=[(segment, [b"a"])], written=[object()]))
    assert desk.told == [[f"write {FIRST}"]]
    desk.writer.carry_out(Work(chunks=[(segment, [b"b"])]))
    assert len(desk.told) == 1, "nobody asked"


@pytest.mark.parametrize("verb", ["write", "sync", "sync_directory", "create"])
def test_an_error_of_the_disk_goes_to_the_caller(desk: Desk, verb: str) -> None:
    desk.disk.fail(verb)
    with pytest.raises(OSError, match="Input/output error"):
        desk.writer.carry_out(Work(chunks=[(desk.segment(), [b"abc"])]))


# --------------------------------------------------------------------------------------------------------- the spare


def test_the_room_of_the_next_segment_is_reserved_ahead(desk: Desk) -> None:
    desk.writer.make_spare()
    assert desk.calls() == [f"create {SPARE_NAME}", f"reserve {SPARE_NAME}"]
    assert desk.disk.calls[-1].size == 1000 + desk.writer.slack_bytes
    assert (desk.writer.has_spare, desk.writer.is_full) == (True, False)
    desk.writer.make_spare()
    assert desk.disk.count("reserve") == 1, "there is one"


def test_a_new_segment_takes_the_spare(desk: Desk) -> None:
    desk.writer.make_spare()
    desk.disk.calls.clear()
    desk.writer.carry_out(Work(chunks=[(desk.segment(), [b"abc"])]))
    assert desk.calls()[:2] == [f"replace {FIRST}", f"open {FIRST}"]
    assert desk.names() == [FIRST]
    assert not desk.writer.has_spare


def test_the_spare_of_another_life_is_not_believed(desk: Desk) -> None:
    (desk.directory / SPARE_NAME).write_bytes(b"PUSHLOG1 of long ago")
    desk.writer.make_spare()
    assert (desk.directory / SPARE_NAME).read_bytes() == b""


@pytest.mark.parametrize("verb", ["create", "reserve"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_where_there_is_no_room_for_it_the_store_is_full_until_there_is(desk: Desk, verb: str, error: int) -> None:
    desk.disk.fail(verb, error=error)
    desk.writer.carry_out(Work(spare_wanted=True))
    assert (desk.writer.has_spare, desk.writer.is_full, desk.names()) == (False, True, [])
    desk.writer.carry_out(Work(spare_wanted=True))
    assert (desk.writer.has_spare, desk.writer.is_full, desk.names()) == (True, False, [SPARE_NAME])


def test_another_error_than_a_lack_of_room_is_no_lack_of_room(desk: Desk) -> None:
    desk.disk.fail("reserve")
    with pytest.raises(OSError, match="Input/output error"):
        desk.writer.make_spare()


def test_a_start_reserves_what_the_last_segment_may_still_take_and_the_next(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    desk.writer.reopen(segment)
    assert desk.calls() == [f"reserve {FIRST}", f"create {SPARE_NAME}", f"reserve {SPARE_NAME}"]


def test_a_start_without_room_is_a_start_of_a_full_store(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    desk.disk.fail("reserve", error=errno.ENOSPC)
    desk.writer.reopen(segment)
    assert (desk.writer.is_full, desk.writer.has_spare) == (True, False)


def test_at_the_end_what_was_reserved_is_given_back(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    desk.writer.reopen(segment)
    desk.disk.calls.clear()
    desk.writer.put_to_rest(segment)
    assert desk.calls() == [f"truncate {FIRST}", f"unlink {SPARE_NAME}"]
    assert desk.disk.calls[0].size == segment.size
    assert desk.names() == [FIRST]


@pytest.mark.parametrize("verb", ["truncate", "unlink"])
def test_what_cannot_be_given_back_ends_nothing(desk: Desk, verb: str) -> None:
    segment = desk.segment(begun=True)
    desk.writer.reopen(segment)
    desk.disk.fail(verb)
    desk.writer.put_to_rest(segment)
    assert segment.path.read_bytes() == b"PUSHLOG1"


# ------------------------------------------------------------------------------------------------------ no fallocate


def without_fallocate(desk: Desk, room: int = 10_000_000) -> None:
    desk.disk.reserves, desk.disk.room = False, room
    desk.writer.make_spare()
    desk.disk.calls.clear()


def test_where_no_bytes_can_be_reserved_the_spare_is_filled_and_stays(desk: Desk) -> None:
    without_fallocate(desk)
    spare = desk.directory / SPARE_NAME
    assert spare.stat().st_size == 1000 + desk.writer.slack_bytes
    desk.writer.carry_out(Work(chunks=[(desk.segment(), [b"abc"])], spare_wanted=True))
    assert (desk.writer.has_spare, desk.names()) == (True, [FIRST, SPARE_NAME])
    assert desk.disk.count("write", SPARE_NAME) == 0, "it was filled once"


def test_a_spare_that_there_is_no_room_for_is_not_begun(desk: Desk) -> None:
    without_fallocate(desk, room=1000)
    assert (desk.writer.has_spare, desk.writer.is_full, desk.names()) == (False, True, [])
    assert desk.disk.room == 1000


@pytest.mark.parametrize("verb", ["write", "create"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_what_was_accepted_takes_the_room_of_the_spare(desk: Desk, verb: str, error: int) -> None:
    without_fallocate(desk)
    segment = desk.segment()
    desk.disk.fail(verb, error=error, kept=2)
    desk.writer.carry_out(Work(chunks=[(segment, [b"abc"])]))
    assert segment.path.read_bytes() == b"abc"
    assert (desk.writer.is_full, desk.writer.has_spare, desk.names()) == (True, False, [FIRST])
    assert desk.disk.verbs()[-2:] == ["sync", "sync_directory"]


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_a_turn_without_any_room_is_cut_off_and_goes_on_where_it_stopped(desk: Desk, kept: int) -> None:
    first, second = desk.segment(begun=True), desk.segment(2)
    desk.disk.fail("write", name=SECOND, error=errno.ENOSPC, kept=kept, ever=True)
    work = Work(chunks=[(first, [b"a"]), (second, [b"PUSH", b"LOG1"])])
    for _ in range(2):
        with pytest.raises(NoRoomError):
            desk.writer.carry_out(work)
        assert (first.path.read_bytes(), second.path.read_bytes()) == (b"PUSHLOG1a", b"")
    desk.disk.mend()
    desk.disk.calls.clear()
    desk.writer.carry_out(work)
    assert (first.path.read_bytes(), second.path.read_bytes()) == (b"PUSHLOG1a", b"PUSHLOG1")
    assert desk.calls() == [f"write {SECOND}", f"sync {SECOND}", f"sync_directory {desk.directory.name}"]


def test_what_cannot_be_cut_off_again_is_a_failure(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    desk.disk.fail("write", error=errno.ENOSPC, kept=1)
    desk.disk.fail("truncate")
    with pytest.raises(OSError, match="Input/output error") as caught:
        desk.writer.carry_out(Work(chunks=[(segment, [b"abc"])]))
    assert not isinstance(caught.value, NoRoomError)


# ------------------------------------------------------------------------------------------------------- hint files


def test_a_sealed_segment_gets_its_hint_and_is_closed(desk: Desk) -> None:
    segment = desk.sealed()
    work = Work(seal=[segment])
    desk.writer.carry_out(work)
    assert desk.calls()[0] == f"truncate {FIRST}"
    assert (work.sealed, segment.file, desk.disk.open_files) == ([segment], -1, [])
    found = hint.read(desk.disk, hint.path_of(segment.path))
    assert isinstance(found, hint.Directory)
    assert hint.mismatch(found, EPOCH, segment) is None
    assert desk.writer.statistics.hints_written == 1


def test_a_hint_that_there_is_no_room_for_is_put_off(desk: Desk) -> None:
    segment, work = desk.sealed(), Work()
    work.seal = [segment]
    desk.disk.fail("write", name="*.hint*", error=errno.ENOSPC)
    desk.writer.carry_out(work)
    assert work.sealed == []
    assert segment.file >= 0, "it is still to be read"
    desk.writer.carry_out(work)
    assert work.sealed == [segment]


# ------------------------------------------------------------------------------------- checkpoints and what they let go


def test_a_checkpoint_is_durable_before_what_it_does_not_need_is_deleted(desk: Desk) -> None:
    segment = desk.sealed()
    desk.writer.carry_out(Work(seal=[segment]))
    desk.disk.calls.clear()
    desk.writer.carry_out(Work(checkpoint=checkpoint(), released=[segment]))
    calls = desk.calls()
    assert calls.index(f"sync_directory {desk.directory.name}") < calls.index(f"unlink {FIRST}")
    assert desk.names() == [NAME], "the hint went with its segment"
    assert (desk.writer.statistics.checkpoints, desk.writer.statistics.segments_released) == (1, 1)


def test_a_segment_that_is_deleted_unsealed_is_closed(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    desk.writer.carry_out(Work(checkpoint=checkpoint(), released=[segment]))
    assert (segment.file, desk.disk.open_files, desk.names()) == (-1, [], [NAME])


def test_records_are_durable_before_the_checkpoint_that_knows_them(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    desk.writer.carry_out(Work(chunks=[(segment, [b"a"])], checkpoint=checkpoint()))
    calls = desk.calls()
    assert calls.index(f"sync {FIRST}") < min(index for index, call in enumerate(calls) if "checkpoint" in call)


def test_a_checkpoint_that_there_is_no_room_for_lets_nothing_go(desk: Desk) -> None:
    segment = desk.segment(begun=True)
    desk.writer.carry_out(Work(checkpoint=checkpoint(1)))
    desk.disk.fail("write", error=errno.ENOSPC, name="checkpoint*")
    work = Work(checkpoint=checkpoint(2), released=[segment])
    desk.writer.carry_out(work)
    assert work.checkpoint is None, "the caller is told by that"
    assert segment.path.exists()
    found = load(desk.disk, desk.directory / NAME)
    assert found is not None
    assert found.offset == 1
    assert desk.writer.statistics.checkpoints_postponed == 1
    segment_is_let_go(desk, segment)


def segment_is_let_go(desk: Desk, segment: Segment) -> None:
    desk.writer.carry_out(Work(checkpoint=checkpoint(2), released=[segment]))
    assert desk.names() == [NAME, OLD_NAME]


def fails_to_save(desk: Desk) -> Work:
    desk.disk.fail("sync", name="checkpoint*")
    return Work(checkpoint=checkpoint())


def fails_to_delete(desk: Desk) -> Work:
    segment = desk.segment(begun=True)
    desk.disk.fail("unlink")
    return Work(checkpoint=checkpoint(), released=[segment])


def fails_to_seal(desk: Desk) -> Work:
    segment = desk.sealed()
    desk.disk.fail("write", name="*.hint*")
    return Work(seal=[segment])


@pytest.mark.parametrize("fails", [fails_to_save, fails_to_delete, fails_to_seal])
def test_an_error_of_the_device_is_never_put_off(desk: Desk, fails: Callable[[Desk], Work]) -> None:
    work = fails(desk)
    with pytest.raises(OSError, match="Input/output error"):
        desk.writer.carry_out(work)
