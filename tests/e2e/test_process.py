"""The process as operators meet it: exit statuses, a store that is held, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.sync.client import connect

from tests.e2e.process import GatewayProcess


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_second_gateway_on_one_store_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path) as gateway:
        store = str(tmp_path / "store")
        second = serve("--data", store, "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0")
        assert second.returncode == 75
        assert f"in use by process {gateway.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        assert httpx.get(f"{gateway.control}/readyz").status_code == 200


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path) as gateway:
        address = f"127.0.0.1:{gateway.data_port}"
        second = serve("--data", str(tmp_path / "other"), "--listen", address, "--control", "127.0.0.1:0")
        assert second.returncode == 1
        assert address in second.stderr
        assert "Traceback" not in second.stderr


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = serve("--data", str(tmp_path / "file" / "store"), "--listen", "127.0.0.1:0")
    assert refused.returncode == 1
    assert str(tmp_path / "file") in refused.stderr
    assert "Traceback" not in refused.stderr


def samples(gateway: GatewayProcess) -> dict[str, float]:
    lines = [line for line in httpx.get(f"{gateway.control}/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_the_collector_is_tuned_once_the_gateway_runs(tmp_path: Path) -> None:
    young = 'gateway_gc_collections_total{generation="0"}'
    with GatewayProcess(tmp_path) as gateway:
        before = samples(gateway)
        assert before["gateway_gc_pause_max_seconds"] < 0.05  # that of the start has held up nobody
        with httpx.Client(base_url=gateway.control) as client:
            for number in range(200):  # with Python's own thresholds some 15 runs
                client.put(f"/v1/subscriptions/s{number}", json={"topics": ["t"]}).raise_for_status()
        assert samples(gateway)[young] - before[young] <= 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_and_what_was_answered_is_there_again(tmp_path: Path, number: int) -> None:
    with GatewayProcess(tmp_path) as gateway:
        gateway.put_subscription("s", topics=["t"])
        answer = httpx.post(f"{gateway.http}/v1/topics/t/messages", json={"n": 1})
        assert answer.status_code == 201
        assert gateway.terminate(number) == 0
        gateway.start()
        assert gateway.statistics("s")["waiting"] == 1
    assert "Traceback" not in gateway.log.read_text()


def test_a_second_signal_ends_at_once_and_what_was_answered_is_there_again(tmp_path: Path) -> None:
    protocol = websockets.Subprotocol("push.v1.json")
    with GatewayProcess(tmp_path) as gateway:
        gateway.put_subscription("s", topics=["t"])
        with connect(gateway.websocket, subprotocols=[protocol]) as ws:
            ws.send('{"op":"subscribe","id":1,"subscription":"s"}')
            assert httpx.post(f"{gateway.http}/v1/topics/t/messages", json={"n": 1}).status_code == 201
            while json.loads(ws.recv(timeout=5))["op"] != "messages":
                pass
            began = time.monotonic()
            gateway.signal(signal.SIGTERM)
            while json.loads(ws.recv(timeout=5))["op"] != "drain":  # it holds a message: the drain would wait for it
                pass
            assert gateway.terminate() == 130
            assert time.monotonic() - began < 5
        gateway.start()
        assert gateway.statistics("s")["waiting"] == 1
    assert "Traceback" not in gateway.log.read_text()
