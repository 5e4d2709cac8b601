"""The index of one segment: where each message is, and who it is for.

While a segment is active its columns are arrays that grow; once it is sealed they are the same columns mapped from its
hint file (hint.py), so that a backlog costs disk and not memory. An *ordinal* is a message's place among those of its
segment: ordinal = position - base, but in a merged segment, where `steps` says which positions are left.

A contiguous run of messages of one record is a slice of the file: `pieces` finds them, and a frame is their join.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

from gateway.store.record import Alone, Columns

TYPECODES: Final = {
    "starts": "I",
    "steps": "I",
    "firsts": "I",
    "offsets": "I",
    "ends": "I",
    "times": "Q",
    "route_at": "I",
    "route_of": "I",
    "timed_at": "I",
    "due_ms": "Q",
    "expires_ms": "Q",
    "keyed_at": "I",
    "keys": "Q",
    "ids_at": "I",
    "ids": "Q",
    "ids_sorted": "Q",
    "ids_sorted_at": "I",
    "due_sorted": "Q",
    "due_sorted_at": "I",
}
"""Columns by name, as they stand in a hint file. A message: starts, steps. A record: firsts, offsets, ends, times.
route_at: ordinals from which on another route holds. Those that few messages have stand behind a column of ordinals:
timed_at, keyed_at, ids_at (two `ids` each). A hint file adds the first halves of the ids in order, for a search, and
the due times in order, for the cursor over what is delayed."""
SORTED: Final = ("ids_sorted", "ids_sorted_at", "due_sorted", "due_sorted_at")
"""Those that only a hint file has."""
NEVER_DUE: Final = 1 << 62


_ORDINAL: Final = (1 << 32) - 1


class Piece(NamedTuple):
    """Consecutive messages of one record: bytes [start, stop) of the file are their delivery JSON, commas between."""

    record: int
    start: int
    stop: int
    messages: int


class Index:
    """Invariants: all columns of a message, and those of a record, are equally long; `firsts` and `starts` ascend;
    `queues[n]` are pairs lo, hi of closed ranges of positions less `base`, ascending and disjoint."""

    __slots__ = (
        "base",
        "digests",
        "due_ms",
        "due_sorted",
        "due_sorted_at",
        "ends",
        "expires_ms",
        "firsts",
        "ids",
        "ids_at",
        "ids_sorted",
        "ids_sorted_at",
        "keyed_at",
        "keys",
        "offsets",
        "queues",
        "route_at",
        "route_of",
        "routes",
        "starts",
        "steps",
        "timed_at",
        "times",
        "times_from",
    )

    def __init__(self, base: int) -> None:
        self.base = base
        self.starts: Sequence[int] = array("I")
        self.steps: Sequence[int] | None = None
        self.firsts: Sequence[int] = array("I")
        self.offsets: Sequence[int] = array("I")
        self.ends: Sequence[int] = array("I")
        self.times: Sequence[int] = array("Q")
        self.times_from = 0  # of a mapped index whose times are u32: what is to be added to each
        self.route_at: Sequence[int] = array("I")
        self.route_of: Sequence[int] = array("I")
        self.timed_at: Sequence[int] = array("I")
        self.due_ms: Sequence[int] = array("Q")
        self.expires_ms: Sequence[int] = array("Q")
        self.keyed_at: Sequence[int] = array("I")
        self.keys: Sequence[int] = array("Q")
        self.ids_at: Sequence[int] = array("I")
        self.ids: Sequence[int] = array("Q")
        self.ids_sorted: Sequence[int] | None = None
        self.ids_sorted_at: Sequence[int] = ()
        self.due_sorted: Sequence[int] = ()
        self.due_sorted_at: Sequence[int] = ()
        self.digests: bytes | bytearray | memoryview = bytearray()
        self.queues: dict[int, Sequence[int]] = {}
        self.routes: list[tuple[str, tuple[int, ...]]] = []  # (topic, subscriptions) of route 1, 2, ...

    def __len__(self) -> int:
        return len(self.starts)

    # ---------------------------------------------------------------------------------------------- position

    def ordinal(self, position: int) -> int:
        """The place of `position`, or where it would stand."""
        step = position - self.base
        if self.steps is None:
            return min(max(step, 0), len(self.starts))
        return bisect_left(self.steps, step)

    def has(self, position: int) -> bool:
        """Whether `position` is in this segment."""
        step = position - self.base
        if self.steps is None:
            return 0 <= step < len(self.starts)
        at = bisect_left(self.steps, step)
        return at < len(self.steps) and self.steps[at] == step

    def position(self, ordinal: int) -> int:
        return self.base + (ordinal if self.steps is None else self.steps[ordinal])

    def runs(self) -> Iterator[tuple[int, int]]:
        """Closed ranges of the positions that are here, less `base`."""
        if self.steps is None:
            if len(self.starts):
                yield 0, len(self.starts) - 1
            return
        first = last = -1
        for step in self.steps:
            if step != last + 1 or first < 0:
                if first >= 0:
                    yield first, last
                first = step
            last = step
        if first >= 0:
            yield first, last

    # ------------------------------------------------------------------------------------------------- bytes

    def record_of(self, ordinal: int) -> int:
        """The record that holds the message."""
        return bisect_right(self.firsts, ordinal) - 1

    def stop(self, ordinal: int, record: int) -> int:
        """Where the delivery JSON of the message, in `record`, ends in the file."""
        following = ordinal + 1
        inside = following < (self.firsts[record + 1] if record + 1 < len(self.firsts) else len(self.starts))
        return self.starts[following] - 1 if inside else self.ends[record]

    def pieces(self, first: int, last: int) -> list[Piece]:
        """The pieces of the messages with ordinals [first, last], all of them in this segment."""
        firsts, starts = self.firsts, self.starts
        record = self.record_of(first)
        found: list[Piece] = []
        while first <= last:
            until = firsts[record + 1] - 1 if record + 1 < len(firsts) else len(starts) - 1
            until = min(until, last)
            found.append(Piece(record, starts[first], self.stop(until, record), until - first + 1))
            first = until + 1
            record += 1
        return found

    def spread(self, first: int, last: int) -> int:
        """Bytes of the file from the message with ordinal `first` to the end of that with ordinal `last`."""
        return self.stop(last, self.record_of(last)) - self.starts[first]

    def fitting(self, first: int, size_max: int) -> int:
        """One past the last ordinal that, with all from `first` on, fits `size_max` bytes; at least one."""
        stop = bisect_right(self.starts, self.starts[first] + size_max, first) - 1  # begins within the limit
        return max(first + 1, stop + (self.spread(first, stop) <= size_max))

    # ------------------------------------------------------------------------------------------------ asking

    def time_ms(self, ordinal: int) -> int:
        """When the message was appended."""
        return self.times_from + self.times[self.record_of(ordinal)]

    def record_since(self, time_ms: int) -> int:
        """The first record that was appended at `time_ms` or later; their number where there is none."""
        return bisect_left(self.times, time_ms - self.times_from)

    def route(self, ordinal: int) -> tuple[str, tuple[int, ...]]:
        """The topic of the message, and the numbers of the subscriptions it was routed to."""
        return self.routes[self.route_of[bisect_right(self.route_at, ordinal) - 1] - 1]

    def route_stop(self, ordinal: int) -> int:
        """One past the last ordinal up to which messages go the same way as this one."""
        place = bisect_right(self.route_at, ordinal)
        return self.route_at[place] if place < len(self.route_at) else len(self)

    def times_of(self, ordinal: int) -> tuple[int, int]:
        """(due_ms, expires_ms) of the message; zeros where it has none."""
        at = bisect_left(self.timed_at, ordinal)
        if at < len(self.timed_at) and self.timed_at[at] == ordinal:
            return self.due_ms[at], self.expires_ms[at]
        return 0, 0

    def next_due(self, after: tuple[int, int]) -> int:
        """When the first message behind (due_ms, position) is due; NEVER_DUE where there is none."""
        place = self._due_place(after)
        return self.due_sorted[place] if place < len(self.due_sorted) else NEVER_DUE

    def due_between(self, after: tuple[int, int], until_ms: int, count_max: int) -> list[tuple[int, int]]:
        """(due_ms, position) of at most so many messages that are due behind `after` and by `until_ms`, ascending."""
        low = self._due_place(after)
        high = min(bisect_right(self.due_sorted, until_ms, low), low + count_max)
        positions = map(self.position, self.due_sorted_at[low:high])
        return list(zip(self.due_sorted[low:high], positions, strict=True))

    def _due_place(self, after: tuple[int, int]) -> int:
        due_ms, position = after
        low = bisect_left(self.due_sorted, due_ms)
        high = bisect_right(self.due_sorted, due_ms, low)
        return bisect_left(self.due_sorted_at, self.ordinal(position + 1), low, high)

    def key_of(self, ordinal: int) -> int:
        """Hash of the message's key; 0 where it has none."""
        at = bisect_left(self.keyed_at, ordinal)
        if at < len(self.keyed_at) and self.keyed_at[at] == ordinal:
            return self.keys[at]
        return 0

    def find_id(self, hashed: int, count_max: int) -> list[int]:
        """Positions of the messages whose producer's id has this hash, ascending; the last ones, at most so many."""
        if self.ids_sorted is None:
            return []
        low, high = bisect_left(self.ids_sorted, hashed), bisect_right(self.ids_sorted, hashed)
        return list(map(self.position, self.ids_sorted_at[max(low, high - count_max) : high]))


class GrowingIndex(Index):
    """The index of the active segment: what is appended is noted here before it is in the file."""

    __slots__ = ("_due",)

    starts: array[int]
    firsts: array[int]
    offsets: array[int]
    ends: array[int]
    times: array[int]
    route_at: array[int]
    route_of: array[int]
    timed_at: array[int]
    due_ms: array[int]
    expires_ms: array[int]
    keyed_at: array[int]
    keys: array[int]
    ids_at: array[int]
    ids: array[int]
    digests: bytearray
    queues: dict[int, array[int]]  # type: ignore[assignment]

    def __init__(self, base: int) -> None:
        super().__init__(base)
        self._due: list[int] = []  # a heap: due_ms and, in its lower 32 bits, the ordinal

    def add(self, columns: Columns, offset: int, end: int, data: int, route: int, time_ms: int) -> None:
        """Note a MESSAGES record at `offset` of the file, whose delivery JSON begins at `data` and ends at `end`."""
        first = len(self.starts)
        starts = columns.lengths.tolist()
        place = data
        for index, length in enumerate(starts):
            starts[index] = place
            place += length + 1
        self.starts.fromlist(starts)
        self.firsts.append(first)
        self.offsets.append(offset)
        self.ends.append(end)
        self.times.append(time_ms)
        if columns.routes is None and (not self.route_of or self.route_of[-1] != route):
            self.route_at.append(first)
            self.route_of.append(route)
        if columns.flags:
            self._add_few(columns, first)

    def add_plain(self, starts: Sequence[int], offset: int, end: int, route: int, time_ms: int) -> None:
        """Note a MESSAGES record without flags, whose delivery JSON begins at `starts`.

        A third of the cost of `add` for a record of one message: a start may read some hundred thousand of them.
        """
        first = len(self.starts)
        if len(starts) == 1:
            self.starts.append(starts[0])
        else:
            self.starts.extend(starts)
        self.firsts.append(first)
        self.offsets.append(offset)
        self.ends.append(end)
        self.times.append(time_ms)
        if not self.route_of or self.route_of[-1] != route:
            self.route_at.append(first)
            self.route_of.append(route)

    def add_alone(self, alone: Alone, offset: int, end: int, route: int, time_ms: int) -> None:
        """Note a MESSAGES record of one message, which has more than its delivery JSON."""
        ordinal = len(self.starts)
        self.add_plain((alone.start,), offset, end, route, time_ms)
        if alone.due_ms or alone.expires_ms:
            self._add_times(ordinal, alone.due_ms, alone.expires_ms)
        if alone.key:
            self.keyed_at.append(ordinal)
            self.keys.append(alone.key)
        if any(alone.id[:8]):
            self.ids_at.append(ordinal)
            self.ids.frombytes(alone.id)
            self.digests += alone.digest

    def _add_times(self, ordinal: int, due_ms: int, expires_ms: int) -> None:
        self.timed_at.append(ordinal)
        self.due_ms.append(due_ms)
        self.expires_ms.append(expires_ms)
        if due_ms:
            heappush(self._due, due_ms << 32 | ordinal)

    def _add_few(self, columns: Columns, first: int) -> None:
        """What only few messages have."""
        for ordinal, route in enumerate(columns.routes or (), first):
            if not self.route_of or self.route_of[-1] != route:
                self.route_at.append(ordinal)
                self.route_of.append(route)
        if columns.due_ms is not None and columns.expires_ms is not None:
            for ordinal, times in enumerate(zip(columns.due_ms, columns.expires_ms, strict=True), first):
                if any(times):
                    self._add_times(ordinal, *times)
        if columns.keys is not None:
            for ordinal, key in enumerate(columns.keys, first):
                if key:
                    self.keyed_at.append(ordinal)
                    self.keys.append(key)
        if columns.ids:
            halves = array("Q", columns.ids)
            for index in range(len(columns)):
                if halves[2 * index]:
                    self.ids_at.append(first + index)
                    self.ids.extend(halves[2 * index : 2 * index + 2])
                    self.digests += columns.digests[8 * index : 8 * index + 8]

    def find_id(self, hashed: int, count_max: int) -> list[int]:
        """As of any index; they are not in order here, but are looked through without an object for each."""
        data, wanted = self.ids.tobytes(), array("Q", (hashed,)).tobytes()
        found: list[int] = []
        at = data.rfind(wanted)
        while at >= 0 and len(found) < count_max:
            if at % 16 == 0:  # the first half of an id
                found.append(self.position(self.ids_at[at // 16]))
            at = data.rfind(wanted, 0, at + 7)
        return found[::-1]

    def next_due(self, after: tuple[int, int]) -> int:
        """As of any index. What is not behind `after` is forgotten: nobody comes back to it."""
        due, passed = self._due, self._key(after)
        while due and due[0] <= passed:
            heappop(due)
        return due[0] >> 32 if due else NEVER_DUE

    def due_between(self, after: tuple[int, int], until_ms: int, count_max: int) -> list[tuple[int, int]]:
        self.next_due(after)
        due, found = self._due, list[int]()
        while due and due[0] >> 32 <= until_ms and len(found) < count_max:
            found.append(heappop(due))
        for key in found:  # they are forgotten once `after` is behind them
            heappush(due, key)
        return [(key >> 32, self.position(key & _ORDINAL)) for key in found]

    def _key(self, after: tuple[int, int]) -> int:
        """The key of the last that `after` has passed."""
        due_ms, position = after
        return (due_ms << 32 | self.ordinal(position + 1)) - 1

    def route_to(self, subscription: int, low: int, high: int) -> None:
        """Note that the positions [low, high], newer than all before them, are the subscription's."""
        low -= self.base
        high -= self.base
        queue = self.queues.get(subscription)
        if queue is None:
            self.queues[subscription] = array("I", (low, high))
        elif queue[-1] == low - 1:
            queue[-1] = high
        else:
            queue.append(low)
            queue.append(high)
