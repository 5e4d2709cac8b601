"""Between two steps others have the run loop for as long as the step had it, if they need it."""

from __future__ import annotations

from time import thread_time

import trio

from gateway.engine.giveway import GiveWay

STEP_S = 0.02
PASS_S = 0.002


def work(seconds: float) -> None:
    """Use so much time of the processor."""
    until_s = thread_time() + seconds
    while thread_time() < until_s:
        pass


async def test_others_run_for_as_long_as_the_step_did(nursery: trio.Nursery) -> None:
    passes = 0

    async def other() -> None:
        nonlocal passes
        while True:
            work(PASS_S)
            passes += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    await trio.lowlevel.checkpoint()
    give_way, passes = GiveWay(), 0
    for _ in range(2):
        work(STEP_S)
        await give_way()
    assert 2 * STEP_S / PASS_S - 2 <= passes <= 2 * STEP_S / PASS_S + 4


async def test_a_step_is_followed_by_the_next_where_nobody_needs_the_time(nursery: trio.Nursery) -> None:
    passes = 0

    async def other() -> None:
        nonlocal passes
        while True:
            passes += 1
            await trio.lowlevel.checkpoint()

    nursery.start_soon(other)
    await trio.lowlevel.checkpoint()
    give_way, passes = GiveWay(), 0
    work(STEP_S)
    await give_way()
    assert passes <= 3
