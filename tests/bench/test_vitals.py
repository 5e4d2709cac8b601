import os
import time

import pytest

from gateway.bench.link import LinkLostError
from gateway.bench.vitals import Vitals, cpu_s, filesystem, growth, status_bytes


def vitals(**metrics: float) -> Vitals:
    return Vitals(None, None, None, None, None, dict(metrics))


def test_the_cpu_time_of_a_process_grows_with_its_work() -> None:
    before, began_s = cpu_s(os.getpid()), time.process_time()
    while time.process_time() - began_s < 0.05:
        pass
    assert 0.03 <= cpu_s(os.getpid()) - before < 5


def test_a_process_has_memory() -> None:
    memory = status_bytes(os.getpid())
    assert 2**20 < memory["RssAnon"] < memory["VmRSS"] <= memory["VmHWM"] < 2**40


def test_a_process_that_is_not_there_is_named() -> None:
    with pytest.raises(LinkLostError, match="4194999"):
        cpu_s(4194999)  # above the largest number there is (proc(5), pid_max)


def test_a_total_is_the_sum_over_labels() -> None:
    shown = Vitals(
        None,
        None,
        None,
        None,
        None,
        {'runs_total{generation="0"}': 3.0, 'runs_total{generation="1"}': 2.0, "runs": 9.0},
    )
    assert shown.total("runs_total") == 5
    assert shown.total('runs_total{generation="1"}') == 2
    assert shown.total("other") is None


def test_a_counter_grows() -> None:
    assert growth(vitals(commits=3), vitals(commits=10), "commits") == 7
    assert growth(vitals(), vitals(commits=10), "commits") is None


def test_the_file_system_of_a_directory() -> None:
    assert filesystem("/proc/self") == "proc"
