"""The log: appends that return at once, and a flusher that makes them durable together.

Group commit: the flusher takes all that waits, one write, one fdatasync off the run loop, then reports all of it. What
arrived meanwhile is the next batch, so batches grow with load by themselves. This is the one file of the store that
knows trio; `append` and its kin are synchronous and must be called on the run loop.

A failed write or fsync is final: the page cache can no longer be trusted to hold what the disk does not ("fsyncgate",
Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020). The log latches and the node ends.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import orjson
import structlog
import trio

from gateway import __version__
from gateway.config import Store as StoreSettings
from gateway.errors import StoreError, StoreLockedError
from gateway.model import Durability
from gateway.store import checkpoint as checkpoints
from gateway.store import record as records
from gateway.store import recovery
from gateway.store.checkpoint import Checkpoint
from gateway.store.disk import Disk
from gateway.store.files import Files
from gateway.store.record import Kind
from gateway.store.segment import Segment

_log = structlog.get_logger("gateway.store")
_PASSES_MAX: Final = 64
_QUIET_PASSES: Final = 3  # admit, route and append take a pass each


@attrs.define(slots=True)
class _Work:
    """What one turn of the flusher makes durable."""

    chunks: list[tuple[Segment, list[bytes]]] = attrs.field(factory=list)
    size: int = 0
    records: int = 0
    entries: list[object] = attrs.field(factory=list)  # reported once synced
    written: list[object] = attrs.field(factory=list)  # reported once written
    routed: dict[int, None] = attrs.field(factory=dict)  # subscriptions that get something new
    in_file: bool = False  # all of it has been written
    end: int = 0  # positions below this are durable afterwards
    checkpoint: Checkpoint | None = None
    released: list[Segment] = attrs.field(factory=list)


@attrs.define(slots=True)
class Commit:
    """What became true: `entries` may be answered; `routed` have new messages to deliver."""

    entries: list[object]
    routed: dict[int, None]


@attrs.define(slots=True)
class LogStatistics:
    """Counters since the start."""

    commits: int = 0
    records: int = 0
    bytes: int = 0
    commit_seconds: float = 0.0
    checkpoints: int = 0
    segments_released: int = 0
    cut_bytes: int = 0


class Log:
    """The segments of one directory. `open`, `start`, then `run` as a task; `close` at the end."""

    def __init__(self, settings: StoreSettings, files: Files | None = None) -> None:
        self.settings = settings
        self.directory = Path(settings.directory)
        self.files = files or Files()
        self.epoch = ""
        self.segments: list[Segment] = []
        self.durable_end = 0
        """Positions below this have been synced and may be delivered."""
        self.failed: StoreError | None = None
        self.statistics = LogStatistics()
        self.snapshot: Callable[[], dict[str, Any]] = dict
        """The engine's state for a checkpoint; set by the engine."""
        self.releasable: Callable[[Segment], bool] = lambda _segment: False
        """Whether nothing in a sealed segment is due to anybody any more; set by the engine."""
        self._disk = Disk()
        self._lock: int | None = None
        self._work = _Work()
        self._nudge = trio.Event()  # something waits for the disk
        self._wake = trio.Event()  # somebody waits for it
        self._room = trio.Event()
        self._reported = trio.Event()
        self._commit = Commit([], {})
        self._now_ms = 0
        self._checkpoint_due = False

    # ------------------------------------------------------------------------------------------------ life

    def open(self, replay: recovery.Replay, now_ms: int) -> recovery.Recovered:
        """Lock the directory and read it. Blocks; off the run loop. Raises StoreLockedError or StoreError."""
        try:
            self.files.make_directory(self.directory)
            lock = self.files.lock(self.directory / recovery.LOCK_NAME)
        except OSError as error:
            raise StoreError(f"{self.directory}: {error.strerror}; name a directory that can be written") from error
        if isinstance(lock, str):
            raise StoreLockedError(
                f"{self.directory}: is in use by process {lock}; stop it, or name another directory with --data"
            )
        self._lock = lock
        self._now_ms = now_ms
        try:
            found = recovery.recover(self.files, self.directory, replay)
        except OSError as error:
            raise StoreError(f"{self.directory}: {error.filename or ''} {error.strerror}") from error
        self.epoch = found.epoch or secrets.token_hex(4)
        self.segments = found.segments
        self.statistics.cut_bytes = found.cut_bytes
        for name in found.foreign:
            _log.warning("a file in the store is not ours and is left alone", file=str(self.directory / name))
        return found

    def start(self) -> None:
        """Behind `open`, on the run loop: begin the first segment of a new store."""
        if not self.segments:
            self._roll(1, 1)
        self.durable_end = self.active.end

    def close(self) -> None:
        """Release files, thread and lock. Blocks; the flusher must have ended."""
        self._disk.close()
        for segment in self.segments:
            if segment.file >= 0:
                self.files.close(segment.file)
                segment.file = -1
        if self._lock is not None:
            self.files.close(self._lock)
            self._lock = None

    @property
    def active(self) -> Segment:
        return self.segments[-1]

    @property
    def end(self) -> int:
        """The next position to be given."""
        return self.active.end

    @property
    def pending_bytes(self) -> int:
        return self._work.size

    # ---------------------------------------------------------------------------------------------- append

    def begin(self, now_ms: int) -> Segment:
        """The segment that the next records go to; a full one is sealed first. Raises StoreError once failed."""
        if self.failed:
            raise self.failed
        self._now_ms = now_ms
        if self.active.size >= self.settings.segment_bytes:
            self._roll(self.active.number + 1, self.active.end)
            self._checkpoint_due = True
        return self.active

    def _roll(self, number: int, base: int) -> None:
        segment = Segment(number, self.directory / recovery.segment_name(number), base, self._now_ms)
        self.segments.append(segment)
        head = {
            "format": records.FORMAT,
            "version": __version__,
            "epoch": self.epoch,
            "segment": number,
            "base": base,
            "created_ms": self._now_ms,
        }
        header = records.encode(Kind.HEADER, orjson.dumps(head), position=base, time_ms=self._now_ms)
        self._push([records.MAGIC, header], len(records.MAGIC) + len(header), 0)

    def route(self, topic: str, numbers: tuple[int, ...]) -> int:
        """The active segment's number for a route; defines it there at its first use."""
        routes = self.active.routes
        route = routes.get((topic, numbers))
        if route is None:
            route = routes[topic, numbers] = len(routes) + 1
            body = orjson.dumps({"topic": topic, "subscriptions": numbers})
            self.control(Kind.ROUTE, body, number=route)
        return route

    def messages(self, bodies: Sequence[bytes], routes: Sequence[int] | int, flags: Sequence[int] | int = 0) -> int:
        """Append MESSAGE records at consecutive positions; the first position. The caller notes who they go to."""
        segment = self.active
        first = segment.end
        parts = records.encode_messages(bodies, routes, flags, first, self._now_ms)
        offsets = records.offsets_of(parts, segment.size)
        size = offsets.pop() - segment.size
        segment.offsets.fromlist(offsets)
        self._push(parts, size, len(bodies))
        return first

    def control(self, kind: Kind, body: bytes, *, number: int = 0, lazy: bool = False) -> None:
        """Append one control record. `lazy`: nobody waits, it may go with the next commit (store.lazy_sync_ms)."""
        data = records.encode(kind, body, number=number, position=self.active.end, time_ms=self._now_ms)
        self._push([data], len(data), 1, lazy=lazy)

    def routed(self, numbers: Sequence[int]) -> None:
        """Note which subscriptions the commit under way brings something new."""
        self._work.routed.update(dict.fromkeys(numbers))

    def _push(self, parts: list[bytes], size: int, count: int, *, lazy: bool = False) -> None:
        segment = self.active
        work = self._work
        if work.chunks and work.chunks[-1][0] is segment:
            work.chunks[-1][1].extend(parts)
        else:
            work.chunks.append((segment, parts))
        segment.size += size
        work.size += size
        work.records += count
        self._nudge.set()
        if not lazy:
            self._wake.set()

    def submit(self, entry: object, durability: Durability = Durability.FSYNCED) -> None:
        """Have `entry` reported by `committed` once everything appended so far has reached `durability`."""
        if durability is Durability.WRITTEN:
            self._work.written.append(entry)
        else:
            self._work.entries.append(entry)
        self._nudge.set()
        self._wake.set()

    async def sync(self) -> None:
        """Wait until everything appended so far is on the disk. Raises StoreError where that failed."""
        done = trio.Event()
        if self.failed is None:
            self.submit(done)
            await done.wait()
        if self.failed:
            raise self.failed

    async def wait_room(self) -> None:
        """Wait until less than store.pending_bytes_max waits for the disk."""
        while self._work.size >= self.settings.pending_bytes_max and self.failed is None:
            await self._room.wait()

    # --------------------------------------------------------------------------------------------- flusher

    async def run(self) -> None:
        """The flusher. Ends only by cancellation or by raising StoreError."""
        while True:
            await self._wait_work()
            await self._gather()
            await self._turn()

    async def _wait_work(self) -> None:
        await self._nudge.wait()
        if not self._wake.is_set():
            with trio.move_on_after(self.settings.lazy_sync_ms / 1000):
                await self._wake.wait()

    async def _gather(self) -> None:
        """Let batches that are already on their way come in: while each pass of the run loop brings more.

        Costs a pass, 10 us, where nothing comes; under load it makes a sync serve tens of single publishes, not two.
        """
        quiet = 0
        for _ in range(_PASSES_MAX):
            before = self._work.records
            await trio.lowlevel.checkpoint()
            quiet = 0 if self._work.records > before else quiet + 1
            if quiet == _QUIET_PASSES:
                return

    async def flush(self) -> None:
        """Make everything appended so far durable, with a checkpoint; for the end, when `run` is over."""
        self._checkpoint_due = True
        if self.failed is None:
            await self._turn()

    async def _turn(self) -> None:
        work = self._take()
        began = trio.current_time()
        with trio.CancelScope(shield=True):  # what was taken must reach the file before anything behind it
            await self._write_off_the_loop(work)
        if self.failed:
            raise self.failed
        self.durable_end = work.end
        statistics = self.statistics
        statistics.commits += 1
        statistics.records += work.records
        statistics.bytes += work.size
        statistics.commit_seconds += trio.current_time() - began
        self._report(work.entries, work.routed)

    async def _write_off_the_loop(self, work: _Work) -> None:
        disk = self._disk
        disk.begin(partial(self._write, work))
        finished = False
        while not finished:
            await trio.lowlevel.wait_readable(disk.descriptor)
            disk.acknowledge()
            finished = disk.finished  # asked first: what is found in the file now may be so because the job is over
            if work.in_file:  # those who asked for no more have waited long enough
                self._report(work.written, {})
                work.written = []
        if disk.error is not None:
            reason = getattr(disk.error, "strerror", None) or str(disk.error)
            self._fail(work, StoreError(f"{self.directory}: {reason}: the store has failed"))

    def _take(self) -> _Work:
        work, self._work = self._work, _Work()
        self._nudge = trio.Event()
        self._wake = trio.Event()
        self._room.set()
        self._room = trio.Event()
        work.end = self.active.end
        if self._checkpoint_due:
            self._checkpoint_due = False
            while len(self.segments) > 1 and self.releasable(self.segments[0]):
                work.released.append(self.segments.pop(0))
            first, active = self.segments[0].number, self.active
            work.checkpoint = Checkpoint(self.epoch, active.number, active.size, first, self.snapshot())
        return work

    def _write(self, work: _Work) -> None:
        """One turn's work with the disk; runs off the run loop."""
        files = self.files
        created = False
        before: Segment | None = None
        for segment, parts in work.chunks:
            if before is not None:  # or a power cut could leave a torn segment that is not the last
                files.sync(before.file)
            if segment.file < 0:
                segment.file = files.create(segment.path)
                created = True
            files.write(segment.file, b"".join(parts))
            before = segment
        work.in_file = True
        if work.written:
            self._disk.tell()
        if before is not None:
            files.sync(before.file)
        if created:
            files.sync_directory(self.directory)
        if work.checkpoint:
            checkpoints.save(files, self.directory, work.checkpoint)
            self.statistics.checkpoints += 1
        for segment in work.released:  # only behind a checkpoint that no longer needs them
            if segment.file >= 0:
                files.close(segment.file)
            files.unlink(segment.path)
            self.statistics.segments_released += 1

    def _report(self, entries: list[object], routed: dict[int, None]) -> None:
        commit = self._commit
        for entry in entries:
            if isinstance(entry, trio.Event):
                entry.set()
            else:
                commit.entries.append(entry)
        commit.routed.update(routed)
        self._reported.set()

    def _fail(self, work: _Work, error: StoreError) -> None:
        self.failed = error
        _log.error("the store has failed; the node ends", error=str(error))
        self._room.set()
        rest = self._work
        self._report(work.entries + work.written + rest.entries + rest.written, {})

    async def committed(self) -> Commit:
        """Wait for what the flusher has made true since the last call. For one task, the notify stage."""
        await self._reported.wait()
        self._reported = trio.Event()
        commit, self._commit = self._commit, Commit([], {})
        return commit
