"""Pieces of a subscription's queue, and one consumer's right to one.

A slice is a run of consecutive messages *of the subscription's queue*: between two of them there may be positions that
belong to others, never one of its own. It spans from just behind the message before it to its own last position, so the
slices of a subscription tile the positions without gaps, and settling them joins into one range however many topics are
interleaved in the log. Whatever happens to a part of a slice happens by cutting it, which keeps the tiling.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from gateway.model import Delivery

if TYPE_CHECKING:
    from gateway.broker.subscription import Subscription


class Slice:
    """Consecutive messages of one subscription's queue, ascending, at least one."""

    __slots__ = ("attempts", "positions", "span_low")

    def __init__(self, positions: Sequence[int], span_low: int, attempts: int = 0) -> None:
        self.positions = positions  # a range where they are contiguous in the log, else a list
        self.span_low = span_low  # one past the last message of the queue before this slice
        self.attempts = attempts  # deliveries so far

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def first(self) -> int:
        return self.positions[0]

    @property
    def last(self) -> int:
        return self.positions[-1]

    def cut(self, index: int) -> tuple[Slice, Slice]:
        """The messages before `index` and those from it on; neither may be empty."""
        positions = self.positions
        return (
            Slice(positions[:index], self.span_low, self.attempts),
            Slice(positions[index:], positions[index - 1] + 1, self.attempts),
        )

    def within(self, low: int, high: int) -> tuple[int, int]:
        """Indices [start, stop) of the messages with low <= position <= high."""
        positions = self.positions
        return bisect_left(positions, low), bisect_right(positions, high)


class Lease:
    """One consumer's right to a slice until a deadline. It starts when the frame has been handed to the socket."""

    __slots__ = ("consumer", "first", "held", "slice", "started")

    def __init__(self, consumer: Consumer, piece: Slice) -> None:
        self.held = False  # it stands among the consumer's leases
        self.consumer = consumer
        self.slice = piece
        self.first = piece.first
        self.started = False


class Returned:
    """A slice on its way back to the consumers, standing in the wheel until its delay is over."""

    __slots__ = ("slice", "subscription")

    def __init__(self, subscription: Subscription, piece: Slice) -> None:
        self.subscription = subscription
        self.slice = piece


_BY_FIRST = attrgetter("first")


class Consumer:
    """One attached connection, or one waiting pull, of one subscription.

    `send` takes a delivery without waiting. `blocked` says that the socket takes no more for now.
    """

    __slots__ = (
        "acked",
        "blocked",
        "in_flight",
        "label",
        "leases",
        "on_released",
        "once",
        "send",
        "size_max",
        "subscription",
        "window",
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
        self.window = window  # cap on messages in flight
        self.size_max = size_max  # bytes of one delivery
        self.send = send
        self.label = label  # the connection, for people
        self.once = once  # a pull: takes one delivery and no more
        self.on_released: Callable[[Consumer], None] | None = None  # called when it holds no lease any more
        self.blocked = False
        self.in_flight = 0
        self.acked = 0
        self.leases: list[Lease] = []  # ascending by first position

    @property
    def credit(self) -> int:
        """Deliveries it accepts now."""
        return 0 if self.blocked else self.window - self.in_flight

    @property
    def free_share(self) -> float:
        return self.credit / self.window

    def block(self) -> None:
        """It takes no more for now."""
        self.blocked = True
        self.update()

    def update(self) -> None:
        """Stand among the subscription's takers exactly while there is credit."""
        if self.credit > 0:
            self.subscription.takers[self] = None
        else:
            self.subscription.takers.pop(self, None)

    def hold(self, lease: Lease) -> None:
        leases = self.leases
        if leases and leases[-1].first > lease.first:
            insort(leases, lease, key=_BY_FIRST)
        else:
            leases.append(lease)
        lease.held = True
        self.in_flight += len(lease.slice)
        self.update()

    def drop(self, lease: Lease) -> None:
        index = bisect_left(self.leases, lease.first, key=_BY_FIRST)
        del self.leases[index]
        lease.held = False
        self.in_flight -= len(lease.slice)
        self.update()

    def overlapping(self, low: int, high: int) -> list[Lease]:
        """Leases that hold a position of [low, high], as it is now; a copy."""
        leases = self.leases
        start = max(bisect_right(leases, low, key=_BY_FIRST) - 1, 0)
        stop = bisect_right(leases, high, key=_BY_FIRST)
        return leases[start:stop]
