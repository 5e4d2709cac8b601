"""The files of a trace: written behind each other, read at will, and deleted by age and size.

All of it blocks and is called off the run loop. Several may read while one writes: a file only grows, and what is read
ends where `written` says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

from gateway import __version__
from gateway.config import Config
from gateway.errors import StoreError
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.record import Record
from gateway.store.recovery import TRACE_NAME
from gateway.trace import event as events
from gateway.trace.event import MAGIC, Step
from gateway.trace.index import SEALED_BYTES_MIN, TRAILER_BYTES, Index

_NAME: Final = re.compile(r"trace-(\d{12})\.log")
STOPPED: Final = 1
"""Flag of an INDEX record: the node ended here, and all its events are written."""


class TraceFile:
    """One file. `size` is what it will have once all that was told is written, `written` what it has."""

    __slots__ = ("_index", "first_ms", "last_ms", "number", "path", "size", "written")

    def __init__(self, number: int, path: Path, first_ms: int, index: Index | None = None) -> None:
        self.number = number
        self.path = path
        self.size = 0
        self.written = 0
        self.first_ms = first_ms
        self.last_ms = first_ms
        self._index = index

    def index(self, files: Files) -> Index:
        """Which positions its blocks are about; read or found out at the first use."""
        if self._index is None:
            self._index = read_index(files, self.path) or scan_index(files, self.path)
        return self._index


def directory_of(config: Config) -> Path:
    """Where the trace of a gateway with this configuration is."""
    return Path(config.trace.directory or Path(config.store.directory) / TRACE_NAME)


def file_path(directory: Path, number: int) -> Path:
    return directory / f"trace-{number:012d}.log"


def file_number(path: Path) -> int:
    """Of a trace file; 0 where it is none."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else 0


def numbers(files: Files, directory: Path) -> list[int]:
    """Of the trace files in `directory`, ascending."""
    return sorted(number for name in files.names(directory) if (number := file_number(Path(name))))


def header(node: str, number: int, now_ms: int) -> bytes:
    """How a file begins."""
    head = {
        "format": events.FORMAT,
        "version": __version__,
        "node": node,
        "segment": number,
        "created_ms": now_ms,
    }
    return MAGIC + events.encode_plain(Step.HEADER, orjson.dumps(head), now_ms)


def read_index(files: Files, path: Path) -> Index | None:
    """The index of a sealed file; None where it has none."""
    found = read_seal(files, path)
    try:
        return None if found is None else Index.decode(found.body)
    except ValueError:
        return None


def read_seal(files: Files, path: Path) -> Record | None:
    """The INDEX record at the end of a sealed file."""
    file = files.open(path)
    try:
        size = files.size(file)
        if size < SEALED_BYTES_MIN:
            return None
        offset = Index.offset_of(files.read(file, size - TRAILER_BYTES, TRAILER_BYTES))
        if not 0 < offset <= size - SEALED_BYTES_MIN or size - offset > 1 << 26:
            return None
        found = records.decode(files.read(file, offset, size - offset), 0, offset)
        return found if found is not None and found.kind == Step.INDEX else None
    finally:
        files.close(file)


def scan_index(files: Files, path: Path) -> Index:
    """The index of a file that was not sealed: up to its first record that is not whole and right."""
    index = Index()
    for record in scan(files, path):
        if record.kind in (Step.NAME, Step.ROUTE):
            index.name(record.offset)
        elif record.kind == Step.LOST:
            index.losses.append(record.offset)
        elif record.kind >= Step.ACCEPTED:
            index.note(record.offset, record.kind <= Step.FILTERED, record.position, events.high_of(record.body, 0))
    return index


def scan(files: Files, path: Path) -> Iterable[Record]:
    """Every record of a file, until the first that is not whole and right. Nothing where it is no trace."""
    file = files.open(path)
    try:
        data = files.read(file, 0, files.size(file))
    finally:
        files.close(file)
    if data.startswith(MAGIC):
        at = len(MAGIC)
        while (record := records.decode(data, at)) is not None:
            yield record
            at = record.end


class TraceFiles:
    """All files of one directory, the last of them written by this process."""

    def __init__(self, directory: Path, files: Files | None = None) -> None:
        self.directory = directory
        self.files = files or Files()
        self.all: list[TraceFile] = []
        self.last_ms = 0
        """When the newest file found at the start was last written; 0 where there was none."""
        self.stopped = True
        """Whether the process that wrote it had written all it knew."""

    def open(self) -> int:
        """Find what is there; the number of the next file. Raises StoreError."""
        try:
            self.files.make_directory(self.directory)
            for number in numbers(self.files, self.directory):
                self.all.append(self._found(number))
            if not self.all:
                return 1
            last = self.all[-1]
            self.last_ms = last.last_ms
            seal = read_seal(self.files, last.path)
            self.stopped = seal is not None and seal.flags == STOPPED
        except OSError as error:
            raise StoreError(
                f"{self.directory}: {error.strerror}; name a directory for the trace that can be written "
                f"(trace.directory), or switch it off (trace.enabled)"
            ) from error
        return last.number + 1

    def _found(self, number: int) -> TraceFile:
        path = file_path(self.directory, number)
        status = path.stat()
        found = TraceFile(number, path, status.st_mtime_ns // 1_000_000)
        found.size = found.written = status.st_size
        return found

    def write(self, file: TraceFile, data: bytes) -> None:
        """Append; the first write makes the file. Raises OSError, and then the file must not be written any more."""
        new = not file.written
        descriptor = self.files.create(file.path) if new else self.files.open(file.path, append=True)
        try:
            self.files.write(descriptor, data)
        except OSError:
            if new:
                self.files.unlink(file.path)
            raise
        finally:
            self.files.close(descriptor)
        file.written += len(data)
        if new:
            self.all.append(file)

    def retain(self, size_max: int, oldest_ms: int) -> None:
        """Delete the oldest files: beyond `size_max` bytes in all, and those written last before `oldest_ms`."""
        size = sum(file.written for file in self.all)
        while len(self.all) > 1 and (size > size_max or self.all[0].last_ms < oldest_ms):
            self.files.unlink(self.all[0].path)
            size -= self.all.pop(0).written
