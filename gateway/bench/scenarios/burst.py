"""A burst into a subscription that nobody reads, then consumers: what it costs in memory, and how fast it goes.

Beside it another process publishes single messages at a fixed rate: how long its publishes take while nothing else
goes on, beside live delivery as fast as it goes, and while the backlog drains. "Flat" is the last against the second:
in both the gateway has all it can do, and only what it does is different.
"""

from __future__ import annotations

from typing import Final

import attrs
import trio

from gateway.bench.beside import Beside, beside
from gateway.bench.figures import Figures, ratio
from gateway.bench.ground import Ground
from gateway.bench.pace import now_us
from gateway.bench.plan import Plan, one_to_one
from gateway.bench.record import Case
from gateway.bench.scenarios.scenario import Scenario
from gateway.bench.tally import Percentiles

BURST: Final = 1_000_000
CONSUMERS: Final = 4
_LIVE: Final = 300_000
_BEHIND: Final = 1_000
_BEHIND_RATE: Final = 500
"""Published to the same subscription while it drains: they come behind it."""
_QUIET_S: Final = 0.5


async def burst(ground: Ground) -> list[Case]:
    """Live speed first, then the burst, on a gateway each."""
    live, _, live_took = await _measure(ground, _plan(messages=ground.sized(_LIVE, 200)), f"live, 1→{CONSUMERS}")
    count = ground.sized(BURST, 1000)
    load = _plan(messages=ground.sized(_BEHIND, 20), rate_per_s=_BEHIND_RATE, backlog=count)
    case, quiet_took, drain_took = await _measure(ground, load, f"a burst of {count:,}")
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
        **_publishes("quiet", quiet_took),
        **_publishes("beside_live", live_took),
        **_publishes("in_drain", drain_took),
        "publish_in_drain_to_live": ratio(_p50(drain_took), _p50(live_took)),
    }
    cpu_us = case.cpu_us * case.units / (case.units + count) if case.cpu_us is not None else None
    return [live, attrs.evolve(case, units=case.units + count, per_s=drained, cpu_us=cpu_us, extra=extra)]


async def _measure(ground: Ground, plan: Plan, name: str) -> tuple[Case, Percentiles | None, Percentiles | None]:
    """A plan, and how long a publish beside it takes before it begins, and under its load or its drain."""
    async with ground.gateway(plan.publishers + plan.subscribers + 2) as target, beside(target) as other:
        began_us = now_us()
        await trio.sleep(_QUIET_S)
        quiet_us = now_us()
        case = await ground.carry_out(plan, name, target, "burst")
        await other.end()
    assert case.detail is not None
    return case, other.took("confirm", began_us, quiet_us), _under_load(other, case.detail)


def _under_load(other: Beside, figures: Figures) -> Percentiles | None:
    backlog = figures.backlog
    passed_s = figures.elapsed_s if backlog is None else backlog.drained_s or 0.0
    return other.took("confirm", figures.began_us, figures.began_us + round(passed_s * 1e6))


def _publishes(when: str, took: Percentiles | None) -> dict[str, float | None]:
    return {
        f"publish_{when}_p50_ms": _p50(took),
        f"publish_{when}_p99_ms": None if took is None else took.p99_ms,
    }


def _p50(took: Percentiles | None) -> float | None:
    return None if took is None else took.p50_ms


def _plan(*, messages: int, rate_per_s: float | None = None, backlog: int = 0) -> Plan:
    return one_to_one(messages=messages, subscribers=CONSUMERS, shared=True, rate_per_s=rate_per_s, backlog=backlog)


SCENARIO: Final = Scenario("burst", "a million messages that nobody reads, and then four consumers", burst)
