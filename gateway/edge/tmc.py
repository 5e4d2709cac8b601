"""The edge of TMC, whole: its applications, its WebSocket sessions and its HTTP calls, on the flow of all others."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.edge.longpoll import LongPoll
from gateway.edge.stream import OutboxStream
from gateway.edge.tmc_applications import DIRECTORY, Applications
from gateway.edge.tmc_calls import Calls
from gateway.edge.tmc_rest import Rest
from gateway.edge.tmc_session import TmcSession, TmcStatistics
from gateway.edge.websocket import Services
from gateway.wire.request import Request

PATH: Final = b"/router/rest"


class TmcEdge:
    """Built by the node where `tmc.enabled` is set. Serves nobody before it is opened."""

    def __init__(self, services: Services, longpoll: LongPoll) -> None:
        config = services.config
        directory = Path(config.store.directory) / DIRECTORY
        self.applications = Applications(config.tmc_application, services.engine, directory, services.clock)
        calls = Calls(
            config, self.applications, services.engine, services.admit, services.settle, longpoll, services.clock
        )
        self.rest = Rest(config.tmc, self.applications, calls, services.audit, services.access, services.clock)
        self.statistics = TmcStatistics()
        self._services = services

    async def open(self) -> None:
        """Once the engine runs: every application has its groups. Raises StoreError."""
        await self.applications.open()

    def session(self, request: Request, rest: bytes, stream: OutboxStream, remote: str) -> TmcSession:
        """A client that has asked for a WebSocket."""
        return TmcSession(self._services, self.applications, self.statistics, request, rest, stream, remote)
