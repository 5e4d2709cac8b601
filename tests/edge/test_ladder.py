from __future__ import annotations

import pytest

from gateway.config import Flow
from gateway.edge.ladder import Ladder, State

LADDER = Ladder(Flow(throttle_after_s=1, pause_after_s=10, close_after_s=60))


@pytest.mark.parametrize(
    ("overdue_s", "narrow", "state"),
    [
        (0, False, State.HEALTHY),
        (0, True, State.THROTTLED),
        (0.99, False, State.HEALTHY),
        (1, False, State.THROTTLED),
        (9.99, True, State.THROTTLED),
        (10, False, State.PAUSED),
        (59.99, True, State.PAUSED),
        (60, False, State.CLOSED),
        (1e9, True, State.CLOSED),
    ],
)
def test_the_table(overdue_s: float, narrow: bool, state: State) -> None:
    assert LADDER.state(overdue_s, narrow=narrow) is state


def test_steps_of_one_time_are_one_step() -> None:
    at_once = Ladder(Flow(throttle_after_s=5, pause_after_s=5, close_after_s=5))
    assert at_once.state(4.9, narrow=False) is State.HEALTHY
    assert at_once.state(5, narrow=False) is State.CLOSED
