"""The composition root: builds every room, hands each its channels, opens the nursery. Reads like the map.

edges --> admit.ring --> (rings of pipelines) --> route.ring --> append.ring --> log <-- flusher --> notify --> answers
                                                                  |
consumers <-- deliver <-- engine.ready <--------------------------+--- redeliver (the clock)
    |                          ^
    +--> settle.ring --> settle+
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import structlog
import trio

from gateway import __version__
from gateway.auth.access import Access
from gateway.auth.audit import Audit
from gateway.config import Config
from gateway.config.settings import sections
from gateway.control.app import ControlPlane
from gateway.control.process import collector_pauses
from gateway.control.sources import Sources
from gateway.edge.connections import Connections
from gateway.edge.flow_control import FlowControl
from gateway.edge.guard import Guard
from gateway.edge.http import HttpConnection
from gateway.edge.joining import Joining
from gateway.edge.listener import Listener
from gateway.edge.longpoll import LongPoll
from gateway.edge.plane import DataPlane
from gateway.edge.publish import Publisher
from gateway.edge.stream import OutboxStream, Unsent
from gateway.edge.tmc import TmcEdge
from gateway.edge.watchdog import Watchdog
from gateway.edge.websocket import Services
from gateway.engine.base import Commits
from gateway.engine.clock import Clock
from gateway.engine.embedded import EmbeddedEngine
from gateway.errors import ConfigError, GatewayError, StoreError
from gateway.flow.admit import Admit
from gateway.flow.append import Append
from gateway.flow.deliver import Deliver
from gateway.flow.disk import DiskMarks
from gateway.flow.merge import Merge
from gateway.flow.notify import Notify
from gateway.flow.pipeline import Pipelines
from gateway.flow.quota import Quotas
from gateway.flow.redeliver import Redeliver
from gateway.flow.route import Route
from gateway.flow.scrub import Scrub
from gateway.flow.settle import Settle
from gateway.flow.sweep import Sweep
from gateway.model import Batch
from gateway.source.build import build
from gateway.source.intake import Intake
from gateway.source.watch import Watch
from gateway.steps import UNTRACED
from gateway.trace.files import directory_of
from gateway.trace.query import Query
from gateway.trace.recorder import Recorder
from gateway.wire.heads import Heads
from gateway.wire.http import encode_response, error_response

_log = structlog.get_logger("gateway.node")
_LIVE: Final = frozenset(("auth", "jwt"))
"""Sections that `reload` takes over."""
_REAUTHORIZED_AT_ONCE: Final = 50
"""Connections whose permissions are looked at before others run: a few milliseconds."""


class Node:
    """One gateway. `run` is its life; `address` and `control_address` are known once `ready` is set."""

    def __init__(self, config: Config) -> None:
        items_max = config.ring.items_max
        self.config = config
        self.name = socket.gethostname()
        self.ready = trio.Event()
        self.draining = False
        self.clock = Clock()
        self.recorder = self._recorder()
        steps = self.recorder.steps if self.recorder else UNTRACED
        self.engine = engine = EmbeddedEngine(config, self.clock, steps=steps)

        # the way, from its end to its beginning
        self.append = Append(engine, items_max, self.clock)
        self.route = Route(engine, items_max, self.append.ring)
        self.pipelines = Pipelines(config, self.route.ring, steps)
        way_on = self.pipelines if config.pipeline else self.route.ring
        self.admit = Admit(config.limits, config.ring, way_on, steps)
        self.disk = DiskMarks(config.store.directory, config.disk)
        self.quotas = Quotas(config.quota)
        self.admit.doors.append(self.disk.check)
        if self.quotas:
            self.admit.doors.append(self.quotas.check)
        self.unsent = Unsent(config.flow.unsent_bytes_max)
        self.deliver = Deliver(engine, self.clock, self.unsent.gathering)
        self.notify = Notify(engine, steps, self.unsent.gathering, self.deliver.turn_now)
        self.settle = Settle(engine, items_max, self.clock)
        self.redeliver = Redeliver(engine, config.deliver.tick_ms, self.clock, self.admit.submit, steps)
        self.scrub = Scrub(engine, config.store)
        self.merge = Merge(engine, config.store.merge_interval_s, self.clock)
        self.sweep = Sweep(engine, config.deliver.sweep_ms, self.clock)

        # who may do what
        self.access = Access(config, self.clock)
        self.audit = Audit(config.audit, self.clock)
        self._permissions_changed = trio.Event()
        self.access.on_change = lambda: self._permissions_changed.set()
        self.admit.on_denied = self._audit_denied

        # the edges
        self.connections = Connections()
        self.flow_control = FlowControl(engine, config.flow, config.deliver.frame_bytes_max, self.clock)
        self.watchdog = Watchdog()
        self.watchdog.every_tick(lambda _now: self.clock.steer())
        self.longpoll = LongPoll(engine, self.settle.ring, config.pull, self.clock, self.deliver.at_once)

        # what comes in by itself
        self.watch = Watch(build(config), lambda name: Intake(self.admit.submit, name).publish)

        self.tmc: TmcEdge | None = None
        self._http: dict[HttpConnection, None] = {}
        self._listeners: list[Listener] = []
        self._stop = trio.Event()
        self._address = self._control_address = ""

    @property
    def address(self) -> str:
        """HOST:PORT of the data plane."""
        return self._address

    @property
    def control_address(self) -> str:
        return self._control_address

    # -------------------------------------------------------------------------------------------------- run

    async def run(self) -> None:
        """From opening the store to its last sync. Raises ConfigError, StoreLockedError or StoreError."""
        self.access.load()
        if self.recorder:
            await self.recorder.open()
        await self.engine.open()
        try:
            if self.recorder:
                self.recorder.started(self.engine.epoch, *self.engine.kept)
            await self._run()
        finally:
            for listener in self._listeners:
                listener.close()
            with trio.CancelScope(shield=True):
                await self.engine.aclose()
                if self.recorder:
                    await self.recorder.aclose()

    def _recorder(self) -> Recorder | None:
        config = self.config
        return Recorder(config.trace, directory_of(config), self.name, self.clock) if config.trace.enabled else None

    async def _run(self) -> None:
        config = self.config
        joining = Joining(self.admit, config.limits, self.engine.epoch)
        data = self._listen("data", config.listen.data, self.engine.commits, None if self._judges_batches else joining)
        control = self._listen("control", config.listen.control)
        self._address, self._control_address = data.address, control.address
        services = Services(
            config=config,
            engine=self.engine,
            admit=self.admit,
            settle=self.settle.ring,
            ack=self.settle.ack,
            connections=self.connections,
            flow_control=self.flow_control,
            watchdog=self.watchdog,
            clock=self.clock,
            node=self.name,
            access=self.access,
            audit=self.audit,
        )
        self.tmc = tmc = TmcEdge(services, self.longpoll) if config.tmc.enabled else None
        publisher = Publisher(self.admit, config.limits, self.engine.epoch, joining)
        guard = Guard(self.access, self.audit, data.address)
        plane = DataPlane(services, guard, publisher, self.longpoll, tmc)
        control_guard = Guard(self.access, self.audit, control.address)
        control_plane = ControlPlane(self._sources(control_guard))

        async def serve(listener: Listener, connection: HttpConnection) -> None:
            refusal = self._too_many(listener, connection.remote)
            if refusal is None:
                await self._serve_http(connection)
            else:
                listener.refused += 1
                await self._refuse(connection.stream, refusal)

        data_heads, control_heads = Heads(), Heads()

        async def serve_data(stream: OutboxStream, remote: str) -> None:
            connection = HttpConnection(
                stream, remote, config.http, self.watchdog, plane, plane.upgrade, heads=data_heads
            )
            await serve(data, connection)

        async def serve_control(stream: OutboxStream, remote: str) -> None:
            connection = HttpConnection(stream, remote, config.http, self.watchdog, control_plane, heads=control_heads)
            await serve(control, connection)

        async with trio.open_nursery() as edges, trio.open_nursery() as flow:
            flow.start_soon(self.engine.run)
            flow.start_soon(self.append.run)
            flow.start_soon(self.route.run)
            for stage in self.pipelines.stages:
                flow.start_soon(stage.run)
            flow.start_soon(self.admit.run)
            flow.start_soon(self.notify.run)
            flow.start_soon(self.deliver.run)
            flow.start_soon(self.settle.run)
            flow.start_soon(self.redeliver.run)
            flow.start_soon(self.sweep.run)
            if config.store.merge_live_share:
                flow.start_soon(self.merge.run)
            if config.store.scrub_interval_s:
                flow.start_soon(self.scrub.run)
            flow.start_soon(self.disk.run)
            flow.start_soon(joining.run)
            flow.start_soon(self.longpoll.run)
            flow.start_soon(self.flow_control.run)
            flow.start_soon(self.watchdog.run)
            flow.start_soon(self.access.run)
            flow.start_soon(self._reauthorize)
            flow.start_soon(self.watch.run)
            if tmc is not None:
                await tmc.open()
            if self.recorder:
                flow.start_soon(self.recorder.run)
            edges.start_soon(data.run, serve_data)
            edges.start_soon(control.run, serve_control)
            self.ready.set()
            await self._stop.wait()
            await self._drain(data)
            edges.cancel_scope.cancel()
            flow.cancel_scope.cancel()

    @property
    def _judges_batches(self) -> bool:
        """Whether an operator's stage may fail a batch for the sake of one message: then nobody else's may be in it."""
        return any(":" in stage for pipeline in self.config.pipeline for stage in pipeline.stages)

    async def _serve_http(self, connection: HttpConnection) -> None:
        self._http[connection] = None
        try:
            await connection.serve()
        finally:
            del self._http[connection]

    def _too_many(self, listener: Listener, remote: str) -> GatewayError | None:
        """Why a connection is one too many; it is counted among the open ones already."""
        settings = self.config.listen
        if listener.open > settings.connections_max:
            why = f"the gateway has {settings.connections_max} connections (listen.connections_max); try again"
            return GatewayError("connection_limit", why)
        most = settings.connections_per_address_max
        if most and listener.open_of(remote) > most:
            why = f"your address has {most} connections (listen.connections_per_address_max); close some, or share them"
            return GatewayError("connection_limit", why)
        return None

    async def _refuse(self, stream: OutboxStream, error: GatewayError) -> None:
        """Say so, in HTTP, and close."""
        stream.offer(encode_response(error_response(error), self.watchdog.date, keep_alive=False))
        with trio.move_on_after(1):
            await stream.wait_drained()
        stream.abort()

    def _listen(
        self, name: str, address: str, commits: Commits | None = None, joining: Joining | None = None
    ) -> Listener:
        listen, bytes_max = self.config.listen, self.config.flow.kernel_bytes_max
        listener = Listener(name, address, listen.backlog, self.unsent, bytes_max, commits, joining)
        self._listeners.append(listener)
        return listener

    def _sources(self, guard: Guard) -> Sources:
        return Sources(
            config=self.config,
            node=self.name,
            engine=self.engine,
            clock=self.clock,
            admit=self.admit,
            pipelines=self.pipelines,
            disk=self.disk,
            quotas=self.quotas,
            route=self.route,
            append=self.append,
            notify=self.notify,
            deliver=self.deliver,
            settle=self.settle,
            redeliver=self.redeliver,
            longpoll=self.longpoll,
            watch=self.watch,
            tmc=self.tmc,
            connections=self.connections,
            flow_control=self.flow_control,
            unsent=self.unsent,
            listeners=self._listeners,
            access=self.access,
            audit=self.audit,
            guard=guard,
            query=Query(self.engine, self.recorder),
            recorder=self.recorder,
            not_ready=lambda: self.admit.closed.message if self.admit.closed else None,
        )

    # ------------------------------------------------------------------------------------------ permissions

    async def _reauthorize(self) -> None:
        """What is permitted may have changed, for those who are here as well: in turns, for they may be many."""
        while True:
            await self._permissions_changed.wait()
            self._permissions_changed = trio.Event()
            self.longpoll.reauthorize(self.access.renew)
            for number, connection in enumerate(self.connections):
                connection.reauthorize()
                if number % _REAUTHORIZED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def _audit_denied(self, batch: Batch, error: GatewayError) -> None:
        self.audit.refused(batch.principal, "publish", batch.origin, error, "")

    def reload(self, config: Config) -> None:
        """Take what may change while it runs from `config`: [auth] and [[jwt]]. Raises ConfigError, and then nothing
        has changed. What else is different is named in the log; it needs a restart."""
        before = {section: getattr(self.config, section) for section in sections()}
        self.access.reload(config)
        waits = [name for name, was in before.items() if name not in _LIVE and getattr(config, name) != was]
        if config.auth.open_metrics != self.config.auth.open_metrics:
            waits.append("auth.open_metrics")
        if waits:
            _log.warning("these sections have changed and need a restart", sections=waits)
        _log.info("the configuration was read again", live=sorted(_LIVE))

    # ------------------------------------------------------------------------------------------------ drain

    def stop(self) -> None:
        """Begin the drain; `run` returns when it is over."""
        self._stop.set()

    async def _drain(self, data: Listener) -> None:
        """Accept nothing new, let clients finish, cut those that have not in time (design §3)."""
        self.admit.closed = GatewayError("draining", "the gateway is going down; try again elsewhere or later", 2)
        data.close()
        self.watch.stop()
        self.longpoll.drain()
        for connection in self.connections:
            connection.drain()
        with trio.move_on_after(self.config.shutdown.drain_s):
            await self.connections.wait_empty()
        for connection in self.connections:
            connection.close(3001, "shutdown")
        for http in list(self._http):
            http.drain()
        with trio.move_on_after(self.config.websocket.close_timeout_s):
            await self.connections.wait_empty()
            await self.admit.budget.wait_empty()
            for http in list(self._http):
                await http.wait_answered()


def tune_interpreter() -> None:
    """What lives as long as the process is looked at no more; the rest seldom.

    The hot path makes tuples, bytes and slotted objects that die young by reference count; cycles are rare. Measured
    with `gateway bench`: see the line of GC pauses in its report. The second threshold is low because a collection of
    the middle generation looks at all that came since the last one: while two million objects of connections were made
    it took 64 ms at worst with (50_000, 20, 100) and takes 9 so, and all collections together the same.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.0005)  # the disk thread, back from a sync, waits at most this long for the interpreter
    gc.set_threshold(50_000, 1, 2000)


# ------------------------------------------------------------------------------------------------------ process


def run(
    config: Config, announce: Callable[[Node], None] | None = None, reload: Callable[[], Config] | None = None
) -> None:
    """Run a gateway until TERM or INT; HUP has it take what `reload` returns, or ends it too where there is none.

    Raises ConfigError, StoreLockedError, StoreError, or ForcedExitError.
    """
    try:
        trio.run(_main, config, announce or print_banner, reload, restrict_keyboard_interrupt_to_checkpoints=True)
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that says most: a nursery wraps even a single one."""
    for error in group.exceptions:
        found = _first(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, StoreError | ConfigError):
            return found
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


class ForcedExitError(Exception):
    """A second signal came while draining; what was answered is on the disk all the same."""


async def _main(config: Config, announce: Callable[[Node], None], reload: Callable[[], Config] | None) -> None:
    node = Node(config)
    async with trio.open_nursery() as nursery:
        ends = {signal.SIGTERM, signal.SIGINT} | ({signal.SIGHUP} if reload is None else set())
        nursery.start_soon(_signals, node, ends)
        if reload is not None:
            nursery.start_soon(_reloads, node, reload)
        nursery.start_soon(_announce, node, announce)
        await node.run()
        nursery.cancel_scope.cancel()


async def _announce(node: Node, announce: Callable[[Node], None]) -> None:
    await node.ready.wait()
    tune_interpreter()
    collector_pauses().forget()
    announce(node)
    notify_systemd("READY=1")


async def _signals(node: Node, ends: set[signal.Signals]) -> None:
    with trio.open_signal_receiver(*ends) as signals:
        async for number in signals:
            if node.draining:
                raise ForcedExitError(signal.Signals(number).name)
            _log.info("draining; a second signal ends at once", signal=signal.Signals(number).name)
            node.draining = True
            notify_systemd("STOPPING=1")
            node.stop()


async def _reloads(node: Node, reload: Callable[[], Config]) -> None:
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            try:
                node.reload(reload())
            except ConfigError as error:
                _log.error("the configuration is not taken; the last good one stays", error=str(error))


def notify_systemd(state: str) -> None:
    """Tell the service manager (sd_notify(3)), where there is one."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("cannot notify the service manager", error=str(error))


def print_banner(node: Node) -> None:
    """Where it listens, and what to try."""
    data, control = node.address, node.control_address
    as_who = ' -H "Authorization: Bearer $TOKEN"' if node.access.required else ""
    print(
        f"""push gateway {__version__}   store: {os.path.abspath(node.config.store.directory)}
  data plane     http://{data}      ws://{data}/v1/connect
  control plane  http://{control}
try
  curl -X PUT http://{control}/v1/subscriptions/hello -d '{{"topics":["hello.>"]}}'{as_who}
  curl --json '{{"text":"hello"}}' http://{data}/v1/topics/hello.world/messages{as_who}
  curl -X POST http://{data}/v1/subscriptions/hello/pull -d '{{"wait_ms":1000}}'{as_who}
Ctrl-C drains and ends.""",
        flush=True,
    )
