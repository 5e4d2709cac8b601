"""Every part runs by itself, on a few messages, and says what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from gateway.bench.storing import beside, parts
from gateway.bench.storing.__main__ import main
from gateway.bench.storing.copies import calls_of


def ran(tmp_path: Path, *arguments: str) -> tuple[Result, dict[str, Any]]:
    file = tmp_path / "out.json"
    outcome = CliRunner().invoke(main, [*arguments, "--directory", str(tmp_path), "--output", str(file)])
    assert outcome.exit_code == 0, outcome.output
    [part] = orjson.loads(file.read_bytes())["parts"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    return outcome, part


def test_append(tmp_path: Path) -> None:
    outcome, part = ran(tmp_path, "append", "--batch", "10", "--seconds", "0.1")
    assert [each["gathered"] for each in part["append"]] == [False, True]
    assert all(each["ratio"] > 0 and each["bytes_a_commit"] > 1000 for each in part["append"])
    assert "batches of 10, gathered" in outcome.output


def test_size(tmp_path: Path) -> None:
    _, part = ran(tmp_path, "size", "--batch", "200", "--few", "100000")
    [found] = part["size"]
    assert 256 < found["log_bytes"] < 420
    assert found["hint_bytes"] > 0


def test_restart(tmp_path: Path) -> None:
    _, part = ran(tmp_path, "restart", "--messages", "2000")
    starts = part["restart"]["starts"]
    assert len(starts) == 4
    assert all(0 < start["cpu_s"] <= 2 * start["ready_s"] for start in starts)
    assert all(start["resident_bytes"] <= start["peak_bytes"] for start in starts)


def test_backlog(tmp_path: Path) -> None:
    _, part = ran(tmp_path, "backlog", "--messages", "4000")
    found = part["backlog"]
    assert [len(found[f"first_{what}_s"]) for what in ("message_cold", "message_warm", "pull")] == [10, 10, 10]
    assert found["drain"]["messages"] >= 1000


def test_drain(tmp_path: Path) -> None:
    _, part = ran(tmp_path, "drain", "--few", "8000")
    assert len(part["drain"]["rates"]) == len(part["drain"]["live_per_s"]) == 3
    assert part["drain"]["ratio"] > 0


def test_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "SEGMENT_BYTES", 1024 * 1024)
    monkeypatch.setattr(beside, "_WARM", 10_000)
    monkeypatch.setattr(beside, "TURNS", (False, True))
    monkeypatch.setattr(beside, "RATES_PER_S", (None,))
    monkeypatch.setenv("GATEWAY_STORE__MERGE_BYTES_PER_S", "262144")  # or all is done before it is looked at
    outcome, part = ran(tmp_path, "merge", "--few", "40000", "--seconds", "0.4")
    [found] = part["merge"]
    without, with_ = found["runs"]
    assert (without["merging"], without["merges"], without["merging_share"]) == (False, 0, 0)
    assert (with_["merging"], with_["rate_per_s"]) == (True, None)
    assert with_["merging_share"] > 0
    assert with_["copied_bytes_per_s"] > 0
    assert found["p99_ratio"]["best"] == pytest.approx(with_["publish"]["p99_ms"] / without["publish"]["p99_ms"])
    assert "of that without" in outcome.output


def test_several_sizes_show_how_it_grows(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    arguments = ["restart", "--messages", "1000", "--messages", "3000", "--directory", str(tmp_path)]
    outcome = CliRunner().invoke(main, [*arguments, "--output", str(file)])
    *each, last = orjson.loads(file.read_bytes())["parts"]
    assert [part["restart"]["filled"]["messages"] for part in each] == [1000, 3000]
    assert last["growth"][0]["name"] == "restart behind a kill -9, to /readyz"
    assert [messages for messages, _ in last["growth"][0]["points"]] == [1000, 3000]
    assert "100 M would be" in " ".join(outcome.output.split())


def test_copies(tmp_path: Path) -> None:
    _, part = ran(tmp_path, "copies", "--few", "50000")
    counted = part["copies"]["engine"]
    assert counted["mapped_bytes"] > 256 * counted["messages"]
    assert counted["object_bytes"] == 0


def test_a_part_that_fails_is_said_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object, **__: object) -> parts.Part:
        raise OSError("no disk")

    monkeypatch.setattr(parts, "sized", fails)
    file = tmp_path / "out.json"
    arguments = ["size", "append", "--batch", "10", "--seconds", "0.05", "--output", str(file)]
    outcome = CliRunner().invoke(main, arguments)
    assert "no disk" in outcome.output
    first, second = orjson.loads(file.read_bytes())["parts"]
    assert first == {"failed": "OSError: no disk"}
    assert "append" in second


def test_what_strace_writes_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "strace.out"
    file.write_text(
        "7 sendmsg(12<TCP:[127.0.0.1:1->127.0.0.1:2]>, {msg_name=NULL, msg_iov=[...], msg_iovlen=4}, 0) = 40000\n"
        '7 sendto(12<TCP:[127.0.0.1:1->127.0.0.1:2]>, ""..., 20, 0, NULL, 0) = 20\n'
        '8 pread64(9</s/0000000001.log>, ""..., 65536, 100) = 65536\n'
        '7 write(5<anon_inode:[eventfd]>, ""..., 8) = 8\n'
        "8 pread64(9</s/0000000001.log>,  <unfinished ...>\n"
        '8 <... pread64 resumed>""..., 65536, 65636) = 1000\n'
        "7 sendmsg(12<TCP:[127.0.0.1:1->127.0.0.1:2]>, {}, 0) = -1 EAGAIN (Resource temporarily unavailable)\n",
        encoding="ascii",
    )
    calls = calls_of(file, 39_000)
    assert (calls.sendmsg_calls, calls.sendmsg_bytes, calls.joined_bytes, calls.read_bytes) == (1, 40_000, 20, 66_536)
