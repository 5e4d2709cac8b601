"""Finding events: those about a position, and those that know an id. Blocks; off the run loop.

Of each file only the blocks are read that may hold what is looked for, in turn, so that gigabytes of trace take time
and no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gateway.model import Position
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.record import HEAD_BYTES, Record
from gateway.trace import event as events
from gateway.trace.event import Event, Step
from gateway.trace.files import TraceFile
from gateway.trace.index import Index


class Open:
    """One trace file, open for reading: blocks of it, and its names."""

    def __init__(self, files: Files, file: TraceFile) -> None:
        self.end = file.written
        self.index: Index = file.index(files)
        self._files = files
        self._file = files.open(file.path)
        self._names: dict[int, str] = {0: ""}

    def close(self) -> None:
        self._files.close(self._file)

    def read(self, start: int, end: int) -> bytes:
        return self._files.read(self._file, start, end - start)

    def text(self, number: int) -> str:
        found = self._names.get(number)
        if found is None:
            body = self._definition(number)
            found = self._names[number] = "?" if body is None else body.decode("utf-8", "replace")
        return found

    def texts(self, number: int) -> list[str]:
        body = self._definition(number)
        return [self.text(each) for each in events.decode_numbers(body or b"")]

    def _definition(self, number: int) -> bytes | None:
        """The body of NAME or ROUTE `number`; None where it cannot be read."""
        if not 0 < number <= len(self.index.names):
            return None
        offset = self.index.names[number - 1]
        length = int.from_bytes(self.read(offset + 4, offset + 8), "little")
        found = records.decode(self.read(offset, offset + HEAD_BYTES + length))
        return found.body if found is not None and found.number == number else None


class Found(NamedTuple):
    """An event, and the file whose names it uses; good until the search goes on to the next file."""

    event: Event
    names: Open


def about(files: Files, trace: Sequence[TraceFile], position: Position) -> Iterator[Found]:
    """Every event about `position`, in the order they were told."""
    for file in trace:
        for opened in _opened(files, file):
            for start, end in opened.index.about(position, opened.end):
                data = opened.read(start, end)
                for record in _candidates(data, position):
                    for event in events.decode_all(record):
                        if event.about(position):
                            yield Found(event, opened)


def _candidates(data: bytes, position: Position) -> Iterator[Record]:
    """The records of a block whose lowest and highest position have `position` between them. Damaged ones are passed
    over, as far as they say rightly how long they are."""
    at = 0
    while at + HEAD_BYTES <= len(data):
        record = records.decode(data, at)
        if record is None:
            at = records.end_of(data, at)
            continue
        if record.kind >= Step.ACCEPTED and record.position <= position <= events.high_of(record.body, 0):
            yield record
        at = record.end


def losses(files: Files, trace: Sequence[TraceFile], low_ms: int, high_ms: int) -> int:
    """How many events found no room between the two times."""
    lost = 0
    for file in trace:
        for opened in _opened(files, file):
            for offset in opened.index.losses:
                record = records.decode(opened.read(offset, offset + HEAD_BYTES + 16))
                if record is not None:
                    count, since_ms = events.decode_lost(record.body)
                    lost += count if since_ms <= high_ms and record.time_ms >= low_ms else 0
    return lost


def by_id(files: Files, trace: Sequence[TraceFile], message_id: str) -> Iterator[Found]:
    """Every IDS, REFUSED and DUPLICATE event that knows `message_id`, in the order they were told.

    Looks for its hash among the bytes first: a gigabyte takes about a second.
    """
    wanted, number = events.hash_bytes(message_id), events.hash_id(message_id)
    for file in trace:
        for opened in _opened(files, file):
            for start, end in opened.index.spans(opened.end):
                data = opened.read(start, end)
                if wanted not in data:
                    continue
                for record in records.scan(data):
                    if record.kind in (Step.IDS, Step.REFUSED, Step.DUPLICATE):
                        event = events.decode(record)
                        if number in events.decode_hashes(event.tail):
                            yield Found(event, opened)


def positions_of(event: Event, message_id: str) -> list[Position]:
    """Where the messages with `message_id` of an IDS event are."""
    hashes, wanted = events.decode_hashes(event.tail), events.hash_id(message_id)
    return [position for position, found in zip(hashes[::2], hashes[1::2], strict=True) if found == wanted]


def _opened(files: Files, file: TraceFile) -> Iterator[Open]:
    """`file`, open while it is looked at; nothing where its time was over meanwhile."""
    try:
        opened = Open(files, file)
    except FileNotFoundError:
        return
    try:
        yield opened
    finally:
        opened.close()
