"""What the figures must be, and what they are: the budgets of the design's show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from gateway.bench.record import Case, Record

JETSTREAM: Final = "jetstream"
"""Peer: NATS JetStream on a file, as it comes; it syncs every two minutes."""
JETSTREAM_SYNC: Final = "jetstream-sync"
"""Peer: the same with `sync_interval: always`."""

Figure = Callable[[Case], float | None]


@attrs.frozen(kw_only=True)
class Yardstick:
    """A peer's figure times a factor, in place of a number."""

    peer: str
    rate: int
    """Of the peer's run; 0: saturated."""
    field: str
    """Of its line."""
    factor: float


@attrs.frozen(kw_only=True)
class Budget:
    """One line of the table."""

    scenario: str
    case: str
    what: str
    figure: Figure
    must: float | Yardstick
    unit: str
    at_most: bool = True


@attrs.frozen(kw_only=True)
class Judgement:
    """A budget and what was measured; None where it was not."""

    budget: Budget
    must: float | None
    measured: float | None

    @property
    def ratio(self) -> float | None:
        """Measured to must."""
        return None if self.measured is None or not self.must else self.measured / self.must

    @property
    def met(self) -> bool | None:
        if self.ratio is None:
            return None
        return self.ratio <= 1 if self.budget.at_most else self.ratio >= 1


def judge(record: Record, budget: Budget) -> Judgement:
    """A budget held against a record; a scenario that was run at a part of its size does not count."""
    outcome = record.outcomes.get(budget.scenario)
    case = None if outcome is None or outcome.scale != 1 else outcome.case(budget.case)
    must = budget.must
    return Judgement(
        budget=budget,
        must=_of_peer(record, must) if isinstance(must, Yardstick) else must,
        measured=None if case is None else budget.figure(case),
    )


def _of_peer(record: Record, yardstick: Yardstick) -> float | None:
    for line in record.peers.get(yardstick.peer, []):
        if line.get("rate", 0) == yardstick.rate and yardstick.field in line:
            return float(line[yardstick.field]) * yardstick.factor
    return None


def _cpu(case: Case) -> float | None:
    return case.cpu_us


def _per_s(case: Case) -> float | None:
    return case.per_s


def _delivered_in(percentile: str) -> Figure:
    def figure(case: Case) -> float | None:
        latency = case.latency.get("delivery")
        return None if latency is None else float(getattr(latency, percentile))

    return figure


def _extra(name: str, scale: float = 1.0) -> Figure:
    def figure(case: Case) -> float | None:
        value = case.extra.get(name)
        return None if value is None else value * scale

    return figure


def _pause(case: Case) -> float | None:
    """No pause is a short one."""
    return case.gc_pause_max_ms or 0.0


_JETSTREAM_CPU: Final = Yardstick(peer=JETSTREAM, rate=5000, field="server_cpu_us_msg", factor=1.3)
_BURST: Final = "a burst of 1,000,000"
_CPU: Final = "server CPU a message"

BUDGETS: Final = (
    Budget(scenario="pipeline", case="1→1", what=_CPU, figure=_cpu, must=8, unit="µs"),
    Budget(
        scenario="pipeline",
        case="1→1",
        what="1.3 x JetStream as it comes, not fsynced",
        figure=_per_s,
        must=Yardstick(peer=JETSTREAM, rate=0, field="msgs_s", factor=1.3),
        unit="/s",
        at_most=False,
    ),
    Budget(
        scenario="pipeline",
        case="1→1",
        what="25 x JetStream with sync always",
        figure=_per_s,
        must=Yardstick(peer=JETSTREAM_SYNC, rate=0, field="msgs_s", factor=25),
        unit="/s",
        at_most=False,
    ),
    Budget(scenario="rate", case="1,000/s", what="p99", figure=_delivered_in("p99_ms"), must=3, unit="ms"),
    Budget(scenario="rate", case="5,000/s", what="p99", figure=_delivered_in("p99_ms"), must=3, unit="ms"),
    Budget(scenario="rate", case="5,000/s", what="p99.9", figure=_delivered_in("p99_9_ms"), must=10, unit="ms"),
    Budget(
        scenario="rate",
        case="5,000/s",
        what=f"{_CPU}: 1.3 x JetStream as it comes",
        figure=_cpu,
        must=_JETSTREAM_CPU,
        unit="µs",
    ),
    Budget(scenario="fanout", case="1→1,000", what="server CPU a delivery", figure=_cpu, must=25, unit="µs"),
    Budget(scenario="sparse", case="5,000 x 1/s", what="p99", figure=_delivered_in("p99_ms"), must=50, unit="ms"),
    Budget(scenario="sparse", case="5,000 x 1/s", what=_CPU, figure=_cpu, must=120, unit="µs"),
    Budget(
        scenario="http-publish",
        case="32 connections",
        what="fsynced publishes",
        figure=_per_s,
        must=20_000,
        unit="/s",
        at_most=False,
    ),
    Budget(
        scenario="long-poll",
        case="32 clients",
        what="pulls of one message",
        figure=_per_s,
        must=10_000,
        unit="/s",
        at_most=False,
    ),
    Budget(
        scenario="idle",
        case="5,000 connections",
        what="memory of a connection",
        figure=_extra("connection_bytes", 1 / 1024),
        must=24,
        unit="KiB",
    ),
    Budget(
        scenario="large",
        case="64 KiB",
        what="HTTP in, WebSocket out, each way",
        figure=_extra("megabytes_per_s"),
        must=150,
        unit="MB/s",
        at_most=False,
    ),
    Budget(scenario="burst", case=_BURST, what="longest GC pause, 1 M waiting", figure=_pause, must=10, unit="ms"),
    Budget(
        scenario="storm", case="1,000,000", what="longest GC pause, 1 M in flight", figure=_pause, must=10, unit="ms"
    ),
    Budget(
        scenario="misfits",
        case="and 30 misfits",
        what="p99 beside misfits, to p99 without",
        figure=_extra("p99_ratio"),
        must=1.5,
        unit="",
    ),
    Budget(
        scenario="burst",
        case=_BURST,
        what="growth of resident memory",
        figure=_extra("growth_bytes", 1 / 2**20),
        must=64,
        unit="MiB",
    ),
    Budget(
        scenario="burst",
        case=_BURST,
        what="drained, to live",
        figure=_extra("drained_to_live"),
        must=0.8,
        unit="",
        at_most=False,
    ),
    Budget(
        scenario="burst",
        case=_BURST,
        what="p50 of a publish in the drain, to one beside live delivery",
        figure=_extra("publish_in_drain_to_live"),
        must=2,
        unit="",
    ),
    Budget(
        scenario="storm",
        case="1,000,000",
        what="longest answer to a probe",
        figure=_extra("probe_max_ms"),
        must=20,
        unit="ms",
    ),
)
"""Issues' words: the hot path, and what delivery and routing have to show."""
