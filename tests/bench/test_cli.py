"""Small runs of the real command against a real gateway; and that it leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from gateway.bench.cli import bench
from gateway.bench.ground import Ground
from gateway.bench.link import LinkLostError
from gateway.bench.record import Case
from gateway.bench.scenarios import SCENARIOS
from gateway.bench.scenarios.scenario import Scenario
from tests.e2e.process import GatewayProcess

MESSAGES = 2000


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Where a gateway of our own lives; empty again behind every test."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    yield directory
    assert list(directory.iterdir()) == []


def measure(*arguments: str | Path) -> dict[str, Any]:
    """Run the command; the object that it prints."""
    outcome = CliRunner().invoke(bench, ["--json", "-", *map(str, arguments)], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return detail(json.loads(outcome.stdout))


def detail(record: dict[str, Any]) -> dict[str, Any]:
    """The figures of the load that the options said."""
    [case] = record["outcomes"]["custom"]["cases"]
    assert case["wrong"] == ""
    figures: dict[str, Any] = case["detail"]
    return figures


def check_sums(figures: dict[str, Any], messages: int, deliveries: int) -> None:
    """Nothing lost, nothing twice, and every rate belongs to its count."""
    assert figures["complete"] is True
    assert (figures["published"], figures["refused"], figures["received"]) == (messages, 0, deliveries)
    assert (figures["lost"], figures["duplicates"], figures["invented"]) == (0, 0, 0)
    assert figures["server"]["acked"] == deliveries
    assert figures["published_per_s"] * figures["elapsed_s"] == pytest.approx(messages, rel=0.01)
    for latency in [figures["confirm"], *([figures["delivery"]] if deliveries else [])]:
        order = [latency[name] for name in ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")]
        assert order == sorted(order)
        assert 0 < order[0] <= order[-1] <= figures["elapsed_s"] * 1000 + 1


def test_a_saturated_run_adds_up(temporary: Path) -> None:
    figures = measure("--directory", temporary, "--messages", str(MESSAGES), "--publishers", "2", "--subscribers", "3")
    check_sums(figures, MESSAGES, 3 * MESSAGES)
    server = figures["server"]
    assert 1 <= server["commits"] <= MESSAGES
    assert server["messages_per_commit"] == pytest.approx(MESSAGES / server["commits"], rel=0.01)
    assert server["commit_ms"] > 0
    assert 0 < server["cpu_us_per_message"] < 10_000
    assert 2**20 < server["resident_start_bytes"] <= server["resident_bytes"]
    assert server["gc_collections"] >= 0
    assert server["gc_pause_ms"] >= 0
    assert figures["store_filesystem"]


def test_consumers_can_share_one_subscription(temporary: Path) -> None:
    arguments = ("--messages", str(MESSAGES), "--subscribers", "3", "--shared", "--batch", "7", "--publishers", "2")
    check_sums(measure("--directory", temporary, *arguments), MESSAGES, MESSAGES)


def test_a_rate_is_kept(temporary: Path) -> None:
    figures = measure("--directory", temporary, "--messages", "400", "--rate", "1000", "--subscribers", "1")
    check_sums(figures, 400, 400)
    assert figures["elapsed_s"] >= 0.39
    assert figures["plan"]["rate_per_s"] == 1000


def test_single_messages_over_http(temporary: Path) -> None:
    figures = measure("--directory", temporary, "--messages", str(MESSAGES), "--http", "--publishers", "16")
    check_sums(figures, MESSAGES, MESSAGES)
    assert figures["plan"]["batch"] == 1


def test_http_at_a_rate(temporary: Path) -> None:
    check_sums(measure("--directory", temporary, "--messages", "200", "--http", "--rate", "1000"), 200, 200)


def test_the_memory_of_idle_connections(temporary: Path) -> None:
    figures = measure("--directory", temporary, "--messages", "0", "--idle", "50")
    assert figures["idle_connections"] == 50
    assert 0 < figures["server"]["bytes_per_idle_connection"] < 2**20
    assert figures["confirm"] is None


def test_the_figures_go_to_a_file_and_to_people(temporary: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    arguments = ["--directory", str(temporary), "--messages", "200", "--subscribers", "0", "--json", str(file)]
    outcome = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0
    check_sums(detail(json.loads(file.read_bytes())), 200, 0)
    for word in ("publish to confirm", "p99.9", "server CPU", "group commit", "resident memory"):
        assert word in outcome.stdout


def test_a_gateway_that_runs_already_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "gateway") as gateway:
        gateway.put_subscription("mine", topics=[">"])
        where = ("--url", gateway.http, "--control-url", gateway.control)
        figures = measure(*where, "--pid", str(gateway.pid), "--messages", str(MESSAGES))
        check_sums(figures, MESSAGES, MESSAGES)
        assert figures["store_filesystem"] == ""
        assert figures["server"]["cpu_us_per_message"] is not None
        by_metrics = measure(*where, "--messages", str(MESSAGES))
        assert by_metrics["server"]["cpu_us_per_message"] is not None
        assert gateway.statistics("mine")["routed"] == 2 * MESSAGES
        left = CliRunner().invoke(bench, [*where, "--messages", "1", "--size", "17"])
        assert left.exit_code == 2
        names = [each["name"] for each in httpx.get(f"{gateway.control}/v1/subscriptions").json()]
        assert names == ["mine"]
        assert gateway.terminate() == 0


def test_a_scenario_that_fails_does_not_end_the_others(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(ground: Ground) -> list[Case]:
        raise LinkLostError("it is gone")

    monkeypatch.setitem(SCENARIOS, "rate", Scenario("rate", "it fails", fail))
    file = temporary.parent / "record.json"
    arguments = ["rate", "pipeline", "--scale", "0.001", "--directory", str(temporary), "--json", str(file)]
    outcome = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert outcome.exit_code == 1
    record = json.loads(file.read_bytes())
    assert record["outcomes"]["rate"]["cases"][0]["wrong"] == "it is gone"
    assert record["outcomes"]["pipeline"]["cases"][0]["counts"]["lost"] == 0
    assert "it is gone" in outcome.stdout


def test_what_was_measured_before_is_kept_where_it_is_asked(temporary: Path, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    arguments = ["--scale", "0.001", "--directory", str(temporary), "--json", str(file), "--add"]
    for name in ("pipeline", "rate"):
        assert CliRunner().invoke(bench, [name, *arguments], catch_exceptions=False).exit_code == 0
    assert list(json.loads(file.read_bytes())["outcomes"]) == ["pipeline", "rate"]
    (tmp_path / "nats.jsonl").write_text('{"driver":"nats","rate":0,"msgs_s":1000}\n')
    shown = CliRunner().invoke(bench, ["--table", str(file), "--peers", f"jetstream={tmp_path}/nats.jsonl"])
    assert "| jetstream | as fast as it goes | 1,000 |" in shown.stdout


def test_no_gateway_is_one_line() -> None:
    nowhere = "http://127.0.0.1:1"
    outcome = CliRunner().invoke(bench, ["--url", nowhere, "--control-url", nowhere])
    assert outcome.exit_code == 1
    assert "is the gateway there?" in outcome.output
    assert "Traceback" not in outcome.output


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--pid", "1"], "--pid goes with --url"),
        (["--url", "http://127.0.0.1:1", "--directory", "."], "leave out --url"),
        (["--url", "https://127.0.0.1:1"], "without TLS"),
        (["--http", "--batch", "2"], "single messages"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments: list[str], why: str) -> None:
    outcome = CliRunner().invoke(bench, arguments)
    assert outcome.exit_code == 2
    assert why in outcome.output


def test_a_gateway_that_does_not_start_says_why(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_STORE__SEGMENT_BYTES", "7")
    outcome = CliRunner().invoke(bench, ["--directory", str(temporary)])
    assert outcome.exit_code == 1
    assert "too small" in outcome.output


def started(temporary: Path) -> tuple[subprocess.Popen[str], int]:
    """The command as a process in the middle of a long run, and the process of its gateway."""
    command = [sys.executable, "-m", "gateway", "bench", "--directory", str(temporary), "--rate", "500"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not list(temporary.glob("*/data/*.log")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    [child] = [child for task in tasks for child in (task / "children").read_text().split()]
    return process, int(child)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_gateway(temporary: Path, number: signal.Signals) -> None:
    process, child = started(temporary)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
    assert not os.path.exists(f"/proc/{child}")


def test_a_gateway_that_dies_is_reported(temporary: Path) -> None:
    process, child = started(temporary)
    os.kill(child, signal.SIGKILL)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the gateway ended with -9" in stderr or "the gateway did not start" in stderr


def test_consumers_that_do_not_keep_up_harm_nobody_and_lose_nothing(temporary: Path) -> None:
    misfits = ("--slow-readers", "1", "--no-ack", "1", "--late-ack", "1")
    arguments = ("--messages", "400", "--subscribers", "5", "--size", "2000", "--rate", "2000")
    figures = measure("--directory", temporary, *arguments, *misfits)
    assert figures["complete"] is True
    assert (figures["published"], figures["lost"], figures["invented"]) == (400, 0, 0)
    assert figures["received"] - figures["duplicates"] == 5 * 400
    assert figures["elapsed_s"] < 4  # those that keep up have not waited for the others' five seconds
    assert figures["server"]["resident_peak_bytes"] >= figures["server"]["resident_start_bytes"]


def test_a_backlog_is_drained_by_those_who_come(temporary: Path) -> None:
    arguments = ("--backlog", "3000", "--messages", "200", "--rate", "1000", "--subscribers", "3", "--shared")
    figures = measure("--directory", temporary, *arguments)
    assert (figures["published"], figures["received"], figures["lost"]) == (200, 3200, 0)
    backlog = figures["backlog"]
    assert (backlog["messages"], figures["duplicates"], figures["invented"]) == (3000, 0, 0)
    assert backlog["drained_per_s"] * backlog["drained_s"] == pytest.approx(3000, rel=0.1)  # of milliseconds
    assert figures["delivery"]["max_ms"] < 1000 * figures["elapsed_s"] + 1  # those of the backlog carry no time


def test_each_subscription_may_have_a_topic_of_its_own(temporary: Path) -> None:
    arguments = ("--messages", "500", "--subscribers", "50", "--own-topics", "--rate", "2000")
    check_sums(measure("--directory", temporary, *arguments), 500, 500)


def test_the_report_says_where_the_time_went(temporary: Path) -> None:
    arguments = ["--directory", str(temporary), "--messages", "300", "--backlog", "300", "--subscribers", "2"]
    outcome = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    for word in ("admit", "flusher", "deliver", "settle", "flow control", "ring peak", "backlog", "drained"):
        assert word in outcome.stdout
    stages = measure(*arguments)["stages"]
    by_name = {stage["name"]: stage for stage in stages}
    assert by_name["append"]["batches"] * by_name["append"]["messages_per_batch"] == pytest.approx(300, rel=0.02)
    assert by_name["deliver"]["us_per_message"] > 0
