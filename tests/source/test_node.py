"""Sources of a whole gateway in a process of its own: from the upstream to a consumer, over kills of either side."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.process import GatewayProcess
from tests.source.server import PostgresServer


def configured(directory: Path, text: str) -> GatewayProcess:
    file = directory / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return GatewayProcess(directory, "--config", str(file))


class Reader:
    """Pulls a subscription dry and counts what it is given, by id."""

    def __init__(self, gateway: GatewayProcess, name: str) -> None:
        self.seen: Counter[str] = Counter()
        self.data: dict[str, Any] = {}
        self._gateway = gateway
        self._url = f"{gateway.http}/v1/subscriptions/{name}"

    def read_until(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.seen) < number:
            assert time.monotonic() < deadline, f"{len(self.seen)} of {number}: {self._gateway.log.read_text()[-3000:]}"
            self.read()

    def read(self) -> int:
        answer = httpx.post(f"{self._url}/pull", json={"max": 1000, "wait_ms": 300}).raise_for_status().json()
        for message in answer["messages"]:
            self.seen[message["id"]] += 1
            self.data[message["id"]] = message["data"]
        ranges = [[message["position"], message["position"]] for message in answer["messages"]]
        if ranges:
            httpx.post(f"{self._url}/settle", json={"lease": answer["lease"], "ack": ranges}).raise_for_status()
        return len(ranges)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_outbox_arrives_whole_over_kills_of_the_gateway_and_the_database(
    database: PostgresServer, tmp_path: Path
) -> None:
    """Every row that was committed is delivered, none that was not, and none is stored twice."""
    text = f'''[[source]]\nname = "db"\ntype = "postgres"\nurl = "{database.url}"\nrows_max = 20\n'''
    rows = 3000

    def insert(begin: int) -> None:
        database.execute(
            "INSERT INTO outbox (topic, payload) SELECT 'trade.paid', json_build_object('n', n)"
            f" FROM generate_series({begin}, {begin + rows // 3 - 1}) AS n"
        )

    with configured(tmp_path, text) as gateway:
        gateway.put_subscription("all", topics=["trade.>"])
        reader = Reader(gateway, "all")
        insert(0)
        reader.read_until(200)
        gateway.kill()
        insert(1000)
        gateway.start()
        reader.read_until(1200)
        database.kill()
        database.start()
        insert(2000)
        reader.read_until(rows)
        while reader.read():
            pass
        assert {data["n"] for data in reader.data.values()} == set(range(rows))
        assert len(reader.seen) == rows
        wait_until(lambda: database.execute("SELECT count(*) FROM outbox")[0][0] == 0)
        assert gateway.statistics("all")["routed"] == rows, "a row that was read twice was recognised"
        health = httpx.get(f"{gateway.control}/healthz").json()
        assert health["checks"]["sources"] == {"state": "ok", "detail": ""}
        assert gateway.terminate() == 0


def test_lines_arrive_whole_over_kills_of_the_gateway_and_rotations(tmp_path: Path) -> None:
    lines = tmp_path / "events.ndjson"
    text = f'''[[source]]\nname = "lines"\ntype = "ndjson"\npath = "{lines}"\ntopic = "a.b"\npoll_ms = 10\n'''

    def write(begin: int, end: int) -> None:
        with lines.open("a") as file:
            file.write("".join(f'{{"n":{number}}}\n' for number in range(begin, end)))

    write(0, 0)
    with configured(tmp_path, text) as gateway:
        gateway.put_subscription("all", topics=["a.>"])
        reader = Reader(gateway, "all")
        write(0, 5000)
        reader.read_until(700)
        gateway.kill()
        write(5000, 5500)
        lines.rename(tmp_path / "events.ndjson.1")
        write(5500, 6000)
        gateway.start()
        reader.read_until(6000)
        assert {data["n"] for data in reader.data.values()} == set(range(6000))
        assert gateway.statistics("all")["routed"] == 6000
        assert gateway.terminate() == 0
        assert "not ours" not in gateway.log.read_text()


def test_a_source_that_cannot_begin_ends_nothing(tmp_path: Path) -> None:
    text = """[[source]]\nname = "db"\ntype = "postgres"\nurl = "host=/nowhere"\n"""
    with configured(tmp_path, text) as gateway:
        gateway.put_subscription("all", topics=["a.>"])
        httpx.post(f"{gateway.http}/v1/topics/a.b/messages", json=1).raise_for_status()
        wait_until(lambda: "/nowhere" in httpx.get(f"{gateway.control}/healthz").text)
        assert httpx.get(f"{gateway.control}/readyz").status_code == 200
        assert gateway.terminate() == 0
