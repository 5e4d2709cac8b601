"""One run from its beginning to its figures: subscriptions, connections, load, and the server before and after it.

What is measured runs from the first publish until every delivery has come and every acknowledgement is on the disk:
the whole life of a message, as the design's budget counts it (§10).
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from typing import Final

import attrs
import orjson
import trio

from gateway import __version__
from gateway.bench import vitals
from gateway.bench.figures import Backlog, Figures, Server, ratio
from gateway.bench.idle import open_idle
from gateway.bench.layout import Layout
from gateway.bench.link import HttpLink, LinkLostError, WebSocketLink
from gateway.bench.load import HttpPublisher, Publisher, Subscriber, WebSocketPublisher
from gateway.bench.misfits import Misfit, MisfitSubscriber
from gateway.bench.pace import now_us, timetable
from gateway.bench.plan import BATCH_DEFAULT, Plan, Target
from gateway.bench.stages import Stage, stages
from gateway.bench.tally import Tally
from gateway.bench.vitals import Vitals, growth

CONSUMER_WINDOW: Final = 10_000
"""Messages in flight to one consumer: enough that the round trip of an ack never stops it."""
_AT_ONCE: Final = 64
"""Connections opened, and subscriptions made, at once."""
_STALLED_S: Final = 10.0
"""Nothing has moved for this long: what has not come is counted as lost."""
_SETTLING_S: Final = 0.5
"""Handshakes leave memory behind that is given back a moment later."""


class Run:
    """One plan carried out on one gateway."""

    def __init__(
        self,
        plan: Plan,
        target: Target,
        tally: Tally,
        watched: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        """`watched` is held over what is measured."""
        self._watched = watched
        self._plan = plan
        self._target = target
        self._tally = tally
        name = f"bench-{secrets.token_hex(4)}"
        self._topic = f"{name}.event"
        subscriptions = min(plan.subscribers, 1) if plan.shared else plan.subscribers
        self._names = [f"{name}.{number}" for number in range(subscriptions)]
        self._links: list[WebSocketLink | HttpLink] = []
        own = [f"{self._topic}.{number}" for number in range(subscriptions)]
        self._topics = own if plan.own_topics and own else [self._topic]
        self._backlog: Backlog | None = None

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
        if self._plan.backlog:
            await self._pile_up(control, links)
        tally.stage = "connecting"
        publishers = [await self._publisher(links) for _ in range(self._plan.publishers)]
        async with self._watched():
            before = await vitals.look(self._target, control)
            tally.begin(self._names, now_us(), self._names[: self._plan.misfits])
            subscribers, misfits = await self._attach_all(links)
            tally.stage = "publishing"
            if not self._plan.backlog:  # else its delivery has begun with the first consumer
                before = await vitals.look(self._target, control)
                tally.started_us = now_us()
            load_s, began_s = time.process_time(), trio.current_time()
            if self._plan.messages:
                await self._load(publishers, subscribers, misfits, links)
            load_s, passed_s = time.process_time() - load_s, trio.current_time() - began_s
            server_s = vitals.cpu_s(self._target.pid) if self._target.pid is not None else None
            after = await vitals.look(self._target, control)
            if server_s is not None:
                after = attrs.evolve(after, cpu_s=server_s)
        server = self._server(start, before, after, passed_s, idle_bytes)
        found = stages(before, after, self._tally.accepted, passed_s) if self._plan.messages else []
        return self._figures(server, found, load_s / max(passed_s, 1e-6))

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
        return vitals.memory_growth(start, now, count)

    async def _put_subscriptions(self, control: HttpLink) -> None:
        """Several at once: each waits for the disk."""
        self._tally.stage = "making subscriptions"
        waiting = list(enumerate(self._names))

        async def put_some(link: HttpLink) -> None:
            while waiting:
                number, name = waiting.pop()
                topics = [self._topics[number % len(self._topics)]]
                settings = {
                    "topics": topics,
                    "filter": self._plan.filter,
                    "window_max": CONSUMER_WINDOW,
                    "dead_letter": "",
                }
                status, body = await link.call("PUT", f"/v1/subscriptions/{name}", orjson.dumps(settings))
                if status not in (200, 201):
                    raise LinkLostError(f"cannot create a subscription: {status} {body.decode(errors='replace')}")

        others: list[HttpLink] = []
        async with trio.open_nursery() as nursery:
            try:
                async with trio.open_nursery() as putting:
                    putting.start_soon(put_some, control)
                    for _ in range(min(len(waiting) // 8, _AT_ONCE)):
                        others.append(await HttpLink.open(self._target.control, nursery))
                        putting.start_soon(put_some, others[-1])
            finally:
                for link in others:
                    link.abort()

    async def _pile_up(self, control: HttpLink, links: trio.Nursery) -> None:
        """Publish the backlog, with nobody to take it."""
        tally, count = self._tally, self._plan.backlog
        tally.stage = "publishing the backlog"
        before, began_s = await vitals.look(self._target, control), trio.current_time()
        piling = Tally(attrs.evolve(self._plan, messages=count, backlog=0))
        link = await self._websocket(links)
        layout = Layout(self._topics, self._plan.size_bytes, fields=self._plan.fields)
        plan = attrs.evolve(self._plan, window=max(self._plan.window, BATCH_DEFAULT), batch=BATCH_DEFAULT)
        await WebSocketPublisher(link, layout, plan, piling, stamped=False).run(count, None)
        passed_s = trio.current_time() - began_s
        after = await vitals.look(self._target, control)
        if piling.refused:
            raise LinkLostError(f"{piling.refused} messages of the backlog were refused: {piling.refusal}")
        for low, high in piling.published:
            tally.note_backlog(low, high)
        growth_bytes = None
        if before.resident_bytes is not None and after.resident_bytes is not None:
            growth_bytes = after.resident_bytes - before.resident_bytes
        self._backlog = Backlog(
            messages=count,
            published_per_s=round(count / passed_s, 1),
            resident_growth_bytes=growth_bytes,
            anon_growth_bytes=vitals.memory_growth(before, after),
            drained_s=None,
            drained_per_s=None,
        )

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
        layout = Layout(self._topics, self._plan.size_bytes, fields=self._plan.fields)
        if self._plan.http:
            http = await HttpLink.open(self._target.data, links)
            self._links.append(http)
            return HttpPublisher(http, layout, self._topic, self._tally)
        return WebSocketPublisher(await self._websocket(links), layout, self._plan, self._tally)

    async def _websocket(self, links: trio.Nursery) -> WebSocketLink:
        link = await WebSocketLink.open(self._target.data, links)
        self._links.append(link)
        return link

    async def _attach_all(self, links: trio.Nursery) -> tuple[list[Subscriber], list[MisfitSubscriber]]:
        """Those that keep up, and those that do not, which have the first of the subscriptions."""
        plan, tally = self._plan, self._tally
        kinds = [Misfit.SLOW_READER] * plan.slow_readers + [Misfit.NO_ACK] * plan.no_ack
        kinds += [Misfit.LATE_ACK] * plan.late_ack
        misfits = []
        for name, kind in zip(self._names, kinds, strict=False):
            misfits.append(MisfitSubscriber(kind, name, partial(WebSocketLink.open, self._target.data, links), tally))
            await misfits[-1].attach(CONSUMER_WINDOW)
        numbers = list(range(len(misfits), plan.subscribers))
        subscribers: list[Subscriber] = []

        async def attach_some() -> None:
            while numbers:
                name = self._names[numbers.pop() % len(self._names)]
                subscribers.append(await self._attach(name, links))

        async with trio.open_nursery() as attaching:
            for _ in range(min(len(numbers), _AT_ONCE)):
                attaching.start_soon(attach_some)
        return subscribers, misfits

    async def _attach(self, name: str, links: trio.Nursery, *, timed: bool = True) -> Subscriber:
        subscriber = Subscriber(await self._websocket(links), name, self._tally, timed=timed)
        await subscriber.attach(CONSUMER_WINDOW)
        return subscriber

    # -------------------------------------------------------------------------------------------------- load

    async def _load(
        self,
        publishers: list[Publisher],
        subscribers: list[Subscriber],
        misfits: list[MisfitSubscriber],
        links: trio.Nursery,
    ) -> None:
        """Publish and receive until all has come, or nothing comes any more."""
        plan, tally = self._plan, self._tally
        async with trio.open_nursery() as work:
            for misfit in misfits:
                work.start_soon(misfit.run)
            for subscriber in subscribers:
                work.start_soon(subscriber.run)
            for number, publisher in enumerate(publishers):
                pace = None
                if plan.rate_per_s is not None:
                    pace = timetable(plan.rate_per_s, number, plan.publishers, tally.started_us)
                work.start_soon(publisher.run, plan.share(number), pace)
            async with trio.open_nursery() as watch:
                watch.start_soon(self._watch_for_stall, watch.cancel_scope)
                await tally.kept_up.wait()
                subscribers = subscribers + await self._relieve(misfits, work, links)
                await tally.complete.wait()
                tally.stage = "settling"
                async with trio.open_nursery() as settling:
                    for subscriber in subscribers:
                        settling.start_soon(subscriber.wait_settled)
                watch.cancel_scope.cancel()
            work.cancel_scope.cancel()

    async def _relieve(
        self, misfits: list[MisfitSubscriber], work: trio.Nursery, links: trio.Nursery
    ) -> list[Subscriber]:
        """Others take the places of those that do not keep up, and everything that is due there must come to them."""
        if misfits:
            self._tally.stage = "relieving"
        reliefs = []
        for name, misfit in zip(self._names, misfits, strict=False):
            misfit.stop()
            reliefs.append(await self._attach(name, links, timed=False))
            work.start_soon(reliefs[-1].run)
        return reliefs

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
            cpu_us_per_message=ratio(cpu_s, messages, 1e6),
            cpu_share=ratio(cpu_s, passed_s),
            acked=grown(vitals.ACKED),
            commits=commits,
            messages_per_commit=ratio(messages, commits),
            commit_ms=ratio(grown(vitals.COMMIT_SECONDS), commits, 1e3),
            gc_collections=collections,
            gc_pause_ms=ratio(grown(vitals.PAUSE_SECONDS), 1, 1e3),
            gc_pause_max_ms=ratio(longest_s, 1, 1e3),
            resident_start_bytes=start.resident_bytes,
            resident_bytes=after.resident_bytes,
            resident_peak_bytes=after.peak_bytes,
            anon_bytes=after.anon_bytes,
            file_bytes=after.file_bytes,
            bytes_per_idle_connection=ratio(idle_bytes, 1),
        )

    def _drained(self) -> Backlog | None:
        """The backlog, and how it went away."""
        tally, backlog = self._tally, self._backlog
        if backlog is None or not tally.drained_us:
            return backlog
        drained_s = (tally.drained_us - tally.started_us) / 1e6
        return attrs.evolve(
            backlog, drained_s=round(drained_s, 3), drained_per_s=ratio(tally.backlog * len(self._names), drained_s)
        )

    def _figures(self, server: Server, found: list[Stage], load_cpu_share: float) -> Figures:
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
            began_us=tally.started_us,
            elapsed_s=round(tally.elapsed_s, 6),
            published_per_s=round(tally.accepted / tally.elapsed_s, 1),
            received_per_s=round(tally.received / tally.elapsed_s, 1),
            confirm=tally.confirm.percentiles(),
            delivery=tally.delivery.percentiles(),
            load_cpu_share=round(load_cpu_share, 3),
            server=server,
            stages=found,
            backlog=self._drained(),
            misfits_closed=tally.misfits_closed,
        )
