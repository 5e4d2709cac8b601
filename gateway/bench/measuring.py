"""A load of a process of its own, measured: subscriptions before it, the gateway before and after it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import attrs
import orjson
import trio

from gateway.bench import vitals
from gateway.bench.cases import what_is_wrong
from gateway.bench.child import LoadProcess, load_process
from gateway.bench.clients.order import Result
from gateway.bench.ground import Ground
from gateway.bench.link import HttpLink, LinkLostError
from gateway.bench.plan import Target
from gateway.bench.record import Case, Counts, Memory
from gateway.bench.tally import Latency, Percentiles
from gateway.bench.vitals import Vitals, growth

WINDOW_MAX: Final = 10_000
_AT_ONCE: Final = 64
_QUIET_S: Final = 0.5
"""What connecting leaves behind is done by then."""
_DELETING_S: Final = 20.0

Settings = Mapping[str, Any]


def fresh(what: str) -> str:
    """A name that nobody has used."""
    return f"bench-{secrets.token_hex(4)}.{what}"


@asynccontextmanager
async def subscriptions(target: Target, wanted: Mapping[str, Settings]) -> AsyncIterator[None]:
    """Subscriptions that are there for the body. Several are made at once: each waits for the disk."""
    waiting = list(wanted.items())

    async def put_some(link: HttpLink) -> None:
        while waiting:
            name, settings = waiting.pop()
            body = orjson.dumps({"window_max": WINDOW_MAX, "dead_letter": "", **settings})
            status, answer = await link.call("PUT", f"/v1/subscriptions/{name}", body)
            if status not in (200, 201):
                raise LinkLostError(f"cannot create a subscription: {status} {answer.decode(errors='replace')}")

    async def delete_some(link: HttpLink) -> None:
        while waiting:
            await link.call("DELETE", f"/v1/subscriptions/{waiting.pop()[0]}")

    async def at_once(work: Any) -> None:
        async with trio.open_nursery() as links:
            opened = [await HttpLink.open(target.control, links) for _ in range(min(_AT_ONCE, 1 + len(waiting) // 8))]
            try:
                async with trio.open_nursery() as working:
                    for link in opened:
                        working.start_soon(work, link)
            finally:
                for link in opened:
                    link.abort()

    try:
        await at_once(put_some)
        yield
    finally:
        if target.own_directory is None:  # ours is deleted as a whole
            waiting = list(wanted.items())
            with trio.CancelScope(shield=True), trio.move_on_after(_DELETING_S):
                await at_once(delete_some)


@attrs.frozen(kw_only=True)
class Measured:
    """A load that was carried out, and the gateway around it."""

    result: Result
    before: Vitals
    after: Vitals
    cpu_s: float | None
    passed_s: float

    def case(self, name: str, load: str, *, unit: str = "message", units: int = 0, duplicates: bool = False) -> Case:
        """`units`: what there was of them, where it is not messages; `duplicates` are all right."""
        result, after = self.result, self.after
        units = units or result.published
        counts = Counts(
            published=result.published,
            refused=result.refused,
            delivered=result.delivered,
            lost=result.lost,
            duplicates=result.duplicates,
            invented=result.invented,
        )
        return Case(
            name=name,
            load=load,
            wrong=what_is_wrong(counts, result.refusal, duplicates_allowed=duplicates),
            unit=unit,
            units=units,
            elapsed_s=round(result.elapsed_s, 6),
            per_s=_ratio(units, result.elapsed_s),
            cpu_us=_ratio(self.cpu_s, units, 1e6),
            server_cpu_share=_ratio(self.cpu_s, self.passed_s),
            load_cpu_share=_ratio(result.cpu_s, self.passed_s),
            latency=percentiles(result),
            memory=Memory(anon=after.anon_bytes, file=after.file_bytes, peak=after.peak_bytes),
            gc_pause_max_ms=self._pause_ms(),
            counts=counts,
            extra=dict(result.extra),
        )

    def _pause_ms(self) -> float | None:
        """The longest since the gateway's start; None where there was none meanwhile."""
        if not growth(self.before, self.after, vitals.COLLECTIONS):
            return None
        return _ratio(self.after.total(vitals.PAUSE_MAX_SECONDS), 1, 1e3)


def _ratio(value: float | None, by: float | None, scale: float = 1.0) -> float | None:
    return None if value is None or not by else round(value * scale / by, 3)


def percentiles(result: Result) -> dict[str, Percentiles]:
    """Of everything that it has timed."""
    found = {}
    for what, counts in result.latency.items():
        latency = Latency()
        for microseconds, count in counts.items():
            latency.record(microseconds, count)
        of_all = latency.percentiles()
        if of_all is not None:
            found[what] = of_all
    return found


async def measure(ground: Ground, target: Target, case: str, load: str, arguments: dict[str, Any]) -> Measured:
    """Carry out a load. Raises LinkLostError."""
    ground.going.what = case
    async with trio.open_nursery() as links, load_process(load, target.data, arguments) as child:
        control = await HttpLink.open(target.control, links)
        try:
            ground.going.look = lambda: ("connecting", 0, 1)
            await child.wait_ready()
            await trio.sleep(_QUIET_S)
            ground.going.look = lambda: ("measuring", child.done, child.total)
            measured = await _measure(target, control, child, ground.watched(target, case))
        finally:
            control.abort()
        links.cancel_scope.cancel()
    return measured


async def _measure(
    target: Target, control: HttpLink, child: LoadProcess, watched: AbstractAsyncContextManager[None]
) -> Measured:
    before = await vitals.look(target, control)
    async with watched:
        began_s = trio.current_time()
        result = await child.carry_out()
        passed_s = trio.current_time() - began_s
        server_s = vitals.cpu_s(target.pid) if target.pid is not None else None
    after = await vitals.look(target, control)
    if server_s is not None:
        after = attrs.evolve(after, cpu_s=server_s)
    cpu_s = None if before.cpu_s is None or after.cpu_s is None else after.cpu_s - before.cpu_s
    return Measured(result=result, before=before, after=after, cpu_s=cpu_s, passed_s=passed_s)
