from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.node import Node
from tests.edge.clients import Connect, connect_trio_websocket, connect_websockets
from tests.edge.raw import RawHttp, open_http


@pytest.fixture(params=[connect_trio_websocket, connect_websockets], ids=["trio-websocket", "websockets"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Connect to an address with each of two WebSocket libraries."""
    found: Connect = request.param
    return found


@pytest.fixture
async def http(node: Node) -> AsyncIterator[RawHttp]:
    """A bare HTTP connection to the data plane of the test's node."""
    async with open_http(node.address) as client:
        yield client
