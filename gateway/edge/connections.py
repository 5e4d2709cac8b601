"""Every open client connection, by name: what the control plane lists and closes, and the drain speaks to."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Protocol

import attrs
import trio

from gateway.errors import GatewayError


@attrs.frozen
class ConnectionView:
    """One connection as `GET /v1/connections` shows it (protocol.md §5)."""

    connection: str
    protocol: str
    remote: str
    principal: str
    client: str
    subscriptions: list[str]
    window: int
    in_flight: int
    acked_per_s: float
    ack_latency_ms: float | None
    unsent_bytes: int
    state: str
    reason: str
    since_ms: int


class Connection(Protocol):
    """What a connection of a client can be asked."""

    name: str

    def view(self) -> ConnectionView: ...

    def close(self, code: int, reason: str) -> None:
        """Begin to close it with a WebSocket close code; must not wait."""

    def reauthorize(self) -> None:
        """What is permitted may have changed: go on with what is permitted now, or end; must not wait."""

    def drain(self) -> None:
        """Tell the client to finish and to reconnect elsewhere."""


class Connections:
    """The registry."""

    def __init__(self) -> None:
        self._by_name: dict[str, Connection] = {}
        self._removed = trio.Event()
        self.opened = 0
        self.closes: dict[int, int] = {}
        """Connections closed, by close code."""

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._by_name.values()))

    def new_name(self) -> str:
        return f"c-{secrets.token_hex(6)}"

    def add(self, connection: Connection) -> None:
        self._by_name[connection.name] = connection
        self.opened += 1

    def remove(self, connection: Connection, code: int) -> None:
        del self._by_name[connection.name]
        self.closes[code] = self.closes.get(code, 0) + 1
        self._removed.set()
        self._removed = trio.Event()

    async def wait_empty(self) -> None:
        """Wait until none is open."""
        while self._by_name:
            await self._removed.wait()

    def get(self, name: str) -> Connection:
        connection = self._by_name.get(name)
        if connection is None:
            raise GatewayError(
                "connection_not_found", f"connection {name!r} is not open; GET /v1/connections lists all"
            )
        return connection
