"""A burst into a subscription that nobody reads, then consumers: what it costs in memory, and how fast it goes."""

from __future__ import annotations

from typing import Final

import attrs

from gateway.bench.ground import Ground
from gateway.bench.plan import Plan, one_to_one
from gateway.bench.record import Case
from gateway.bench.scenarios.scenario import Scenario

BURST: Final = 1_000_000
CONSUMERS: Final = 4
_LIVE: Final = 300_000
_BESIDE: Final = 5_000
_BESIDE_RATE: Final = 500
"""Published while it drains, to see whether publishers are held up."""


async def burst(ground: Ground) -> list[Case]:
    """Live speed first, then the burst, on a gateway each."""
    live = await ground.plan(_plan(messages=ground.sized(_LIVE, 200)), f"live, 1→{CONSUMERS}", "burst")
    count = ground.sized(BURST, 1000)
    load = _plan(messages=ground.sized(_BESIDE, 20), rate_per_s=_BESIDE_RATE, backlog=count)
    case = await ground.plan(load, f"a burst of {count:,}", "burst")
    assert case.detail is not None
    backlog = case.detail.backlog
    assert backlog is not None
    drained = backlog.drained_per_s
    extra = {
        "growth_bytes": backlog.resident_growth_bytes,
        "growth_anon_bytes": backlog.anon_growth_bytes,
        "published_per_s": backlog.published_per_s,
        "drained_per_s": drained,
        "drained_to_live": round(drained / live.per_s, 3) if drained and live.per_s else None,
    }
    cpu_us = case.cpu_us * case.units / (case.units + count) if case.cpu_us is not None else None
    return [live, attrs.evolve(case, units=case.units + count, per_s=drained, cpu_us=cpu_us, extra=extra)]


def _plan(*, messages: int, rate_per_s: float | None = None, backlog: int = 0) -> Plan:
    return one_to_one(messages=messages, subscribers=CONSUMERS, shared=True, rate_per_s=rate_per_s, backlog=backlog)


SCENARIO: Final = Scenario("burst", "a million messages that nobody reads, and then four consumers", burst)
