"""A lease storm: a million messages in flight whose leases end together."""

from __future__ import annotations

from typing import Final

import attrs

from gateway.bench.beside import beside
from gateway.bench.ground import Ground
from gateway.bench.measuring import fresh, measure, subscriptions
from gateway.bench.pace import now_us
from gateway.bench.probe import probing
from gateway.bench.record import Case
from gateway.bench.scenarios.scenario import Scenario

STORM: Final = 1_000_000
_HOLDERS: Final = 100
_LEASE_MS: Final = 5_000
_LONG_S: Final = 600
_SIZE: Final = 64
_LIMIT_S: Final = 120.0


async def storm(ground: Ground) -> list[Case]:
    """Meanwhile a probe asks the gateway every 5 ms: what it waits is the longest pause of the run loop, and more.

    And another process publishes, and is handed, a message every 2 ms: that takes several passes of the run loop, and
    the disk. What is told of it is from the moment on in which the leases end.
    """
    messages, name = ground.sized(STORM, 200), fresh("storm")
    wanted = {name: {"topics": [name], "lease_ms": _LONG_S * 1000}}
    async with ground.gateway(_HOLDERS) as target, subscriptions(target, wanted):
        arguments = {"name": name, "topic": name, "holders": _HOLDERS, "messages": messages, "size_bytes": _SIZE}
        lease_ms = ground.sized(_LEASE_MS, 500)
        arguments |= {"lease_ms": lease_ms, "limit_s": _LIMIT_S}
        async with probing(target) as probe, beside(target) as other:
            found = await measure(ground, target, "storm", "holding", arguments)
            over_us = now_us()
            await other.end()
    load = f"{messages:,} messages held by {_HOLDERS} consumers until their leases end together, then taken by 4"
    case = found.case(f"{messages:,}", load, unit="delivery", units=found.result.delivered, duplicates=True)
    redelivered_s = found.result.elapsed_s
    extra = dict(case.extra)
    filled_us = int(extra.pop("filled_at_us") or 0)
    extra["probe_max_ms"] = probe.longest_ms(filled_us)
    for what in ("confirm", "delivery"):
        took = other.took(what, filled_us + lease_ms * 1000, over_us)
        if took is not None:
            extra |= {f"{what}_p50_ms": took.p50_ms, f"{what}_p99_ms": took.p99_ms, f"{what}_max_ms": took.max_ms}
    return [attrs.evolve(case, per_s=round(messages / redelivered_s, 1) if redelivered_s else None, extra=extra)]


SCENARIO: Final = Scenario("storm", "a million messages in flight whose leases end together", storm)
