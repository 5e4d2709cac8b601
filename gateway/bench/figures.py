"""What comes out of a run; `attrs.asdict` of `Figures` is what --json prints."""

from __future__ import annotations

import attrs

from gateway.bench.plan import Plan
from gateway.bench.stages import Stage
from gateway.bench.tally import Percentiles


@attrs.frozen(kw_only=True)
class Server:
    """The gateway during the run; None for what it does not show."""

    cpu_us_per_message: float | None
    cpu_share: float | None
    """Of one core."""
    acked: float | None
    """Messages that consumers settled, as the gateway counts them."""
    commits: float | None
    messages_per_commit: float | None
    commit_ms: float | None
    """One write and one fdatasync, on average."""
    gc_collections: float | None
    gc_pause_ms: float | None
    """All pauses of the garbage collector together."""
    gc_pause_max_ms: float | None
    """The longest since the gateway's start; None where there was none in this run."""
    resident_start_bytes: float | None
    resident_bytes: float | None
    resident_peak_bytes: float | None
    anon_bytes: float | None
    """Of the resident bytes at the end, its own."""
    file_bytes: float | None
    """Pages of mapped files."""
    bytes_per_idle_connection: float | None


@attrs.frozen(kw_only=True)
class Backlog:
    """What was published before there was a consumer."""

    messages: int
    published_per_s: float
    resident_growth_bytes: float | None
    """Of the gateway while it took them."""
    anon_growth_bytes: float | None
    """Of these, its own; without the pages of its files."""
    drained_s: float | None
    """From the first consumer until as many messages had come; None where they have not."""
    drained_per_s: float | None


@attrs.frozen(kw_only=True)
class Figures:
    """What came out."""

    plan: Plan
    version: str
    """Of this program; the gateway's own where it is one of ours."""
    python: str
    processors: int
    store_filesystem: str
    """Of the gateway's own store; "" where it is not ours."""
    complete: bool
    """Every message was accepted, and came to every subscription."""
    published: int
    refused: int
    refusal: str
    received: int
    lost: int
    duplicates: int
    invented: int
    """Deliveries of what nobody has published."""
    idle_connections: int
    began_us: int = 0
    """When the first message went out, or the first consumer came, on the load's clock."""
    elapsed_s: float
    published_per_s: float
    received_per_s: float
    confirm: Percentiles | None
    """From the publish, or from when it was due, to its confirmation."""
    delivery: Percentiles | None
    """The same to the delivery frame's arrival."""
    load_cpu_share: float
    """Of one core; near 1 it is the load that was measured."""
    server: Server
    stages: list[Stage]
    """Where the gateway's time went."""
    backlog: Backlog | None
    misfits_closed: int
    """Times the gateway closed a consumer that did not keep up."""


def ratio(value: float | None, by: float | None, scale: float = 1.0) -> float | None:
    """`value / by` in thousandths; None where there is nothing to divide, or by."""
    return None if value is None or not by else round(value * scale / by, 3)
