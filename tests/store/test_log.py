from __future__ import annotations

import errno
import os
import select
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import Store
from gateway.errors import GatewayError, StoreError, StoreLockedError
from gateway.model import Durability
from gateway.store import flusher
from gateway.store.disk import Disk
from gateway.store.log import Log
from gateway.store.record import Kind
from gateway.store.recovery import Recovered, segment_name
from gateway.testing.faulty import FaultyFiles
from tests.store.building import NOW_MS, Told, locked, recovered, segments

FIRST, SECOND = segment_name(1), segment_name(2)


class Opened:
    """A log over a watched disk in `directory`, and what was told at its opening."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.disk = FaultyFiles()
        self.log = Log(Store(directory=str(directory), **settings), self.disk)
        self.told = Told()
        self.closed = False

    def open(self) -> Recovered:
        found = self.log.open(self.told, NOW_MS)
        self.log.start()
        return found

    def close(self) -> None:
        if not self.closed:
            self.log.close()
        self.closed = True

    def publish(self, *bodies: bytes) -> int:
        """Messages, as the engine appends them."""
        self.log.begin(NOW_MS)
        route = self.log.route("trade.paid", (1,))
        return self.log.messages(bodies, route)


Open = Callable[..., Opened]


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[Open]:
    """Open the log of the test's one directory, with the given settings; all are closed at the end."""
    opened: list[Opened] = []

    def open_log(**settings: int) -> Opened:
        opened.append(Opened(tmp_path / "store", **settings))
        opened[-1].open()
        return opened[-1]

    yield open_log
    for each in opened:
        each.close()


async def committed(log: Log) -> list[object]:
    with trio.fail_after(5):
        return (await log.committed()).entries


async def reached(held: Any) -> None:
    """Wait until a held call has come."""
    await trio.to_thread.run_sync(held.reached.wait, 5)
    assert held.reached.is_set()


# ------------------------------------------------------------------------------------------------------------- opening


async def test_a_new_store_gets_a_first_segment_and_an_epoch_that_it_keeps(open_log: Open, tmp_path: Path) -> None:
    new = open_log()
    assert (new.log.end, new.log.durable_end, len(new.log.epoch)) == (1, 1, 8)
    await new.log.flush()
    new.close()
    again = open_log()
    assert again.log.epoch == new.log.epoch
    assert [path.name for path in sorted((tmp_path / "store").iterdir())] == [FIRST, "checkpoint", "lock", "spare"]


async def test_two_new_stores_have_different_epochs(tmp_path: Path) -> None:
    logs = [Opened(tmp_path / name) for name in "ab"]
    for each in logs:
        each.open()
    assert logs[0].log.epoch != logs[1].log.epoch
    for each in logs:
        each.close()


def test_a_store_that_another_process_holds_is_refused_with_its_id(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    with locked(tmp_path) as holder, pytest.raises(StoreLockedError) as caught:
        opened.open()
    opened.close()
    assert str(caught.value) == (
        f"{tmp_path}: is in use by process {holder}; stop it, or name another directory with --data"
    )


def test_a_store_that_was_closed_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        opened = Opened(tmp_path)
        opened.open()
        opened.close()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    opened = Opened(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="Not a directory; name a directory that can be written"):
        opened.open()
    opened.close()


def test_a_disk_error_while_opening_is_refused_with_its_file(tmp_path: Path) -> None:
    segments(tmp_path, 1)
    opened = Opened(tmp_path)
    opened.disk.fail("sync", name=FIRST)
    with pytest.raises(StoreError, match=f"{FIRST} Input/output error"):
        opened.open()
    opened.close()


def test_a_file_that_is_not_ours_is_said_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    opened = Opened(tmp_path)
    with structlog.testing.capture_logs() as said:
        opened.open()
    opened.close()
    assert [(entry["log_level"], entry["file"]) for entry in said] == [("warning", str(tmp_path / "notes.txt"))]
    assert (tmp_path / "notes.txt").read_text() == "mine"


async def test_closing_lets_go_of_every_file(open_log: Open) -> None:
    opened = open_log(segment_bytes=500)
    for _ in range(3):
        opened.publish(b"x" * 500)
        await opened.log.flush()
    assert opened.disk.open_files == ["0000000003.log"]
    opened.close()
    assert opened.disk.open_files == []


# -------------------------------------------------------------------------------------------------------- group commit


async def test_all_that_waits_is_one_write_and_one_sync(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    for number in range(100):
        opened.publish(b"x" * number)
        opened.log.submit(number)
    nursery.start_soon(opened.log.run)
    assert await committed(opened.log) == list(range(100))
    assert opened.disk.verbs(FIRST) == ["replace", "open", "write", "sync"]
    assert opened.log.durable_end == 101


async def test_what_arrives_during_a_sync_is_the_next_commit(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    held = opened.disk.hold("sync")
    nursery.start_soon(opened.log.run)
    opened.log.submit("first")
    await reached(held)
    for number in range(50):
        opened.publish(b"x")
        opened.log.submit(number)
        await trio.lowlevel.checkpoint()
    assert opened.log.durable_end == 1
    held.release()
    entries = await committed(opened.log)
    while len(entries) < 51:
        entries += await committed(opened.log)
    assert entries == ["first", *range(50)]
    assert opened.disk.verbs(FIRST) == ["replace", "open", "write", "sync", "write", "sync"]
    assert opened.log.statistics.commits == 2


async def test_a_commit_tells_which_subscriptions_have_something_new(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    nursery.start_soon(opened.log.run)
    opened.publish(b"x")
    opened.log.routed((3, 5))
    opened.log.routed((5, 8))
    opened.log.submit("entry")
    with trio.fail_after(5):
        commit = await opened.log.committed()
    assert (commit.entries, list(commit.routed)) == (["entry"], [3, 5, 8])


async def test_what_was_committed_is_found_again(open_log: Open, nursery: trio.Nursery, tmp_path: Path) -> None:
    opened = open_log()
    nursery.start_soon(opened.log.run)
    assert opened.publish(b"one", b"two") == 1
    assert opened.publish(b"three") == 3
    opened.log.control(Kind.SETTLE, b"settle", number=9)
    await opened.log.sync()
    found, told = recovered(tmp_path / "store")
    assert told.found == [(1, 3, (1,))]
    assert [(record.number, record.body, record.position) for record in told.controls] == [(9, b"settle", 4)]
    assert found.segments[0].size == opened.log.active.size
    assert found.segments[0].growing.offsets == opened.log.active.growing.offsets


async def test_a_route_is_defined_once_in_every_segment(open_log: Open, tmp_path: Path) -> None:
    opened = open_log(segment_bytes=400)
    for _ in range(8):
        opened.publish(b"x" * 50)
    await opened.log.flush()
    assert len(opened.log.segments) > 1
    for path in (tmp_path / "store").glob("*.log"):
        assert path.read_bytes().count(b'"topic":"trade.paid"') == 1
    found, _ = recovered(tmp_path / "store")
    assert all(segment.index.routes == [("trade.paid", (1,))] for segment in opened.log.segments)
    assert found.segments[-1].defined == {("trade.paid", (1,)): 1}


# ---------------------------------------------------------------------------------------------------------- durability


async def test_written_is_reported_before_the_sync_and_fsynced_only_after_it(
    open_log: Open, nursery: trio.Nursery
) -> None:
    opened = open_log()
    held = opened.disk.hold("sync")
    nursery.start_soon(opened.log.run)
    opened.publish(b"x")
    opened.log.submit("written", Durability.WRITTEN)
    opened.log.submit("fsynced", Durability.FSYNCED)
    assert await committed(opened.log) == ["written"]
    assert opened.disk.verbs(FIRST)[:3] == ["replace", "open", "write"]
    await reached(held)
    await wait_all_tasks_blocked()
    assert opened.log.durable_end == 1
    held.release()
    assert await committed(opened.log) == ["fsynced"]
    assert opened.log.durable_end == 2


async def test_what_is_only_written_is_not_delivered(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    held = opened.disk.hold("sync")
    nursery.start_soon(opened.log.run)
    opened.publish(b"x")
    opened.log.routed((1,))
    opened.log.submit("written", Durability.WRITTEN)
    with trio.fail_after(5):
        commit = await opened.log.committed()
    assert (commit.entries, commit.routed) == (["written"], {})
    held.release()
    with trio.fail_after(5):
        assert (await opened.log.committed()).routed == {1: None}


async def test_written_is_reported_although_the_disk_was_done_before_anybody_looked(
    open_log: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_log()
    disk = opened.log._disk

    def begin(job: Callable[[], None]) -> None:
        job()
        disk.tell()

    monkeypatch.setattr(disk, "begin", begin)
    opened.log.submit("written", Durability.WRITTEN)
    opened.log.submit("fsynced")
    await opened.log.flush()
    assert await committed(opened.log) == ["written", "fsynced"]


async def test_a_new_file_is_reported_from_only_once_its_name_is_on_the_disk(
    open_log: Open, nursery: trio.Nursery
) -> None:
    opened = open_log()
    held = opened.disk.hold("sync_directory")
    nursery.start_soon(opened.log.run)
    opened.publish(b"x")
    opened.log.submit("fsynced")
    await reached(held)
    await wait_all_tasks_blocked()
    assert opened.log.durable_end == 1
    assert opened.log._commit.entries == []
    held.release()
    assert await committed(opened.log) == ["fsynced"]


async def test_the_directory_is_synced_for_new_files_only(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    nursery.start_soon(opened.log.run)
    for _ in range(3):
        opened.publish(b"x")
        await opened.log.sync()
    assert opened.disk.count("sync") == 3
    assert opened.disk.count("sync_directory") == 1


# ----------------------------------------------------------------------------------------------------- lazy appends


async def test_what_nobody_waits_for_goes_within_its_time(
    open_log: Open, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    opened = open_log(lazy_sync_ms=50)
    nursery.start_soon(opened.log.run)
    await opened.log.sync()
    opened.log.control(Kind.SETTLE, b"lazy", lazy=True)
    await wait_all_tasks_blocked()
    mock_clock.jump(0.049)
    await wait_all_tasks_blocked()
    assert opened.disk.count("write") == 1
    mock_clock.jump(0.002)
    await committed(opened.log)
    await committed(opened.log)
    assert opened.disk.count("write") == 2


async def test_what_nobody_waits_for_goes_with_the_next_that_is_waited_for(
    open_log: Open, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    opened = open_log(lazy_sync_ms=10_000)
    nursery.start_soon(opened.log.run)
    await opened.log.sync()
    opened.log.control(Kind.SETTLE, b"lazy", lazy=True)
    await wait_all_tasks_blocked()
    await opened.log.sync()
    assert opened.disk.count("write") == 2
    assert opened.log.statistics.commits == 2


# ------------------------------------------------------------------------------------------------------------ rotation


async def test_what_is_brought_in_before_a_turn_goes_with_it(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    nursery.start_soon(opened.log.run)
    await opened.log.sync()
    assert await committed(opened.log) == []
    waiting = [b"one", b"two"]

    def bring_in() -> None:
        while waiting:
            opened.publish(waiting.pop(0))
            opened.log.submit("brought in")

    opened.log.coming = lambda: len(waiting)
    opened.log.bring_in = bring_in
    opened.log.expect()
    assert await committed(opened.log) == ["brought in", "brought in"]
    assert opened.log.statistics.commits == 2


async def test_commits_are_told_at_once_where_somebody_listens(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    told: list[list[object]] = []
    opened.log.on_commit = lambda commit: told.append(commit.entries)
    nursery.start_soon(opened.log.run)
    opened.publish(b"x")
    opened.log.submit("a")
    opened.log.submit("b")
    await opened.log.sync()
    assert told == [["a", "b"]]


async def test_many_small_commits_rest_and_a_large_one_does_not(
    open_log: Open, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    opened = open_log()
    opened.log._pace.rest_s = 0.002
    nursery.start_soon(opened.log.run)
    await opened.log.sync()
    began = trio.current_time()
    await opened.log.sync()
    assert trio.current_time() - began == pytest.approx(0.002)
    began = trio.current_time()
    opened.publish(b"x" * 100_000)
    await opened.log.sync()
    assert trio.current_time() == began


async def test_publishes_are_gathered_for_a_moment_however_long_a_pass_of_the_run_loop_is(
    open_log: Open, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """Where much else is done each pass brings one more, and whoever came first would wait for all passes."""
    opened = open_log()
    opened.log._about = 100  # so many were about when the last commit ended
    nursery.start_soon(opened.log.run)
    await wait_all_tasks_blocked()
    passes = 0
    while not opened.log._disk._thread:  # no commit has begun
        opened.publish(b"{}")
        opened.log.submit("a publish")
        mock_clock.jump(0.001)
        passes += 1
        await trio.lowlevel.checkpoint()
    assert passes <= 5


async def test_acks_that_nobody_waits_for_do_not_hold_up_a_publish(open_log: Open, nursery: trio.Nursery) -> None:
    """A drain brings some in every pass of the run loop: the commit is not gathered for as long as they come."""
    opened = open_log()
    nursery.start_soon(opened.log.run)
    opened.publish(b"{}")
    opened.log.submit("a publish")
    for _ in range(20):
        opened.log.control(Kind.SETTLE, b"acked", number=1, lazy=True)
        await trio.lowlevel.checkpoint()
    assert opened.log._work.entries == []  # the flusher has taken it


async def test_a_full_segment_is_sealed_and_the_next_goes_on_where_it_ends(open_log: Open, tmp_path: Path) -> None:
    opened = open_log(segment_bytes=300)
    positions = [opened.publish(b"x" * 90) for _ in range(7)]
    assert positions == list(range(1, 8))
    await opened.log.flush()
    found, told = recovered(tmp_path / "store")
    assert told.there == positions
    assert [segment.base for segment in found.segments] == [segment.base for segment in opened.log.segments]
    assert all(segment.size >= 300 for segment in found.segments[:-1])
    assert len(found.segments) > 2


async def test_a_segment_is_on_the_disk_before_the_next_is_made(open_log: Open) -> None:
    """Or a power cut could leave a torn segment that is not the last, which looks like damage."""
    opened = open_log(segment_bytes=500)
    opened.publish(b"x" * 500)
    opened.publish(b"y" * 500)
    opened.publish(b"z" * 500)
    await opened.log.flush()
    calls = [(call.verb, call.name) for call in opened.disk.calls if call.name.endswith(".log")]
    made = {1: ("replace", "open"), 2: ("create",), 3: ("create",)}  # the first of the file that was kept ready
    wanted = [(verb, segment_name(number)) for number in (1, 2, 3) for verb in (*made[number], "write", "sync")]
    assert calls[: len(wanted)] == wanted
    assert {verb for verb, _ in calls[len(wanted) :]} <= {"truncate"}


async def test_a_checkpoint_is_saved_when_a_segment_is_sealed(
    open_log: Open, nursery: trio.Nursery, tmp_path: Path
) -> None:
    opened = open_log(segment_bytes=500)
    opened.log.snapshot = lambda: {"as": "of now"}
    nursery.start_soon(opened.log.run)
    opened.publish(b"x" * 500)
    await opened.log.sync()
    assert opened.disk.count("replace", "checkpoint") == 0
    opened.publish(b"y")
    await opened.log.sync()
    assert opened.disk.count("replace", "checkpoint") == 1
    opened.publish(b"z")
    await opened.log.sync()
    _, told = recovered(tmp_path / "store")
    assert told.restored == [{"as": "of now"}]
    assert told.positions == [3]


async def test_a_segment_is_deleted_only_behind_a_checkpoint_that_does_without_it(
    open_log: Open, nursery: trio.Nursery, tmp_path: Path
) -> None:
    opened = open_log(segment_bytes=500)
    opened.log.releasable = lambda segment: segment.number < 3
    nursery.start_soon(opened.log.run)
    for _ in range(4):
        opened.publish(b"x" * 500)
        await opened.log.sync()
    assert [segment.number for segment in opened.log.segments] == [3, 4]
    assert opened.log.writer.statistics.segments_released == 2
    calls = [(call.verb, call.name) for call in opened.disk.calls]
    for name in (FIRST, SECOND):
        gone = calls.index(("unlink", name))
        assert ("replace", "checkpoint") in calls[:gone]
        assert calls[gone - 1][0] in ("sync_directory", "unlink")
    found, _ = recovered(tmp_path / "store")
    assert [segment.number for segment in found.segments] == [3, 4]


async def test_the_checkpoint_before_finds_all_the_segments_that_it_names(
    open_log: Open, nursery: trio.Nursery, tmp_path: Path
) -> None:
    opened = open_log(segment_bytes=500)
    opened.log.releasable = lambda segment: True
    nursery.start_soon(opened.log.run)
    for _ in range(6):
        opened.publish(b"x" * 500)
        await opened.log.sync()
    (tmp_path / "store" / "checkpoint").unlink()
    found, told = recovered(tmp_path / "store")
    assert found.lost == []
    assert told.there == [5, 6], "the last is in the segment that the lost checkpoint was about"


async def test_a_segment_that_is_due_does_not_keep_those_behind_it(open_log: Open, tmp_path: Path) -> None:
    opened = open_log(segment_bytes=500)
    opened.log.releasable = lambda segment: segment.number != 1
    for _ in range(4):
        opened.publish(b"x" * 500)
    await opened.log.flush()
    assert [segment.number for segment in opened.log.segments] == [1, 4]
    opened.close()
    again = open_log(segment_bytes=500)
    assert [(segment.number, segment.base) for segment in again.log.segments] == [(1, 1), (4, 4)]
    assert again.log.segment_of(2) is None


async def test_where_there_is_no_room_for_the_next_segment_messages_are_refused_and_acks_are_not(
    open_log: Open, nursery: trio.Nursery
) -> None:
    opened = open_log(segment_bytes=2000)
    opened.disk.fail("reserve", error=errno.ENOSPC, ever=True)
    nursery.start_soon(opened.log.run)
    opened.publish(b"x" * 2000)
    await opened.log.sync()
    opened.log.begin(NOW_MS)
    with pytest.raises(GatewayError, match="no room for another segment") as refused:
        opened.log.check_room()
    assert refused.value.code == "disk_full"
    assert opened.log.control(Kind.SETTLE, b"ack")
    await opened.log.sync()
    opened.disk.mend()
    opened.log.begin(NOW_MS + 10_000)
    await opened.log.sync()
    opened.log.check_room()
    opened.publish(b"y")
    await opened.log.sync()
    assert opened.log.active.number == 2
    assert opened.log.failed is None


@pytest.fixture
def full_log(tmp_path: Path) -> Iterator[Opened]:
    """On a disk without fallocate that is as good as full, but for what the log has set aside."""
    opened = Opened(tmp_path / "store", segment_bytes=65536)
    opened.disk.reserves, opened.disk.room = False, 1_000_000
    opened.open()
    assert opened.log.writer.has_spare
    opened.disk.room = 1000
    yield opened
    opened.close()


async def test_without_fallocate_what_was_accepted_is_stored_and_no_more_is_accepted(
    full_log: Opened, nursery: trio.Nursery, tmp_path: Path
) -> None:
    log = full_log.log
    nursery.start_soon(log.run)
    full_log.publish(b"x" * 5000)
    await log.sync()
    with pytest.raises(GatewayError, match="no room for another segment"):
        log.check_room()
    assert log.control(Kind.SETTLE, b"ack")
    await log.sync()
    log.begin(NOW_MS + 10_000)
    await log.sync()
    assert log.is_full, "there is still less than is to be set aside"
    full_log.disk.room = 1_000_000
    log.begin(NOW_MS + 20_000)
    await log.sync()
    log.check_room()
    full_log.publish(b"y")
    await log.sync()
    assert log.failed is None
    assert recovered(tmp_path / "store")[1].there == [1, 2]


@pytest.mark.parametrize("durability", Durability)
async def test_a_turn_that_finds_no_room_at_all_is_told_and_waits(
    full_log: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, durability: Durability
) -> None:
    monkeypatch.setattr(flusher, "_ROOM_S", 0.02)
    log = full_log.log
    await log.flush()
    log.unreported()
    (log.directory / "spare").unlink()  # others took the room
    log.writer.has_spare = False
    full_log.disk.room = 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        full_log.publish(b"x" * 5000)
        log.submit("first", durability)
        commit = await log.committed()
        assert (commit.entries, commit.put_off) == ([], ["first"])
        assert log.is_full
        assert recovered(tmp_path / "store")[1].there == [], "what was half written is gone"
        full_log.publish(b"y")
        log.submit("second", durability)
        commit = await log.committed()
        assert (commit.entries, commit.put_off) == ([], ["second"]), "it is told with the next try"
        full_log.disk.room = 1_000_000
        await log.sync()
        assert (log.failed, log.durable_end) == (None, 3)
        assert log.unreported().entries == [], "they have been told"
        nursery.cancel_scope.cancel()
    assert recovered(tmp_path / "store")[1].there == [1, 2]


@pytest.mark.parametrize("room", [0, 1_000_000])
async def test_what_waits_for_room_at_the_end_gets_a_last_try(full_log: Opened, tmp_path: Path, room: int) -> None:
    log = full_log.log
    full_log.disk.fail("write", error=errno.ENOSPC, ever=True)
    full_log.publish(b"x")
    await log.turn()
    full_log.publish(b"y")
    full_log.disk.mend()
    full_log.disk.room = room
    if room:
        await log.flush()
        assert recovered(tmp_path / "store")[1].restored
    else:
        with pytest.raises(StoreError, match="no room for what was accepted last"):
            await log.flush()
        assert recovered(tmp_path / "store")[1].there == []


async def test_the_room_of_the_next_segment_is_reserved_before_it_is_needed(open_log: Open) -> None:
    opened = open_log(segment_bytes=500)
    opened.publish(b"x" * 500)
    await opened.log.flush()
    opened.disk.fail("reserve", error=errno.ENOSPC, ever=True)
    opened.disk.fail("create", name="0000000002.log", error=errno.ENOSPC, ever=True)
    opened.publish(b"y")
    await opened.log.flush()
    assert opened.log.active.number == 2


# ------------------------------------------------------------------------------------------------- somebody's passes


class Passes:
    """Looks at the log's descriptor when it is told to, as the edge does in its turns."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.told: list[object] = []
        self.passes = 0
        self._epoll = select.epoll()
        for descriptor in log.readables:
            self._epoll.register(descriptor, select.EPOLLIN)
        log.on_commit = lambda commit: self.told.extend(commit.entries)
        log.attend(attended=True)

    async def until_told(self, count: int) -> None:
        with trio.fail_after(5):
            while len(self.told) < count:
                await self.one()

    async def one(self) -> None:
        await trio.lowlevel.wait_readable(self._epoll.fileno())
        self.passes += 1
        with self.log:
            for descriptor, _ in self._epoll.poll(0):
                self.log.readables[descriptor].look()


async def test_a_turn_begins_at_the_end_of_a_pass_and_ends_in_one(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    await opened.log.turn()  # which makes the segment's file
    passes = Passes(opened.log)
    nursery.start_soon(opened.log.run)
    await wait_all_tasks_blocked()
    with opened.log:
        opened.publish(b"one")
        opened.log.submit("one")
        assert opened.log.pending_bytes
    assert not opened.log.pending_bytes, "it is on its way before any task has run"
    opened.publish(b"two")
    opened.log.submit("two")
    await passes.until_told(1)
    assert passes.told == ["one"], "and the next waits for its end"
    await passes.until_told(2)
    assert (passes.told, opened.log.durable_end) == (["one", "two"], 3)


async def test_what_comes_between_passes_wakes_the_task(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    passes = Passes(opened.log)
    nursery.start_soon(opened.log.run)
    await wait_all_tasks_blocked()
    opened.publish(b"one")
    opened.log.submit("one")
    await passes.until_told(1)


async def test_a_pass_does_not_begin_before_a_rest_is_over(
    open_log: Open, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_log()
    await opened.log.turn()
    passes = Passes(opened.log)
    nursery.start_soon(opened.log.run)
    await wait_all_tasks_blocked()
    monkeypatch.setattr(opened.log._pace, "rest_s", 0.05)
    opened.log._turned_at = trio.current_time()
    began = trio.current_time()
    with opened.log:
        opened.publish(b"one")
        opened.log.submit("one")
    assert opened.log.pending_bytes
    await passes.until_told(1)
    assert trio.current_time() - began > 0.04
    assert passes.passes == 2, "of the timer and of the disk"


async def test_publishes_are_gathered_for_as_long_as_there_come_more(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    await opened.log.turn()
    passes = Passes(opened.log)
    nursery.start_soon(opened.log.run)
    await wait_all_tasks_blocked()
    opened.log._about = 3
    for number in range(3):
        with opened.log:
            assert opened.log.statistics.commits == 1
            opened.publish(b"one")
            opened.log.submit(number)
    assert opened.log.pending_bytes == 0, "as many have come as were about"
    await passes.until_told(3)
    opened.log._about = 3
    with opened.log:
        opened.publish(b"one")
        opened.log.submit(3)
    assert opened.log.pending_bytes
    await passes.until_told(4)  # nobody else comes
    assert opened.log.statistics.commits == 3


async def test_who_attends_may_leave_while_a_turn_is_under_way(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    await opened.log.turn()
    Passes(opened.log)
    nursery.start_soon(opened.log.run)
    await wait_all_tasks_blocked()
    with opened.log:
        opened.publish(b"one")
    opened.log.attend(attended=False)
    with trio.fail_after(5):
        await opened.log.sync()
    assert opened.log.durable_end == 2


async def test_who_attends_may_come_while_a_turn_is_under_way(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    nursery.start_soon(opened.log.run)
    opened.publish(b"one")
    while opened.log.pending_bytes:
        await trio.lowlevel.checkpoint()
    passes = Passes(opened.log)
    for number in range(1, 4):
        opened.publish(b"more")
        opened.log.submit(number)
        await passes.until_told(number)


@pytest.mark.parametrize("attended", [True, False])
async def test_the_end_waits_for_the_turn_that_is_under_way(open_log: Open, tmp_path: Path, attended: bool) -> None:
    opened = open_log()
    log = opened.log
    await log.turn()
    passes = Passes(log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await wait_all_tasks_blocked()
        with log:
            opened.publish(b"one")
            log.submit("one")
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            if attended:
                await passes.until_told(1)
            else:
                log.attend(attended=False)
    assert passes.told == ["one"]
    assert recovered(tmp_path / "store")[1].there == [1]


async def test_a_failure_that_a_pass_finds_ends_the_flusher(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log(io_uring=False)
    await opened.log.turn()
    opened.disk.fail("sync")
    passes = Passes(opened.log)
    failed: list[StoreError] = []

    async def run() -> None:
        with pytest.raises(StoreError, match="the store has failed") as caught:
            await opened.log.run()
        failed.append(caught.value)

    nursery.start_soon(run)
    await wait_all_tasks_blocked()
    with opened.log:
        opened.publish(b"one")
        opened.log.submit("one")
    await trio.lowlevel.wait_readable(opened.log._disk.descriptor)
    refused: list[bool] = []
    with opened.log:
        opened.log.look()
        assert passes.told == ["one"]
        opened.log.bring_in = lambda: refused.append(opened.log.failed is not None)
        opened.log.expect()  # it came in the same pass, behind the failure
    assert refused == [True]
    await wait_all_tasks_blocked()
    assert failed == [opened.log.failed]


# ----------------------------------------------------------------------------------------------------------- the end


async def test_the_flush_at_the_end_leaves_nothing_to_replay(open_log: Open, tmp_path: Path) -> None:
    opened = open_log()
    opened.publish(b"x")
    opened.log.control(Kind.SETTLE, b"lazy", lazy=True)
    await opened.log.flush()
    _, told = recovered(tmp_path / "store")
    assert told.positions == []
    assert told.controls == []


@pytest.mark.parametrize("passes", range(10))
async def test_a_flusher_that_is_cancelled_at_any_time_leaves_no_hole(
    open_log: Open, tmp_path: Path, passes: int
) -> None:
    opened = open_log()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened.log.run)
        await wait_all_tasks_blocked()
        opened.publish(b"taken")
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    opened.publish(b"behind it")
    await opened.log.flush()
    assert recovered(tmp_path / "store")[1].there == [1, 2]


# ---------------------------------------------------------------------------------------------------------------- room


async def test_room_is_waited_for_while_too_much_waits_for_the_disk(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log(pending_bytes_max=1000)
    await finishes(nursery, opened.log.wait_room)
    opened.publish(b"x" * 1000)
    assert opened.log.pending_bytes > 1000
    done = await blocks(nursery, opened.log.wait_room)
    nursery.start_soon(opened.log.run)
    with trio.fail_after(5):
        await done.wait()
    assert opened.log.pending_bytes == 0


async def test_room_is_not_waited_for_once_the_store_has_failed(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log(pending_bytes_max=1000)
    held = opened.disk.hold("sync")
    opened.disk.fail("sync")
    failed = await blocks(nursery, lambda: expect_failure(opened.log.run))
    opened.publish(b"x" * 1000)
    done = await blocks(nursery, opened.log.wait_room)
    await reached(held)
    held.release()
    with trio.fail_after(5):
        await failed.wait()
        await done.wait()
    await finishes(nursery, opened.log.wait_room)


async def blocks(nursery: trio.Nursery, wait: Callable[[], Awaitable[None]]) -> trio.Event:
    """Start `wait`, see that it does not return; the event is set when it does."""
    done = trio.Event()

    async def task() -> None:
        await wait()
        done.set()

    nursery.start_soon(task)
    await wait_all_tasks_blocked()
    assert not done.is_set()
    return done


async def finishes(nursery: trio.Nursery, wait: Callable[[], Awaitable[None]]) -> None:
    with trio.fail_after(5):
        await wait()


# ---------------------------------------------------------------------------------------------------------- fail stop

FAULTS: dict[str, dict[str, Any]] = {
    "a write": {"verb": "write", "name": FIRST},
    "a write that is cut short": {"verb": "write", "name": FIRST, "kept": 50},
    "a sync": {"verb": "sync", "name": FIRST},
    "a sync that finds the disk full": {"verb": "sync", "name": FIRST, "error": errno.ENOSPC},
    "the making of a file": {"verb": "replace", "name": FIRST, "error": errno.EMFILE},
    "the sync of the directory": {"verb": "sync_directory"},
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_failure_is_final_and_nothing_is_reported_as_durable(
    open_log: Open, nursery: trio.Nursery, name: str
) -> None:
    opened = open_log()
    fault = FAULTS[name]
    opened.disk.fail(**fault)
    opened.publish(b"x")
    opened.log.submit("written", Durability.WRITTEN)
    opened.log.submit("fsynced")
    synced = await blocks(nursery, lambda: expect_failure(opened.log.sync))
    with pytest.raises(StoreError, match=f"{os.strerror(fault.get('error', errno.EIO))}: the store has failed"):
        await opened.log.run()
    assert isinstance(opened.log.failed, StoreError)
    assert opened.log.durable_end == 1
    assert sorted(map(str, await committed(opened.log))) == ["fsynced", "written"]
    with trio.fail_after(5):
        await synced.wait()

    calls = len(opened.disk.calls)
    with pytest.raises(StoreError):
        opened.log.begin(NOW_MS)
    with pytest.raises(StoreError):
        await opened.log.sync()
    await opened.log.flush()
    assert len(opened.disk.calls) == calls  # never tried again
    assert opened.log.statistics.commits == 0


async def expect_failure(wait: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(StoreError):
        await wait()


async def test_what_was_to_be_brought_in_is_told_of_the_failure(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    opened.disk.fail("sync")
    held = opened.disk.hold("sync")
    refused: list[StoreError | None] = []
    opened.publish(b"x")
    failed = await blocks(nursery, lambda: expect_failure(opened.log.run))
    await reached(held)
    opened.log.bring_in = lambda: refused.append(opened.log.failed)
    held.release()
    with trio.fail_after(5):
        await failed.wait()
    assert refused == [opened.log.failed]
    assert opened.log.failed is not None


async def test_what_waited_behind_the_failure_is_told_too(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    held = opened.disk.hold("sync")
    opened.disk.fail("sync")
    opened.log.submit("under way")
    failed = await blocks(nursery, lambda: expect_failure(opened.log.run))
    opened.publish(b"x")
    opened.log.submit("behind it")
    opened.log.submit("behind it, written", Durability.WRITTEN)
    await reached(held)
    held.release()
    with trio.fail_after(5):
        await failed.wait()
    assert await committed(opened.log) == ["under way", "behind it", "behind it, written"]
    assert opened.disk.count("write") == 1


async def test_what_was_written_before_a_sync_failed_is_reported_once(open_log: Open, nursery: trio.Nursery) -> None:
    opened = open_log()
    held = opened.disk.hold("sync")
    opened.disk.fail("sync")
    opened.log.submit("written", Durability.WRITTEN)
    opened.log.submit("fsynced")
    failed = await blocks(nursery, lambda: expect_failure(opened.log.run))
    assert await committed(opened.log) == ["written"]
    held.release()
    with trio.fail_after(5):
        await failed.wait()
    assert await committed(opened.log) == ["fsynced"]


async def test_an_error_that_nobody_foresaw_ends_the_flusher_too(open_log: Open) -> None:
    opened = open_log()
    opened.log.snapshot = lambda: {"not plain data": object()}
    opened.log._checkpoint_due = True
    opened.publish(b"x")
    opened.log.submit("fsynced")
    with trio.fail_after(5), pytest.raises(StoreError, match="not JSON serializable"):
        await opened.log.run()
    assert await committed(opened.log) == ["fsynced"]
    assert opened.log.durable_end == 1


async def test_a_failure_to_save_the_checkpoint_is_a_failure(open_log: Open, tmp_path: Path) -> None:
    opened = open_log()
    opened.disk.fail("write", name="checkpoint.tmp")
    opened.publish(b"x")
    with pytest.raises(StoreError, match="Input/output error"):
        await opened.log.flush()
    opened.close()
    assert recovered(tmp_path / "store")[1].positions == [1]


async def test_a_checkpoint_that_the_disk_has_no_room_for_is_put_off(open_log: Open, tmp_path: Path) -> None:
    opened = open_log()
    opened.disk.fail("write", name="checkpoint.tmp", error=errno.ENOSPC)
    opened.publish(b"x")
    await opened.log.flush()
    assert opened.log.writer.statistics.checkpoints_postponed == 1
    await opened.log.flush()
    opened.close()
    assert recovered(tmp_path / "store")[1].positions == []


# ----------------------------------------------------------------------------------- appends of the kernel (io_uring)


async def published(log: Log, *bodies: bytes) -> None:
    """Append them, and wait until they are on the disk."""
    log.begin(NOW_MS)
    log.messages(bodies, log.route("trade.paid", (1,)))
    with trio.fail_after(5):
        await log.sync()


@pytest.mark.parametrize("uring", [True, False])
async def test_what_the_kernel_appends_is_what_the_thread_would_have(
    tmp_path: Path, nursery: trio.Nursery, uring: bool
) -> None:
    log = Log(Store(directory=str(tmp_path / "store"), io_uring=uring))
    log.open(Told(), NOW_MS)
    log.start()
    nursery.start_soon(log.run)
    for number in range(20):
        await published(log, *(b'{"n":%d}' % number for _ in range(number + 1)))
    assert log.durable_end == 211
    nursery.cancel_scope.cancel()
    log.close()
    told = Told()
    again = Log(Store(directory=str(tmp_path / "store")))
    assert again.open(told, NOW_MS).cut_bytes == 0
    assert again.end == 211
    again.close()


@pytest.mark.parametrize(("taken", "told"), [(0, 0), (1, 1), (30, 30), (30, 0), (1000, 0)])
async def test_what_the_kernel_left_of_an_append_is_written_by_the_thread(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, taken: int, told: int
) -> None:
    log = Log(Store(directory=str(tmp_path / "store")))
    log.open(Told(), NOW_MS)
    log.start()
    nursery.start_soon(log.run)
    await published(log, b'{"n":1}')

    def append(file: int, data: bytes) -> bool:
        """As a disk that is full has it, behind so many bytes; it may have taken more than it says."""
        os.write(file, data[:taken])
        log._disk.error, log._disk.appended = None, told
        os.eventfd_write(log._disk.descriptor, 1)
        return True

    monkeypatch.setattr(Disk, "appends", True)
    monkeypatch.setattr(log._disk, "append", append)
    await published(log, b'{"n":2}')
    size = log.active.size
    assert (log.active.written, log.active.path.stat().st_size, log.durable_end) == (size, size, 3)
    nursery.cancel_scope.cancel()
    log.close()
    again = Log(Store(directory=str(tmp_path / "store")))
    assert again.open(Told(), NOW_MS).cut_bytes == 0
    assert again.end == 3
    again.close()


async def test_an_append_that_fails_ends_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(Store(directory=str(tmp_path / "store")))
    log.open(Told(), NOW_MS)
    log.start()

    async def run() -> None:
        with pytest.raises(StoreError, match="Input/output error: the store has failed"):
            await log.run()

    def append(_file: int, _data: bytes) -> bool:
        log._disk.error, log._disk.appended = OSError(errno.EIO, os.strerror(errno.EIO)), 0
        os.eventfd_write(log._disk.descriptor, 1)
        return True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await published(log, b'{"n":1}')
        monkeypatch.setattr(Disk, "appends", True)
        monkeypatch.setattr(log._disk, "append", append)
        with pytest.raises(StoreError):
            await published(log, b'{"n":2}')
    assert log.durable_end == 2
    log.close()
