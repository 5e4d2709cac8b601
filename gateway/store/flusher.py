"""The flusher: whatever is pushed to it becomes durable in turns, and is reported then.

Group commit: a turn takes all that waits, one write, one fdatasync off the run loop, then reports all of it. What
arrived meanwhile is the next turn's, so turns grow with load by themselves. With `disk.py` this is what of the store
knows trio.

A task takes the turns, but need not do so by itself. Whoever looks at descriptors anyhow, in passes in which most of
what is pushed comes in, may look at the disk's as well (`attend`): then a turn is begun at the end of the pass that
brought something, and ended, with all that is told of it, in the pass that finds it done. The task is woken only where
there is something to wait for. That saves a commit two switches of tasks and two system calls, and what it tells a pass
of the run loop.

A failed write or fsync is final: the page cache can no longer be trusted to hold what the disk does not ("fsyncgate",
Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). The log latches and the node ends.
A full disk is not final: a turn that finds no room is kept, and tried again. Who waits for it, or behind it, is told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import thread_time
from typing import Final, NamedTuple

import attrs
import structlog
import trio

from gateway.config import Store as StoreSettings
from gateway.errors import StoreError
from gateway.kit.pace import Pace
from gateway.model import Durability
from gateway.store.disk import Disk
from gateway.store.timer import Readable, Timer
from gateway.store.writer import NoRoomError, Work

_log = structlog.get_logger("gateway.store")
_ROOM_S: Final = 2.0  # until a turn that found no room is tried again
_GATHER_S: Final = 0.003  # who has come first waits for all of them
_QUIET_S: Final = 0.0001  # in which nobody comes
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


class Gathering(NamedTuple):
    """What is known of those that a turn still waits for; times are the run loop's."""

    until_s: float
    """When it begins whoever may still come."""
    look_s: float
    """When it begins if nobody has come meanwhile."""
    waiting: int
    """How many had come at the last look."""


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
        self._under_way: Work | None = None
        self._appending = False  # it is the kernel's
        self._pace = Pace(settings.commit_rest_ms / 1000)
        self._began_at = 0.0  # when the last turn began
        self._turned_at = 0.0  # when it ended
        self._about = 0  # who waited for the last commit, and for the next when it ended
        self._is_called = False  # somebody waits for the next turn
        self._wake = trio.Event()  # for the task: made anew each time it waits
        self._at_rest = False  # it waits
        self._awaited = False  # somebody waits for the end of a turn
        self._attended = False
        self._looking = trio.CancelScope()  # of who looks while nobody attends
        self._timer = Timer()  # for who attends
        self._gathering: Gathering | None = None
        self._in_pass = False
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
            self._is_called = True
            if not self._in_pass and self._under_way is None:
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
        self._call()

    def expect(self) -> None:
        """Have a turn, for what `bring_in` appends."""
        self._call()

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

    # ------------------------------------------------------------------------------------------- somebody's passes

    @property
    def readables(self) -> dict[int, Readable]:
        """By descriptor, who is to look where it can be read: the disk has something to say, or a rest is over."""
        return {self._disk.descriptor: self, self._timer.descriptor: self._timer}

    def attend(self, *, attended: bool) -> None:
        """Whether somebody else looks at `readables` from now on, and enters this in each of his passes."""
        self._attended = attended
        self._wake.set()
        self._looking.cancel()  # or who looks until now would wait for what another has seen

    def __enter__(self) -> None:
        self._in_pass = True

    def __exit__(self, *_: object) -> None:
        if self._is_called and self._under_way is None and self._at_rest:
            if self.failed is not None:
                self.bring_in()  # which refuses what came behind the failure
            elif self._kept is not None:
                self._wake.set()
            else:
                self._begin_in_time()
        self._in_pass = False

    def _begin_in_time(self) -> None:
        """Begin the next turn, or set the timer for it: at the end of the pass that finds it over."""
        due_s = self._due_s()
        if due_s <= 0:
            self._timer.stop()
            self._begin()
        elif not self._timer.is_set:
            self._timer.start(due_s)

    def look(self) -> None:
        """The disk may have something to say. Ends the turn, where it is over, and tells of it."""
        disk, work = self._disk, self._under_way
        disk.acknowledge()
        finished = disk.finished  # asked first: what is found in the file now may be so because the job is over
        if work is None:
            return
        if work.in_file and work.written:  # those who asked for no more have waited long enough
            self._report(work.written, {})
            work.written = []
        if finished:
            self._finished(work)

    # ----------------------------------------------------------------------------------------------------- turns

    async def run(self) -> None:
        """The flusher. Ends only by cancellation or by raising StoreError."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._be_patient)
                await self._take_turns()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):  # what was taken must reach the file before anything behind it
                await self._ended()
            if self.failed:
                raise self.failed

    async def _take_turns(self) -> None:
        """Until the store has failed."""
        while self.failed is None:
            if self._under_way is not None and not self._attended:
                await self._look_at_disk()
            elif self._under_way is not None or not self._is_called:
                await self._woken()
            elif self._kept is not None:
                await trio.sleep(_ROOM_S)
                self._begin()
            elif self._attended:
                self._begin_in_time()
                await self._woken()
            elif (due_s := self._due_s()) > 0:
                await trio.sleep(due_s)
            else:
                self._begin()

    async def _woken(self) -> None:
        self._wake = trio.Event()
        self._at_rest = True
        try:
            await self._wake.wait()
        finally:
            self._at_rest = False

    async def _look_at_disk(self) -> None:
        with trio.CancelScope() as self._looking:
            await trio.lowlevel.wait_readable(self._disk.descriptor)
            self.look()

    async def _ended(self) -> None:
        """Wait for the end of the turn that is under way, if one is."""
        self._awaited = True
        while self._under_way is not None:
            await (self._woken() if self._attended else self._look_at_disk())
        self._awaited = False

    async def _be_patient(self) -> None:
        """Have a turn for what is lazy, where none came meanwhile."""
        while True:
            await self._patience.wait()
            await trio.sleep(self.settings.lazy_sync_ms / 1000)
            self._patience = trio.Event()
            if self._is_lazy:
                self._call()

    def _due_s(self) -> float:
        """How long to wait before the next turn, or before this is asked again; not at all: 0 or less."""
        rest_s = self._rest_s()
        return rest_s if rest_s > 0 else self._gather_s()

    def _rest_s(self) -> float:
        """Where commits of few cost too much of the run loop, a little time passes between two of them."""
        if self._about > _FEW or self._work.size >= _MUCH:
            return 0.0
        return self._turned_at + self._pace.rest_s - trio.current_time()

    def _gather_s(self) -> float:
        """Let batches that are already on their way come in, while there come more in each little while.

        Under load this makes a sync serve tens of single publishes, not two, and what a commit costs, about half a
        millisecond of passes and answers, is what single publishes cost most. It ends once as many have come as were
        about; or so few were that none is worth a wait. What nobody waits for does not count: acks of a drain come all
        the time, and publishes would wait for them.
        """
        waiting = self._work.waiting + self.coming()
        if self._about <= _ALONE or waiting >= self._about:
            self._gathering = None
            return 0.0
        now = trio.current_time()
        if self._gathering is None:
            self._gathering = Gathering(now + _GATHER_S, now + _QUIET_S, waiting)
            return _QUIET_S
        if now < self._gathering.look_s:
            return self._gathering.look_s - now
        if waiting == self._gathering.waiting or now >= self._gathering.until_s:
            self._gathering = None
            return 0.0
        self._gathering = Gathering(self._gathering.until_s, now + _QUIET_S, waiting)
        return _QUIET_S

    async def turn(self) -> None:
        """One turn, or the one before once more where that found no room. Raises StoreError where it fails.

        It must not be cancelled.
        """
        self._begin()
        await self._ended()
        if self.failed:
            raise self.failed

    def _begin(self) -> None:
        """Begin a turn; the one before has ended."""
        work = self._under_way = self._kept or self._take()
        self._began_at = trio.current_time()
        self._appending = self.append(work)
        if not self._appending:
            self._disk.begin(partial(self.carry_out, work))

    def _finished(self, work: Work) -> None:
        """The disk has done what it was asked for; whoever waits is told, where that was all."""
        error = self._disk.error
        if self._appending and error is None and not self.appended(work):
            self._appending = False
            self._disk.begin(partial(self.carry_out, work))
            return
        self._under_way = None
        self._kept = work if isinstance(error, NoRoomError) else None
        if self._kept is not None:
            self._put_off(work)
        elif error is not None:
            reason = getattr(error, "strerror", None) or str(error)
            self._fail(work, StoreError(f"{self.directory}: {reason}: the store has failed"))
        else:
            self._turned(work)
        if self._awaited:
            self._wake.set()

    def _turned(self, work: Work) -> None:
        self.turned(work)
        statistics = self.statistics
        statistics.commits += 1
        statistics.records += work.records
        statistics.bytes += work.size
        self._turned_at = trio.current_time()
        statistics.commit_seconds += self._turned_at - self._began_at
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

    def _take(self) -> Work:
        self.bring_in()
        work, self._work = self._work, Work()
        self._is_called = self._is_lazy = False
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
        self._wake.set()
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
        self._is_called = True
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
