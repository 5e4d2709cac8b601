"""The bounded channel in front of a stage, and the byte budget of everything under way.

A ring is a trio memory channel that counts. Its items are batches, so a task switch, which costs as much as the work on
a message, is paid once a batch; and a stage that wakes takes all that waits before it sleeps again. A stage that need
not wait names its work in `at_once`: while its task is at rest, whoever brings an item does that work there and then
and the switch is not paid at all. Behind an item that waits, all wait: the order is the same either way.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Final, Generic, Protocol, TypeVar

import attrs
import trio

from gateway.errors import GatewayError
from gateway.model import Batch

T = TypeVar("T")
Wait = Callable[[], Awaitable[None]]
"""What is left to do where something has to wait: whoever can wait calls it, and awaits what it returns."""
_IN_A_ROW_MAX: Final = 8
"""Items a stage takes before others run: a task switch each would cost single publishes more than their work."""
SIZES: Final = 11
"""Batch sizes are counted by powers of two: up to 1, 2, 4 ... 1024 messages, and more."""


@attrs.define
class RingStatistics:
    """Counters since the start; `depth` is now."""

    name: str
    items_max: int
    depth: int = 0
    peak: int = 0
    """The most items that ever waited."""
    items: int = 0
    messages: int = 0
    waits: int = 0
    refused: int = 0
    busy_seconds: float = 0.0
    sizes: list[int] = attrs.field(factory=lambda: [0] * (SIZES + 1))
    """Items with up to 2^n messages, and the rest."""


class Sink(Protocol):
    """Where a batch goes next: a ring, or something that finds one."""

    async def put(self, item: Batch, messages: int = 1) -> None:
        """Hand it on; waits while there is no place."""


class Ring(Generic[T]):
    """A bounded channel for one receiving stage and any number of senders."""

    def __init__(self, name: str, items_max: int) -> None:
        self._send, self._receive = trio.open_memory_channel[T](items_max)
        self._statistics = RingStatistics(name, items_max)
        self.at_once: Callable[[T], bool] | None = None
        """The stage's work on one item; False, and nothing done, where it would have to wait."""
        self._in_a_row = 0
        self._taken = 0
        self.is_idle = False
        """The stage's task waits, and nothing waits for it: what is done now comes behind all that came."""
        self._blocked = 0  # senders that wait for a place

    def takes(self) -> bool:
        """Whether `put_nowait` has a place."""
        return not self._blocked and self._statistics.items - self._taken < self._statistics.items_max

    def _work_at_once(self, item: T, messages: int) -> bool:
        """Have the work done here, where that can be."""
        work = self.at_once
        if work is None or not self.is_idle:
            return False
        self.is_idle = False  # what the work itself brings goes behind it
        done = False
        try:
            done = work(item)
        finally:
            self.is_idle = True
        if done:
            self._taken += 1
            self._note_put(messages)
        return done

    def count_done(self, seconds: float) -> None:
        """An item was worked on without coming here, while this `is_idle`."""
        statistics = self._statistics
        self._taken += 1
        statistics.items += 1
        statistics.messages += 1
        statistics.sizes[0] += 1
        statistics.busy_seconds += seconds

    def _note_put(self, messages: int) -> None:
        statistics = self._statistics
        statistics.items += 1
        statistics.messages += messages
        statistics.sizes[min((messages - 1).bit_length(), SIZES)] += 1
        waiting = statistics.items - self._taken
        if waiting > statistics.peak:
            statistics.peak = waiting

    def offer(self, item: T, messages: int = 1) -> Wait | None:
        """Add `item` now; or, where the ring is full, say what to wait for: it has not been added before."""
        try:
            self.put_nowait(item, messages)
        except trio.WouldBlock:
            return partial(self.put, item, messages)
        return None

    async def put(self, item: T, messages: int = 1) -> None:
        """Add `item`, of so many messages; waits while the ring is full."""
        try:
            self.put_nowait(item, messages)
        except trio.WouldBlock:
            self._statistics.waits += 1
            self._blocked += 1
            try:
                await self._send.send(item)
            finally:
                self._blocked -= 1
            self._note_put(messages)

    def put_nowait(self, item: T, messages: int = 1) -> None:
        """Add `item`; trio.WouldBlock where the ring is full."""
        if self.is_idle:
            if self._work_at_once(item, messages):
                return
            self.is_idle = False
        self._send.send_nowait(item)
        self._note_put(messages)

    async def work(self, stage: Callable[[T], None]) -> None:
        """Call `stage`, which never has to wait, with each item, forever."""
        receive, statistics = self._receive, self._statistics

        def at_once(item: T) -> bool:
            began = perf_counter()
            stage(item)
            statistics.busy_seconds += perf_counter() - began
            return True

        self.at_once = at_once
        while True:
            item = await self._wait()
            began = perf_counter()
            self._taken += 1
            stage(item)
            for _ in range(statistics.items_max):  # then let others run
                try:
                    item = receive.receive_nowait()
                except trio.WouldBlock:
                    break
                self._taken += 1
                stage(item)
            statistics.busy_seconds += perf_counter() - began

    async def get(self) -> T:
        """The next item; for stages that have to wait while they work."""
        if self._in_a_row < _IN_A_ROW_MAX:
            try:
                item = self._receive.receive_nowait()
            except trio.WouldBlock:
                pass
            else:
                self._in_a_row += 1
                self._taken += 1
                return item
        self._in_a_row = 0
        item = await self._wait()  # lets others run
        self._taken += 1
        return item

    async def _wait(self) -> T:
        try:
            self.is_idle = self._statistics.items == self._taken and not self._blocked
            return await self._receive.receive()
        finally:
            self.is_idle = False

    def get_nowait(self) -> T | None:
        """The next item; None where nothing waits."""
        try:
            item = self._receive.receive_nowait()
        except trio.WouldBlock:
            return None
        self._taken += 1
        return item

    def count_refused(self, messages: int) -> None:
        self._statistics.refused += messages

    def count_busy(self, seconds: float) -> None:
        self._statistics.busy_seconds += seconds

    def statistics(self) -> RingStatistics:
        depth = self._receive.statistics().current_buffer_used
        return attrs.evolve(self._statistics, depth=depth, sizes=list(self._statistics.sizes))


class Budget:
    """Bytes of publishes that may be under way in all stages together. A waiting producer is a paused socket."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0
        self.waits = 0
        self._freed: trio.Event | None = None  # made where somebody waits

    def take_now(self, size: int) -> bool:
        """Take `size` bytes, where there are so many."""
        if self.used + size > self.bytes_max and self.used:
            return False
        self.used += size
        return True

    async def take(self, size: int, wait_s: float) -> None:
        """Take `size` bytes; waits up to `wait_s` for them, then GatewayError `overloaded`."""
        if self.take_now(size):
            return
        self.waits += 1
        taken = False
        with trio.move_on_after(wait_s):
            while not taken:
                await self._wait()
                taken = self.take_now(size)
        if not taken and not self.take_now(size):
            raise overloaded(wait_s)

    async def wait_empty(self) -> None:
        """Wait until nothing is under way."""
        while self.used:
            await self._wait()

    def give(self, size: int) -> None:
        self.used -= size
        if self._freed is not None:
            self._freed.set()
            self._freed = None

    async def _wait(self) -> None:
        if self._freed is None:
            self._freed = trio.Event()
        await self._freed.wait()


def overloaded(waited_s: float) -> GatewayError:
    """No place within the time a producer may be kept waiting."""
    return GatewayError(
        "overloaded",
        f"the gateway had no room for this within {waited_s:g} s; publish slower, or try again",
        retry_after_s=max(1, math.ceil(waited_s)),
    )
