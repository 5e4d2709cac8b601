"""Scenarios that are a plan each, or a few."""

from __future__ import annotations

from typing import Final

import attrs

from gateway.bench.ground import Ground
from gateway.bench.plan import Plan, one_to_one
from gateway.bench.record import Case
from gateway.bench.scenarios.scenario import Scenario

SATURATED: Final = 400_000
RATES: Final = (1_000, 5_000, 20_000)
_RATE_S: Final = 8
IDLE: Final = 5_000
_MISFITS: Final = 10
"""Of each kind."""
_HEALTHY: Final = 70
_MISFIT_RATE: Final = 100
_MISFIT_S: Final = 15


async def pipeline(ground: Ground) -> list[Case]:
    return [await ground.plan(one_to_one(messages=ground.sized(SATURATED, 200)), "1→1", "pipeline")]


async def rate(ground: Ground) -> list[Case]:
    """All on one gateway, the slowest first."""
    cases = []
    async with ground.gateway() as target:
        for per_s in RATES:
            messages = ground.sized(per_s * _RATE_S, 50)
            load = one_to_one(messages=messages, rate_per_s=per_s, window=20_000)
            cases.append(await ground.carry_out(load, f"{per_s:,}/s", target, "rate"))
    return cases


async def idle(ground: Ground) -> list[Case]:
    count = ground.sized(IDLE, 10)
    case = await ground.plan(one_to_one(messages=0, idle=count, subscribers=0), f"{count:,} connections", "idle")
    assert case.detail is not None
    each = case.detail.server.bytes_per_idle_connection
    return [attrs.evolve(case, unit="connection", units=count, extra={"connection_bytes": each})]


async def misfits(ground: Ground) -> list[Case]:
    """A third of the consumers does not keep up; the others, with them and without."""
    healthy, each = ground.sized(_HEALTHY, 3), ground.sized(_MISFITS)
    alone = _misfit_plan(ground, healthy, 0)
    mixed = _misfit_plan(ground, healthy + 3 * each, each)
    async with ground.gateway(mixed.subscribers) as target:
        cases = [
            await ground.carry_out(alone, f"{healthy} healthy", target, "misfits"),
            await ground.carry_out(mixed, f"and {3 * each} misfits", target, "misfits"),
        ]
    without, beside = (case.latency["delivery"].p99_ms for case in cases)
    extra: dict[str, float | None] = {"p99_ratio": round(beside / without, 3) if without else None}
    return [cases[0], attrs.evolve(cases[1], extra=extra)]


def _misfit_plan(ground: Ground, subscribers: int, each: int) -> Plan:
    return one_to_one(
        messages=ground.sized(_MISFIT_RATE * _MISFIT_S, 20),
        rate_per_s=_MISFIT_RATE,
        subscribers=subscribers,
        slow_readers=each,
        no_ack=each,
        late_ack=each,
    )


SCENARIOS: Final = (
    Scenario("pipeline", "one publisher, one consumer, as fast as it goes", pipeline),
    Scenario("rate", "the same at fixed rates: latency", rate),
    Scenario("idle", "connections that stand idle: memory", idle),
    Scenario("misfits", "consumers that do not keep up, and those beside them", misfits),
)
