"""`gateway store`, on stores that were built and beside a gateway that runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import orjson
import pytest
import trio

from gateway.bench.storing.fill import Filling, Settled, fill
from gateway.cli.store import _age
from gateway.engine import census
from gateway.store.files import Files
from gateway.store.recovery import segment_name
from tests.cli.conftest import Gateway
from tests.e2e.process import GatewayProcess
from tests.store.building import SegmentFile, recovered, save_checkpoint, segments


@pytest.fixture
def store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    built = segments(directory, 6, 4)
    recovered(directory)
    state = {"next_number": 1, "subscriptions": []}
    save_checkpoint(directory, 2, built[1].offsets[0], state, kept=built)
    capfd.readouterr()  # what recovery logs
    return directory


def damage(directory: Path) -> SegmentFile:
    """One record of the first segment, two messages."""
    file = segments(directory, 6, 4)[0]
    file.data[file.offsets[2] + 40] ^= 1
    file.write(directory)
    return file


def test_a_sound_store_is_said_to_be(gateway: Gateway, store: Path) -> None:
    outcome = gateway("store", "verify", "--data", str(store))
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"{store}: sound: 10 messages in 2 segments, 1 hint files\n"


def test_damage_is_a_list_and_exit_code_1(gateway: Gateway, store: Path) -> None:
    file = damage(store)
    outcome = gateway("store", "verify", "--data", str(store))
    assert outcome.code == 1
    size = file.offsets[3] - file.offsets[2]
    place = f"at byte {file.offsets[2]}, {size} bytes, positions 3 to 4: a record is damaged"
    assert outcome.lines == [f"{store / segment_name(1)}: {place}"]
    assert "1 damaged parts" in outcome.err


def test_ctrl_c_ends_it(gateway: Gateway, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(Files, "read", interrupted)
    assert gateway("store", "verify", "--data", str(store)).code == 130


def test_an_export_is_a_line_for_each_message(gateway: Gateway, store: Path) -> None:
    outcome = gateway("store", "export", "--data", str(store), "--since", "9")
    assert [orjson.loads(line)["position"] for line in outcome.lines] == [9, 10]
    assert gateway("store", "export", "--data", str(store), "--topic", "trade.*").out.count("\n") == 10
    assert gateway("store", "export", "--data", str(store), "--topic", "stock.>").out == ""
    assert "bad" not in outcome.err
    assert gateway("store", "export", "--data", str(store), "--topic", "a..b").code == 1


def test_an_export_leaves_out_what_is_damaged_and_says_so(gateway: Gateway, store: Path) -> None:
    damage(store)
    outcome = gateway("store", "export", "--data", str(store))
    assert outcome.code == 1
    assert [orjson.loads(line)["position"] for line in outcome.lines] == [1, 2, *range(5, 11)]
    assert str(store / segment_name(1)) in outcome.err


def test_statistics_of_the_segments(gateway: Gateway, store: Path) -> None:
    outcome = gateway("store", "stats", "--data", str(store))
    assert outcome.code == 0
    rows = [line.split() for line in outcome.lines]
    sizes = [f"{(store / segment_name(number)).stat().st_size:,}" for number in (1, 2)]
    assert ["1", "1..6", "6", sizes[0], "0", "0", sizes[0], "yes"] in rows
    assert ["2", "7..10", "4", sizes[1], "0", "0", sizes[1], "active"] in rows
    assert "the log behind it" in outcome.out
    plain = orjson.loads(gateway("store", "stats", "--json", "--data", str(store)).out)
    assert plain["totals"]["messages"] == 10
    assert plain["totals"]["dead_bytes"] == plain["totals"]["bytes"] == sum(s["dead_bytes"] for s in plain["segments"])
    assert plain["checkpoint"]["segment"] == 2


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [(-5, "0 s"), (59_999, "59 s"), (61_000, "1 min 1 s"), (7_200_000, "2 h 0 min"), (90_000_000, "1 d 1 h")],
)
def test_an_age_is_in_two_units(milliseconds: int, words: str) -> None:
    assert _age(milliseconds) == words


def test_a_store_goes_into_a_backup_and_out_of_it(gateway: Gateway, store: Path, tmp_path: Path) -> None:
    first = gateway("store", "backup", str(tmp_path / "backup"), "--data", str(store))
    assert first.code == 0
    assert "copied 4 files" in first.out
    assert "copied 0 files" in gateway("store", "backup", str(tmp_path / "backup"), "--data", str(store)).out
    outcome = gateway("store", "restore", str(tmp_path / "backup"), "--data", str(tmp_path / "again"))
    assert (outcome.code, outcome.err) == (0, "")
    assert gateway("store", "verify", "--data", str(tmp_path / "again")).code == 0
    again = gateway("store", "restore", str(tmp_path / "backup"), "--data", str(tmp_path / "again"))
    assert again.code == 1
    assert "is not empty" in again.err


@pytest.fixture
def stragglers(tmp_path: Path) -> Path:
    """A dozen segments of which half is due."""
    directory = tmp_path / "stragglers"
    filling = Filling(messages=20_000, settled=Settled.HALF, segment_bytes=512 * 1024)
    trio.run(fill, directory, filling, lambda _: None)
    return directory


def due(directory: Path) -> dict[str, tuple[int, int | None]]:
    return {each.name: (each.waiting, each.oldest_position) for each in census.take(Files(), directory).subscriptions}


def merge_arguments(directory: Path) -> list[str]:
    return ["store", "merge", "--data", str(directory), "--live-share", "0.6"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_STORE__SEGMENT_BYTES", str(512 * 1024))
    monkeypatch.setattr("gateway.cli.logs.configure", lambda log: None)


@pytest.mark.usefixtures("small")
def test_a_merge_frees_what_nobody_is_due_and_says_how_much(gateway: Gateway, stragglers: Path) -> None:
    before, size = due(stragglers), sum(path.stat().st_size for path in stragglers.glob("*.log"))
    outcome = gateway(*merge_arguments(stragglers))
    assert outcome.code == 0
    assert "segments merged into" in outcome.out
    assert outcome.err.count("merged") >= 2
    freed = size - sum(path.stat().st_size for path in stragglers.glob("*.log"))
    assert f"{freed:,} bytes freed" in outcome.out
    assert freed > size // 3
    assert due(stragglers) == before
    assert gateway("store", "verify", "--data", str(stragglers)).code == 0
    assert "nothing was worth merging" in gateway(*merge_arguments(stragglers)).out


@pytest.mark.usefixtures("small")
def test_a_merge_that_meets_damage_leaves_it_where_it_is_and_says_so(gateway: Gateway, stragglers: Path) -> None:
    path = stragglers / segment_name(2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    damaged, before = bytes(data), due(stragglers)
    outcome = gateway(*merge_arguments(stragglers))
    assert outcome.code == 1
    assert "merges were given up" in outcome.err
    assert "segments merged into" in outcome.out
    assert path.read_bytes() == damaged
    assert due(stragglers) == before
    assert gateway("store", "verify", "--data", str(stragglers)).out.count(str(path)) == 1


def test_a_merge_that_is_interrupted_says_how_far_it_came_and_can_be_gone_on_with(
    gateway: Gateway, stragglers: Path, small: None
) -> None:
    before = due(stragglers)
    command = [sys.executable, "-m", "gateway", *merge_arguments(stragglers)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("merged"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "ended early" in rest
    assert "Traceback" not in rest
    assert gateway("store", "verify", "--data", str(stragglers)).code == 0
    assert due(stragglers) == before
    assert "segments merged into" in gateway(*merge_arguments(stragglers)).out
    assert due(stragglers) == before


def test_a_store_in_use_is_not_merged(gateway: Gateway, tmp_path: Path, small: None) -> None:
    with GatewayProcess(tmp_path / "used") as used:
        outcome = gateway(*merge_arguments(used.directory / "store"))
        assert outcome.code == 75
        assert str(used.pid) in outcome.err


def test_a_merge_makes_no_store(gateway: Gateway, tmp_path: Path) -> None:
    assert gateway(*merge_arguments(tmp_path / "nowhere")).code == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", ["stats", "verify", "export"])
def test_where_there_is_no_store_that_is_said(gateway: Gateway, tmp_path: Path, command: str) -> None:
    outcome = gateway("store", command, "--data", str(tmp_path / "nowhere"))
    assert outcome.code == 1
    assert "--data" in outcome.err


# -------------------------------------------------------------------------------------------- beside a gateway


class Producer:
    """Publishes one message after the other; `answered` are positions, by payload."""

    def __init__(self, running: GatewayProcess, keep: int = 0) -> None:
        """`keep`: every so many-th message is never acknowledged."""
        self.answered: dict[str, int] = {}
        self.acked: set[int] = set()
        self._keep = keep
        self._running = running
        self._ended = threading.Event()
        self._enough = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        with self._enough:
            while len(self.answered) < count:
                assert self._enough.wait(20), "nothing was answered for long"

    def _run(self) -> None:
        with httpx.Client() as client:
            while not self._ended.is_set():
                payload = f"{len(self.answered)} " + "." * 2000
                answer = client.post(f"{self._running.http}/v1/topics/trade.paid/messages", json=payload)
                answer.raise_for_status()
                with self._enough:
                    self.answered[payload] = answer.json()["position"]
                    self._enough.notify()
                self._consume(client)

    def _consume(self, client: httpx.Client) -> None:
        """One subscription keeps up, so that there are acks, checkpoints and segments that are let go."""
        pull = {"max": 100, "wait_ms": 0}
        answer = client.post(f"{self._running.http}/v1/subscriptions/quick/pull", json=pull).raise_for_status()
        if answer.status_code == 200 and answer.json()["messages"]:
            pulled = answer.json()
            positions = [message["position"] for message in pulled["messages"]]
            taken = [each for each in positions if not self._keep or each % self._keep]
            settle = {"lease": pulled["lease"], "ack": [[each, each] for each in taken]}
            client.post(f"{self._running.http}/v1/subscriptions/quick/settle", json=settle).raise_for_status()
            self.acked.update(taken)


@pytest.fixture
def running(tmp_path: Path) -> GatewayProcess:
    """A gateway whose segments are small, and merged as often as can be; not started."""
    file = tmp_path / "gateway.toml"
    store = "[store]\nsegment_bytes = 65536\nmerge_interval_s = 0.01\nmerge_live_share = 0.6\n"
    file.write_text(store + "[limits]\ndedup_window_s = 0\n", encoding="utf-8")
    return GatewayProcess(tmp_path / "running", "--config", str(file))


def test_a_backup_under_load_has_everything_that_was_answered(
    gateway: Gateway, running: GatewayProcess, tmp_path: Path
) -> None:
    data, target, again = (str(tmp_path / name) for name in ("running/store", "backup", "again/store"))
    with running:
        running.put_subscription("quick", topics=["trade.>"])
        running.put_subscription("slow", topics=["trade.>"])
        with Producer(running) as producer:
            for count in (50, 120, 200):
                producer.wait_for(count)
                answered = dict(producer.answered)
                outcome = gateway("store", "backup", target, "--data", data)
                assert outcome.code == 0, outcome.err
                assert gateway("store", "stats", "--data", data).code == 0
                assert gateway("store", "verify", "--data", data).code == 0
        running.kill()
    assert gateway("store", "restore", target, "--data", again).code == 0
    assert gateway("store", "verify", "--data", again).code == 0
    lines = [orjson.loads(line) for line in gateway("store", "export", "--data", again).lines]
    there = {line["data"]: line["position"] for line in lines}
    assert answered.items() <= there.items()
    table = gateway("store", "stats", "--data", again).lines
    [row] = [line.split() for line in table if "slow" in line.split()]
    assert row[-1] in ("s", "min")  # the age of the oldest
    assert f"{len(there):,}" in row
    with GatewayProcess(tmp_path / "again") as restored:
        assert restored.statistics("slow")["waiting"] == len(there)
        assert restored.statistics("quick")["acked"] > 0
        assert restored.terminate() == 0


def test_a_backup_keeps_up_with_segments_that_are_let_go(
    gateway: Gateway, running: GatewayProcess, tmp_path: Path
) -> None:
    data, target, again = (str(tmp_path / name) for name in ("running/store", "backup", "again/store"))
    with running:
        running.put_subscription("quick", topics=["trade.>"])
        with Producer(running) as producer:
            for count in range(40, 400, 40):
                producer.wait_for(count)
                outcome = gateway("store", "backup", target, "--data", data)
                assert outcome.code == 0, outcome.err
        running.kill()
    assert not (tmp_path / "backup" / segment_name(1)).exists()
    assert gateway("store", "restore", target, "--data", again).code == 0
    assert gateway("store", "verify", "--data", again).code == 0
    with GatewayProcess(tmp_path / "again") as restored:
        assert restored.statistics("quick")["acked"] > 300
        assert restored.terminate() == 0


def test_the_tools_beside_a_gateway_that_merges(gateway: Gateway, running: GatewayProcess, tmp_path: Path) -> None:
    data, target, again = (str(tmp_path / name) for name in ("running/store", "backup", "again/store"))
    merges = "gateway_log_merges_total"
    with running:
        running.put_subscription("quick", topics=["trade.>"], lease_ms=600_000, window_max=10_000)
        with Producer(running, keep=10) as producer:
            for count in range(60, 420, 60):
                producer.wait_for(count)
                answered, acked = dict(producer.answered), set(producer.acked)
                for command in ("stats", "verify", "export"):
                    outcome = gateway("store", command, "--data", data)
                    assert outcome.code == 0, (command, outcome.out[-500:], outcome.err)
                lines = [orjson.loads(line)["position"] for line in outcome.lines]
                assert lines == sorted(set(lines))
                assert set(answered.values()) - acked <= set(lines)
                outcome = gateway("store", "backup", target, "--data", data)
                assert outcome.code == 0, outcome.err
        text = httpx.get(f"{running.control}/metrics").text
        [merged] = [line.split()[1] for line in text.splitlines() if line.split(" ")[0] == merges]
        assert float(merged) > 0
        running.kill()
    assert gateway("store", "restore", target, "--data", again).code == 0
    outcome = gateway("store", "verify", "--data", again)
    assert outcome.code == 0, outcome.out
    there = {orjson.loads(line)["position"] for line in gateway("store", "export", "--data", again).lines}
    kept = {position for position in answered.values() if not position % 10}
    assert kept <= there
    with GatewayProcess(tmp_path / "again") as restored:
        statistics = restored.statistics("quick")
        assert statistics["routed"] == statistics["acked"] + statistics["waiting"]
        assert statistics["waiting"] >= len(kept)
        assert restored.terminate() == 0
