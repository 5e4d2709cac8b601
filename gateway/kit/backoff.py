"""When to try again: a schedule with jitter for redeliveries, full jitter for reconnects."""

from __future__ import annotations

from collections.abc import Sequence

JITTER = 0.1
"""Redeliveries are spread by this share of their delay, so that what failed together does not return together."""


def redelivery_ms(schedule_ms: Sequence[int], attempts: int, random: float) -> int:
    """Delay before the delivery after `attempts` (>= 1) earlier ones; the last step repeats. `random` in [0, 1)."""
    step = schedule_ms[min(attempts, len(schedule_ms)) - 1]
    return int(step * (1 + JITTER * random))


def full_jitter_s(attempt: int, base_s: float, cap_s: float, random: float) -> float:
    """Delay before connection attempt `attempt` (0 is the first): uniform below an exponential ceiling.

    Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): full jitter clears a crowd soonest.
    """
    ceiling: float = min(cap_s, base_s * 2.0 ** min(attempt, 32))
    return random * ceiling
