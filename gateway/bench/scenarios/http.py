"""HTTP: publishes, pulls, and large payloads."""

from __future__ import annotations

from typing import Final

import attrs

from gateway.bench.ground import Ground
from gateway.bench.measuring import fresh, measure, subscriptions
from gateway.bench.piling import drain
from gateway.bench.plan import Target
from gateway.bench.record import Case
from gateway.bench.scenarios.scenario import Scenario

CONNECTIONS: Final = 32
_PUBLISHES: Final = 150_000
_PULLS: Final = 60_000
_AHEAD: Final = 1_000
"""Messages that may wait for the pulls: so the store is not what is measured, and no pull has to wait long."""
_SIZE: Final = 256
_LARGE: Final = {"64 KiB": (64 * 1024, 16_000), "1 MiB": (1024 * 1024, 1_000)}
"""Bytes of a payload, and how many of them."""
_LARGE_CONNECTIONS: Final = 8
_LIMIT_S: Final = 90.0


async def publish(ground: Ground) -> list[Case]:
    """Fsynced. They are routed and stored for a subscription, and come out of it afterwards."""
    messages, name = ground.sized(_PUBLISHES, 100), fresh("publishes")
    arguments = {
        "topic": name,
        "connections": CONNECTIONS,
        "messages": messages,
        "size_bytes": _SIZE,
        "limit_s": _LIMIT_S,
    }
    async with ground.gateway(CONNECTIONS) as target, subscriptions(target, {name: {"topics": [name]}}):
        found = await measure(ground, target, "http-publish", "publishing", arguments)
        tally = await drain(target, name, found.result.positions)
    result = found.result
    result.delivered, result.lost = tally.received, result.lost + tally.lost
    result.duplicates, result.invented = tally.duplicates, tally.invented
    load = f"{messages:,} publishes of {_SIZE} bytes, fsynced, from {CONNECTIONS} connections kept alive"
    return [found.case(f"{CONNECTIONS} connections", load)]


async def long_poll(ground: Ground) -> list[Case]:
    """Taken only, and taken and settled: two requests a message."""
    async with ground.gateway(CONNECTIONS) as target:
        return [await _pull(ground, target, settle=settle) for settle in (False, True)]


async def _pull(ground: Ground, target: Target, *, settle: bool) -> Case:
    messages, name = ground.sized(_PULLS // (2 if settle else 1), 100), fresh("pulls")
    arguments = {"name": name, "topic": name, "clients": CONNECTIONS, "messages": messages, "ahead": _AHEAD}
    arguments |= {"settle": settle, "size_bytes": _SIZE, "limit_s": _LIMIT_S}
    case = f"{CONNECTIONS} clients" + (", each message settled" if settle else "")
    wanted = {name: {"topics": [name], "lease_ms": 600_000}}
    async with subscriptions(target, wanted):
        found = await measure(ground, target, f"long-poll {case}", "pulling", arguments)
    load = f"{CONNECTIONS} clients pull {messages:,} messages one by one, while they are published"
    return found.case(case, load, unit="pull", units=found.result.delivered)


async def large(ground: Ground) -> list[Case]:
    async with ground.gateway() as target:
        return [await _large(ground, target, name, *sizes) for name, sizes in _LARGE.items()]


async def _large(ground: Ground, target: Target, case: str, size_bytes: int, messages: int) -> Case:
    messages, name = ground.sized(messages, 10), fresh("large")
    arguments = {"name": name, "topic": name, "connections": _LARGE_CONNECTIONS, "messages": messages}
    arguments |= {"size_bytes": size_bytes, "durability": "written", "limit_s": _LIMIT_S}
    async with subscriptions(target, {name: {"topics": [name]}}):
        found = await measure(ground, target, f"large {case}", "large", arguments)
    load = (
        f"{messages:,} payloads of {case}, written, over {_LARGE_CONNECTIONS} HTTP connections and out over a WebSocket"
    )
    made = found.case(case, load)
    rate = None if made.per_s is None else round(made.per_s * size_bytes / 1e6, 1)
    return attrs.evolve(made, extra={"megabytes_per_s": rate})


SCENARIOS: Final = (
    Scenario("http-publish", "32 connections that publish single messages over HTTP, fsynced", publish),
    Scenario("long-poll", "32 clients that pull one message at a time", long_poll),
    Scenario("large", "payloads of 64 KiB and 1 MiB, HTTP in and WebSocket out, at once", large),
)
