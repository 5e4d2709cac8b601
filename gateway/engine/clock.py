"""One time for the whole node: milliseconds since the epoch that never run backwards.

Leases need a clock that no administrator can set back; records need the date. So the date is read once and the run
loop's monotonic clock carries it on, steered gently (1 ms in 100) towards the date as it is corrected. With trio's
MockClock the whole node runs on a test's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

_SLEW: Final = 0.01


class Clock:
    """Call it for the time. Must be made and called inside the run loop."""

    def __init__(self, date: Callable[[], float] = time.time, monotonic: Callable[[], float] | None = None) -> None:
        self._date = date
        self._monotonic = monotonic or trio.lowlevel.current_clock().current_time  # what `trio.current_time` asks
        self._began = self._steered = self._monotonic()
        self._offset = date() - self._began
        self._shown = 0

    def __call__(self) -> int:
        """Milliseconds since the epoch."""
        now = int((self._monotonic() + self._offset) * 1000)
        if now > self._shown:  # not so just behind a correction backwards
            self._shown = now
        return self._shown

    def steer(self) -> None:
        """Correct a little of the difference to the date; called by the tick."""
        now = self._monotonic()
        allowed = (now - self._steered) * _SLEW
        self._steered = now
        wrong = self._date() - (now + self._offset)
        self._offset += max(-allowed, min(allowed, wrong))
