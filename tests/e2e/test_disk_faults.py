"""What an operator sees of a faulty store: the table in deploy/README.md, told by processes that run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from gateway.store.recovery import segment_name
from tests.e2e.process import GatewayProcess

SMALL = "[store]\nsegment_bytes = 65536\ncache_bytes = 0\n[limits]\ndedup_window_s = 0\n[log]\nformat = 'json'\n"


def gateway_in(directory: Path) -> GatewayProcess:
    """A gateway whose segments are small; not started."""
    file = directory / "gateway.toml"
    file.write_text(SMALL, encoding="utf-8")
    return GatewayProcess(directory / "gateway", "--config", str(file))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sealed segments and an active one, 200 messages, all due to `orders`, left in good order."""
    gateway = gateway_in(tmp_path_factory.mktemp("built"))
    with gateway, httpx.Client() as client:
        gateway.put_subscription("orders", topics=["trade.>"])
        for number in range(20):
            batch = [{"topic": "trade.paid", "data": f"{10 * number + n} " + "." * 1000} for n in range(10)]
            client.post(f"{gateway.http}/v1/messages", json=batch).raise_for_status()
        assert gateway.terminate() == 0
    directory = gateway.directory / "store"
    assert (directory / segment_name(4)).exists()
    return directory


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayProcess:
    return gateway_in(tmp_path)


@pytest.fixture
def store(gateway: GatewayProcess, built: Path) -> Path:
    """A copy of what was built, for the gateway that is not started."""
    return Path(shutil.copytree(built, gateway.directory / "store"))


def said(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    """Entries of the log with this event."""
    lines = [line for line in gateway.log.read_bytes().splitlines() if line.startswith(b"{")]
    return [entry for entry in map(orjson.loads, lines) if event in entry["event"]]


def metric(gateway: GatewayProcess, name: str) -> float:
    text = httpx.get(f"{gateway.control}/metrics").text
    [line] = [line for line in text.splitlines() if line.split(" ")[0] == name]
    return float(line.split(" ")[1])


def pulled(gateway: GatewayProcess) -> int:
    """Messages that come, each acknowledged."""
    found = 0
    with httpx.Client() as client:
        while True:
            asked = {"max": 500, "wait_ms": 500}
            answer = client.post(f"{gateway.http}/v1/subscriptions/orders/pull", json=asked).raise_for_status().json()
            if not answer["messages"]:
                return found
            found += len(answer["messages"])
            settle = {"lease": answer["lease"], "ack": [[0, 2**53 - 1]]}
            client.post(f"{gateway.http}/v1/subscriptions/orders/settle", json=settle).raise_for_status()


def refused(gateway: GatewayProcess) -> tuple[int, str]:
    """Exit status and last line of a gateway that does not start."""
    store, config = gateway.directory / "store", gateway.directory.parent / "gateway.toml"
    command = [sys.executable, "-m", "gateway", "serve", "--data", str(store), "--config", str(config)]
    command += ["--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return ended.returncode, ended.stderr.splitlines()[-1]


def verify(store: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "gateway", "store", "verify", "--data", str(store)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return ended.returncode, ended.stdout


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_damage_that_is_met_on_delivery_is_named_and_counted_and_all_else_is_served(
    gateway: GatewayProcess, store: Path
) -> None:
    flip(store / segment_name(2), 20_000)
    with gateway:
        got = pulled(gateway)
        assert 190 <= got < 200
        [entry] = said(gateway, "messages cannot be read")
        assert str(store / segment_name(2)) in entry["error"]
        assert metric(gateway, "gateway_unreadable_messages_total") == 200 - got
        assert gateway.statistics("orders")["waiting"] == 200 - got
        assert gateway.terminate() == 0
    code, listed = verify(store)
    assert code == 1
    assert f"{store / segment_name(2)}: at byte" in listed


def test_damage_that_is_met_at_the_start_is_named_and_counted(gateway: GatewayProcess, store: Path) -> None:
    flip(store / segment_name(2), 20_000)
    (store / "0000000002.hint").unlink()
    gateway.conserved = False  # what is damaged is owed still, and stands in no index
    with gateway:
        [entry] = said(gateway, "is damaged and is passed over")
        assert entry["segment"] == str(store / segment_name(2))
        assert metric(gateway, "gateway_log_damaged_parts") == 1
        assert 190 <= pulled(gateway) < 200


def test_a_hint_file_that_is_missing_or_damaged_is_made_anew(gateway: GatewayProcess, store: Path) -> None:
    (store / "0000000001.hint").unlink()
    flip(store / "0000000002.hint", 100)
    with gateway:
        assert [Path(entry["file"]).name for entry in said(gateway, "a hint file is made anew")] == [
            "0000000001.hint",
            "0000000002.hint",
        ]
        assert pulled(gateway) == 200


def test_a_torn_tail_is_cut_and_said(gateway: GatewayProcess, store: Path) -> None:
    with (store / segment_name(4)).open("ab") as file:
        file.write(b"half a record")
    with gateway:
        [entry] = said(gateway, "cut a torn tail")
        assert entry["size"] == 13
        assert pulled(gateway) == 200


def test_strangers_and_rights_are_said_and_nothing_is_done_to_them(gateway: GatewayProcess, store: Path) -> None:
    (store / "note.txt").write_text("mine")
    (store / segment_name(2)).chmod(0o644)
    with gateway:
        [entry] = said(gateway, "not a file of the store")
        assert entry["file"] == str(store / "note.txt")
        [entry] = said(gateway, "chmod go=")
        assert entry["files"] == [segment_name(2)]
    assert (store / "note.txt").read_text() == "mine"


def test_a_store_in_use_is_exit_status_75_and_names_the_process(gateway: GatewayProcess, store: Path) -> None:
    with gateway:
        code, line = refused(gateway)
        assert code == 75
        assert f"in use by process {gateway.pid}" in line


def test_what_a_start_cannot_make_up_for_is_exit_status_1_and_names_the_file(
    gateway: GatewayProcess, store: Path
) -> None:
    path = store / segment_name(2)
    path.rename(store.parent / "elsewhere")
    code, line = refused(gateway)
    assert (code, str(path) in line, "restore it from a backup" in line) == (1, True, True)
    path.symlink_to(store.parent / "elsewhere")
    code, line = refused(gateway)
    assert (code, str(path) in line, "not a regular file" in line) == (1, True, True)
    path.unlink()
    (store.parent / "elsewhere").rename(path)
    with gateway:
        assert pulled(gateway) == 200
