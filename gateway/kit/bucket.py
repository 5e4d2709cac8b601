"""A token bucket: so many a second, and a burst of some seconds' worth.

What is asked for is given whole while anything is left, and the bucket goes into debt for the rest: a batch larger than
the bucket is possible at all, and costs its sender the time that it is worth. Turner, "New Directions in
Communications" (1986), with the level kept as the moment at which the bucket is full again, as GCRA does (ITU-T I.371,
Annex A): one number, and no timer.
"""

from __future__ import annotations


class Bucket:
    """`now` in seconds, of any clock that does not go back."""

    __slots__ = ("_full_at", "burst_s", "per_s")

    def __init__(self, per_s: float, burst_s: float) -> None:
        self.per_s = per_s
        self.burst_s = burst_s
        self._full_at = 0.0

    def wait_s(self, now: float) -> float:
        """How long until something may be taken; 0 where that is now."""
        return max(self._full_at - self.burst_s - now, 0.0)

    def take(self, count: float, now: float) -> None:
        """Take `count`; where that is more than is left, it is owed."""
        self._full_at = max(self._full_at, now) + count / self.per_s

    def is_full(self, now: float) -> bool:
        """Whether it is as a new one."""
        return self._full_at <= now
