from __future__ import annotations

from typing import cast

import trio
import trio.testing

from gateway.engine.base import Engine
from gateway.flow.sweep import Sweep


class Swept:
    """An engine that takes a second for each sweep."""

    def __init__(self) -> None:
        self.at: list[int] = []

    async def sweep(self, now: int) -> None:
        self.at.append(now)
        await trio.sleep(1)


async def test_a_sweep_follows_the_one_before_and_is_told_the_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    engine = Swept()
    sweep = Sweep(cast("Engine", engine), 500, lambda: round(trio.current_time() * 1000))
    nursery.start_soon(sweep.run)
    await trio.sleep(4.9)
    assert [after - before for before, after in zip(engine.at, engine.at[1:], strict=False)] == [1500, 1500]
    assert sweep.sweeps == 3
