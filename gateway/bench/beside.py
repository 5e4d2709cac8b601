"""One that publishes now and then while others are at work, from a process of its own: what those cost it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs

from gateway.bench.child import LoadProcess, load_process
from gateway.bench.clients.order import Result
from gateway.bench.link import LinkLostError
from gateway.bench.measuring import fresh, subscriptions
from gateway.bench.plan import Target
from gateway.bench.tally import Latency, Percentiles

RATE_PER_S: Final = 500
_SIZE: Final = 256
_LIMIT_S: Final = 300.0


@attrs.define
class Beside:
    """Under way until `end`; then it can be asked. Times are the load's clock, which all processes share."""

    _child: LoadProcess
    _result: Result = attrs.field(factory=Result)

    async def end(self) -> None:
        """Raises LinkLostError, also where one of its messages was refused, or has not come."""
        self._result = await self._child.end()
        if self._result.refused or self._result.lost:
            raise LinkLostError(f"beside it {self._result.refused} were refused and {self._result.lost} lost")

    def took(self, what: str, since_us: int, until_us: int) -> Percentiles | None:
        """How long `confirm` or `delivery` took for what was due meanwhile; None where nothing was."""
        latency = Latency()
        for at_us, took_us in self._result.timed.get(what, ()):
            if since_us <= at_us < until_us:
                latency.record(took_us)
        return latency.percentiles()


@asynccontextmanager
async def beside(target: Target) -> AsyncIterator[Beside]:
    """Single messages at `RATE_PER_S` over the body, or until it is ended, on a topic and a subscription of its own."""
    name = fresh("beside")
    arguments = {"name": name, "topic": name, "rate_per_s": RATE_PER_S, "size_bytes": _SIZE, "limit_s": _LIMIT_S}
    async with (
        subscriptions(target, {name: {"topics": [name]}}),
        load_process("beside", target.data, arguments) as child,
    ):
        await child.wait_ready()
        await child.begin()
        yield Beside(child)
