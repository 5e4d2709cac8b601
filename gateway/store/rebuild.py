"""A segment's index from the segment itself, every CRC checked, whatever is damaged named.

Records are read one after the other. Where one is not whole and right, the next that is is searched for; what lies
between is lost. Only the end of the last segment may be torn: there nothing that is right follows.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import Iterator
from typing import Any, Final, Protocol

import attrs
import orjson

from gateway.store import record as records
from gateway.store.index import Index
from gateway.store.reading import Header, Lost
from gateway.store.record import Alone, Columns, Flag, Kind, Record
from gateway.store.segment import Segment

_KIND: Final = 255  # the bits of a head's kind without its flags


class Replay(Protocol):
    """Who is told what the log holds. Nothing before the checkpoint is told again, but for recent ids."""

    def restore(self, state: dict[str, Any]) -> None:
        """The state of the checkpoint; called once, first, where there is one."""

    def messages(self, low: int, high: int, numbers: tuple[int, ...]) -> None:
        """Messages at the positions [low, high], routed to those subscriptions, stand behind the checkpoint."""

    def remember_ids(self, segment: Segment, index: Index) -> None:
        """A segment holds messages with ids of the producers' own; behind all `messages` of it."""

    def control(self, record: Record) -> None:
        """A SETTLE, SUBSCRIPTION, BACKFILL or the like behind the checkpoint."""

    @property
    def ids_since_ms(self) -> int:
        """Ids of messages appended before this are of no interest."""


class Rebuilder:
    """Fills `segment`'s growing index. `place`: (segment, offset) from which on `replay` is told what is found."""

    def __init__(self, segment: Segment, header: Header, place: tuple[int, int], replay: Replay | None) -> None:
        self.end = segment.base
        """One past the last position that was seen, or is known to have been there."""
        self.torn_at = 0
        """Where the last record that is whole and right ends."""
        self.messages = 0
        self.records = 0
        self._segment = segment
        self._index = segment.growing
        self._header = header
        number, place_at = place
        self._new_from = place_at if segment.number == number else 0 if segment.number > number else sys.maxsize
        self._replay = replay
        self._routes: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._lost: list[Lost] = []
        self._run = (0, 0, -1, False)  # route, first, last, new: what went the same way and has not been noted yet
        if header.end is not None:
            self._index.steps = array("I")

    def read(self, data: bytes, answered: int = 0) -> None:
        """`data` is the whole file. Everything before byte `answered` was on the disk once: it cannot be torn."""
        offset = self._header.size
        if not offset:
            offset = records.resynchronise(data, 0)
            self._lose(0, offset, self.end, "its header is damaged")
        while True:
            offset = self._read_right(data, offset)
            following = records.resynchronise(data, offset + 1)
            if following >= len(data):
                break
            self._lose(offset, following, self.end, "a record is damaged")
            offset = following
        self._note_run()
        self.torn_at = offset
        if offset < answered:
            self._lose(offset, answered, self.end, "the end of the file is missing or damaged")

    def _read_right(self, data: bytes, offset: int) -> int:
        """Records from `offset` on, until the first that is not whole and right; where that is.

        Of messages that stand where they belong no objects are made, where they have nothing else or are alone in their
        record: 2.1 and 4 us a record where `take` needs 6 and 10. A start may read some hundred thousand.
        """
        index, routes = self._index, self._routes
        for at, end, kind, number, position, time_ms in records.scan_heads(data, offset):
            offset = end
            belongs = position == self.end and number in routes and index.steps is None
            if belongs and kind == records.PLAIN:
                starts = records.starts_of(data, at)
                index.add_plain(starts, at, end, number, time_ms)
                self._note(number, position, len(starts), at, time_ms)
            elif (
                belongs
                and kind & _KIND == records.PLAIN
                and (alone := records.decode_alone(data, at, kind >> 8)) is not None
            ):
                index.add_alone(alone, at, end, number, time_ms)
                self._note_alone(alone, time_ms)
                self._note(number, position, 1, at, time_ms)
            else:
                body = data[at + records.HEAD_BYTES : end]
                self.take(Record(at, end, kind & _KIND, kind >> 8 & _KIND, number, position, time_ms, body))
        return offset

    def finish(self, end: int | None) -> list[Lost]:
        """What is damaged; `end` is one past the last position that must have been there, where that is known."""
        self._note_run()
        if end is not None and self.end < end:
            count = self._header.count  # of a merged segment, which may hold less than its positions say
            if count is None or (self.messages < count and not self._lost):
                size = self._segment.size - self.torn_at
                self._lose(self.torn_at, self.torn_at + size, self.end, "the end of the file is missing or damaged")
            self.end = end
        return [attrs.evolve(item, end=self._next_there(item.first)) for item in self._lost]

    def _next_there(self, position: int) -> int:
        """The first position from `position` on that was found."""
        index = self._index
        ordinal = index.ordinal(position)
        return index.position(ordinal) if ordinal < len(index) else self.end

    @property
    def is_dense(self) -> bool:
        return self._index.steps is None

    def _lose(self, start: int, stop: int, first: int, reason: str) -> None:
        self._lost.append(Lost(str(self._segment.path), start, stop - start, first, first, reason))

    # ---------------------------------------------------------------------------------------------- records

    def take(self, record: Record) -> None:
        """The next record of the file, whole and right."""
        self.records += 1
        new = record.offset >= self._new_from
        if record.kind == Kind.MESSAGES:
            self._take_messages(record, new)
            return
        self._note_run()  # whoever hears of what follows knows of what went before
        if record.kind == Kind.ROUTE:
            route = orjson.loads(record.body)
            self._define(record.number, (route["topic"], tuple(route["subscriptions"])))
        elif record.kind != Kind.HEADER and new and self._replay is not None:
            self._replay.control(record)

    def _define(self, number: int, route: tuple[str, tuple[int, ...]]) -> None:
        self._routes[number] = route
        self._segment.defined.setdefault(route, number)
        routes = self._index.routes
        while len(routes) < number:
            routes.append(("", ()))
        routes[number - 1] = route

    def _take_messages(self, record: Record, new: bool) -> None:
        columns = records.decode_columns(record.body, record.flags)
        used = {record.number} if columns.routes is None else set(columns.routes)
        if record.position < self.end or not used <= self._routes.keys():
            reason = "a record stands where it does not belong" if record.position < self.end else "a route is damaged"
            self._lose(record.offset, record.end, record.position, reason)
            if record.position >= self.end:
                self._make_sparse()
                self.end = record.position + (columns.steps[-1] if columns.steps else len(columns) - 1) + 1
            return
        if record.position > self.end and self._header.end is None:
            self._make_sparse()
        self._add(record, columns)
        self._note_times(record, columns)
        self.messages += len(columns)
        self._route(record, columns, new)

    def _note(self, route: int, position: int, count: int, offset: int, time_ms: int) -> None:
        """The index has been told of messages that go the same way."""
        self.records += 1
        self.messages += count
        self.end = position + count
        self._segment.last_ms = time_ms
        self._extend_run(route, position, self.end - 1, offset >= self._new_from)

    def _note_alone(self, alone: Alone, time_ms: int) -> None:
        segment = self._segment
        if alone.id:
            segment.ids_ms = time_ms
        segment.due_ms = max(segment.due_ms, alone.due_ms)
        segment.expires_ms = max(segment.expires_ms, alone.expires_ms)

    def _make_sparse(self) -> None:
        """Positions are missing: from now on it must be said which are there."""
        if self._index.steps is None:
            self._index.steps = array("I", range(len(self._index)))

    def _add(self, record: Record, columns: Columns) -> None:
        index = self._index
        step = record.position - index.base
        steps = columns.steps or range(len(columns))
        if isinstance(index.steps, array):
            index.steps.extend(step + further for further in steps)
        self.end = record.position + steps[-1] + 1
        data = record.offset + records.HEAD_BYTES + columns.size
        index.add(columns, record.offset, record.end, data, record.number, record.time_ms)

    def _note_times(self, record: Record, columns: Columns) -> None:
        segment = self._segment
        segment.last_ms = record.time_ms
        if record.flags & Flag.OWN_ID:
            segment.ids_ms = record.time_ms
        if columns.due_ms is not None and columns.expires_ms is not None:
            segment.due_ms = max(segment.due_ms, *columns.due_ms)
            segment.expires_ms = max(segment.expires_ms, *columns.expires_ms)

    def _route(self, record: Record, columns: Columns, new: bool) -> None:
        """Note who the messages go to, a run of positions of one route at a time."""
        for route, low, high in _runs(record, columns):
            self._extend_run(route, low, high, new)

    def _extend_run(self, route: int, low: int, high: int, new: bool) -> None:
        last_route, first, last, was_new = self._run
        if route == last_route and low == last + 1 and new is was_new:
            self._run = (route, first, high, new)
            return
        self._note_run()
        self._run = (route, low, high, new)

    def _note_run(self) -> None:
        route, low, high, new = self._run
        if high < low:
            return
        self._run = (0, 0, -1, False)
        numbers = self._routes[route][1]
        for number in numbers:
            self._index.route_to(number, low, high)
        if new and self._replay is not None:
            self._replay.messages(low, high, numbers)


def _runs(record: Record, columns: Columns) -> Iterator[tuple[int, int, int]]:
    """(route, first, last) of runs of consecutive positions that go the same way."""
    position, count = record.position, len(columns)
    if columns.steps is None and columns.routes is None:
        yield record.number, position, position + count - 1
        return
    steps = columns.steps or range(count)
    routes = columns.routes or itertools.repeat(record.number, count)
    start = at = -1
    way = 0
    for step, route in zip(steps, routes, strict=True):
        if start < 0 or route != way or step != at + 1:
            if start >= 0:
                yield way, position + start, position + at
            start, way = step, route
        at = step
    yield way, position + start, position + at
