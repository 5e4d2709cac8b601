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
        if name not in ("idle", "restart"):
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
    assert drained["extra"]["publish_quiet_p50_ms"] > 0


def test_a_frame_of_a_fan_out_holds_one_message(sitting: Sitting) -> None:
    for case in sitting.cases("fanout"):
        assert case["extra"]["messages_in_a_frame"] == 1
        assert case["counts"]["delivered"] == case["units"]


def test_what_is_sparse_is_published_and_delivered(sitting: Sitting) -> None:
    [case] = sitting.cases("sparse")
    assert case["counts"]["published"] == case["counts"]["delivered"] == case["units"] == 20
    assert case["latency"].keys() == {"confirm", "delivery"}


def test_each_has_what_is_its_own(sitting: Sitting) -> None:
    [case] = sitting.cases("own")
    assert case["counts"]["delivered"] == 20


def test_publishes_over_http_come_out_again(sitting: Sitting) -> None:
    [case] = sitting.cases("http-publish")
    assert case["counts"]["delivered"] == case["counts"]["published"] == 150


def test_a_pull_brings_one_message(sitting: Sitting) -> None:
    taken, settled = sitting.cases("long-poll")
    assert taken["counts"]["delivered"] == taken["units"] == 100
    assert settled["counts"]["delivered"] == settled["units"] == 100


def test_large_payloads_come_as_they_went(sitting: Sitting) -> None:
    for case in sitting.cases("large"):
        size_bytes = {"64 KiB": 65_536, "1 MiB": 1_048_576}[case["name"]]
        assert case["extra"]["megabytes_per_s"] == pytest.approx(case["per_s"] * size_bytes / 1e6, rel=0.01)


def test_after_a_storm_all_has_come_again(sitting: Sitting) -> None:
    [case] = sitting.cases("storm")
    assert case["counts"]["delivered"] >= 2 * 1000
    assert case["extra"]["late_ms"] > -1  # no redelivery before its time
    assert case["extra"]["probe_max_ms"] > 0


def test_what_waited_is_there_after_a_restart(sitting: Sitting) -> None:
    for case in sitting.cases("restart"):
        assert case["counts"]["delivered"] == case["counts"]["published"] == 1000
        assert 0 < case["extra"]["ready_s"] <= case["extra"]["first_message_s"]


def test_features_are_held_against_none_of_them(sitting: Sitting) -> None:
    costs = {case["name"]: case["cpu_us"] for case in sitting.cases("all-on")}
    for case in sitting.cases("all-on"):
        assert case["extra"]["more_us"] == pytest.approx(costs[case["name"]] - costs["all off"], abs=0.01)
    assert {"credentials", "a schema", "the trace", "all on"} < costs.keys()
