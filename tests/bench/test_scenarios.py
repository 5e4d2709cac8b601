"""Every scenario, as small as it goes: it ends, and adds up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.bench.cli import bench
from gateway.bench.scenarios import SCENARIOS

SCALE = "0.001"


Cases = list[dict[str, Any]]


class Sitting:
    """Each scenario is run once, however many tests look at it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Cases] = {}

    def cases(self, name: str) -> Cases:
        if name not in self._known:
            command = [name, "--scale", SCALE, "--directory", str(self._directory), "--json", "-"]
            outcome = CliRunner().invoke(bench, command, catch_exceptions=False)
            assert outcome.exit_code == 0, outcome.output
            self._known[name] = json.loads(outcome.stdout)["outcomes"][name]["cases"]
        return self._known[name]


@pytest.fixture(scope="module")
def sitting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sitting]:
    directory = tmp_path_factory.mktemp("scenarios")
    yield Sitting(directory)
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_adds_up(name: str, sitting: Sitting) -> None:
    cases = sitting.cases(name)
    assert len({case["name"] for case in cases}) == len(cases) >= 1
    for case in cases:
        counts = case["counts"]
        assert case["wrong"] == ""
        assert (counts["refused"], counts["lost"], counts["invented"]) == (0, 0, 0)
        assert case["units"] > 0
        assert case["memory"]["anon"] > 2**20
        if name != "idle":
            assert case["per_s"] > 0
            assert case["load_cpu_share"] > 0


def test_the_cost_of_misfits_is_a_ratio(sitting: Sitting) -> None:
    alone, mixed = sitting.cases("misfits")
    expected = mixed["latency"]["delivery"]["p99_ms"] / alone["latency"]["delivery"]["p99_ms"]
    assert mixed["extra"]["p99_ratio"] == pytest.approx(expected, rel=0.01)


def test_a_burst_is_held_against_live_speed(sitting: Sitting) -> None:
    live, drained = sitting.cases("burst")
    assert drained["extra"]["drained_to_live"] == pytest.approx(drained["per_s"] / live["per_s"], rel=0.01)
    assert drained["counts"]["delivered"] == drained["units"]
