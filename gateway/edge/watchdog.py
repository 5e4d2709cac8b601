"""One clock for the deadlines of all connections, in place of a timer for each.

Every quarter of a second it asks every connection whether it is overdue: about 1 us each, where a cancel scope a
request costs 5. Of ten thousand connections some are asked at a time, and others run between. It also keeps the date of
HTTP responses.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Final, Protocol

import trio

PERIOD_S: Final = 0.25
_TURN: Final = 500
"""Connections asked before other tasks run: half a millisecond."""


class Watched(Protocol):
    """Something with deadlines."""

    def check(self, now: float) -> None:
        """Act where something is overdue at run-loop time `now`; must not wait."""


class Watchdog:
    """Calls `check` of everything registered."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self.date = b""
        self.now = trio.current_time()
        """The run loop's time as of the last tick: near enough for deadlines, and free."""
        self.period_s = period_s
        self._watched: dict[Watched, None] = {}
        self._ticks: list[Callable[[float], None]] = []
        self._tell_date()

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, watched: Watched) -> None:
        self._watched[watched] = None

    def discard(self, watched: Watched) -> None:
        self._watched.pop(watched, None)

    def every_tick(self, call: Callable[[float], None]) -> None:
        """Have `call` called with the run loop's time at every tick."""
        self._ticks.append(call)

    def _tell_date(self) -> None:
        self.date = formatdate(usegmt=True).encode("ascii")

    async def run(self) -> None:
        self.now = trio.current_time()
        while True:
            await trio.sleep(self.period_s)
            self._tell_date()
            self.now = now = trio.current_time()
            for call in self._ticks:
                call(now)
            watched = list(self._watched)
            for start in range(0, len(watched), _TURN):
                for each in watched[start : start + _TURN]:
                    if each in self._watched:  # it may have gone while others ran
                        each.check(now)
                await trio.lowlevel.checkpoint()
