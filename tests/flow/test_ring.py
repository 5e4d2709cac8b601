from __future__ import annotations

import pytest
import trio
import trio.testing

from gateway.errors import GatewayError
from gateway.flow.ring import SIZES, Budget, Ring, RingStatistics, overloaded

Clock = trio.testing.MockClock


def counters(ring: Ring[str]) -> dict[str, int]:
    found = ring.statistics()
    return {name: getattr(found, name) for name in ("depth", "items", "messages", "waits", "refused")}


# ----------------------------------------------------------------------------------------------------------- ring


async def test_items_come_out_in_the_order_they_went_in() -> None:
    ring: Ring[int] = Ring("admit", 10)
    for number in range(10):
        ring.put_nowait(number)
    assert [await ring.get() for _ in range(10)] == list(range(10))
    assert ring.get_nowait() is None


async def test_a_full_ring_takes_no_more() -> None:
    ring: Ring[str] = Ring("admit", 2)
    ring.put_nowait("a", 10)
    ring.put_nowait("b", 20)
    with pytest.raises(trio.WouldBlock):
        ring.put_nowait("c", 30)
    sizes = ring.statistics().sizes
    assert ring.statistics() == RingStatistics("admit", 2, depth=2, peak=2, items=2, messages=30, sizes=sizes)


async def test_an_offer_that_finds_no_place_says_what_to_wait_for(nursery: trio.Nursery) -> None:
    ring: Ring[str] = Ring("admit", 1)
    assert ring.offer("a") is None
    wait = ring.offer("b")
    assert wait is not None
    assert ring.statistics().items == 1  # it is not in before somebody waits
    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert [await ring.get(), await ring.get()] == ["a", "b"]


async def test_a_put_waits_until_there_is_a_place(nursery: trio.Nursery) -> None:
    ring: Ring[str] = Ring("admit", 1)
    await ring.put("a", 5)
    nursery.start_soon(ring.put, "b", 7)
    await trio.testing.wait_all_tasks_blocked()
    assert counters(ring) == {"depth": 1, "items": 1, "messages": 5, "waits": 1, "refused": 0}
    assert await ring.get() == "a"
    assert await ring.get() == "b"
    await trio.testing.wait_all_tasks_blocked()
    assert counters(ring) == {"depth": 0, "items": 2, "messages": 12, "waits": 1, "refused": 0}


async def test_a_put_that_is_given_up_is_not_counted(autojump_clock: Clock) -> None:
    ring: Ring[str] = Ring("admit", 1)
    await ring.put("a")
    with trio.move_on_after(1):
        await ring.put("b", 100)
    assert counters(ring) == {"depth": 1, "items": 1, "messages": 1, "waits": 1, "refused": 0}
    assert await ring.get() == "a"
    assert ring.get_nowait() is None


async def test_a_stage_that_takes_all_that_waits_still_lets_others_run(nursery: trio.Nursery) -> None:
    ring: Ring[int] = Ring("route", 100)
    for number in range(100):
        ring.put_nowait(number)
    seen: list[int] = []
    longest = 0

    async def stage() -> None:
        while True:
            seen.append(await ring.get())

    nursery.start_soon(stage)
    while len(seen) < 100:
        before = len(seen)
        await trio.lowlevel.checkpoint()
        longest = max(longest, len(seen) - before)
    assert seen == list(range(100))
    assert longest < 20


async def test_work_is_done_with_all_that_waits_before_it_sleeps(nursery: trio.Nursery) -> None:
    ring: Ring[int] = Ring("settle", 8)
    done: list[int] = []
    nursery.start_soon(ring.work, done.append)
    for number in range(50):
        await ring.put(number)
    await trio.testing.wait_all_tasks_blocked()
    assert done == list(range(50))
    assert ring.statistics().busy_seconds > 0


async def test_what_a_stage_counts_is_shown() -> None:
    ring: Ring[str] = Ring("admit", 1)
    ring.count_refused(3)
    ring.count_busy(0.5)
    ring.count_busy(0.25)
    shown = ring.statistics()
    assert (shown.refused, shown.busy_seconds) == (3, 0.75)
    ring.count_refused(1)
    assert shown.refused == 3  # what was shown does not change


# --------------------------------------------------------------------------------------------------------- budget


async def test_a_budget_is_taken_and_given_back() -> None:
    budget = Budget(100)
    await budget.take(60, 0)
    await budget.take(40, 0)
    assert (budget.used, budget.waits) == (100, 0)
    budget.give(60)
    budget.give(40)
    assert budget.used == 0


async def test_what_does_not_fit_is_refused_once_its_time_is_over(autojump_clock: Clock) -> None:
    budget = Budget(100)
    await budget.take(60, 0)
    began = trio.current_time()
    with pytest.raises(GatewayError, match="no room for this within 5 s") as caught:
        await budget.take(41, 5)
    assert trio.current_time() - began == pytest.approx(5)
    assert (caught.value.code, caught.value.retry_after_s) == ("overloaded", 5)
    assert (budget.used, budget.waits) == (60, 1)


async def test_what_waits_is_let_in_as_soon_as_it_fits(autojump_clock: Clock, nursery: trio.Nursery) -> None:
    budget = Budget(100)
    await budget.take(60, 0)
    await budget.take(30, 0)
    taken: list[float] = []

    async def take() -> None:
        await budget.take(50, 100)
        taken.append(trio.current_time())

    nursery.start_soon(take)
    await trio.sleep(1)
    budget.give(30)
    await trio.sleep(1)
    assert taken == []
    budget.give(60)
    await trio.sleep(1)
    assert taken == [2]
    assert budget.used == 50


async def test_the_largest_call_is_let_in_where_nothing_else_is_under_way() -> None:
    budget = Budget(100)
    await budget.take(1000, 0)
    assert budget.used == 1000
    with pytest.raises(GatewayError, match="no room"):
        await budget.take(1, 0)
    budget.give(1000)
    await budget.take(1, 0)


async def test_many_that_wait_never_take_more_than_there_is(autojump_clock: Clock) -> None:
    budget = Budget(100)
    highest = 0

    async def use(size: int) -> None:
        nonlocal highest
        await budget.take(size, 1000)
        highest = max(highest, budget.used)
        await trio.sleep(1)
        budget.give(size)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(use, number % 40 + 1)
    assert highest <= 100
    assert budget.used == 0


async def test_waiting_until_nothing_is_under_way(nursery: trio.Nursery) -> None:
    budget = Budget(100)
    await budget.wait_empty()
    await budget.take(1, 0)
    await budget.take(2, 0)
    empty = trio.Event()

    async def wait() -> None:
        await budget.wait_empty()
        empty.set()

    nursery.start_soon(wait)
    for size in (1, 2):
        await trio.testing.wait_all_tasks_blocked()
        assert not empty.is_set()
        budget.give(size)
    with trio.fail_after(1):
        await empty.wait()


@pytest.mark.parametrize(("waited_s", "retry_after_s"), [(0, 1), (0.2, 1), (1.5, 2), (5, 5)])
def test_an_overload_says_when_to_come_back(waited_s: float, retry_after_s: int) -> None:
    error = overloaded(waited_s)
    assert (error.code, error.kind.temporary, error.retry_after_s) == ("overloaded", True, retry_after_s)


async def test_the_peak_is_the_most_that_ever_waited() -> None:
    ring: Ring[int] = Ring("stage", 10)
    for wave in (3, 5, 2):
        for item in range(wave):
            ring.put_nowait(item)
        for item in range(wave):
            assert await ring.get() == item
    assert (ring.statistics().peak, ring.statistics().depth) == (5, 0)


async def test_batches_are_counted_by_their_size_in_powers_of_two() -> None:
    ring: Ring[int] = Ring("stage", 100)
    for messages in (1, 2, 3, 4, 5, 500, 1000, 1024, 1025, 100_000):
        ring.put_nowait(0, messages)
    expected = [0] * (SIZES + 1)
    expected[0], expected[1], expected[2], expected[3] = 1, 1, 2, 1  # 1; 2; 3 and 4; 5
    expected[9], expected[10], expected[11] = 1, 2, 2  # up to 512, up to 1024, and more
    assert ring.statistics().sizes == expected


# ------------------------------------------------------------------------------------------------- work at once


class Stage:
    """Notes what it is given. While `can` is False it would have to wait."""

    def __init__(self, ring: Ring[int]) -> None:
        self.ring = ring
        self.at_once: list[int] = []
        self.taken: list[int] = []
        self.can = True
        ring.at_once = self.work

    def work(self, item: int) -> bool:
        if self.can:
            self.at_once.append(item)
        return self.can

    async def run(self) -> None:
        while True:
            self.taken.append(await self.ring.get())


@pytest.fixture
def stage() -> Stage:
    return Stage(Ring("admit", 3))


async def test_a_stage_at_rest_works_where_the_item_comes_from(stage: Stage, nursery: trio.Nursery) -> None:
    nursery.start_soon(stage.run)
    await trio.testing.wait_all_tasks_blocked()
    stage.ring.put_nowait(1, 10)
    await stage.ring.put(2, 5)
    assert (stage.at_once, stage.taken) == ([1, 2], [])
    assert counters_of(stage.ring) == {"depth": 0, "items": 2, "messages": 15, "waits": 0, "refused": 0}


def counters_of(ring: Ring[int]) -> dict[str, int]:
    found = ring.statistics()
    return {name: getattr(found, name) for name in ("depth", "items", "messages", "waits", "refused")}


async def test_behind_an_item_that_waits_all_wait(stage: Stage, nursery: trio.Nursery) -> None:
    nursery.start_soon(stage.run)
    await trio.testing.wait_all_tasks_blocked()
    stage.can = False
    stage.ring.put_nowait(1)
    stage.can = True
    stage.ring.put_nowait(2)
    assert stage.at_once == []
    await trio.testing.wait_all_tasks_blocked()
    assert stage.taken == [1, 2]
    stage.ring.put_nowait(3)
    assert stage.at_once == [3]


async def test_nothing_is_done_at_once_for_a_stage_that_has_no_task_yet_or_no_more(stage: Stage) -> None:
    stage.ring.put_nowait(1)
    assert stage.at_once == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    stage.ring.put_nowait(2)
    assert (stage.taken, stage.at_once) == ([1], [])


async def test_what_the_work_itself_brings_goes_behind_it(stage: Stage, nursery: trio.Nursery) -> None:
    nursery.start_soon(stage.run)
    await trio.testing.wait_all_tasks_blocked()

    def work(item: int) -> bool:
        if item == 1:
            stage.ring.put_nowait(2)
        return stage.work(item)

    stage.ring.at_once = work
    stage.ring.put_nowait(1)
    await trio.testing.wait_all_tasks_blocked()
    assert (stage.at_once, stage.taken) == ([1], [2])


async def test_a_ring_takes_nothing_where_senders_wait(stage: Stage, nursery: trio.Nursery) -> None:
    for item in range(3):
        assert stage.ring.takes()
        stage.ring.put_nowait(item)
    assert not stage.ring.takes()
    nursery.start_soon(stage.ring.put, 3)
    await trio.testing.wait_all_tasks_blocked()
    assert stage.ring.get_nowait() == 0  # the one that waited has its place
    assert not stage.ring.takes()
