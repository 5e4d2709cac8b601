"""A timer that is a descriptor."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest

from gateway.store.timer import Timer


@pytest.fixture
def timer() -> Iterator[Timer]:
    timer = Timer()
    yield timer
    timer.close()


def rings(timer: Timer, wait_s: float) -> bool:
    return bool(select.select([timer.descriptor], [], [], wait_s)[0])


def test_it_can_be_read_once_its_time_has_come_and_until_somebody_has_looked(timer: Timer) -> None:
    assert not rings(timer, 0)
    began = time.monotonic()
    timer.start(0.02)
    assert rings(timer, 5)
    assert time.monotonic() - began >= 0.02
    assert timer.is_set
    timer.look()
    assert (timer.is_set, rings(timer, 0)) == (False, False)


def test_a_look_before_its_time_changes_nothing(timer: Timer) -> None:
    timer.start(0.02)
    timer.look()
    assert timer.is_set
    assert rings(timer, 5)


def test_it_may_be_stopped_and_started_again(timer: Timer) -> None:
    timer.start(0.001)
    timer.stop()
    assert not timer.is_set
    assert not rings(timer, 0.01)
    timer.start(1e-12)
    assert rings(timer, 5)


def test_a_start_replaces_the_one_before(timer: Timer) -> None:
    timer.start(3600.5)
    timer.start(0.001)
    assert rings(timer, 5)
