"""The log: segments, and appends to the last of them that return at once; the flusher makes them durable together.

What appends is synchronous and must be called on the run loop.
"""

from __future__ import annotations

import secrets
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

import orjson

from gateway.config import Store as StoreSettings
from gateway.errors import GatewayError, StoreError, StoreLockedError
from gateway.model import Ranges
from gateway.store import record as records
from gateway.store import recovery
from gateway.store.checkpoint import Checkpoint, Kept
from gateway.store.disk import Disk
from gateway.store.files import Files
from gateway.store.flusher import Flusher
from gateway.store.merge import Merge
from gateway.store.reading import Header, encode_header
from gateway.store.rebuild import Replay
from gateway.store.recent import Recent
from gateway.store.record import Columns, Kind
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf
from gateway.store.writer import Work, Writer

_BASE = attrgetter("base")
_LOOK_AGAIN_MS: Final = 2000  # for room on a full disk


class Log(Flusher):
    """The segments of one directory. `open`, `start`, then `run` as a task; `close` at the end."""

    def __init__(self, settings: StoreSettings, files: Files | None = None) -> None:
        super().__init__(settings, Disk(uring=settings.io_uring and files is None))
        self.files = files or Files()
        self.epoch = ""
        self.segments: list[Segment] = []
        self.shelf = Shelf(self.files, settings.indexes_max, settings.maps_max)
        self.recent = Recent(settings.cache_bytes)
        self.durable_end = 0
        """Positions below this have been synced and may be delivered."""
        self.snapshot: Callable[[], dict[str, Any]] = dict
        """The engine's state for a checkpoint; set by the engine."""
        self.releasable: Callable[[Segment], bool] = lambda _segment: False
        """Whether nothing in a sealed segment is due to anybody any more; set by the engine."""
        self.writer = Writer(self.files, self.directory, settings.segment_bytes, self._disk.tell)
        self._lock: int | None = None
        self._now_ms = 0
        self._checkpoint_due = False
        self.unsealed: list[Segment] = []
        """Sealed, but without their hint files as yet."""
        self._released: list[Segment] = []  # named by the last checkpoint, needed by no later one
        self._next_base: int | None = None
        self._adopting: tuple[Merge, Callable[[], bool]] | None = None
        self.places = (0, 0)
        """The segments that the checkpoint before the last, and the last, have their places in."""
        self._spare_at_ms = 0  # when room for another segment is looked for again

    # ------------------------------------------------------------------------------------------------ life

    def open(self, replay: Replay, now_ms: int) -> recovery.Recovered:
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
            found = recovery.recover(self.files, self.directory, replay, self.shelf)
            if found.segments:
                self.writer.reopen(found.segments[-1])
            else:
                self.writer.make_spare()
        except OSError as error:
            raise StoreError(f"{self.directory}: {error.filename or ''} {error.strerror}") from error
        self.epoch = self.writer.epoch = found.epoch or secrets.token_hex(4)
        self.segments = found.segments
        self._next_base = found.next_base
        self.places = (0, found.checkpoint_segment)
        self.statistics.cut_bytes = found.cut_bytes
        self.statistics.damaged_parts = len(found.lost)
        return found

    def start(self) -> None:
        """Behind `open`, on the run loop: begin the first segment of a new store."""
        if not self.segments:
            self._begin_segment(1, 1)
        elif self._next_base is not None:
            active = self.active
            active.seal(self.shelf.index, end=self._next_base, count=len(active.growing))
            self.unsealed.append(active)
            self._begin_segment(active.last + 1, self._next_base)
            self._checkpoint_due = True
        self.durable_end = self.active.end

    def close(self) -> None:
        """Release files, thread and lock. Blocks; the flusher must have ended."""
        self._disk.close()
        self._timer.close()
        self.shelf.close()
        if self.segments and self.failed is None:
            self.writer.put_to_rest(self.active)
        for segment in [*self.segments, *self._released]:
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

    @property
    def is_full(self) -> bool:
        """Whether the active segment is full, or has no room of its own, and there is none for another."""
        writer = self.writer
        return writer.is_full and (not writer.is_reserved or self.active.size >= self.settings.segment_bytes)

    @property
    def by_kernel(self) -> bool:
        """Whether commits that are nothing but appends are the kernel's own work (see uring.py)."""
        return self._disk.appends

    def segment_of(self, position: int) -> Segment | None:
        """The segment that holds, or held, `position`."""
        at = bisect_right(self.segments, position, key=_BASE) - 1
        return self.segments[at] if at >= 0 and position < self.segments[at].end else None

    # ---------------------------------------------------------------------------------------------- append

    def begin(self, now_ms: int) -> Segment:
        """The segment that the next records go to; a full one is sealed first.

        Raises StoreError once failed. Where there is no room for another segment the full one goes on: see `is_full`.
        """
        if self.failed:
            raise self.failed
        self._now_ms = now_ms
        active, settings = self.segments[-1], self.settings
        if active.size >= settings.segment_bytes or (
            now_ms - active.created_ms >= settings.segment_age_s * 1000 and active.growing.starts
        ):
            self._roll()
        elif self.writer.is_full:
            self._look_for_room()
        return self.active

    def check_room(self) -> None:
        """Raise GatewayError `disk_full` where messages cannot be taken now."""
        if self.is_full:
            raise GatewayError(
                "disk_full",
                f"there is no room for another segment in {self.directory}; make room, or consume what waits",
                retry_after_s=_LOOK_AGAIN_MS // 1000,
            )

    def _roll(self) -> None:
        if not self.writer.has_spare:
            self._look_for_room()
            return
        active = self.active
        active.seal(self.shelf.index)
        self.unsealed.append(active)
        self._begin_segment(active.last + 1, active.end)
        self._checkpoint_due = True

    def _look_for_room(self) -> None:
        if self._now_ms >= self._spare_at_ms:
            self._spare_at_ms = self._now_ms + _LOOK_AGAIN_MS
            self._work.spare_wanted = True
            self._checkpoint_due = True  # a checkpoint lets go of segments, and may make room
            self._call()

    def _begin_segment(self, number: int, base: int) -> None:
        uid = secrets.token_hex(8)
        segment = Segment(number, self.directory / recovery.segment_name(number), base, self._now_ms, uid)
        self.segments.append(segment)
        header = encode_header(Header(self.epoch, number, number, uid, base, None, self._now_ms, 0))
        self._work.spare_wanted = True
        self._push([header], len(header), 0)

    def route(self, topic: str, numbers: tuple[int, ...]) -> int:
        """The active segment's number for a route; defines it there at its first use."""
        defined = self.active.defined
        route = defined.get((topic, numbers))
        if route is None:
            route = defined[topic, numbers] = len(defined) + 1
            self.active.growing.routes.append((topic, numbers))
            body = orjson.dumps({"topic": topic, "subscriptions": numbers})
            self.control(Kind.ROUTE, body, number=route)
        return route

    def messages(self, bodies: Sequence[bytes], route: int, columns: Columns | None = None) -> int:
        """Append messages at consecutive positions; the first position. The caller notes who they go to.

        `columns`, without lengths, holds what they have beside their bodies; else all go by `route` and have nothing.
        """
        first = self.active.end
        sizes = list(map(len, bodies))
        for start, stop in records.split(sizes):
            part = Columns(array("I")) if columns is None else columns.cut(start, stop)
            part.lengths = array("I", sizes[start:stop])
            self._append(part, b",".join(bodies[start:stop]), route)
        return first

    def _append(self, columns: Columns, joined: bytes, route: int) -> None:
        segment = self.active
        position = segment.end
        front = records.encode_messages(columns, joined, route=route, position=position, time_ms=self._now_ms)
        data = segment.size + len(front)
        segment.growing.add(columns, segment.size, data + len(joined), data, route, self._now_ms)
        segment.last_ms = self._now_ms
        self.recent.add(position, joined)
        self._push([front, joined], len(front) + len(joined), len(columns.lengths))

    def control(self, kind: Kind, body: bytes, *, number: int = 0, lazy: bool = False) -> bool:
        """Append one control record. `lazy`: nobody waits, it may go with the next commit (store.lazy_sync_ms).

        False where there is no room left even for that: then the next checkpoint has to say it.
        """
        if self.writer.is_full and self.active.size >= self.settings.segment_bytes + self.writer.slack_bytes // 2:
            return False
        data = records.encode(kind, body, number=number, position=self.active.end, time_ms=self._now_ms)
        self._push([data], len(data), 1, lazy=lazy)
        return True

    def settle(self, number: int, cause: int, counted: int, ranges: Ranges, *, lazy: bool = False) -> bool:
        """Append a SETTLE, as `control` would: there is one for each ack."""
        if len(ranges) > 1 or self.writer.is_full:
            return self.control(Kind.SETTLE, records.encode_settle(cause, counted, ranges), number=number, lazy=lazy)
        data = records.encode_settled(number, self.segments[-1].end, self._now_ms, cause, counted, *ranges[0])
        self._push([data], len(data), 1, lazy=lazy)
        return True

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
        self._call(lazy=lazy)

    async def flush(self) -> None:
        """Make everything appended so far durable, with a checkpoint; for the end, when `run` is over."""
        self._checkpoint_due = True
        if self.failed is None:
            await self.finish()

    async def checkpoint(self) -> None:
        """Make a checkpoint now, with what it lets go. Raises StoreError."""
        self._checkpoint_due = True
        await self.sync()

    async def adopt(self, merge: Merge, allowed: Callable[[], bool]) -> bool:
        """Put a copy in the place of its sources, with a checkpoint; durable on return. Raises StoreError.

        False where `allowed`, asked when it comes to that, says no, or its first source is gone: nothing was done.
        All of its sources must be before the place of the checkpoint before the last (`places`).
        """
        self._adopting = (merge, allowed)
        try:
            await self.checkpoint()
        finally:
            self._adopting = None
        return merge.adopted

    # ------------------------------------------------------------------------------------- what the flusher asks

    def append(self, work: Work) -> bool:
        if self._disk.appends:
            bytes_alone = self.writer.bytes_alone(work)
            return bytes_alone is not None and self._disk.append(*bytes_alone)
        return False

    def appended(self, work: Work) -> bool:
        self.writer.appended(work, self._disk.appended)
        return not work.chunks

    def carry_out(self, work: Work) -> None:
        self.writer.carry_out(work)

    def prepare(self, work: Work) -> None:
        work.end = self.active.end
        if self._checkpoint_due:
            self._checkpoint_due = False
            self._prepare_checkpoint(work)

    def turned(self, work: Work) -> None:
        self.durable_end = work.end
        for segment in work.sealed:
            self.unsealed.remove(segment)
            segment.let_go()
        if work.adopted:
            work.adopted.segment.moving_from = None
        if work.checkpoint:
            self.places = (self.places[1], work.checkpoint.segment)
        if work.released and work.checkpoint is None:  # there was no room for it: those are needed still
            self._released = work.released + self._released

    def given_up(self, work: Work) -> None:
        self._released += work.released  # their files are still to be closed

    def _prepare_checkpoint(self, work: Work) -> None:
        work.released, self._released = self._released, []
        if self._adopting is not None:
            self._adopt(work, *self._adopting)
        active = self.active
        for segment in [segment for segment in self.segments[:-1] if self.releasable(segment)]:
            self.segments.remove(segment)
            self._released.append(segment)
            if segment in self.unsealed:  # it never needs a hint file
                self.unsealed.remove(segment)
            else:
                self.shelf.forget(segment)
        work.seal = list(self.unsealed)
        kept = tuple(Kept(s.number, s.last, s.base, s.end, s.uid) for s in self.segments)
        work.checkpoint = Checkpoint(self.epoch, active.number, active.size, kept, self.snapshot())

    def _adopt(self, work: Work, merge: Merge, allowed: Callable[[], bool]) -> None:
        """From now on everybody reads the merged segment; its sources go as those do in which nothing is due."""
        first = merge.sources[0]
        if first not in self.segments or not allowed():
            return
        there = [source for source in merge.sources if source in self.segments]  # others were let go meanwhile
        at = self.segments.index(first)
        merge.segment.seal(self.shelf.index, end=merge.end, count=merge.messages)
        self.segments[at : at + len(there)] = [merge.segment]
        for source in there:
            self.shelf.forget(source)
        self._released += there[1:]  # the file of the first is written over
        self.unsealed.append(merge.segment)
        merge.adopted = True
        work.adopted = merge
