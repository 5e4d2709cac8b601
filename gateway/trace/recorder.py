"""The recorder: the trace of one node, from its opening to its last write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import attrs
import structlog
import trio

from gateway.config import Trace as TraceSettings
from gateway.model import Position
from gateway.store.files import Files
from gateway.trace.buffer import Buffer, Chunk
from gateway.trace.files import TraceFile, TraceFiles
from gateway.trace.lines import LinesFile
from gateway.trace.otlp import OtlpExport
from gateway.trace.telling import Telling

_log = structlog.get_logger("gateway.trace")
_FILES: Final = 8
"""A file holds at most this part of the time that is kept, so that what is older goes soon."""
_PAUSE_S: Final = 1.0
"""Between two tries to write where the disk refuses."""


@attrs.frozen
class TraceStatistics:
    """Counters since the start, and levels."""

    events: int
    bytes: int
    lost: int
    segments: int
    segments_bytes: int
    pending_bytes: int


class Export(Protocol):
    """Somebody who gets the trace too, as it is written; called in a thread."""

    def write(self, data: bytes) -> None:
        """The next bytes of the trace's files, whole records. Raises OSError."""

    def close(self) -> None: ...


def _exports(settings: TraceSettings, node: str) -> Iterator[Export]:
    if settings.export_file:
        yield LinesFile(Path(settings.export_file), settings.export_bytes_max, settings.export_files_max)
    if settings.otlp_endpoint:
        yield OtlpExport(settings.otlp_endpoint, node, settings.otlp_messages_max)


class Recorder:
    """`open` before the engine, `started` behind it, then `run` as a task, and `aclose` at the end."""

    def __init__(
        self,
        settings: TraceSettings,
        directory: Path,
        node: str,
        clock: Callable[[], int],
        files: Files | None = None,
    ) -> None:
        self._files = TraceFiles(directory, files)
        self._settings = settings
        self._clock = clock
        self._buffer = Buffer(directory, node, settings.buffer_bytes_max, settings.segment_bytes)
        self.steps = Telling(self._buffer, clock, lambda: self._nudge.set())
        """What the stages are given."""
        self._bytes = 0
        self._nudge = trio.Event()
        self._writing = trio.Lock()
        self._failing = False
        self._exports = list(_exports(settings, node))

    async def open(self) -> None:
        """Begin a new file behind those that are there. Raises StoreError."""
        number = await trio.to_thread.run_sync(self._files.open)
        self._buffer.begin(number, self._clock())

    def started(self, epoch: str, first: Position, end: Position) -> None:
        """The store is open: it has the positions first..end-1."""
        how = "after a clean end" if self._files.stopped else "after a sudden end"
        if not self._files.last_ms:
            how = "for the first time"
        self.steps.started(epoch, first, end, self._files.last_ms, how)

    async def run(self) -> None:
        """Have events written, a moment after the first of them came. Ends by cancellation only."""
        while True:
            await self._nudge.wait()
            await trio.sleep(_PAUSE_S if self._failing else self._settings.flush_ms / 1000)
            await self.flush()

    async def flush(self) -> None:
        """Have all that was told so far written."""
        async with self._writing:
            self._nudge = trio.Event()
            now = self._clock()
            age_ms_max = self._settings.retention_s * 1000 // _FILES
            await self._write(self._buffer.take(now, age_ms_max), now)

    async def aclose(self) -> None:
        """Nothing is told any more: write the rest. After `run` has ended."""
        async with self._writing:
            self.steps.stopped()
            now = self._clock()
            await self._write(self._buffer.finish(now), now)
            for export in self._exports:
                await trio.to_thread.run_sync(export.close)

    async def _write(self, chunk: Chunk, now: int) -> None:
        with trio.CancelScope(shield=True):  # what was taken must not be lost between the buffer and the file
            error = await trio.to_thread.run_sync(partial(self._write_now, chunk, now))
        if error is None:
            self._failing = False
            return
        self._buffer.abandon(chunk, now)
        if not self._failing:  # said once; counted every time
            self._failing = True
            _log.error("the trace cannot be written; its events are lost until it can", error=str(error))

    def _write_now(self, chunk: Chunk, now: int) -> OSError | None:
        """In a thread. A failure loses what was to be written, and nothing else: the trace is a witness."""
        data = b"".join(chunk.parts)
        try:
            if data:
                self._files.write(chunk.file, data)
        except OSError as error:
            return error
        self._bytes += len(data)
        try:
            self._files.retain(self._settings.retention_bytes, now - self._settings.retention_s * 1000)
            for export in self._exports:
                export.write(data)
        except OSError as error:
            _log.error("the trace is written, but cannot be exported or cut to size", error=str(error))
        return None

    def readable(self) -> list[TraceFile]:
        """The files there are, the oldest first; each may be read up to what it says is written."""
        return list(self._files.all)

    def statistics(self) -> TraceStatistics:
        files = self.readable()
        return TraceStatistics(
            events=self._buffer.events,
            bytes=self._bytes,
            lost=self._buffer.lost,
            segments=len(files),
            segments_bytes=sum(file.written for file in files),
            pending_bytes=self._buffer.pending,
        )
