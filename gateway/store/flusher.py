"""The flusher: whatever is pushed to it becomes durable in turns, and is reported then.

Group commit: a turn takes all that waits, one write, one fdatasync off the run loop, then reports all of it. What
arrived meanwhile is the next turn's, so turns grow with load by themselves. With `disk.py` this is what of the store
knows trio.

A failed write or fsync is final: the page cache can no longer be trusted to hold what the disk does not ("fsyncgate",
Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). The log latches and the node ends.
A full disk is not final: a turn that finds no room is kept, and tried again. Who waits for it, or behind it, is told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Final

import attrs
import structlog
import trio

from gateway.config import Store as StoreSettings
from gateway.errors import StoreError
from gateway.kit.pace import Pace
from gateway.model import Durability
from gateway.store.disk import Disk
from gateway.store.writer import NoRoomError, Work

_log = structlog.get_logger("gateway.store")
_ROOM_S: Final = 2.0  # until a turn that found no room is tried again
_PASSES_MAX: Final = 64
_QUIET_PASSES: Final = 2
_GATHER_S: Final = 0.003  # passes are long where much else is done, and who has come first waits for all of them
_FEW: Final = 8  # who gather by themselves where they are more
_MUCH: Final = 64 * 1024  # bytes that are worth a commit of their own
_ALONE: Final = 2  # publishers so few that none of them is worth a wait


@attrs.define(slots=True)
class Commit:
    """What became true: `entries` may be answered; `routed` have new messages to deliver."""

    entries: list[object]
    routed: dict[int, None]
    put_off: list[object] = attrs.field(factory=list)
    """What is not true, and may become so later: there is no room for it. Not reported again."""


@attrs.define(slots=True)
class LogStatistics:
    """Counters since the start."""

    commits: int = 0
    records: int = 0
    bytes: int = 0
    commit_seconds: float = 0.0
    cut_bytes: int = 0
    damaged_parts: int = 0


class Flusher(ABC):
    """Run `run` as a task. Subclasses say what a turn does, and push to `_work`."""

    def __init__(self, settings: StoreSettings, disk: Disk) -> None:
        self.settings = settings
        self.directory = Path(settings.directory)
        self.failed: StoreError | None = None
        self.statistics = LogStatistics()
        self.coming: Callable[[], int] = lambda: 0
        """How many batches wait to be appended right before the next turn."""
        self.bring_in: Callable[[], None] = lambda: None
        """Appends them; set by the engine, as is `coming`."""
        self.on_commit: Callable[[Commit], None] | None = None
        """Told of each commit at once; where it is None, `committed` tells."""
        self._disk = disk
        self._work = Work()
        self._kept: Work | None = None  # the last turn, which found no room
        self._pace = Pace(settings.commit_rest_ms / 1000)
        self._turned_at = 0.0  # when the last turn ended
        self._about = 0  # who waited for the last commit, and for the next when it ended
        self._wake = trio.Event()  # somebody waits for the disk
        self._is_lazy = False  # something goes there with the next turn, and at the latest by its time
        self._patience = trio.Event()  # it has been so since the last look
        self._room: trio.Event | None = None  # made where somebody waits
        self._reported = trio.Event()
        self._commit = Commit([], {})

    # -------------------------------------------------------------------------------------------- what a turn does

    @abstractmethod
    def append(self, work: Work) -> bool:
        """Have `disk` append `work`, where it is no more than bytes for one file; False where it cannot be done so."""

    @abstractmethod
    def appended(self, work: Work) -> bool:
        """That has ended. Whether it was all; what was not, `carry_out` is asked for."""

    @abstractmethod
    def carry_out(self, work: Work) -> None:
        """Write, sync and the like; on the disk thread. Raises OSError, and then nothing more may be written."""

    @abstractmethod
    def prepare(self, work: Work) -> None:
        """Complete what a turn is about to take."""

    @abstractmethod
    def turned(self, work: Work) -> None:
        """It has been carried out, and nobody has been told yet."""

    @abstractmethod
    def given_up(self, work: Work) -> None:
        """It has failed, and nothing comes behind it."""

    # --------------------------------------------------------------------------------------------------- waiting

    def _call(self, *, lazy: bool = False) -> None:
        """Have a turn, for what has been pushed. `lazy`: with the next, or within store.lazy_sync_ms."""
        if not lazy:
            self._wake.set()
        elif not self._is_lazy:
            self._is_lazy = True
            self._patience.set()

    def submit(self, entry: object, durability: Durability = Durability.FSYNCED) -> None:
        """Have `entry` reported by `committed` once everything appended so far has reached `durability`."""
        if durability is Durability.WRITTEN:
            self._work.written.append(entry)
        else:
            self._work.entries.append(entry)
        self._wake.set()

    def expect(self) -> None:
        """Have a turn, for what `bring_in` appends."""
        self._wake.set()

    async def sync(self) -> None:
        """Wait until everything appended so far is on the disk. Raises StoreError where that failed."""
        done = trio.Event()
        if self.failed is None:
            self.submit(done)
            await done.wait()
        if self.failed:
            raise self.failed

    @property
    def has_room(self) -> bool:
        """Whether less than store.pending_bytes_max waits for the disk, or nothing will ever reach it."""
        return self._work.size < self.settings.pending_bytes_max or self.failed is not None

    async def wait_room(self) -> None:
        """Wait until less than store.pending_bytes_max waits for the disk."""
        while not self.has_room:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()

    # ----------------------------------------------------------------------------------------------------- turns

    async def run(self) -> None:
        """The flusher. Ends only by cancellation or by raising StoreError."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._be_patient)
            with suppress(StoreError):  # which is raised below, and not in a group
                await self._take_turns()
            nursery.cancel_scope.cancel()
        if self.failed:
            raise self.failed

    async def _take_turns(self) -> None:
        with trio.CancelScope() as turns:  # one for all of them: a scope a turn costs 30 us
            while True:
                if self._kept is not None:
                    await trio.sleep(_ROOM_S)
                if not self._wake.is_set():
                    await self._wake.wait()
                await self._rest()
                await self._gather()
                turns.shield = True  # what is taken must reach the file before anything behind it
                await self.turn()
                turns.shield = False

    async def _be_patient(self) -> None:
        """Have a turn for what is lazy, where none came meanwhile."""
        while True:
            await self._patience.wait()
            await trio.sleep(self.settings.lazy_sync_ms / 1000)
            self._patience = trio.Event()
            if self._is_lazy:
                self._wake.set()

    async def _rest(self) -> None:
        """Where commits of few cost too much of the run loop, let a little time pass between two of them."""
        rest_s = self._turned_at + self._pace.rest_s - trio.current_time()
        if rest_s > 0 and self._about <= _FEW and self._work.size < _MUCH:
            await trio.sleep(rest_s)

    async def _gather(self) -> None:
        """Let batches that are already on their way come in: while passes of the run loop bring more.

        Costs a pass, 10 us, where nothing comes; under load it makes a sync serve tens of single publishes, not two,
        and what a commit costs, about a millisecond of passes and wake-ups, is what single publishes cost most. It ends
        once as many have come as were about. What nobody waits for does not count: acks of a drain come in every pass,
        and publishes would wait for all 64 of them.
        """
        if self._about <= _ALONE:
            return
        quiet = 0
        until_s = trio.current_time() + _GATHER_S
        for _ in range(_PASSES_MAX):
            before = self._work.waiting + self.coming()
            if len(self._work.entries) + self.coming() >= self._about:
                return
            await trio.lowlevel.checkpoint()
            quiet = 0 if self._work.waiting + self.coming() > before else quiet + 1
            if quiet == _QUIET_PASSES or trio.current_time() >= until_s:
                return

    async def turn(self) -> None:
        """One turn, or the one before once more where that found no room. Raises StoreError where it fails.

        It must not be cancelled.
        """
        work = self._kept or self._take()
        began = trio.current_time()
        await self._write_off_the_loop(work)
        if self.failed:
            raise self.failed
        self._kept = work if isinstance(self._disk.error, NoRoomError) else None
        if self._kept is not None:
            self._put_off(work)
            return
        self.turned(work)
        statistics = self.statistics
        statistics.commits += 1
        statistics.records += work.records
        statistics.bytes += work.size
        self._turned_at = trio.current_time()
        statistics.commit_seconds += self._turned_at - began
        self._pace.look(self._turned_at, thread_time())
        self._about = len(work.entries) + len(self._work.entries) + self.coming()
        self._report(work.entries, work.routed)

    async def finish(self) -> None:
        """The last turn, behind `run`. Raises StoreError where it fails, or finds no room."""
        with trio.CancelScope(shield=True):
            if self._kept is not None:
                await self.turn()
            if self._kept is None:
                await self.turn()
        if self._kept is not None:
            error = StoreError(f"{self.directory}: there is no room for what was accepted last")
            self._fail(self._kept, error)
            raise error

    async def _write_off_the_loop(self, work: Work) -> None:
        disk = self._disk
        done = False
        if self.append(work):
            await self._wait_disk(work)
            done = disk.error is not None or self.appended(work)
        if not done:
            disk.begin(partial(self.carry_out, work))
            await self._wait_disk(work)
        if disk.error is not None and not isinstance(disk.error, NoRoomError):
            reason = getattr(disk.error, "strerror", None) or str(disk.error)
            self._fail(work, StoreError(f"{self.directory}: {reason}: the store has failed"))

    async def _wait_disk(self, work: Work) -> None:
        disk = self._disk
        finished = False
        while not finished:
            await trio.lowlevel.wait_readable(disk.descriptor)
            disk.acknowledge()
            finished = disk.finished  # asked first: what is found in the file now may be so because the job is over
            if work.in_file and work.written:  # those who asked for no more have waited long enough
                self._report(work.written, {})
                work.written = []

    def _take(self) -> Work:
        self.bring_in()
        work, self._work = self._work, Work()
        self._wake = trio.Event()
        self._is_lazy = False
        if self._room is not None:
            self._room.set()
            self._room = None
        self.prepare(work)
        return work

    def _report(self, entries: list[object], routed: dict[int, None], put_off: Sequence[object] = ()) -> None:
        commit = self._commit
        commit.put_off += put_off
        for entry in entries:
            if isinstance(entry, trio.Event):
                entry.set()
            else:
                commit.entries.append(entry)
        commit.routed.update(routed)
        if self.on_commit is None:
            self._reported.set()
        else:
            self._commit = Commit([], {})
            self.on_commit(commit)

    def _fail(self, work: Work, error: StoreError) -> None:
        self.failed = error
        self._kept = None
        self.given_up(work)
        _log.error("the store has failed; the node ends", error=str(error))
        if self._room is not None:
            self._room.set()
        self.bring_in()  # which refuses them
        rest = self._work
        self._report(work.entries + work.written + rest.entries + rest.written, {})

    def _put_off(self, work: Work) -> None:
        """Tell who waits for `work`, or for what comes behind it, that there is no room. Whoever syncs goes on waiting.

        It will be written all the same, once there is room: what follows stands on it. So that is no definite answer.
        """
        self.bring_in()  # which refuses them
        told: list[object] = []
        for each in (work, self._work):
            told += (entry for entry in (*each.entries, *each.written) if not isinstance(entry, trio.Event))
            each.entries = [entry for entry in each.entries if isinstance(entry, trio.Event)]
            each.written.clear()
        self._wake.set()
        self._report([], {}, told)

    async def committed(self) -> Commit:
        """Wait for what the flusher has made true since the last call. For one task, the notify stage."""
        await self._reported.wait()
        return self.unreported()

    def unreported(self) -> Commit:
        """The same, without waiting."""
        self._reported = trio.Event()
        commit, self._commit = self._commit, Commit([], {})
        return commit
