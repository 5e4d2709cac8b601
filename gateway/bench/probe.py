"""How long the gateway takes to answer when it is asked again and again, by a process that does nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from gateway.bench.link import HttpLink
from gateway.bench.pace import now_us
from gateway.bench.plan import Target

_EVERY_S: Final = 0.005


@attrs.define
class Probe:
    """When it asked, and how long the answer took; in microseconds of the load's clock."""

    answers: list[tuple[int, int]] = attrs.field(factory=list)

    def longest_ms(self, since_us: int) -> float | None:
        """Of the questions since then; None where there were none."""
        took = [took_us for asked_us, took_us in self.answers if asked_us >= since_us]
        return max(took) / 1000 if took else None


@asynccontextmanager
async def probing(target: Target) -> AsyncIterator[Probe]:
    """Ask over the body. The control plane answers in the same run loop: what it waits is a pause of all."""
    probe = Probe()
    async with trio.open_nursery() as nursery:
        link = await HttpLink.open(target.control, nursery)
        nursery.start_soon(_ask, link, probe)
        try:
            yield probe
        finally:
            nursery.cancel_scope.cancel()
    link.abort()  # now: nobody must be found waiting for what is closed


async def _ask(link: HttpLink, probe: Probe) -> None:
    while True:
        asked_us = now_us()
        await link.call("GET", "/livez")
        probe.answers.append((asked_us, now_us() - asked_us))
        await trio.sleep(_EVERY_S)
