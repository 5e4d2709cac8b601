"""One run from its beginning to its figures: subscriptions, connections, load, and the server before and after it.

What is measured runs from the first publish until every delivery has come and every acknowledgement is on the disk:
the whole life of a message, as the design's budget counts it (§10).
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from contextlib import suppress
from functools import partial
from typing import Final

import attrs
import orjson
import trio

from gateway import __version__
from gateway.bench import vitals
from gateway.bench.idle import open_idle
from gateway.bench.layout import Layout
from gateway.bench.link import HttpLink, LinkLostError, WebSocketLink
from gateway.bench.load import HttpPublisher, Publisher, Subscriber, WebSocketPublisher
from gateway.bench.pace import now_us, timetable
from gateway.bench.plan import Plan, Target
from gateway.bench.tally import Percentiles, Tally
from gateway.bench.vitals import Vitals, growth

CONSUMER_WINDOW: Final = 10_000
"""Messages in flight to one consumer: enough that the round trip of an ack never stops it."""
_STALLED_S: Final = 10.0
"""Nothing has moved for this long: what has not come is counted as lost."""
_SETTLING_S: Final = 0.5
"""Handshakes leave memory behind that is given back a moment later."""


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
    bytes_per_idle_connection: float | None


@attrs.frozen(kw_only=True)
class Figures:
    """What came out. `attrs.asdict` of it is what --json prints."""

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


class Run:
    """One plan carried out on one gateway."""

    def __init__(self, plan: Plan, target: Target, tally: Tally) -> None:
        self._plan = plan
        self._target = target
        self._tally = tally
        name = f"bench-{secrets.token_hex(4)}"
        self._topic = f"{name}.event"
        subscriptions = min(plan.subscribers, 1) if plan.shared else plan.subscribers
        self._names = [f"{name}.{number}" for number in range(subscriptions)]
        self._links: list[WebSocketLink | HttpLink] = []

    async def measure(self) -> Figures:
        """Raises LinkLostError where a connection or the gateway was lost."""
        async with trio.open_nursery() as links:
            control = await HttpLink.open(self._target.control, links)
            try:
                figures = await self._measure(control, links)
                await self._part()
            finally:
                for link in self._links:
                    link.abort()
                with trio.CancelScope(shield=True), trio.move_on_after(_STALLED_S), suppress(LinkLostError):
                    await self._delete_subscriptions()
                control.abort()
            links.cancel_scope.cancel()
        return figures

    async def _measure(self, control: HttpLink, links: trio.Nursery) -> Figures:
        tally = self._tally
        start = await vitals.look(self._target, control)
        idle_bytes = await self._stand_idle(start, control, links)
        await self._put_subscriptions(control)
        tally.stage = "connecting"
        publishers = [await self._publisher(links) for _ in range(self._plan.publishers)]
        subscribers = await self._attach_all(links)
        tally.stage = "publishing"
        before, load_s, began_s = await vitals.look(self._target, control), time.process_time(), trio.current_time()
        if self._plan.messages:
            await self._load(publishers, subscribers)
        load_s, passed_s = time.process_time() - load_s, trio.current_time() - began_s
        server_s = vitals.cpu_s(self._target.pid) if self._target.pid is not None else None
        after = await vitals.look(self._target, control)
        if server_s is not None:
            after = attrs.evolve(after, cpu_s=server_s)
        server = self._server(start, before, after, passed_s, idle_bytes)
        return self._figures(server, load_s / max(passed_s, 1e-6))

    # --------------------------------------------------------------------------------------------- beginning

    async def _stand_idle(self, start: Vitals, control: HttpLink, links: trio.Nursery) -> float | None:
        """Open the idle connections; what one of them costs in bytes."""
        count = self._plan.idle
        if not count:
            return None
        self._tally.stage = "opening idle connections"
        await open_idle(count, self._target.data, links, self._tally)
        await trio.sleep(_SETTLING_S)
        now = await vitals.look(self._target, control)
        if start.resident_bytes is None or now.resident_bytes is None:
            return None
        return (now.resident_bytes - start.resident_bytes) / count

    async def _put_subscriptions(self, control: HttpLink) -> None:
        settings = orjson.dumps({"topics": [self._topic], "window_max": CONSUMER_WINDOW, "dead_letter": ""})
        for name in self._names:
            status, body = await control.call("PUT", f"/v1/subscriptions/{name}", settings)
            if status not in (200, 201):
                raise LinkLostError(f"cannot create a subscription: {status} {body.decode(errors='replace')}")

    async def _delete_subscriptions(self) -> None:
        """On a connection of its own: that of the run may have broken. A gateway of our own is deleted as a whole."""
        if self._target.own_directory is None:
            async with trio.open_nursery() as nursery:
                control = await HttpLink.open(self._target.control, nursery)
                for name in self._names:
                    await control.call("DELETE", f"/v1/subscriptions/{name}")
                control.abort()

    async def _part(self) -> None:
        """Close the WebSocket connections by the book."""
        async with trio.open_nursery() as nursery:
            for link in self._links:
                if isinstance(link, WebSocketLink):
                    nursery.start_soon(link.aclose)

    async def _publisher(self, links: trio.Nursery) -> Publisher:
        layout = Layout(self._topic, self._plan.size_bytes)
        if self._plan.http:
            http = await HttpLink.open(self._target.data, links)
            self._links.append(http)
            return HttpPublisher(http, layout, self._topic, self._tally)
        return WebSocketPublisher(await self._websocket(links), layout, self._plan, self._tally)

    async def _websocket(self, links: trio.Nursery) -> WebSocketLink:
        link = await WebSocketLink.open(self._target.data, links)
        self._links.append(link)
        return link

    async def _attach_all(self, links: trio.Nursery) -> list[Subscriber]:
        subscribers = []
        for number in range(self._plan.subscribers):
            subscriber = Subscriber(await self._websocket(links), self._names[number % len(self._names)], self._tally)
            await subscriber.attach(CONSUMER_WINDOW)
            subscribers.append(subscriber)
        return subscribers

    # -------------------------------------------------------------------------------------------------- load

    async def _load(self, publishers: list[Publisher], subscribers: list[Subscriber]) -> None:
        """Publish and receive until all has come, or nothing comes any more."""
        plan, tally = self._plan, self._tally
        tally.begin(self._names, now_us())
        async with trio.open_nursery() as work:
            for subscriber in subscribers:
                work.start_soon(subscriber.run)
            for number, publisher in enumerate(publishers):
                pace = None
                if plan.rate_per_s is not None:
                    pace = timetable(plan.rate_per_s, number, plan.publishers, tally.started_us)
                work.start_soon(publisher.run, plan.share(number), pace)
            async with trio.open_nursery() as watch:
                watch.start_soon(self._watch_for_stall, watch.cancel_scope)
                await tally.complete.wait()
                tally.stage = "settling"
                async with trio.open_nursery() as settling:
                    for subscriber in subscribers:
                        settling.start_soon(subscriber.wait_settled)
                watch.cancel_scope.cancel()
            work.cancel_scope.cancel()

    async def _watch_for_stall(self, scope: trio.CancelScope) -> None:
        tally, rate = self._tally, self._plan.rate_per_s
        patience_s = _STALLED_S if rate is None else max(_STALLED_S, 3 / rate)
        while True:
            before = (tally.answered, tally.received, tally.complete.is_set())
            await trio.sleep(patience_s)
            if before == (tally.answered, tally.received, tally.complete.is_set()):
                scope.cancel()
                return

    # ----------------------------------------------------------------------------------------------- figures

    def _server(
        self, start: Vitals, before: Vitals, after: Vitals, passed_s: float, idle_bytes: float | None
    ) -> Server:
        messages = self._tally.accepted
        grown = partial(growth, before, after)
        cpu_s = None if before.cpu_s is None or after.cpu_s is None else after.cpu_s - before.cpu_s
        commits, collections = grown(vitals.COMMITS), grown(vitals.COLLECTIONS)
        longest_s = after.total(vitals.PAUSE_MAX_SECONDS) if collections else None
        return Server(
            cpu_us_per_message=_ratio(cpu_s, messages, 1e6),
            cpu_share=_ratio(cpu_s, passed_s),
            acked=grown(vitals.ACKED),
            commits=commits,
            messages_per_commit=_ratio(messages, commits),
            commit_ms=_ratio(grown(vitals.COMMIT_SECONDS), commits, 1e3),
            gc_collections=collections,
            gc_pause_ms=_ratio(grown(vitals.PAUSE_SECONDS), 1, 1e3),
            gc_pause_max_ms=_ratio(longest_s, 1, 1e3),
            resident_start_bytes=start.resident_bytes,
            resident_bytes=after.resident_bytes,
            bytes_per_idle_connection=_ratio(idle_bytes, 1),
        )

    def _figures(self, server: Server, load_cpu_share: float) -> Figures:
        tally, own = self._tally, self._target.own_directory
        return Figures(
            plan=self._plan,
            version=__version__,
            python=platform.python_version(),
            processors=os.cpu_count() or 0,
            store_filesystem="" if own is None else vitals.filesystem(own),
            complete=tally.complete.is_set() or not self._plan.messages,
            published=tally.accepted,
            refused=tally.refused,
            refusal=tally.refusal,
            received=tally.received,
            lost=tally.lost,
            duplicates=tally.duplicates,
            invented=tally.invented,
            idle_connections=tally.idle,
            elapsed_s=round(tally.elapsed_s, 6),
            published_per_s=round(tally.accepted / tally.elapsed_s, 1),
            received_per_s=round(tally.received / tally.elapsed_s, 1),
            confirm=tally.confirm.percentiles(),
            delivery=tally.delivery.percentiles(),
            load_cpu_share=round(load_cpu_share, 3),
            server=server,
        )


def _ratio(value: float | None, by: float | None, scale: float = 1.0) -> float | None:
    """`value / by` in thousandths; None where there is nothing to divide, or by."""
    return None if value is None or not by else round(value * scale / by, 3)
