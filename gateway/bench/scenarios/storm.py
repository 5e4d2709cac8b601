"""A lease storm: a million messages in flight whose leases end together."""

from __future__ import annotations

from typing import Final

import attrs

from gateway.bench.ground import Ground
from gateway.bench.measuring import fresh, measure, subscriptions
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
    """A probe asks the gateway every 5 ms meanwhile: what it waits is the longest pause of the run loop, and more."""
    messages, name = ground.sized(STORM, 200), fresh("storm")
    wanted = {name: {"topics": [name], "lease_ms": _LONG_S * 1000}}
    async with ground.gateway(_HOLDERS) as target, subscriptions(target, wanted):
        arguments = {"name": name, "topic": name, "holders": _HOLDERS, "messages": messages, "size_bytes": _SIZE}
        arguments |= {"lease_ms": ground.sized(_LEASE_MS, 500), "limit_s": _LIMIT_S}
        async with probing(target) as probe:
            found = await measure(ground, target, "storm", "holding", arguments)
    load = f"{messages:,} messages held by {_HOLDERS} consumers until their leases end together, then taken by 4"
    case = found.case(f"{messages:,}", load, unit="delivery", units=found.result.delivered, duplicates=True)
    redelivered_s = found.result.elapsed_s
    extra = dict(case.extra)
    extra["probe_max_ms"] = probe.longest_ms(int(extra.pop("filled_at_us") or 0))
    return [attrs.evolve(case, per_s=round(messages / redelivered_s, 1) if redelivered_s else None, extra=extra)]


SCENARIO: Final = Scenario("storm", "a million messages in flight whose leases end together", storm)
