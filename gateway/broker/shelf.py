"""The direct and the file tier: slices in a table outside the heap, by owner and position, and by deadline.

A record is one contiguous run of positions, so a slice of interleaved messages takes several. 48 bytes, little-endian:

     0  Q  first position        24  I  messages              36  I  newer slot in its ring
     8  Q  span_low              28  I  attempts              40  I  older slot in its ring
    16  Q  deadline, in ticks    32  I  pile (its owner)      44  I  1: its ring is that of a period, not of a tick

and 12 more in its pile's order: 60 bytes a record, whatever it stands for. None of them is an object.

A ring holds what is due at one tick, newest at the head; its tail goes first. Deadlines more than two minutes away
stand in the ring of their minute, so a month of delays has 43,200 rings at most and not one for each tick; they are
moved to the rings of their ticks a minute before. Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987),
scheme 7, with two levels.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from functools import partial
from struct import Struct
from typing import Final, Generic, TypeVar

from gateway.broker.slice import Slice
from gateway.kit.order import Order
from gateway.kit.table import Table
from gateway.kit.wheel import passed
from gateway.store.segment import consecutive

_RECORD: Final = Struct("<QQQIIIIII")
_ONE: Final = Struct("<I")
_NEWER_AT: Final = 36
_OLDER_AT: Final = 40
RECORD_BYTES: Final = _RECORD.size
EXTENT_RECORDS: Final = 1 << 14
"""768 KiB a mapping: made in microseconds, and few of them for a million records."""
PERIOD_MS: Final = 60_000

Owner = TypeVar("Owner")


class Pile(Generic[Owner]):
    """The slices of one owner on the shelf, each position in at most one, ascending."""

    __slots__ = ("_number", "_order", "_shelf", "owner")

    def __init__(self, shelf: Shelf[Owner], owner: Owner) -> None:
        self.owner = owner
        self._shelf = shelf
        self._order: Order[int] | None = None  # made while there is something: most piles are empty most of the time
        self._number = 0

    def __len__(self) -> int:
        """Records."""
        return 0 if self._order is None else len(self._order)

    def __iter__(self) -> Iterator[tuple[Slice, int]]:
        """The slices, ascending, each with its tick."""
        for slot in () if self._order is None else self._order:
            first, span_low, tick, count, attempts, *_ = self._shelf.read(slot)
            yield Slice(range(first, first + count), span_low, attempts), tick

    @property
    def first(self) -> int:
        """The smallest position. Only where there is one."""
        assert self._order is not None
        return self._order.first

    def add(self, piece: Slice, tick: int = 0) -> None:
        """Put `piece` on the shelf; with a `tick` it is due then."""
        order = self._order
        if order is None:
            order = self._order = Order(partial(array, "I"))
            self._number = self._shelf.register(self)
        span_low = piece.span_low
        for low, high in consecutive(piece.positions):
            slot = self._shelf.put(low, span_low, high - low + 1, piece.attempts, self._number, tick)
            order.add(low, slot)
            span_low = high + 1

    def pop(self, count_max: int, limit: int) -> Slice:
        """Take out the first slice, joined by those that follow on it and were tried as often.

        Joined while there are fewer than `count_max` messages, and no further than below the position `limit`. What has
        fallen apart into single messages becomes large frames again this way.
        """
        first, span_low, count, attempts = self._pop()
        runs = [range(first, first + count)]
        last = first + count - 1
        while self._order is not None and count < count_max and self._order.first < limit:
            first, follows, more, tried = self._peek()
            if follows != last + 1 or tried != attempts:
                break
            self._pop()
            if first == last + 1:
                runs[-1] = range(runs[-1].start, first + more)
            else:
                runs.append(range(first, first + more))
            count += more
            last = first + more - 1
        if len(runs) == 1:
            return Slice(runs[0], span_low, attempts)
        return Slice([position for run in runs for position in run], span_low, attempts)

    def _peek(self) -> tuple[int, int, int, int]:
        assert self._order is not None
        first, span_low, _, count, attempts, *_ = self._shelf.read(next(iter(self._order)))
        return first, span_low, count, attempts

    def _pop(self) -> tuple[int, int, int, int]:
        assert self._order is not None
        slot = self._order.pop_first()
        first, span_low, _, count, attempts, *_ = self._shelf.read(slot)
        self._shelf.give(slot)
        self._tidy()
        return first, span_low, count, attempts

    def overlapping(self, low: int, high: int) -> list[tuple[Slice, int, bool]]:
        """Take out the slices that hold a position of [low, high]: each with its tick, and whether it was in a file."""
        found: list[tuple[Slice, int, bool]] = []
        for slot in () if self._order is None else self._order.reaching(low, high):
            first, span_low, tick, count, attempts, *_ = self._shelf.read(slot)
            if first + count > low:
                piece = Slice(range(first, first + count), span_low, attempts)
                found.append((piece, tick, self._shelf.in_file(slot)))
                self.forget(first)
                self._shelf.give(slot)
        return found

    def reach(self, low: int, high: int, count_max: int) -> tuple[int, int | None]:
        """How many records begin in [low, high], up to `count_max`; and where the one behind those begins."""
        return (0, None) if self._order is None else self._order.reach(low, high, count_max)

    def find(self, position: int) -> tuple[Slice, int] | None:
        """The slice that holds `position`, which stays, and its tick; None where there is none."""
        for slot in () if self._order is None else self._order.reaching(position, position):
            first, span_low, tick, count, attempts, *_ = self._shelf.read(slot)
            if first <= position < first + count:
                return Slice(range(first, first + count), span_low, attempts), tick
        return None

    def forget(self, first: int) -> None:
        """The shelf has taken out the slice that begins at `first`."""
        assert self._order is not None
        self._order.remove(first)
        self._tidy()

    def drop(self, count_max: int) -> int:
        """Take out at most so many slices, unread; the number of messages in them."""
        messages = 0
        for _ in range(min(count_max, len(self))):
            messages += self._pop()[2]
        return messages

    def _tidy(self) -> None:
        if not self._order:
            self._order = None
            self._shelf.deregister(self._number)
            self._number = 0


Row = tuple[int, int, int, int, int, int, int, int, int]
"""first, span_low, tick, count, attempts, pile, newer, older, far: as the record has them."""


class Shelf(Generic[Owner]):
    """The table and its rings; ticks are absolute numbers. Extents of `table` from `file_extent` on lie in a file."""

    def __init__(
        self, tick_ms: int, table: Table | None = None, file_extent: int | None = None, *, period_ms: int = PERIOD_MS
    ) -> None:
        self.table = Table(RECORD_BYTES, EXTENT_RECORDS) if table is None else table
        self.file_extent = file_extent
        self._file_slot = 1 << 62 if file_extent is None else (file_extent << self.table.shift) + 1
        self._piles: list[Pile[Owner] | None] = [None]  # by number; 0 is nobody's
        self._free_numbers: list[int] = []
        self._heads: dict[int, int] = {}  # tick -> the newest slot of its ring
        self._far_heads: dict[int, int] = {}  # period -> the same
        self._period = max(period_ms // tick_ms, 1)  # in ticks
        self._next_tick = 0
        self._next_period = 0  # the first that has not been begun to be moved to its ticks
        self._ringing: deque[int] = deque()  # ticks that have come, oldest first
        self._nearing: deque[int] = deque()  # periods that are being moved to their ticks

    def __len__(self) -> int:
        return len(self.table)

    def in_file(self, slot: int) -> bool:
        return slot >= self._file_slot

    def records(self) -> tuple[int, int]:
        """How many lie in memory, and how many in the file."""
        direct = self.table.records_in(0, self.file_extent)
        return direct, len(self.table) - direct

    # ----------------------------------------------------------------------------------------- piles, records

    def register(self, pile: Pile[Owner]) -> int:
        if self._free_numbers:
            number = self._free_numbers.pop()
            self._piles[number] = pile
            return number
        self._piles.append(pile)
        return len(self._piles) - 1

    def deregister(self, number: int) -> None:
        self._piles[number] = None
        self._free_numbers.append(number)

    def put(self, first: int, span_low: int, count: int, attempts: int, pile: int, tick: int) -> int:
        """A new record; the head of its ring where it has a tick, which must not have passed."""
        slot = self.table.take()
        mapping, at = self.table.place(slot)
        far = 0
        if tick:
            far = int(tick >= self._next_tick + 2 * self._period)
        _RECORD.pack_into(mapping, at, first, span_low, tick, count, attempts, pile, slot, slot, far)
        if tick:
            self._link(slot, tick, far)
        return slot

    def read(self, slot: int) -> Row:
        mapping, at = self.table.place(slot)
        return _RECORD.unpack_from(mapping, at)

    def give(self, slot: int) -> None:
        """Take a record out, of the table and of its ring."""
        _, _, tick, _, _, _, newer, older, far = self.read(slot)
        if tick:
            heads, key = (self._far_heads, tick // self._period) if far else (self._heads, tick)
            if older == slot:
                del heads[key]
            else:
                self._join(newer, older)
                if heads[key] == slot:
                    heads[key] = older
        self.table.give(slot)

    # --------------------------------------------------------------------------------------------------- rings

    def _link(self, slot: int, tick: int, far: int) -> None:
        """Make `slot` the head of its ring: between the head there was and the tail."""
        heads, key = (self._far_heads, tick // self._period) if far else (self._heads, tick)
        head = heads.get(key)
        if head is not None:
            mapping, at = self.table.place(head)
            (tail,) = _ONE.unpack_from(mapping, at + _NEWER_AT)
            self._join(slot, head)
            self._join(tail, slot)
        heads[key] = slot

    def _join(self, newer: int, older: int) -> None:
        mapping, at = self.table.place(newer)
        _ONE.pack_into(mapping, at + _OLDER_AT, older)
        mapping, at = self.table.place(older)
        _ONE.pack_into(mapping, at + _NEWER_AT, newer)

    def _tails(self, heads: dict[int, int], key: int, count_max: int) -> list[tuple[int, Row]]:
        """Take up to so many records, oldest first, out of a ring but not out of the table."""
        head = heads.get(key)
        if head is None:
            return []
        found: list[tuple[int, Row]] = []
        slot = self.read(head)[6]
        while len(found) < count_max:
            row = self.read(slot)
            found.append((slot, row))
            if slot == head:
                del heads[key]
                return found
            slot = row[6]
        self._join(slot, head)  # the ring closes behind what was taken
        return found

    # ---------------------------------------------------------------------------------------------------- time

    @property
    def behind(self) -> bool:
        """Whether something is due, or to be moved, now."""
        return bool(self._ringing or self._nearing)

    def turn(self, last: int) -> None:
        """The ticks up to `last` have come. Moves nothing."""
        self._ringing.extend(passed(self._heads, self._next_tick, last))
        self._next_tick = last + 1
        period = last // self._period + 1  # all that is due within one to two periods is moved, or has been
        self._nearing.extend(passed(self._far_heads, self._next_period, period))
        self._next_period = period + 1

    def due(self, count_max: int, *, youngest: bool = False) -> list[tuple[Owner, Slice]]:
        """Take out at most so many slices whose tick has come; of the oldest tick first, or of the youngest."""
        found: list[tuple[Owner, Slice]] = []
        while self._ringing and len(found) < count_max:
            tick = self._ringing[-1 if youngest else 0]
            tails = self._tails(self._heads, tick, count_max - len(found))
            for slot, (first, span_low, _, count, attempts, number, *_) in tails:
                pile = self._piles[number]
                assert pile is not None  # a record has one
                pile.forget(first)
                self.table.give(slot)
                found.append((pile.owner, Slice(range(first, first + count), span_low, attempts)))
            if tick not in self._heads:
                self._ringing.pop() if youngest else self._ringing.popleft()
        return found

    def bring_near(self, count_max: int) -> int:
        """Move at most so many records from the rings of their period to those of their ticks; how many."""
        moved = 0
        while self._nearing and moved < count_max:
            tails = self._tails(self._far_heads, self._nearing[0], count_max - moved)
            for slot, (first, span_low, tick, count, attempts, number, *_) in tails:
                if tick < self._next_tick:  # the clock has jumped
                    tick = self._next_tick - 1
                    self._ringing.append(tick)
                mapping, at = self.table.place(slot)
                _RECORD.pack_into(mapping, at, first, span_low, tick, count, attempts, number, slot, slot, 0)
                self._link(slot, tick, 0)
            moved += len(tails)
            if self._nearing[0] not in self._far_heads:
                self._nearing.popleft()
        return moved
