"""Copying what is still due of several sealed segments into one file, that the log then puts in the place of them all.

Positions, times, routes, keys, ids and the delivery JSON go over as they are, a record for each record; what nobody is
due any more stays behind, and so do control records: the checkpoint that the new segment comes with says all that they
did. Until the log adopts it (log.py, writer.py) the copy has a name that a start of the gateway removes.

A segment with damage among what is due is not merged: it stays, and what can be read of it is served.
"""

from __future__ import annotations

import itertools
import secrets
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import Final

import attrs
import orjson

from gateway.errors import StoreError
from gateway.kit.ranges import RangeSet
from gateway.store import record as records
from gateway.store.files import Files
from gateway.store.index import Index
from gateway.store.plan import Measured, Plan
from gateway.store.reading import Header, encode_header
from gateway.store.rebuild import Rebuilder
from gateway.store.record import Columns, Kind, Record
from gateway.store.segment import Segment
from gateway.store.shelf import Shelf

_STEP_RECORDS: Final = 64
_STEP_BYTES: Final = 128 * 1024
"""A step is about a millisecond: the interpreter is shared with the run loop."""
_SYNC_BYTES: Final = 1024 * 1024
"""Synced so often, so that no sync of the log ever waits behind a large one."""


class CannotMergeError(StoreError):
    """Something that is due in `segment` cannot be read."""

    def __init__(self, segment: Segment, reason: str) -> None:
        super().__init__(f"{segment.path}: {reason}; it is not merged")
        self.segment = segment


@attrs.define(eq=False)
class Merge:
    """A copy and what it is of. `segment` has its final path, but its file is still at `segment.moving_from`."""

    sources: tuple[Segment, ...]
    segment: Segment
    end: int
    messages: int
    adopted: bool = False

    @property
    def freed_bytes(self) -> int:
        return sum(source.size for source in self.sources) - self.segment.size


def begin(plan: Plan, epoch: str) -> tuple[Merge, Header]:
    """What is to become of the plan's segments: the first one's name and number, and the positions of all."""
    first, last = plan.sources[0].segment, plan.sources[-1].segment
    uid = secrets.token_hex(8)
    segment = Segment(first.number, first.path, first.base, first.created_ms, uid, last.last, merged=True)
    segment.moving_from = first.path.with_suffix(".log.tmp")
    header = Header(epoch, first.number, last.last, uid, first.base, last.end, first.created_ms, 0, count=plan.messages)
    return Merge(tuple(source.segment for source in plan.sources), segment, last.end, plan.messages), header


def copy(files: Files, shelf: Shelf, plan: Plan, merge: Merge, header: Header) -> Generator[int]:
    """Make the copy; bytes written, after each step. Blocks; each step may run in another thread.

    Durable when it ends. Raises OSError or CannotMergeError; then, and where it is left before its end, `abandon`.
    """
    target = _Target(files, merge.segment, header)
    for source in plan.sources:
        index = shelf.read_index(source.segment)
        file = files.open(source.segment.path)
        try:
            steps = _records(index, source.due)
            while step := list(itertools.islice(steps, _STEP_RECORDS)):
                for record, chosen in step:
                    target.take(_read(files, file, source, index, record), index, chosen)
                    if target.waiting >= _STEP_BYTES:
                        yield target.write()
                yield target.write()
        finally:
            files.close(file)
    target.finish(plan.messages)


def abandon(files: Files, merge: Merge) -> None:
    """Remove a copy that is not adopted. Blocks."""
    segment = merge.segment
    if segment.file >= 0:
        files.close(segment.file)
        segment.file = -1
        assert segment.moving_from is not None
        with suppress(OSError):  # what is left is removed by the next merge, or the next start
            files.unlink(segment.moving_from)


# ------------------------------------------------------------------------------------------------------- inside


def _records(index: Index, due: RangeSet) -> Iterator[tuple[int, list[int]]]:
    """(record, the messages of it that are due, by their place in it), ascending."""
    current = -1
    chosen: list[int] = []
    for low, high in due:
        ordinal = index.ordinal(low)
        for piece in index.pieces(ordinal, ordinal + high - low):
            if piece.record != current:
                if chosen:
                    yield current, chosen
                current, chosen = piece.record, []
            place = ordinal - index.firsts[piece.record]
            chosen.extend(range(place, place + piece.messages))
            ordinal += piece.messages
    if chosen:
        yield current, chosen


def _read(files: Files, file: int, source: Measured, index: Index, number: int) -> Record:
    offset, end = index.offsets[number], index.ends[number]
    try:
        data = files.read(file, offset, end - offset)
    except OSError as error:
        why = f"the record at byte {offset} cannot be read ({error.strerror})"
        raise CannotMergeError(source.segment, why) from error
    record = records.decode(data)
    if record is None or record.end != len(data) or record.kind != Kind.MESSAGES:
        raise CannotMergeError(source.segment, f"the record at byte {offset} is damaged")
    return record


class _Target:
    """The file that is made. What goes into it is read back as a start would read it, for its index."""

    def __init__(self, files: Files, segment: Segment, header: Header) -> None:
        assert segment.moving_from is not None
        self._files = files
        self._segment = segment
        if segment.moving_from.exists():
            files.unlink(segment.moving_from)  # what an earlier one could not remove
        segment.file = files.create(segment.moving_from)
        self._parts = [encode_header(header)]
        self.waiting = len(self._parts[0])
        self._size = self.waiting  # of the file, with what waits
        self._unsynced = 0
        self._rebuilder = Rebuilder(segment, attrs.evolve(header, size=self.waiting), (0, 0), None)

    def take(self, record: Record, index: Index, chosen: Sequence[int]) -> None:
        """Put the `chosen` messages of a source's record into one of this file."""
        columns = records.decode_columns(record.body, record.flags)
        routes = array("I", [self._route(index, record, columns, at) for at in chosen])
        of_all = all(route == routes[0] for route in routes)
        picked = columns.pick(chosen, None if of_all else routes)
        first = record.position + (chosen[0] if columns.steps is None else columns.steps[chosen[0]])
        joined = b",".join(_bodies(record.body, columns, chosen))
        front = records.encode_messages(picked, joined, route=routes[0], position=first, time_ms=record.time_ms)
        self._add(front + joined)

    def _route(self, index: Index, record: Record, columns: Columns, at: int) -> int:
        """The number that a message's route has in this file; defined at its first use."""
        route = index.routes[(record.number if columns.routes is None else columns.routes[at]) - 1]
        known = self._segment.defined
        number = known.get(route)
        if number is None:
            number = len(known) + 1
            body = orjson.dumps({"topic": route[0], "subscriptions": route[1]})
            self._add(records.encode(Kind.ROUTE, body, number=number, position=record.position, time_ms=record.time_ms))
        return number

    def _add(self, data: bytes) -> None:
        record = records.decode(data, 0, self._size)
        assert record is not None
        self._rebuilder.take(record)
        self._parts.append(data)
        self._size += len(data)
        self.waiting += len(data)

    def write(self) -> int:
        """Write what waits; its bytes."""
        size = self.waiting
        self._files.write(self._segment.file, b"".join(self._parts))
        self._parts.clear()
        self.waiting = 0
        self._segment.size = self._size
        self._unsynced += size
        if self._unsynced >= _SYNC_BYTES:
            self._files.sync(self._segment.file)
            self._unsynced = 0
        return size

    def finish(self, messages: int) -> None:
        """Make it durable; its name becomes so when the log adopts it."""
        self.write()
        self._files.sync(self._segment.file)
        if self._rebuilder.messages != messages or self._rebuilder.finish(None):
            raise CannotMergeError(self._segment, "the copy does not hold what was to be moved")


def _bodies(body: bytes, columns: Columns, chosen: Sequence[int]) -> Iterator[bytes]:
    starts = list(itertools.accumulate((length + 1 for length in columns.lengths), initial=columns.size))
    return (body[starts[at] : starts[at + 1] - 1] for at in chosen)
