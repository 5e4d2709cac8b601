"""How many messages a consumer may have in flight: arithmetic on what was measured of it.

The rule is the gradient of Netflix's concurrency-limits (GradientLimit.java; "Performance Under Load", 2018), which
comes from TCP Vegas (Brakmo and Peterson, 1995): where the ack latency now is more than `tolerance` times its best, a
queue stands in front of the client, and the window shrinks by that ratio; near its best, it grows by its square root.

    size = size * clamp(tolerance * max(best, near) / latency, 1/2, 1) + sqrt(size)

Two things differ. A window starts at its cap: a consumer is trusted until it is shown to be slow, for most are not.
And the best is found out, where the original forgets it from time to time: by Little's law (in flight = rate x latency)
a smaller window makes the latency fall in proportion if a queue was the cause, and not at all if the client simply
takes that long, as one that acks every five seconds does. So a window that has shrunk is on trial: once there are
markedly fewer messages in flight, a latency that has not fallen is the client's own, and becomes its best.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Final

TOLERANCE: Final = 2.0
"""Latency in multiples of the best at which the window stands still; the original's default."""
_SHRINK_MOST: Final = 0.5
"""One outlier halves the window, and no more."""
_SHARE_OF_NEW: Final = 0.3
_FEWER: Final = 0.75
"""In flight, of what it was, before a smaller window is judged."""
_SMOOTHING_S: Final = 2.0


class Rate:
    """Events a second, smoothed over about two seconds; looked at as often or as seldom as one likes."""

    __slots__ = ("_at_ms", "_count", "_per_s")

    def __init__(self, now_ms: int) -> None:
        self._at_ms = now_ms
        self._count = 0
        self._per_s = 0.0

    def update(self, count: int, now_ms: int) -> float:
        """The rate at `now_ms`, where there have been `count` events in all."""
        passed_s = (now_ms - self._at_ms) / 1000
        if passed_s > 0:
            recent = max(count - self._count, 0) / passed_s
            self._per_s += (recent - self._per_s) * (1 - exp(-passed_s / _SMOOTHING_S))
            self._at_ms, self._count = now_ms, count
        return self._per_s


class Window:
    """One consumer's window, in messages. Told of every delivery that was timed."""

    __slots__ = ("_size", "_trial", "best_ms", "cap", "floor", "latency_ms", "near_ms")

    def __init__(self, cap: int, floor: int, near_ms: float) -> None:
        self.cap = cap
        self.floor = min(floor, cap)
        self.near_ms = near_ms  # latencies below this are as good as any: no queue worth a look fits into them
        self.best_ms: float | None = None
        """Ack latency without a queue, as far as it is known."""
        self.latency_ms: float | None = None
        """Of the last delivery that was timed."""
        self._size = float(cap)
        self._trial: tuple[float, int, float] | None = None  # size, in flight and latency before it shrank

    @property
    def size(self) -> int:
        return int(self._size)

    def observe(self, latency_ms: float, in_flight: int) -> None:
        """A delivery was acked after `latency_ms`; so many messages were in flight when it was handed over."""
        latency_ms = max(latency_ms, 1.0)
        if self.latency_ms is None:
            self.latency_ms = latency_ms
        self.latency_ms += (latency_ms - self.latency_ms) * _SHARE_OF_NEW
        if self._trial is not None:
            self._judge(latency_ms, in_flight, self._trial)
        self._learn(in_flight)
        gradient = min(1.0, TOLERANCE * max(self.best_ms or 0.0, self.near_ms) / self.latency_ms)
        if gradient == 1.0:
            self._size = min(self._size + sqrt(self._size), self.cap)
            self._trial = None
        elif 2 * in_flight >= self._size > self.floor:  # with fewer in flight it was not the window
            if self._trial is None:
                self._trial = (self._size, in_flight, latency_ms)
            self._size = max(self._size * max(gradient, _SHRINK_MOST) + sqrt(self._size), self.floor)

    def _judge(self, latency_ms: float, in_flight: int, trial: tuple[float, int, float]) -> None:
        """Did it help to have fewer in flight?"""
        size, in_flight_before, before_ms = trial
        if in_flight > _FEWER * in_flight_before:
            return  # too early to say
        self._trial = None
        by_a_queue_ms = before_ms * in_flight / in_flight_before
        if latency_ms > (before_ms + by_a_queue_ms) / 2:
            self.best_ms = self.latency_ms = latency_ms
            self._size = size

    def _learn(self, in_flight: int) -> None:
        """The best falls with every better one; at the floor there is no queue of ours, and it is how it is now."""
        assert self.latency_ms is not None
        few = in_flight <= self.floor
        if self.best_ms is None:
            self.best_ms = self.latency_ms if few else None
        elif self.latency_ms < self.best_ms or (few and self._size <= self.floor):
            self.best_ms = self.latency_ms

    def lose(self, messages: int) -> None:
        """So many leases ran out unsettled: each takes its place along."""
        self._size = max(self._size - messages, self.floor)

    def cut(self) -> None:
        """To the floor: the client is overdue."""
        self._size = float(self.floor)
        self._trial = None

    @property
    def is_narrow(self) -> bool:
        """Whether it is less than half of what the client would take."""
        return 2 * self._size < self.cap
