from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from gateway.engine.clock import Clock


class World:
    """Two clocks: one that an administrator may set, one that only goes on."""

    def __init__(self, date: float = 1_795_326_701.0) -> None:
        self.date = date
        self.monotonic = 5000.0
        self.clock = Clock(lambda: self.date, lambda: self.monotonic)

    def go_on(self, seconds: float) -> None:
        self.date += seconds
        self.monotonic += seconds


def test_it_begins_with_the_date_and_goes_on_with_the_run_loop() -> None:
    world = World()
    assert world.clock() == 1_795_326_701_000
    world.go_on(1.5)
    assert world.clock() == 1_795_326_702_500


def test_setting_the_date_back_or_forth_moves_nothing_at_once() -> None:
    for jump in (-86_400, 86_400):
        world = World()
        world.date += jump
        world.clock.steer()
        assert world.clock() == 1_795_326_701_000


def test_a_correction_comes_gently_and_completely() -> None:
    for wrong, ticks in ((0.5, 500), (-0.5, 500)):
        world = World()
        world.date += wrong
        for tick in range(ticks + 1):
            assert abs(world.date * 1000 - world.clock()) <= 501 - tick + 1
            world.go_on(0.1)
            world.clock.steer()
        assert abs(world.date * 1000 - world.clock()) <= 1


def test_a_correction_is_a_hundredth_of_the_time_that_passed() -> None:
    world = World()
    world.date += 3600
    world.go_on(10)
    world.clock.steer()
    assert world.clock() == 1_795_326_701_000 + 10_000 + 100
    world.clock.steer()
    assert world.clock() == 1_795_326_701_000 + 10_000 + 100


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(-100_000, 100_000), st.booleans()), max_size=50))
def test_it_never_runs_backwards_whatever_is_done_to_the_date(steps: list[tuple[float, float, bool]]) -> None:
    world = World()
    shown = world.clock()
    for passed, jump, steers in steps:
        world.go_on(passed)
        world.date += jump
        if steers:
            world.clock.steer()
        assert world.clock() >= shown
        shown = world.clock()


async def test_in_a_run_loop_with_a_mock_clock_it_is_the_test_s_time(mock_clock: MockClock) -> None:
    clock = Clock()
    began = clock()
    mock_clock.jump(12.5)
    assert clock() == began + 12_500
