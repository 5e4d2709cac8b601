"""When a publisher's next message is due, at a fixed rate, and which time it is stamped with.

A message is stamped with the time it was *due*, not the time it was sent: otherwise every stall of the gateway would
also stop the clock of the messages that it kept from being sent, and hide itself ("coordinated omission", G. Tene).
The millisecond by which epoll wakes a sleeper late is the load's own and is taken off.
"""

from __future__ import annotations

import time
from typing import Final

import attrs

TIMER_US: Final = 1000


def now_us() -> int:
    """The load's clock: microseconds since some moment, the same for all of a run."""
    return time.monotonic_ns() // 1000


@attrs.frozen
class Pace:
    """One publisher's timetable; message `n` counts from 0."""

    start_us: float
    step_us: float

    def due_us(self, n: int) -> float:
        return self.start_us + n * self.step_us

    def due(self, sent: int, now: int, limit: int) -> int:
        """How many more are due at `now` where `sent` have been sent, at most `limit`."""
        return min(limit, max(0, int((now - self.start_us) // self.step_us) + 1 - sent))

    def stamp(self, n: int, now: int) -> int:
        """The time that message `n` carries where it is sent at `now`."""
        return min(now, int(self.due_us(n)) + TIMER_US)


def timetable(rate_per_s: float, publisher: int, publishers: int, start_us: int) -> Pace:
    """The part of one publisher among `publishers` that send `rate_per_s` messages together, in turns."""
    step_us = 1e6 / rate_per_s
    return Pace(start_us + publisher * step_us, publishers * step_us)
