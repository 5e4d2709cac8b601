"""A gateway that comes back: killed, and ended in peace, with a million messages that wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import orjson
import trio

from gateway.bench import vitals
from gateway.bench.ground import Ground
from gateway.bench.link import HttpLink, LinkLostError
from gateway.bench.measuring import fresh, subscriptions
from gateway.bench.own import OwnGateway
from gateway.bench.piling import drain, pile_up
from gateway.bench.plan import Target
from gateway.bench.record import Case, Counts, Memory
from gateway.bench.scenarios.scenario import Scenario

WAITING: Final = 1_000_000
_SIZE: Final = 256
_READY_S: Final = 60.0
_ASK_S: Final = 0.002
_PULL_MS: Final = 10_000


async def restart(ground: Ground) -> list[Case]:
    """The time to `/readyz`, and to the first message; in the end everything that waited comes out."""
    count, name = ground.sized(WAITING, 200), fresh("restart")
    cases: list[Case] = []
    taken: list[int] = []
    ground.going.what = "restart"
    ground.going.look = lambda: ("publishing", len(cases), 2)
    async with ground.own() as (gateway, target), subscriptions(target, {name: {"topics": [name]}}):
        waiting = (await pile_up(target, name, count, _SIZE)).published
        for how, end in (("killed", gateway.kill), ("ended in peace", gateway.end)):
            ground.going.look = lambda how=how: (how, len(cases), 2)  # type: ignore[misc]  # a default of its own
            target, case = await _come_back(gateway, end, name, count)
            taken.append(int(case.extra.pop("first_position") or 0))
            cases.append(attrs.evolve(case, name=f"{count:,} waiting, {how}"))
        for position in taken:
            waiting.remove(position, position)
        tally = await drain(target, name, waiting)
    counts = Counts(published=count, delivered=tally.received + 2, lost=tally.lost, duplicates=tally.duplicates)
    wrong = "" if tally.complete.is_set() and not tally.duplicates else "not everything came, or some twice"
    return [attrs.evolve(case, counts=counts, wrong=wrong) for case in cases]


async def _come_back(
    gateway: OwnGateway, end: Callable[[], Awaitable[None]], name: str, count: int
) -> tuple[Target, Case]:
    await end()
    began = trio.current_time()
    target = await gateway.start()
    async with trio.open_nursery() as links:
        control = await HttpLink.open(target.control, links)
        data = await HttpLink.open(target.data, links)
        try:
            await _wait_ready(control)
            ready_s = trio.current_time() - began
            seen = await vitals.look(target, control)
            position = await _pull_one(data, name)
            first_s = trio.current_time() - began
        finally:
            control.abort()
            data.abort()
        links.cancel_scope.cancel()
    case = Case(
        name="",
        load=f"a gateway with {count:,} waiting messages of {_SIZE} bytes is started again",
        unit="message",
        units=count,
        elapsed_s=round(ready_s, 6),
        memory=Memory(anon=seen.anon_bytes, file=seen.file_bytes, peak=seen.peak_bytes),
        extra={
            "ready_s": round(ready_s, 3),
            "first_message_s": round(first_s, 3),
            "start_cpu_s": seen.cpu_s,
            "first_position": position,
        },
    )
    return target, case


async def _wait_ready(control: HttpLink) -> None:
    with trio.move_on_after(_READY_S):
        while True:
            status, _ = await control.call("GET", "/readyz")
            if status == 200:
                return
            await trio.sleep(_ASK_S)
    raise LinkLostError(f"not ready within {_READY_S:g} s")


async def _pull_one(link: HttpLink, name: str) -> int:
    """The first message, taken and settled; its position."""

    async def call(verb: str, body: dict[str, Any]) -> Any:
        status, answer = await link.call("POST", f"/v1/subscriptions/{name}/{verb}", orjson.dumps(body))
        if status != 200:
            raise LinkLostError(f"{verb}: {status} {answer.decode(errors='replace')}")
        return orjson.loads(answer)

    pulled = await call("pull", {"max": 1, "wait_ms": _PULL_MS})
    if not pulled["messages"]:
        raise LinkLostError("nothing came after the restart")
    position: int = pulled["messages"][0]["position"]
    await call("settle", {"lease": pulled["lease"], "ack": [[position, position]]})
    return position


SCENARIO: Final = Scenario(
    "restart", "killed, and ended in peace, with a million messages waiting", restart, own_only=True
)
