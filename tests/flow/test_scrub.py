from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import trio
import trio.testing

from gateway.config import Store
from gateway.engine.base import Engine
from gateway.flow.scrub import Scrub

MIB = 1024 * 1024
HOUR_S = 3600


class Sealed:
    """An engine with so many bytes in sealed segments; `read` says when how many were read."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.read: list[tuple[float, int]] = []

    def statistics(self) -> SimpleNamespace:
        return SimpleNamespace(sealed_bytes=self.size)

    async def scrub(self, size: int) -> int:
        self.read.append((trio.current_time(), size))
        return size


async def scrubbed(size: int, hours: float, **settings: float) -> Sealed:
    engine = Sealed(size)
    with trio.move_on_after(hours * HOUR_S + 1):
        await Scrub(cast("Engine", engine), Store(**settings)).run()  # type: ignore[arg-type]
    return engine


@pytest.mark.parametrize("size", [100 * 1024, 100 * MIB, 5000 * MIB])
async def test_all_that_is_sealed_is_read_once_in_the_interval(
    autojump_clock: trio.testing.MockClock, size: int
) -> None:
    engine = await scrubbed(size, 24, scrub_interval_s=24 * HOUR_S)
    assert sum(read for _, read in engine.read) == pytest.approx(size, rel=0.02)


async def test_it_is_read_evenly(autojump_clock: trio.testing.MockClock) -> None:
    engine = await scrubbed(240 * MIB, 24, scrub_interval_s=24 * HOUR_S)
    first = sum(read for at, read in engine.read if at - engine.read[0][0] < 12 * HOUR_S)
    assert first == pytest.approx(120 * MIB, abs=2 * MIB)


async def test_the_bytes_of_a_second_are_bounded_whatever_the_interval(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = await scrubbed(5000 * MIB, 0.1, scrub_interval_s=60, scrub_bytes_per_s=MIB)
    assert 100 * MIB < sum(read for _, read in engine.read) <= 360 * MIB
    gaps = [after - before for (before, _), (after, _) in zip(engine.read, engine.read[1:], strict=False)]
    assert min(gaps) >= 0.99


async def test_nothing_is_read_where_nothing_is_sealed(autojump_clock: trio.testing.MockClock) -> None:
    assert (await scrubbed(0, 48)).read == []
