from __future__ import annotations

from email.utils import parsedate_to_datetime

import trio
import trio.testing

from gateway.edge.watchdog import PERIOD_S, Watchdog


class Watched:
    """Notes when it was asked; leaves after so many times."""

    def __init__(self, watchdog: Watchdog, times: int = 1000) -> None:
        self.asked: list[float] = []
        self.watchdog = watchdog
        self.times = times
        watchdog.add(self)

    def check(self, now: float) -> None:
        self.asked.append(now)
        if len(self.asked) == self.times:
            self.watchdog.discard(self)


async def test_everything_registered_is_asked_at_every_tick(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    watchdog = Watchdog()
    first, brief = Watched(watchdog), Watched(watchdog, times=2)
    nursery.start_soon(watchdog.run)
    await trio.sleep(10 * PERIOD_S + 0.01)
    assert len(first.asked) == 10
    assert len(brief.asked) == 2
    assert len(watchdog) == 1
    assert [round(now, 3) for now in first.asked] == [round(PERIOD_S * n, 3) for n in range(1, 11)]
    assert watchdog.now == first.asked[-1]


async def test_what_leaves_or_comes_during_a_tick_harms_nothing(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    watchdog = Watchdog(period_s=1)
    many = [Watched(watchdog, times=n % 3 + 1) for n in range(9)]
    came: list[Watched] = []
    watchdog.every_tick(lambda _now: came.append(Watched(watchdog)))
    nursery.start_soon(watchdog.run)
    await trio.sleep(3.5)
    assert [len(one.asked) for one in many] == [1, 2, 3] * 3
    assert len(watchdog) == 3
    watchdog.discard(many[0])  # twice is once


async def test_calls_of_every_tick_get_the_time(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    watchdog = Watchdog(period_s=1)
    told: list[float] = []
    watchdog.every_tick(told.append)
    nursery.start_soon(watchdog.run)
    await trio.sleep(2.5)
    assert told == [1, 2]


async def test_the_time_is_right_before_the_first_tick(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """A store that takes long to open must not make deadlines of the first connections lie in the past."""
    watchdog = Watchdog(period_s=1)
    await trio.sleep(100)
    nursery.start_soon(watchdog.run)
    await trio.testing.wait_all_tasks_blocked()
    assert watchdog.now == trio.current_time()


async def test_the_date_is_that_of_http() -> None:
    date = Watchdog().date.decode()
    assert date.endswith(" GMT")
    parsedate_to_datetime(date)


async def test_others_run_between_some_of_many(autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    watchdog = Watchdog(period_s=1)
    begun = trio.Event()

    class First(Watched):
        def check(self, now: float) -> None:
            super().check(now)
            begun.set()

    many = [First(watchdog), *(Watched(watchdog) for _ in range(1200))]
    nursery.start_soon(watchdog.run)
    await begun.wait()
    assert 0 < sum(len(one.asked) for one in many) < len(many)
    many[-1].watchdog.discard(many[-1])
    await trio.sleep(0.5)
    assert [len(one.asked) for one in many] == [1] * 1200 + [0]
