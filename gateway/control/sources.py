"""What the control plane may ask of a node."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from gateway.auth.access import Access
from gateway.auth.audit import Audit
from gateway.config import Config
from gateway.edge.connections import Connections
from gateway.edge.flow_control import FlowControl
from gateway.edge.guard import Guard
from gateway.edge.listener import Listener
from gateway.edge.longpoll import LongPoll
from gateway.edge.stream import Unsent
from gateway.edge.tmc import TmcEdge
from gateway.engine.base import Engine
from gateway.flow.admit import Admit
from gateway.flow.append import Append
from gateway.flow.deliver import Deliver
from gateway.flow.disk import DiskMarks
from gateway.flow.notify import Notify
from gateway.flow.pipeline import Pipelines
from gateway.flow.quota import Quotas
from gateway.flow.redeliver import Redeliver
from gateway.flow.route import Route
from gateway.flow.settle import Settle
from gateway.source.watch import Watch
from gateway.trace.query import Query
from gateway.trace.recorder import Recorder


@attrs.frozen
class Sources:
    """The rooms of one node, and its state in a word."""

    config: Config
    node: str
    engine: Engine
    clock: Callable[[], int]
    admit: Admit
    pipelines: Pipelines
    disk: DiskMarks
    quotas: Quotas
    route: Route
    append: Append
    notify: Notify
    deliver: Deliver
    settle: Settle
    redeliver: Redeliver
    longpoll: LongPoll
    watch: Watch
    tmc: TmcEdge | None
    """None where it is not enabled."""
    connections: Connections
    flow_control: FlowControl
    unsent: Unsent
    listeners: list[Listener]
    access: Access
    audit: Audit
    guard: Guard
    query: Query
    recorder: Recorder | None
    """None where no trace is kept."""
    not_ready: Callable[[], str | None]
    """Why the node is not ready for traffic; None where it is."""
