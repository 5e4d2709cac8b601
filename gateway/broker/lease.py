"""One consumer's right to a slice, and the consumer.

What is leased is first a `Lease`, an object; one that outlives the heap tier (see `clockwork`) lies on the shelf, in
the pile of its consumer, and is called back as an object when it is settled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway.broker.shelf import Pile, Shelf
from gateway.broker.slice import Slice
from gateway.kit.order import Order
from gateway.kit.ranges import normalise
from gateway.model import Delivery, Ranges

if TYPE_CHECKING:
    from gateway.broker.subscription import Subscription


class Lease(msgspec.Struct, eq=False, gc=False):
    """One consumer's right to a slice until a deadline. It starts when the frame has been handed to the socket.

    The garbage collector does not visit it: whoever lets go of a lease takes it out of `place`, which leaves no cycle.
    """

    consumer: Consumer
    slice: Slice
    held: bool = False
    """It stands among the consumer's leases."""
    started: bool = False
    deadline_ms: int = 0
    """Rounded up to its tick."""
    place: dict[Lease, None] | None = None
    """Where the clockwork keeps it."""
    tier: int = 0
    """Where it was kept last, of clockwork.TIERS."""

    @property
    def first(self) -> int:
        return self.slice.positions[0]


class Returned:
    """A slice on its way back to the consumers, whose delay is over."""

    __slots__ = ("slice", "subscription")

    def __init__(self, subscription: Subscription, piece: Slice) -> None:
        self.subscription = subscription
        self.slice = piece


Keeper: TypeAlias = "Consumer | Subscription"
"""Who may have slices on the shelf: a consumer what it is leased, a subscription what came back or is delayed."""
UNBOUNDED = 2**62


class Consumer:
    """One attached connection, or one waiting pull, of one subscription.

    `send` takes a delivery without waiting. `blocked` says that the socket takes no more for now. Whoever sets `window`
    or `blocked` calls `update` behind it.
    """

    __slots__ = (
        "_aged",
        "_charged_bytes",
        "_charged_messages",
        "_leases",
        "acked",
        "blocked",
        "expired",
        "filed",
        "in_flight",
        "label",
        "on_released",
        "once",
        "send",
        "size_max",
        "subscription",
        "window",
        "window_bytes",
    )

    def __init__(
        self,
        subscription: Subscription,
        window: int,
        size_max: int,
        send: Callable[[Delivery], None],
        label: str,
        *,
        once: bool = False,
    ) -> None:
        self.subscription = subscription
        self.window = window  # cap on messages in flight; 0: it is paused
        self.window_bytes = UNBOUNDED  # and on their bytes
        self.size_max = size_max  # bytes of one delivery
        self.send = send
        self.label = label  # the connection, for people
        self.once = once  # a pull: takes one delivery and no more
        self.on_released: Callable[[Consumer], None] | None = None  # called when it holds no lease any more
        self.blocked = False
        self.in_flight = 0
        self.acked = 0
        self.expired = 0  # messages whose lease ran out here
        self._charged_bytes = 0
        self._charged_messages = 0  # in flight when that was last counted
        self.filed: tuple[float, int] | None = None  # what the takers know of it
        self._leases: Order[Lease] = Order()  # of the heap tier, by first position
        self._aged: Pile[Keeper] | None = None  # of the others

    @property
    def leases(self) -> list[Lease]:
        """Those of the heap tier, ascending; a copy."""
        return list(self._leases)

    @property
    def aged(self) -> int:
        """Records of the other tiers."""
        return 0 if self._aged is None else len(self._aged)

    @property
    def credit(self) -> int:
        """Deliveries it accepts now."""
        if self.blocked:
            return 0
        if self._charged_bytes >= self.window_bytes and self.in_flight_bytes >= self.window_bytes:
            return 0  # what was charged is no less than what is in flight, and needs no reckoning
        return self.window - self.in_flight

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of what is in flight; what has left weighs as much as what has stayed.

        Which of its messages has which size is not kept: nothing is added to a lease, nor to a settle.
        """
        if self.in_flight < self._charged_messages:
            self._charged_bytes = self._charged_bytes * self.in_flight // self._charged_messages
            self._charged_messages = self.in_flight
        return self._charged_bytes

    def charge(self, messages: int, size: int) -> None:
        """So many of the messages in flight are new, with `size` bytes together."""
        before = max(self.in_flight - messages, 0)  # some may have been taken back before they were sent
        if before < self._charged_messages:
            self._charged_bytes = self._charged_bytes * before // self._charged_messages
        self._charged_bytes += size
        self._charged_messages = self.in_flight
        if self._charged_bytes >= self.window_bytes:
            self.update()

    def resize(self, window: int, window_bytes: int) -> None:
        """At most so many messages and bytes in flight from now on; what is beyond stays until it is settled."""
        self.window, self.window_bytes = window, window_bytes
        self.update()

    @property
    def free_share(self) -> float:
        return self.credit / self.window

    def block(self) -> None:
        """It takes no more for now."""
        self.blocked = True
        self.update()

    def update(self) -> None:
        """Stand among the subscription's takers exactly while there is credit."""
        if self.filed is not None or not self.blocked:
            self.subscription.takers.update(self)

    def hold(self, lease: Lease) -> None:
        positions = lease.slice.positions
        self._leases.add(positions[0], lease)
        lease.held = True
        self.in_flight += len(positions)
        if self.once:
            self.blocked = True  # this is its delivery
        self.subscription.takers.update(self)

    def drop(self, lease: Lease) -> None:
        positions = lease.slice.positions
        if lease.held:  # or the shelf has dropped it before
            self._leases.remove(positions[0])
            lease.held = False
        self.in_flight -= len(positions)
        self.subscription.takers.update(self)

    def overlapping(self, low: int, high: int) -> list[Lease]:
        """Leases of the heap tier that hold a position of [low, high], as it is now; a copy. And perhaps one before."""
        return self._leases.reaching(low, high)

    def lease_from(self, position: int) -> Lease | None:
        """The lease of the heap tier whose first message stands at `position`; None where there is none."""
        return self._leases.find(position)

    def portion(self, ranges: Ranges, count_max: int) -> tuple[Ranges, Ranges]:
        """Cut what is said of `ranges`: a part that is about some of its leases only, and the rest, mostly nothing.

        The part may be about `count_max` leases of the heap tier, and as many of the others.
        """
        if len(self._leases) <= count_max and (self._aged is None or len(self._aged) <= count_max):
            return ranges, ()
        ranges = normalise(ranges)
        for index, (low, high) in enumerate(ranges):
            counted, follows = self._leases.reach(low, high, count_max)
            if self._aged is not None:
                aged, behind = self._aged.reach(low, high, count_max)
                counted = max(counted, aged)
                follows = behind if follows is None or (behind is not None and behind < follows) else follows
            if follows is not None and low < follows:
                return [*ranges[:index], (low, follows - 1)], [(follows, high), *ranges[index + 1 :]]
            count_max -= counted
            if follows is not None or (count_max <= 0 and index + 1 < len(ranges)):
                cut = index if follows is not None else index + 1
                return ranges[:cut], ranges[cut:]
        return ranges, ()

    # ------------------------------------------------------------------------------------------- the other tiers

    def age(self, lease: Lease, shelf: Shelf[Keeper], tick: int) -> None:
        """Put a lease on the shelf; the object is not used any more."""
        self._leases.remove(lease.first)
        lease.held = False
        if self._aged is None:
            self._aged = Pile(shelf, self)
        self._aged.add(lease.slice, tick)

    def call_back(self, low: int, high: int) -> list[tuple[Lease, int]]:
        """Make leases again of what lies on the shelf and holds a position of [low, high]: each with its tick."""
        if not self._aged:
            return []
        found: list[tuple[Lease, int]] = []
        for piece, tick, in_file in self._aged.overlapping(low, high):
            lease = Lease(self, piece)
            lease.started = lease.held = True
            lease.tier = 2 if in_file else 1
            self._leases.add(lease.first, lease)
            found.append((lease, tick))
        return found

    def some(self, count_max: int) -> list[Lease]:
        """At most so many of its leases, of whichever tier; those from the shelf are not held, and only counted."""
        found = self._leases.some(count_max)
        while self._aged and len(found) < count_max:
            found.append(Lease(self, self._aged.pop(1, 0)))
        return found

    def deadline_ms(self, position: int, tick_ms: int) -> int | None:
        """When its lease of `position` ends; None where it is not leased to it, or its frame waits for the socket."""
        found = self.lease_of(position, tick_ms)
        return None if found is None else found[1]

    def lease_of(self, position: int, tick_ms: int) -> tuple[Slice, int | None] | None:
        """In which slice `position` is leased to it, and until when; None while the frame waits for the socket."""
        for lease in self._leases.reaching(position, position):
            start, stop = lease.slice.within(position, position)
            if start < stop:
                return lease.slice, lease.deadline_ms if lease.started else None
        found = None if self._aged is None else self._aged.find(position)
        return None if found is None else (found[0], found[1] * tick_ms)
