"""Whether the process runs, whether it takes traffic, and how its parts do."""

from __future__ import annotations

import enum
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import Response

from gateway import __version__
from gateway.control.call import JSON, Answer, Call, Right, json, ref
from gateway.control.sources import Sources
from gateway.errors import GatewayError
from gateway.flow.disk import Mark
from gateway.source.base import State as SourceState


class State(enum.StrEnum):
    """How a part does; the worst state is the whole's."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


_BY_SEVERITY: Final = tuple(State)


@attrs.frozen
class Check:
    """One part; `detail` says why it is not ok, and the mend."""

    state: State
    detail: str = ""


@attrs.frozen
class Probe:
    """What `/livez` and `/readyz` answer."""

    status: State


@attrs.frozen(kw_only=True)
class Health:
    """What `/healthz` answers."""

    status: State
    version: str
    node: str
    epoch: str
    checks: dict[str, Check]


class HealthCalls:
    """The two probes and the report."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def calls(self) -> list[Call]:
        return [
            Call(
                name="getLive",
                method="GET",
                path="/livez",
                summary="Whether the process runs",
                answers=(Answer(200, "It runs.", {JSON: ref("Probe")}),),
                respond=self.live,
                needs=Right.OPEN,
            ),
            Call(
                name="getReady",
                method="GET",
                path="/readyz",
                summary="Whether the gateway takes traffic",
                answers=(Answer(200, "It does.", {JSON: ref("Probe")}),),
                errors=("draining", "store_failed"),
                respond=self.ready,
                needs=Right.OPEN,
            ),
            Call(
                name="getHealth",
                method="GET",
                path="/healthz",
                summary="How the parts of the gateway do",
                description="A report to read, always answered 200; probes ask `/livez` and `/readyz`.",
                answers=(Answer(200, "The whole is as its worst part.", {JSON: ref("Health")}),),
                respond=self.health,
                needs=Right.OPEN,
            ),
        ]

    async def live(self, request: Request) -> Response:
        return json(attrs.asdict(Probe(State.OK)))

    async def ready(self, request: Request) -> Response:
        sources = self._sources
        reason = sources.not_ready()
        if reason is not None:
            raise sources.admit.closed or GatewayError("draining", reason)
        return json(attrs.asdict(Probe(State.OK)))

    async def health(self, request: Request) -> Response:
        checks = await self._checks()
        worst = max((check.state for check in checks.values()), key=_BY_SEVERITY.index)
        sources = self._sources
        report = Health(status=worst, version=__version__, node=sources.node, epoch=sources.engine.epoch, checks=checks)
        return json(attrs.asdict(report))

    async def _checks(self) -> dict[str, Check]:
        return {
            "traffic": self._check_traffic(),
            "stages": self._check_stages(),
            "log": self._check_log(),
            "disk": self._check_disk(),
            "connections": self._check_connections(),
            "sources": self._check_sources(),
            "credentials": self._check_credentials(),
        }

    def _check_traffic(self) -> Check:
        reason = self._sources.not_ready()
        return Check(State.OK) if reason is None else Check(State.FAILED, reason)

    def _check_stages(self) -> Check:
        sources = self._sources
        rings = (sources.admit.ring, sources.route.ring, sources.append.ring, sources.settle.ring)
        full = [s.name for s in (ring.statistics() for ring in rings) if s.depth >= s.items_max]
        if full:
            return Check(State.DEGRADED, f"full: {', '.join(full)}; producers wait (ring.items_max)")
        budget = sources.admit.budget
        if budget.used >= budget.bytes_max:
            return Check(State.DEGRADED, f"{budget.used} bytes are under way; producers wait (ring.bytes_max)")
        return Check(State.OK)

    def _check_log(self) -> Check:
        statistics, store = self._sources.engine.statistics(), self._sources.config.store
        if statistics.is_full:
            return Check(State.FAILED, f"{store.directory}: no room for another segment; publishes are refused")
        if statistics.pending_bytes >= store.pending_bytes_max:
            return Check(
                State.DEGRADED,
                f"{statistics.pending_bytes} bytes wait for the disk; it is slow (store.pending_bytes_max)",
            )
        return Check(State.OK)

    def _check_disk(self) -> Check:
        """As the flow saw it within the last second."""
        disk, directory = self._sources.disk, self._sources.config.store.directory
        if disk.error:
            return Check(State.FAILED, f"{directory}: {disk.error}")
        free = 0 if disk.room is None else disk.room.free
        if disk.mark is Mark.HIGH:
            return Check(State.FAILED, f"{directory}: {free} bytes are free; publishes are refused (disk.high_...)")
        if disk.mark is Mark.LOW:
            return Check(State.DEGRADED, f"{directory}: {free} bytes are free; make room (disk.low_...)")
        return Check(State.OK)

    def _check_credentials(self) -> Check:
        troubles = self._sources.access.troubles
        return Check(State.DEGRADED, "; ".join(troubles)) if troubles else Check(State.OK)

    def _check_connections(self) -> Check:
        most = self._sources.config.listen.connections_max
        for listener in self._sources.listeners:
            if listener.name == "data" and listener.open >= most:
                return Check(State.DEGRADED, f"{listener.open} connections; no more are taken (listen.connections_max)")
        return Check(State.OK)

    def _check_sources(self) -> Check:
        waiting = [s for s in self._sources.watch.sources if s.statistics.state is not SourceState.RUNNING]
        if waiting:
            return Check(State.DEGRADED, "; ".join(f"{s.name}: {s.statistics.error or 'connecting'}" for s in waiting))
        return Check(State.OK)
