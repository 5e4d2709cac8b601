"""How long a group commit rests before the next: not at all, until commits of few take most of the run loop.

A commit costs the run loop several tenths of a millisecond whatever is in it: wake-ups, answers, a delivery, an ack. A
lone publisher's is worth that, and so is each of a thousand a second while there is time for it: a rest is latency.
Where thousands of small publishes a second come one by one, a commit each would take the whole run loop, and latency
with it; a millisecond of rest lets five of them go together.
"""

from __future__ import annotations

from typing import Final

_BUSY: Final = 0.72
_IDLE: Final = 0.55
_STEP_S: Final = 0.0001
_LOOK_S: Final = 0.02


class Pace:
    """Times are in seconds: `now` of any clock, `cpu` what the run loop's thread has used so far."""

    def __init__(self, rest_max_s: float) -> None:
        self.rest_s = 0.0
        self._rest_max_s = rest_max_s
        self._at = 0.0
        self._cpu = 0.0

    def look(self, now: float, cpu: float) -> None:
        """Called at the end of each commit: longer where the run loop is busy, shorter where it has time."""
        past = now - self._at
        if past < _LOOK_S:
            return
        share = (cpu - self._cpu) / past
        self._at, self._cpu = now, cpu
        if share > _BUSY:
            self.rest_s = min(self._rest_max_s, self.rest_s + _STEP_S)
        elif share < _IDLE:
            self.rest_s = max(0.0, self.rest_s - _STEP_S)
