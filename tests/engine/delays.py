"""A million delayed messages: what memory they take, and how long a tick is. `python -m tests.engine.delays 1000000`.

A real engine on a real store, its clock a number. The messages are spread over thirty days; a consumer is attached, so
the front passes over all of them. Then the clock runs until everything was delivered: by hours, and, for the last day,
by ticks. Anonymous memory is told apart from mapped files: the pages of those are the page cache's.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import trio

from gateway.model import Message
from gateway.node import tune_interpreter
from tests.engine.driving import BEGAN_MS, Driven, driven

_BATCH: Final = 1000
_SPREAD_MS: Final = 30 * 86_400_000
_DATA: Final = msgspec.Raw(b'"' + b"." * 254 + b'"')


@attrs.define
class Seen:
    """Memory in KiB, processor time in ms."""

    messages: int
    began: dict[str, int] = attrs.field(factory=dict)
    filled: dict[str, int] = attrs.field(factory=dict)
    passed_over: dict[str, int] = attrs.field(factory=dict)
    restarted: dict[str, int] = attrs.field(factory=dict)
    restart_ms: float = 0.0
    statistics_ms: float = 0.0
    idle_tick_ms: float = 0.0
    longest_tick_ms: float = 0.0
    burst_cpu_us: float = 0.0

    def __str__(self) -> str:
        def grown(after: dict[str, int]) -> str:
            return ", ".join(f"{name} +{(after[name] - self.began[name]) / 1024:.1f} MiB" for name in after)

        return (
            f"{self.messages} delayed: filled {grown(self.filled)}; passed over {grown(self.passed_over)}; "
            f"after a restart {grown(self.restarted)}; "
            f"a new process opens them in {self.restart_ms:.0f} ms; statistics {self.statistics_ms:.2f} ms; "
            f"a tick without anything due {self.idle_tick_ms:.3f} ms, the longest step {self.longest_tick_ms:.1f} ms; "
            f"all due at once {self.burst_cpu_us:.1f} us each"
        )


def memory() -> dict[str, int]:
    """RssAnon and RssFile of this process, in KiB."""
    status = Path("/proc/self/status").read_text()
    return {name: int(size) for name, size in re.findall(r"(RssAnon|RssFile):\s+(\d+)", status)}


async def fill(gateway: Driven, messages: int, seen: Seen) -> None:
    await gateway.subscribe(window_max=1_000_000, retention_s=7 * 86400)
    await gateway.publish_many(_BATCH)
    await gateway.consume()
    seen.began = memory()
    delays = random.Random(7)
    for _ in range(messages // _BATCH):
        await gateway.publish(
            *(Message("trade.paid", data=_DATA, delay_ms=delays.randrange(1, _SPREAD_MS)) for _ in range(_BATCH))
        )
    seen.filled = memory()


def ticked(gateway: Driven, now: int) -> float:
    """The longest step of a tick at `now`, in ms of the processor."""
    gateway.now = now
    longest, more = 0.0, True
    while more:
        began = time.thread_time()
        more = gateway.engine.tick(now)
        longest = max(longest, time.thread_time() - began)
    return longest * 1000


async def look(directory: Path, messages: int, **settings: Any) -> Seen:
    seen = Seen(messages)
    async with driven(directory, crash=True, **settings) as gateway:
        await fill(gateway, messages, seen)
        assert await gateway.consume() == []  # the front passes over all of them
        seen.passed_over = memory()
        began = time.thread_time()
        assert gateway.statistics().delayed == messages
        seen.statistics_ms = (time.thread_time() - began) * 1000
        seen.idle_tick_ms = min(ticked(gateway, gateway.now + 1) for _ in range(5))
    began = time.process_time()
    async with driven(directory, now=BEGAN_MS + 1000, **settings) as gateway:
        seen.restart_ms = (time.process_time() - began) * 1000
        assert await gateway.consume() == []
        seen.restarted = memory()
        received = 0
        for _ in range(24):  # an hour each
            seen.longest_tick_ms = max(seen.longest_tick_ms, ticked(gateway, gateway.now + 3_600_000))
            received += len(await gateway.consume())
        began = time.thread_time()
        seen.longest_tick_ms = max(seen.longest_tick_ms, ticked(gateway, BEGAN_MS + _SPREAD_MS + 1000))
        left = messages - received - gateway.statistics().delayed
        seen.burst_cpu_us = (time.thread_time() - began) * 1e6 / max(left, 1)
        received += len(await gateway.consume())
        shown = gateway.statistics()
        assert (received, shown.delayed, shown.waiting, shown.in_flight) == (messages, 0, 0, 0)
    return seen


def main() -> None:
    tune_interpreter()
    with tempfile.TemporaryDirectory() as directory:
        print(trio.run(partial(look, Path(directory), int(sys.argv[1]), cache_bytes=0)))


if __name__ == "__main__":
    main()
