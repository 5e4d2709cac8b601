"""Connections that only stand there, to see what one costs in memory."""

from __future__ import annotations

from typing import Final

import trio

from gateway.bench.link import WebSocketLink
from gateway.bench.plan import Address
from gateway.bench.tally import Tally

_OPENING_MAX: Final = 64
"""Handshakes under way at once; more would only wait in the listener's backlog."""


async def open_idle(count: int, address: Address, nursery: trio.Nursery, tally: Tally) -> None:
    """Open `count` WebSocket connections, which then answer pings in `nursery` until it ends. Raises LinkLostError."""
    opened = 0

    async def open_some() -> None:
        nonlocal opened
        while opened < count:
            opened += 1
            link = await WebSocketLink.open(address, nursery)
            nursery.start_soon(_stand, link)
            tally.idle += 1

    async with trio.open_nursery() as opening:
        for _ in range(min(count, _OPENING_MAX)):
            opening.start_soon(open_some)


async def _stand(link: WebSocketLink) -> None:
    try:
        while True:
            await link.receive()
    finally:
        link.abort()
