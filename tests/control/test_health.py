from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import attrs
import httpx
import pytest
import trio

from gateway import __version__
from gateway.config import Listen
from gateway.errors import GatewayError
from gateway.node import Node
from gateway.source.base import SourceStatistics
from gateway.source.base import State as SourceState
from tests.control.conftest import client_of, config
from tests.control.shapes import check_shape

DRAINING = GatewayError("draining", "the gateway is going down", retry_after_s=2)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_a_probe_says_ok(control: httpx.AsyncClient, path: str) -> None:
    answer = await control.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    check_shape("Probe", answer.json())


async def test_a_node_that_drains_lives_but_is_not_ready_and_says_why(node: Node, control: httpx.AsyncClient) -> None:
    node.admit.closed = DRAINING
    answer = await control.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, DRAINING.as_dict())
    assert answer.headers["retry-after"] == "2"
    assert (await control.get("/livez")).status_code == 200


async def test_health_names_the_program_and_each_part(node: Node, control: httpx.AsyncClient) -> None:
    answer = await control.get("/healthz")
    report = answer.json()
    check_shape("Health", report)
    assert answer.status_code == 200
    assert (report["status"], report["version"]) == ("ok", __version__)
    assert (report["node"], report["epoch"]) == (node.name, node.engine.epoch)
    assert report["checks"].keys() == {"traffic", "stages", "log", "disk", "connections", "sources", "credentials"}
    assert {check["state"] for check in report["checks"].values()} == {"ok"}


def _drain(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.admit.closed = DRAINING


def _fill_ring(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    full = attrs.evolve(node.append.ring.statistics(), depth=node.config.ring.items_max)
    monkeypatch.setattr(node.append.ring, "statistics", lambda: full)


def _fill_budget(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.admit.budget.used = node.admit.budget.bytes_max


def _slow_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    behind = attrs.evolve(node.engine.statistics(), pending_bytes=node.config.store.pending_bytes_max)
    monkeypatch.setattr(node.engine, "statistics", lambda: behind)


def _no_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)


def _full_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill_disk(monkeypatch, node.config.disk.high_free_bytes - 1)


def _filling_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill_disk(monkeypatch, node.config.disk.low_free_bytes - 1)


def _fill_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    full = SimpleNamespace(f_bavail=free, f_blocks=2**33, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: full)


def _lost_upstream(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = SimpleNamespace(name="outbox", statistics=SourceStatistics(state=SourceState.WAITING, error="it is away"))
    monkeypatch.setattr(node.watch, "sources", [lost])


TROUBLES = [
    (_lost_upstream, "sources", "degraded", "outbox: it is away"),
    (_drain, "traffic", "failed", "going down"),
    (_fill_ring, "stages", "degraded", "full: append"),
    (_fill_budget, "stages", "degraded", "ring.bytes_max"),
    (_slow_disk, "log", "degraded", "store.pending_bytes_max"),
    (_no_disk, "disk", "failed", "Input/output error"),
    (_full_disk, "disk", "failed", "publishes are refused"),
    (_filling_disk, "disk", "degraded", "make room"),
]


@pytest.mark.parametrize(("trouble", "part", "state", "why"), TROUBLES, ids=[row[0].__name__ for row in TROUBLES])
async def test_a_part_in_trouble_says_why_and_the_whole_is_as_its_worst_part(
    node: Node,
    control: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[Node, pytest.MonkeyPatch], None],
    part: str,
    state: str,
    why: str,
) -> None:
    with monkeypatch.context() as patch:
        trouble(node, patch)
        await node.disk.look_now()
        answer = await control.get("/healthz")
    report = answer.json()
    check_shape("Health", report)
    assert answer.status_code == 200
    assert report["status"] == state
    assert report["checks"][part]["state"] == state
    assert why in report["checks"][part]["detail"]
    assert [name for name, check in report["checks"].items() if check["state"] != "ok"] == [part]


async def test_a_node_that_takes_no_more_connections_is_degraded(nursery: trio.Nursery, tmp_path: Path) -> None:
    few = attrs.evolve(config(tmp_path), listen=Listen(data="127.0.0.1:0", control="127.0.0.1:0", connections_max=1))
    node = Node(few)
    nursery.start_soon(node.run)
    await node.ready.wait()
    async with client_of(node.address) as data, client_of(node.control_address) as control:
        assert (await control.get("/healthz")).json()["status"] == "ok"
        assert (await data.get("/")).status_code == 404
        check = (await control.get("/healthz")).json()["checks"]["connections"]
    assert check["state"] == "degraded"
    assert check["detail"] == "1 connections; no more are taken (listen.connections_max)"
