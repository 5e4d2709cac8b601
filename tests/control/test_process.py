from __future__ import annotations

import gc
import os

import httpx

from gateway.control.process import CollectorPauses, collector_pauses
from tests.control.test_metrics import scrape


def test_pauses_are_summed_and_the_longest_is_kept() -> None:
    times = iter([10.0, 10.5, 20.0, 22.0, 30.0, 30.25])
    pauses = CollectorPauses(lambda: next(times))
    for _ in range(3):
        pauses("start", {})
        pauses("stop", {})
    assert (pauses.seconds, pauses.seconds_max) == (2.75, 2.0)


def test_a_process_measures_its_pauses_once() -> None:
    pauses = collector_pauses()
    assert collector_pauses() is pauses
    assert gc.callbacks.count(pauses) == 1
    before = pauses.seconds
    gc.collect()
    assert pauses.seconds > before


async def test_the_process_is_shown(control: httpx.AsyncClient) -> None:
    found = await scrape(control)
    assert found["gateway_process_cpu_seconds_total"][()] > 0
    assert found["gateway_process_resident_memory_bytes"][()] > 1e6
    assert 3 < found["gateway_process_open_fds"][()] <= len(os.listdir("/proc/self/fd")) + 10
    assert found["gateway_gc_collections_total"].keys() == {("0",), ("1",), ("2",)}
    assert found["gateway_gc_pause_seconds_total"][()] >= found["gateway_gc_pause_max_seconds"][()]
    assert found["gateway_tasks"][()] > 5
    assert found["gateway_allocated_blocks"][()] > 1e4
