"""Everything that has a deadline, in three tiers, and the clock that makes it due.

*Heap*: leases as objects, for ten to fifteen seconds. They stand in one of three maps, by the five seconds in which
they were handed out; the clock turns a map over as a whole, so nothing is scanned. A lease that ends within ten seconds
of its map's turn would be moved for little, so it stands in the map of its deadline instead; so does one whose frame
waits for its socket.

*Direct*: what outlives that, and every slice that came back or backs off, lies on the shelf: 60 bytes a record, no
object. *File*: the same shelf, beyond its bound in bytes, over a mapped file. Nothing of this survives a restart: what
was in somebody's hand waits again. What was published with a delay stands nowhere but in the log: see delay.py.

There is a bound on leases in the heap too: beyond it the oldest are moved before their time.

Maps are lists of chunks. A dictionary of a million leases stops the world for 30 ms where it grows; thousands of a
hundred do not, and a chunk is what one step of `advance` works on. A step is bounded, a few milliseconds; who calls
lets others run between steps while `behind` says so.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from gateway.broker.delay import Delays
from gateway.broker.lease import Consumer, Keeper, Lease, Returned
from gateway.broker.shelf import Pile, Shelf
from gateway.broker.slice import Slice
from gateway.kit.wheel import passed

CHUNK_MAX: Final = 64
STEP: Final = 64
"""Records that one step makes due, ages or moves: at 2 to 10 us each, about a millisecond."""
HEAP_LEASES_MAX: Final = 200_000
GENERATION_MS: Final = 5_000
HANDING_MS: Final = 60_000
TIERS: Final = ("heap", "direct", "file")

_Chunk = dict[Lease, None]


class Clockwork:
    """`now` is in milliseconds since the epoch. Deadlines are rounded up to a tick."""

    def __init__(
        self,
        tick_ms: int,
        now_ms: int,
        shelf: Shelf[Keeper] | None = None,
        *,
        handing_ms: int = HANDING_MS,
        heap_leases_max: int = HEAP_LEASES_MAX,
        generation_ms: int = GENERATION_MS,
    ) -> None:
        self.tick_ms = tick_ms
        self.handing_ms = handing_ms  # how long a frame may wait for its socket before its messages go to others
        self.next_tick = now_ms // tick_ms + 1
        """The first tick that has not come yet."""
        self.shelf: Shelf[Keeper] = Shelf(tick_ms) if shelf is None else shelf
        self.shelf.turn(now_ms // tick_ms)
        self.delays = Delays(now_ms)
        self.leaving: deque[Consumer] = deque()
        """Have left, and held more than could be given back at once."""
        self._dropping: deque[Pile[Keeper]] = deque()
        self._youngest_next = False
        self.settled = [0, 0, 0]  # messages, by the tier their lease was in
        self._chunks_max = max(heap_leases_max // CHUNK_MAX, 1)
        self._generation = max(generation_ms // tick_ms, 1)  # in ticks
        self._due: dict[int, list[_Chunk]] = {}  # by tick
        self._maps: dict[int, list[_Chunk]] = {}  # by the tick at which they are turned over to the aging; three
        self._ringing: deque[_Chunk] = deque()  # their tick has come
        self._aging: deque[_Chunk] = deque()

    @property
    def behind(self) -> bool:
        """Whether there is more to do now than one step did."""
        return bool(self._ringing or self._aging or self._dropping or self.leaving or self.shelf.behind)

    def records(self) -> tuple[int, int, int]:
        """Leases in the heap, and records in the direct and in the file tier."""
        chunks = [chunk for maps in (self._due, self._maps) for chunks in maps.values() for chunk in chunks]
        return (
            sum(map(len, chunks)) + sum(map(len, self._ringing)) + sum(map(len, self._aging)),
            *self.shelf.records(),
        )

    def tick_of(self, deadline_ms: int) -> int:
        """The tick at which a deadline is noticed."""
        return max(-(-deadline_ms // self.tick_ms), self.next_tick)

    # -------------------------------------------------------------------------------------------------- leases

    def add(self, lease: Lease, deadline_ms: int) -> None:
        """Make `lease` due at the first tick at or after `deadline_ms`; moves it where it is already due."""
        if lease.place is not None:
            self.discard(lease)
        tick_ms, next_tick = self.tick_ms, self.next_tick
        tick = -(-deadline_ms // tick_ms)  # as `tick_of` has it
        if tick < next_tick:
            tick = next_tick
        lease.deadline_ms = tick * tick_ms
        turn = (next_tick // self._generation + 3) * self._generation
        stays = tick < turn + 2 * self._generation or not lease.started
        maps, key = (self._due, tick) if stays else (self._maps, turn)
        chunks = maps.get(key)
        if chunks is None:
            chunks = maps[key] = [{}]
        elif len(chunks[-1]) >= CHUNK_MAX:
            chunks.append({})
        chunks[-1][lease] = None
        lease.place = chunks[-1]

    def discard(self, lease: Lease) -> None:
        """Take `lease` out; nothing happens where it is not in."""
        place = lease.place
        if place is not None:
            del place[lease]
            lease.place = None
            if not place:
                place.clear()  # an emptied dictionary keeps its size until it is told

    def call_back(self, consumer: Consumer, low: int, high: int) -> None:
        """Bring the consumer's leases of positions in [low, high] back into the heap: something is said of them."""
        for lease, tick in consumer.call_back(low, high):
            self.add(lease, tick * self.tick_ms)

    def drop(self, pile: Pile[Keeper]) -> None:
        """Nobody wants what lies in `pile`: it goes now, or, where that is much, in the next steps."""
        pile.drop(STEP)
        if pile:
            self._dropping.append(pile)

    # ---------------------------------------------------------------------------------------------------- time

    def advance(self, now_ms: int) -> list[Lease | Returned]:
        """One step: take out what is due by `now_ms`; and where there is little of it, age the old.

        Where much is due, every other step begins with the youngest tick: what comes due while a million are worked
        off is no later for it. A lease that comes from the shelf is not held by its consumer any more, and still
        counted: `Consumer.drop` it.
        """
        self._turn(now_ms // self.tick_ms)
        youngest = self._youngest_next
        due: list[Lease | Returned] = []
        while self._ringing and len(due) + len(self._ringing[-1 if youngest else 0]) <= STEP:
            due += _emptied(self._ringing.pop() if youngest else self._ringing.popleft())
        least = STEP // 4  # for each tier, however much the other has
        for keeper, piece in self.shelf.due(max(STEP - len(due), least), youngest=youngest):
            due.append(_made(keeper, piece))
        rest = STEP - len(due)
        while self._aging and rest > 0:
            rest -= self._age(self._aging.popleft(), due)
        rest -= self.shelf.bring_near(max(rest, least))
        if self._dropping and rest > 0:
            self.drop(self._dropping.popleft())
        self._youngest_next = self.behind and not youngest
        return due

    def _turn(self, last: int) -> None:
        """The ticks up to `last` have come. Whole maps change hands, nothing is looked at."""
        if last < self.next_tick:
            return
        for maps, into in ((self._due, self._ringing), (self._maps, self._aging)):
            for tick in passed(maps, self.next_tick, last):
                into.extend(chunk for chunk in maps.pop(tick) if chunk)
        self.next_tick = last + 1
        self.shelf.turn(last)
        self._age_early()

    def _age_early(self) -> None:
        """Where there are too many leases in the heap, age whole chunks before their map's turn, the oldest first."""
        excess = -self._chunks_max
        for maps in (self._due, self._maps):
            excess += sum(len(chunks) - 1 for chunks in maps.values())
        if excess <= 0:
            return
        oldest = [(self._maps, key) for key in sorted(self._maps)]
        latest = [(self._due, key) for key in sorted(self._due, reverse=True)]
        for maps, key in oldest + latest:
            chunks = maps[key]
            early = chunks[:excess]
            del chunks[:excess]
            if not chunks:
                del maps[key]
            self._aging.extend(chunk for chunk in early if chunk)
            excess -= len(early)
            if excess <= 0:
                return

    def _age(self, chunk: _Chunk, due: list[Lease | Returned]) -> int:
        """Put leases on the shelf; those whose time has come meanwhile are due. How many records that made."""
        before = len(self.shelf)
        leases = _emptied(chunk)
        for lease in leases:
            tick = lease.deadline_ms // self.tick_ms
            if tick < self.next_tick:
                due.append(lease)
            elif not lease.started:
                self.add(lease, lease.deadline_ms)
            else:
                lease.consumer.age(lease, self.shelf, tick)
        return max(len(self.shelf) - before, len(leases))


def _emptied(chunk: _Chunk) -> list[Lease]:
    leases = list(chunk)
    chunk.clear()
    for lease in leases:
        lease.place = None
    return leases


def _made(keeper: Keeper, piece: Slice) -> Lease | Returned:
    if isinstance(keeper, Consumer):
        lease = Lease(keeper, piece)
        lease.started = True
        return lease
    return Returned(keeper, piece)
