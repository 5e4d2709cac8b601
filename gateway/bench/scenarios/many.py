"""Messages that come one by one, to many: fan-out, a message a second on each connection, a topic each."""

from __future__ import annotations

from typing import Any, Final

import attrs

from gateway.bench.clients.many import EACH, IN_TURNS, TOGETHER
from gateway.bench.ground import Ground
from gateway.bench.measuring import Measured, fresh, measure, subscriptions
from gateway.bench.plan import Target
from gateway.bench.record import Case
from gateway.bench.scenarios.scenario import Scenario

SPARSE: Final = 5_000
OWN: Final = 10_000
_SIZE: Final = 256
_DELIVERIES: Final = {1: 4_000, 10: 20_000, 100: 100_000, 1_000: 200_000}
_SECONDS: Final = 10
_LIMIT_S: Final = 60.0


async def fanout(ground: Ground) -> list[Case]:
    """One message at a time, so that every frame holds one."""
    sizes = {ground.sized(width): ground.sized(total // width, 5) for width, total in _DELIVERIES.items()}
    async with ground.gateway(sum(sizes)) as target:
        return [await _fan_out(ground, target, *each) for each in sizes.items()]


async def _fan_out(ground: Ground, target: Target, width: int, messages: int) -> Case:
    name = f"1→{width:,}"
    arguments = {"how": TOGETHER, "messages": messages, "topics": 1}
    found = await _carry_out(ground, target, f"fanout {name}", width, arguments)
    load = f"{messages:,} messages, the next when the one before has come to all of {width:,} subscriptions"
    case = found.case(name, load, unit="delivery", units=found.result.delivered)
    frames = found.result.frames
    extra = {"messages_in_a_frame": round(found.result.delivered / frames, 3) if frames else None}
    return attrs.evolve(case, extra=extra)


async def sparse(ground: Ground) -> list[Case]:
    """Every connection publishes a message a second, is handed it, and acks it."""
    width = ground.sized(SPARSE, 10)
    seconds = ground.sized(_SECONDS, 2)
    arguments = {"how": EACH, "messages": width * seconds, "topics": width, "rate_per_s": width}
    async with ground.gateway(width) as target:
        found = await _carry_out(ground, target, "sparse", width, arguments)
    load = f"{width:,} connections, each publishes, is handed and acks one message a second"
    return [found.case(f"{width:,} x 1/s", load)]


async def own(ground: Ground) -> list[Case]:
    """One publisher, and a subscription with a topic of its own for each connection."""
    width = ground.sized(OWN, 10)
    seconds = ground.sized(_SECONDS, 2)
    arguments = {"how": IN_TURNS, "messages": width * seconds, "topics": width, "rate_per_s": width}
    async with ground.gateway(width) as target:
        found = await _carry_out(ground, target, "own", width, arguments)
    load = f"{width:,} connections with a subscription and a topic each, one message a second to each"
    return [found.case(f"{width:,} x 1/s", load, unit="delivery", units=found.result.delivered)]


async def _carry_out(ground: Ground, target: Target, case: str, width: int, arguments: dict[str, Any]) -> Measured:
    """`width` subscriptions; `topics` of them, in turns."""
    base = fresh(case.partition(" ")[0])
    topics = [f"{base}.{number}" for number in range(arguments["topics"])]
    names = [f"{base}-{number}" for number in range(width)]
    wanted = {name: {"topics": [topics[number % len(topics)]]} for number, name in enumerate(names)}
    order = {**arguments, "names": names, "topics": topics, "size_bytes": _SIZE, "limit_s": _LIMIT_S}
    ground.going.what = case
    ground.going.look = lambda: ("making subscriptions", 0, 1)
    async with subscriptions(target, wanted):
        return await measure(ground, target, case, "many", order)


SCENARIOS: Final = (
    Scenario("fanout", "one topic to 1, 10, 100 and 1,000 subscriptions, one message at a time", fanout),
    Scenario("sparse", "5,000 connections that publish and get a message a second each", sparse),
    Scenario("own", "10,000 connections with a subscription and a topic each, a message a second", own, 180.0),
)
