from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from gateway import __version__
from gateway.errors import GatewayError
from gateway.model import Batch, Durability
from gateway.node import Node
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
    assert report["checks"].keys() == {"traffic", "stages", "log", "disk", "connections"}
    assert {check["state"] for check in report["checks"].values()} == {"ok"}


def _drain(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.admit.closed = DRAINING


def _fill_ring(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.append.ring.statistics().__class__, "depth", 256, raising=False)


def _fill_budget(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.admit.budget.used = node.admit.budget.bytes_max


def _no_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)


def _full_disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs("/")
    values = list(real)
    values[4] = 0  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))


TROUBLES: list[tuple[Callable[[Node, pytest.MonkeyPatch], None], str, str, str]] = [
    (_drain, "traffic", "failed", "going down"),
    (_fill_budget, "stages", "degraded", "ring.bytes_max"),
    (_no_disk, "disk", "failed", "Input/output error"),
    (_full_disk, "disk", "degraded", "make room"),
]
