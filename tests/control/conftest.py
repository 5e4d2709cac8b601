from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from gateway.config import Config, Deliver, Listen, Store
from gateway.node import Node


def config(directory: Path) -> Config:
    """A node on free ports of the loopback, whose clock ticks fast."""
    return Config(
        listen=Listen(data="127.0.0.1:0", control="127.0.0.1:0"),
        store=Store(directory=str(directory)),
        deliver=Deliver(tick_ms=10),
    )


@pytest.fixture
async def node(nursery: trio.Nursery, tmp_path: Path) -> Node:
    """A whole gateway, on real sockets and a real store; it ends with the test's nursery."""
    node = Node(config(tmp_path / "store"))
    nursery.start_soon(node.run)
    with trio.fail_after(5):
        await node.ready.wait()
    return node


def client_of(address: str) -> httpx.AsyncClient:
    """A client without TLS: to load the system's certificates takes longer than most tests."""
    return httpx.AsyncClient(base_url=f"http://{address}", timeout=5, verify=False)


@pytest.fixture
async def control(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the node's control plane."""
    async with client_of(node.control_address) as client:
        yield client


@pytest.fixture
async def data(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the node's data plane."""
    async with client_of(node.address) as client:
        yield client
