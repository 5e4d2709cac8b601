"""What the operating system and the interpreter say of this process."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

_PROCESS: Final = ProcessCollector(namespace="gateway", registry=None)


class CollectorPauses:
    """How long the garbage collector has held the process; two calls a collection."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds = 0.0
        self.seconds_max = 0.0
        self._began = 0.0

    def forget(self) -> None:
        """Nobody has waited for what has been so far: the start is over."""
        self.seconds = self.seconds_max = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = self._clock()
            return
        seconds = self._clock() - self._began
        self.seconds += seconds
        self.seconds_max = max(self.seconds_max, seconds)


@cache
def collector_pauses() -> CollectorPauses:
    """The one of this process; measures from the first call on."""
    pauses = CollectorPauses()
    gc.callbacks.append(pauses)
    return pauses


def process_metrics() -> list[Metric]:
    """CPU, memory and descriptors. Blocks: the kernel lists every open descriptor."""
    return list(_PROCESS.collect())


def collector_metrics(pauses: CollectorPauses) -> Iterator[Metric]:
    """The garbage collector."""
    collections = CounterMetricFamily("gateway_gc_collections", "Runs of the garbage collector.", labels=["generation"])
    for generation, statistics in enumerate(gc.get_stats()):
        collections.add_metric([str(generation)], statistics["collections"])
    yield collections
    yield CounterMetricFamily(
        "gateway_gc_pause_seconds", "Time the garbage collector held the process.", pauses.seconds
    )
    yield GaugeMetricFamily("gateway_gc_pause_max_seconds", "The longest it held the process.", pauses.seconds_max)
    yield GaugeMetricFamily("gateway_allocated_blocks", "Memory blocks of the interpreter.", sys.getallocatedblocks())
