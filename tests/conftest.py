"""What the tests of several rooms share: a real node in this process, its log, and hypothesis without a deadline."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
import trio
from hypothesis import settings

from gateway import config
from gateway.node import Node
from tests import conservation

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started the suite in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the programs that tests interrupt would ignore it too

settings.register_profile("gateway", deadline=None)  # two shared cores: a slow run is no failure
settings.register_profile("fuzz", deadline=None, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gateway"))

Log = list[MutableMapping[str, Any]]
StartNode = Callable[..., Awaitable[Node]]

QUICK: dict[str, Any] = {
    "listen.data": "127.0.0.1:0",
    "listen.control": "127.0.0.1:0",
    "deliver.tick_ms": 10,
    "websocket.close_timeout_s": 1.0,
}
"""What every node of a test is started with: free ports, and clocks that a test can wait for."""


def quick_config(directory: Path, flags: Mapping[str, Any] | None = None) -> config.Config:
    """A configuration for tests, with `flags` (`{"http.idle_timeout_s": 0.2}`) over it."""
    return config.load(flags={**QUICK, "store.directory": str(directory), **(flags or {})})


@asynccontextmanager
async def running(directory: Path, flags: Mapping[str, Any] | None = None, **lists: Any) -> AsyncIterator[Node]:
    """A node for those who cannot have the fixture; it is drained at the end of the block."""
    async with trio.open_nursery() as nursery:
        node = Node(attrs.evolve(quick_config(directory, flags), **lists))
        node.watchdog.period_s = 0.02
        nursery.start_soon(node.run)
        with trio.fail_after(10):
            await node.ready.wait()
        yield node
        conservation.check_engine(node.engine)
        node.stop()


@pytest.fixture
def log() -> Iterator[Log]:
    """What the gateway logs during the test. Nothing in it may be an error: a test that provokes one clears it."""
    with structlog.testing.capture_logs() as entries:
        yield entries
    errors = [entry for entry in entries if entry["log_level"] in ("error", "critical") or entry.get("exc_info")]
    assert errors == []


@pytest.fixture
async def start_node(nursery: trio.Nursery, tmp_path: Path, log: Log) -> AsyncIterator[StartNode]:
    """Start a node with the given flags and lists of tables (`source=(...)`).

    It is drained behind the test, and must have nothing under way then, and each message in one hand (promise 6).
    """
    nodes: list[tuple[Node, trio.Event]] = []

    async def live(node: Node, ended: trio.Event) -> None:
        try:
            await node.run()
        finally:
            ended.set()

    async def start(flags: Mapping[str, Any] | None = None, **lists: Any) -> Node:
        config = attrs.evolve(quick_config(tmp_path / f"store{len(nodes)}", flags), **lists)
        node, ended = Node(config), trio.Event()
        node.watchdog.period_s = 0.02
        nursery.start_soon(live, node, ended)
        with trio.fail_after(10):
            await node.ready.wait()
        nodes.append((node, ended))
        return node

    yield start
    for node, ended in nodes:
        if not ended.is_set():
            conservation.check_engine(node.engine)
        node.stop()
        with trio.fail_after(10):
            await ended.wait()
        assert node.admit.budget.used == 0
        assert len(node.connections) == 0
        assert node.longpoll.waiting == 0


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    """A node as it is by default."""
    return await start_node()
