"""The export: events as JSON lines, for log collectors. One line is one event of a batch.

To a file of its own, as the node writes its trace, with rotation by size; or read from the trace's files by another
process, which may follow them while they grow (`follow`). Blocks; off the run loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.record import Record
from gateway.trace import event as events
from gateway.trace.event import MAGIC, Event, Step
from gateway.trace.files import file_number, file_path, numbers
from gateway.trace.wording import plain

_READ_BYTES: Final = 1 << 20


class Reading:
    """One trace file, read from its beginning: remembers the names that it meets."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {0: ""}
        self._routes: dict[int, list[str]] = {0: []}

    def text(self, number: int) -> str:
        return self._names.get(number, "?")

    def texts(self, number: int) -> list[str]:
        return self._routes.get(number, ["?"])

    def events_of(self, record: Record) -> Iterator[Event]:
        """The events that the next record is; none where it is no event."""
        if record.kind >= Step.ACCEPTED:
            yield from events.decode_all(record)
        elif record.kind == Step.NAME:
            self._names[record.number] = record.body.decode()
        elif record.kind == Step.ROUTE:
            self._routes[record.number] = [self.text(number) for number in events.decode_numbers(record.body)]

    def lines(self, record: Record) -> Iterator[dict[str, Any]]:
        """What the next record says, a line for each event; none where it says nothing."""
        for event in self.events_of(record):
            line = plain(event, self)
            if line is not None:
                yield line
        if record.kind == Step.LOST:
            lost, since_ms = events.decode_lost(record.body)
            yield {"time_ms": record.time_ms, "step": "lost", "events": lost, "since_ms": since_ms}


class LinesFile:
    """A file of JSON lines, `bytes_max` long at most; then it is renamed to .1, that one to .2, and so on."""

    def __init__(self, path: Path, bytes_max: int, files_max: int) -> None:
        self.path = path
        self.bytes_max = bytes_max
        self.files_max = files_max
        self._reading = Reading()

    def write(self, data: bytes) -> None:
        """Append the events of `data`: the next bytes of the trace's files, whole records. Raises OSError."""
        if data.startswith(MAGIC):
            self._reading = Reading()
            data = data[len(MAGIC) :]
        lines = b"".join(
            orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
            for record in records.scan(data)
            for line in self._reading.lines(record)
        )
        if not lines:
            return
        if self._size() + len(lines) > self.bytes_max:
            self._rotate()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(file, "ab") as out:
            out.write(lines)

    def close(self) -> None:
        """Nothing is open between two writes."""

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def _rotate(self) -> None:
        for number in range(self.files_max - 1, 0, -1):
            source = self._numbered(number - 1)
            if source.exists():
                source.replace(self._numbered(number))
        if self.files_max == 1:
            self.path.unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


def follow(directory: Path, since_ms: int, pause: Callable[[], bool], files: Files | None = None) -> Iterator[bytes]:
    """Lines of the trace in `directory` from `since_ms` on, the oldest first.

    At the end of what there is `pause` is called: it waits a moment and says whether to go on.
    """
    files = files or Files()
    done = 0  # the number of the last file that is read
    while True:
        there = [number for number in numbers(files, directory) if number > done]
        if there:
            done = there[0]
            yield from _follow_file(files, file_path(directory, done), since_ms, pause, last=len(there) == 1)
        elif not pause():
            return


def _follow_file(files: Files, path: Path, since_ms: int, pause: Callable[[], bool], *, last: bool) -> Iterator[bytes]:
    """Lines of one file; where it is the last, until it is sealed, a newer one is there, or `pause` says no."""
    try:
        file = files.open(path)
    except FileNotFoundError:
        return  # its time was over
    tail = Tail(files, file)
    try:
        while True:
            for line in tail.lines():
                if line["time_ms"] >= since_ms:
                    yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
            if tail.sealed:
                return
            if not last:  # nothing is written to it any more
                break
            last = file_number(path) == max(numbers(files, path.parent), default=0)
            if last and not pause():
                break
    finally:
        files.close(file)
    if tail.rest and not last:
        yield orjson.dumps({"step": "damaged", "file": str(path), "bytes": tail.rest}, option=orjson.OPT_APPEND_NEWLINE)


class Tail:
    """What an open trace file has got since the last look."""

    def __init__(self, files: Files, file: int) -> None:
        self.sealed = False
        self._files = files
        self._file = file
        self._reading = Reading()
        self._data = b""
        self._offset = 0

    @property
    def rest(self) -> int:
        """Bytes that are no whole record."""
        return len(self._data)

    def lines(self) -> Iterator[dict[str, Any]]:
        """The events of all whole records up to the end, or the seal."""
        while not self.sealed and (more := self._files.read(self._file, self._offset, _READ_BYTES)):
            self._offset += len(more)
            self._data += more
            if self._offset == len(self._data) and self._data.startswith(MAGIC):
                self._data = self._data[len(MAGIC) :]
            end = 0
            for record in records.scan(self._data):
                end = record.end
                self.sealed = record.kind == Step.INDEX
                yield from self._reading.lines(record)
            self._data = self._data[end:]
