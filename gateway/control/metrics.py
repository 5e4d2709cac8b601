"""Every stage in numbers, for Prometheus: names `gateway_...` with the unit last, in OpenMetrics or the classic text.

Nothing is counted here: the families are read off the rooms' own statistics when somebody asks. All of a subscription's
numbers are taken at one instant, so that promise 6 can be checked from outside.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, Final

import trio
from prometheus_client.core import (
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric
from starlette.requests import Request
from starlette.responses import Response

from gateway import __version__
from gateway.control.call import Answer, Call, Right
from gateway.control.exposition import OPENMETRICS, PLAIN, TURN, counter, gauge, write
from gateway.control.process import collector_metrics, collector_pauses, process_metrics
from gateway.control.sources import Sources
from gateway.errors import TABLE
from gateway.flow.ring import SIZES, Ring, RingStatistics
from gateway.model import SubscriptionView
from gateway.source.base import State
from gateway.trace.recorder import Recorder

SUBSCRIPTIONS_MAX: Final = 1000
"""Subscriptions shown one by one, by name; a dozen series each, and a monitoring system pays for every one."""
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1006, 1009, 1011} | {kind.close for kind in TABLE.values()})
"""Close codes shown one by one; clients may send any, and no client shall make series."""

_CONTENT_TYPES: Final = {
    OPENMETRICS: "application/openmetrics-text; version=1.0.0; charset=utf-8",
    PLAIN: "text/plain; version=0.0.4; charset=utf-8",
}


class MetricsCall:
    """GET /metrics"""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._pauses = collector_pauses()

    def calls(self) -> list[Call]:
        text = {"type": "string"}
        return [
            Call(
                name="getMetrics",
                method="GET",
                path="/metrics",
                summary="Every stage in numbers, for Prometheus",
                description="OpenMetrics where `Accept` names it, else the classic text format.",
                answers=(Answer(200, "All metrics.", {PLAIN: text, OPENMETRICS: text}),),
                respond=self.respond,
                needs=Right.OPEN if self._sources.config.auth.open_metrics else Right.VIEW,
            )
        ]

    async def respond(self, request: Request) -> Response:
        media = OPENMETRICS if OPENMETRICS in request.headers.get("accept", "").lower() else PLAIN
        process = await trio.to_thread.run_sync(process_metrics)
        views = await self._views()
        text = await write(self._families(views, process), media)
        return Response(text, headers={"content-type": _CONTENT_TYPES[media], "vary": "accept"})

    async def _views(self) -> list[SubscriptionView]:
        """The subscriptions that are shown, asked for in turns."""
        sources = self._sources
        views: list[SubscriptionView] = []
        for view in islice(sources.engine.subscriptions(sources.clock()), SUBSCRIPTIONS_MAX):
            views.append(view)
            if len(views) % TURN == 0:
                await trio.lowlevel.checkpoint()
        return views

    def _families(self, views: Sequence[SubscriptionView], process: Iterable[Metric]) -> Iterator[Metric]:
        sources = self._sources
        yield from subscription_metrics(views, sources.engine.subscription_count(), sources.clock())
        yield from node_metrics(sources)
        yield from stage_metrics(sources)
        yield from filter_metrics(sources, {view.name for view in views})
        yield from flow_metrics(sources)
        yield from log_metrics(sources)
        if sources.recorder is not None:
            yield from trace_metrics(sources.recorder)
        yield from edge_metrics(sources)
        yield from auth_metrics(sources)
        yield from flow_control_metrics(sources)
        yield from source_metrics(sources)
        yield from tmc_metrics(sources)
        yield from process
        yield from collector_metrics(self._pauses)


def _each(rooms: Mapping[str, object], attribute: str) -> dict[str, float]:
    """One number of each."""
    return {name: getattr(room, attribute) for name, room in rooms.items()}


def node_metrics(sources: Sources) -> Iterator[Metric]:
    """Which node this is, and whether it takes traffic."""
    about = {
        "version": __version__,
        "node": sources.node,
        "epoch": sources.engine.epoch,
        "python": platform.python_version(),
    }
    yield InfoMetricFamily("gateway_build", "This program, and the life of its store.", value=about)
    yield gauge("gateway_ready", "Whether the gateway takes traffic: 1 or 0.", sources.not_ready() is None)
    yield gauge("gateway_tasks", "Tasks of the run loop.", trio.lowlevel.current_statistics().tasks_living)


def stage_metrics(sources: Sources) -> Iterator[Metric]:
    """The rings in front of the stages, and the bytes of everything under way."""
    own = sources.pipelines.stages
    rings: tuple[Ring[Any], ...] = (
        sources.admit.ring,
        *(stage.ring for stage in own),
        sources.route.ring,
        sources.append.ring,
        sources.settle.ring,
    )
    stages = {statistics.name: statistics for statistics in (ring.statistics() for ring in rings)}
    yield gauge("gateway_ring_items", "Batches that wait in front of a stage.", _each(stages, "depth"), "stage")
    yield gauge("gateway_ring_peak_items", "The most that ever waited there.", _each(stages, "peak"), "stage")
    yield gauge("gateway_ring_limit_items", "Batches that may wait there.", _each(stages, "items_max"), "stage")
    yield counter("gateway_stage_items", "Batches a stage was given.", _each(stages, "items"), "stage")
    yield counter("gateway_stage_messages", "Messages in them.", _each(stages, "messages"), "stage")
    yield counter("gateway_stage_waits", "Times a sender found the ring full.", _each(stages, "waits"), "stage")
    passed: dict[str, float] = {stage.name: stage.passed for stage in own}
    yield counter("gateway_stage_passed_messages", "Messages a pipeline's stage let go on.", passed, "stage")
    yield counter("gateway_stage_refused_messages", "Messages a stage refused.", _each(stages, "refused"), "stage")
    yield _batch_sizes(stages)
    busy = _each(stages, "busy_seconds")
    busy |= {"notify": sources.notify.statistics.busy_seconds, "deliver": sources.deliver.statistics.busy_seconds}
    yield counter("gateway_stage_busy_seconds", "Time a stage worked.", busy, "stage")
    yield from backpressure_metrics(sources)
    budget = sources.admit.budget
    yield gauge("gateway_publishing_bytes", "Bytes of publishes under way in all stages.", budget.used)
    yield gauge("gateway_publishing_limit_bytes", "Bytes that may be.", budget.bytes_max)
    yield counter("gateway_publishing_waits", "Publishes that waited for room.", budget.waits)


def filter_metrics(sources: Sources, shown: Collection[str]) -> Iterator[Metric]:
    """What filters could not say, of the subscriptions shown one by one."""
    errors: dict[str, float] = {name: n for name, n in sources.engine.filter_errors().items() if name in shown}
    text = "Messages of which the filter could not say whether they match; they went elsewhere only."
    yield counter("gateway_subscription_filter_error_messages", text, errors, "subscription")


def _batch_sizes(stages: Mapping[str, RingStatistics]) -> Metric:
    """How many messages the batches of each stage have."""
    family = HistogramMetricFamily("gateway_stage_batch_messages", "Messages in a batch.", labels=["stage"])
    for name, ring in stages.items():
        bounds = [str(float(2**power)) for power in range(SIZES)] + ["+Inf"]
        family.add_metric([name], list(zip(bounds, accumulate(ring.sizes), strict=True)), ring.messages)
    return family


def backpressure_metrics(sources: Sources) -> Iterator[Metric]:
    """What producers are refused for: the disk, and their quota."""
    disk, quotas = sources.disk, sources.quotas
    if disk.room is not None:
        yield gauge("gateway_disk_free_bytes", "Bytes free for the store.", disk.room.free)
        yield gauge("gateway_disk_size_bytes", "Bytes of its file system.", disk.room.size)
    marks = {mark.value: float(disk.mark is mark) for mark in disk.reached}
    yield gauge("gateway_disk_mark", "Whether free bytes are below a mark: 1 or 0.", marks, "mark")
    reached = {mark.value: float(times) for mark, times in disk.reached.items()}
    yield counter("gateway_disk_marks_reached", "Times they came below it.", reached, "mark")
    yield counter("gateway_quota_refused_batches", "Publishes beyond a quota.", quotas.statistics.refused_batches)
    yield counter("gateway_quota_refused_messages", "Messages in them.", quotas.statistics.refused_messages)


def flow_metrics(sources: Sources) -> Iterator[Metric]:
    """From notify to redeliver."""
    notify, deliver, settle = sources.notify.statistics, sources.deliver.statistics, sources.settle
    outcomes = {"accepted": notify.accepted, "duplicate": notify.duplicates, "refused": notify.refused}
    yield counter("gateway_published_messages", "Messages answered to producers, by outcome.", outcomes, "outcome")
    yield counter("gateway_published_batches", "Batches answered to producers.", notify.batches)
    yield counter("gateway_notify_commits", "Commits whose waiters were woken.", notify.commits)
    yield counter("gateway_notify_settlements", "Settlements answered once durable.", notify.settlements)
    yield counter("gateway_delivered_frames", "Deliveries handed to consumers.", deliver.frames)
    yield counter("gateway_delivered_messages", "Messages in them.", deliver.messages)
    yield counter("gateway_redelivered_messages", "Messages delivered again.", deliver.redelivered)
    yield counter("gateway_cold_frames", "Deliveries that were read back from the log.", deliver.cold_frames)
    settled = {verb.value: number for verb, number in settle.counts.items()}
    yield counter("gateway_settled_messages", "Messages settled, by what consumers said.", settled, "verb")
    yield counter("gateway_settled_unknown_positions", "Positions settled that were not leased.", settle.unknown)
    redeliver = sources.redeliver.statistics
    yield counter("gateway_clock_ticks", "Ticks of the lease clock.", redeliver.ticks)
    yield counter("gateway_clock_late_ticks", "Ticks more than one tick late.", redeliver.late_ticks)
    yield counter("gateway_clock_steps", "Steps of ticks that had more to do than one.", redeliver.steps)
    yield counter("gateway_dead_letters", "Dead letters stored.", redeliver.dead_letters)


def log_metrics(sources: Sources) -> Iterator[Metric]:
    """The store and what is kept in memory of it."""
    log, config = sources.engine.statistics(), sources.config
    yield gauge("gateway_log_end_position", "The position the next message is given.", log.positions_end)
    yield gauge("gateway_log_durable_position", "Positions below this are on the disk.", log.durable_end)
    yield gauge("gateway_log_pending_bytes", "Bytes that wait for the disk.", log.pending_bytes)
    yield gauge("gateway_log_pending_limit_bytes", "Bytes that may.", config.store.pending_bytes_max)
    yield SummaryMetricFamily(
        "gateway_log_commit_seconds",
        "Commits: one write and one fdatasync each.",
        count_value=log.commits,
        sum_value=log.commit_seconds,
        unit="seconds",
    )
    yield counter("gateway_log_records", "Records written.", log.records)
    yield counter("gateway_log_written_bytes", "Bytes written.", log.bytes)
    yield counter("gateway_log_checkpoints", "Checkpoints written.", log.checkpoints)
    yield gauge("gateway_log_segments", "Segments on the disk.", log.segments)
    yield counter(
        "gateway_log_released_segments", "Segments deleted: all in them was settled, or moved.", log.segments_released
    )
    yield gauge("gateway_log_full", "Whether there is no room for another segment: 1 or 0.", log.is_full)
    yield gauge(
        "gateway_log_by_kernel", "Whether commits are written by the kernel itself (io_uring): 1 or 0.", log.by_kernel
    )
    yield counter("gateway_log_merges", "Merges of segments of which little was due.", log.merges)
    yield counter("gateway_log_merged_segments", "Segments that were merged.", log.merged_segments)
    yield counter("gateway_log_merge_moved_bytes", "Bytes that merges moved.", log.merged_bytes)
    yield counter("gateway_log_merge_freed_bytes", "Bytes that merges freed.", log.merge_freed_bytes)
    yield counter("gateway_log_merge_failures", "Merges given up: damage, no room, or a seek.", log.merge_failures)
    yield gauge("gateway_log_sealed_bytes", "Bytes of segments that are complete.", log.sealed_bytes)
    yield counter("gateway_log_scrubbed_bytes", "Bytes of them that were read again and checked.", log.scrubbed_bytes)
    yield counter("gateway_log_scrub_damaged_records", "Records found damaged by that.", log.scrub_damaged)
    yield gauge("gateway_log_damaged_parts", "Parts of segments found damaged at the start.", log.damaged_parts)
    yield counter(
        "gateway_unreadable_messages", "Messages set aside because they could not be read.", log.damaged_messages
    )
    yield counter("gateway_bodies_mapped_bytes", "Bytes served as slices of mapped segments.", log.mapped_bytes)
    yield gauge("gateway_bodies_bytes", "Message bodies kept in memory.", log.bodies_bytes)
    yield gauge("gateway_bodies_limit_bytes", "Message bodies that may be.", config.store.cache_bytes)
    yield counter("gateway_bodies_hits", "Bodies found in memory.", log.bodies_hits)
    yield counter("gateway_bodies_misses", "Bodies read from the disk.", log.bodies_misses)
    yield gauge("gateway_inflight_records", "Leases, and what came back or is delayed.", log.inflight_records, "tier")
    limit = config.deliver.direct_bytes_max
    yield gauge("gateway_inflight_direct_limit_bytes", "Bytes of them in memory outside the heap that may be.", limit)
    settled = log.inflight_settled
    yield counter("gateway_inflight_settled_messages", "Messages settled, by where their lease was.", settled, "tier")
    yield gauge("gateway_dedup_ids", "Message ids remembered.", log.dedup_ids)
    yield gauge("gateway_dedup_limit_ids", "Message ids that may be.", config.limits.dedup_ids_max)


def trace_metrics(recorder: Recorder) -> Iterator[Metric]:
    """The log of what happened to every message."""
    trace = recorder.statistics()
    yield counter("gateway_trace_events", "Events of the trace, each about a batch.", trace.events)
    yield counter("gateway_trace_lost_events", "Events that found no room, or could not be written.", trace.lost)
    yield counter("gateway_trace_written_bytes", "Bytes of the trace written.", trace.bytes)
    yield gauge("gateway_trace_pending_bytes", "Bytes of the trace that wait to be written.", trace.pending_bytes)
    yield gauge("gateway_trace_segments", "Files of the trace on the disk.", trace.segments)
    yield gauge("gateway_trace_segments_bytes", "Bytes of them.", trace.segments_bytes)


def edge_metrics(sources: Sources) -> Iterator[Metric]:
    """Connections, listeners, pulls."""
    connections, longpoll = sources.connections, sources.longpoll
    yield gauge("gateway_connections", "WebSocket connections open.", len(connections))
    yield counter("gateway_connections_opened", "WebSocket connections opened.", connections.opened)
    yield counter("gateway_connections_closed", "WebSocket connections closed.", _closed(connections.closes), "code")
    listeners = {listener.name: listener for listener in sources.listeners}
    yield gauge("gateway_listener_connections", "TCP connections open.", _each(listeners, "open"), "listener")
    accepted = _each(listeners, "accepted")
    yield counter("gateway_listener_accepted_connections", "TCP connections accepted.", accepted, "listener")
    refused = _each(listeners, "refused")
    yield counter("gateway_listener_refused_connections", "TCP connections that were too many.", refused, "listener")
    limit = sources.config.listen.connections_max
    yield gauge("gateway_listener_limit_connections", "TCP connections that may be open on the data plane.", limit)
    yield gauge("gateway_pulls_waiting", "Pulls that wait for a message.", longpoll.waiting)
    yield gauge("gateway_pull_leases", "Answered pulls that still hold messages.", longpoll.leases)
    yield counter("gateway_pulls", "Pulls.", longpoll.pulls)


def auth_metrics(sources: Sources) -> Iterator[Metric]:
    """Who was refused, and whether credentials and permissions are up to date. Nobody is named."""
    access, audit = sources.access, sources.audit
    refusals = {code: float(number) for code, number in audit.refusals.items()}
    yield counter("gateway_auth_refusals", "Requests and operations that were refused, by code.", refusals, "code")
    yield gauge("gateway_auth_tokens", "Checked tokens that are remembered.", access.tokens_known)
    yield gauge("gateway_auth_stale_sources", "Files and issuers that could not be read again.", len(access.troubles))
    yield counter("gateway_audit_suppressed", "Refusals that the audit log left out.", audit.suppressed)
    yield counter("gateway_audit_failures", "Lines that the audit file did not take.", audit.failures)


def flow_control_metrics(sources: Sources) -> Iterator[Metric]:
    """How the WebSocket consumers keep up, and what flow control does about it."""
    control = sources.flow_control
    statistics, steps = control.statistics, {name: float(count) for name, count in control.statistics.steps.items()}
    yield gauge("gateway_flow_slow_consumers", "Consumers that do not keep up.", control.slow(), "state")
    yield counter("gateway_flow_steps", "Times a consumer came to a state.", steps, "state")
    yield counter("gateway_flow_windows_said", "Times a client was told of another window.", statistics.windows_said)
    unsent = sources.unsent
    yield gauge("gateway_unsent_bytes", "Bytes that wait for the sockets of all connections.", unsent.bytes)
    yield gauge("gateway_unsent_limit_bytes", "Bytes that may.", unsent.bytes_max)
    yield counter(
        "gateway_gathered_bytes", "Bytes sent from where they were stored, uncopied (sendmsg).", unsent.gathered_bytes
    )
    yield counter("gateway_joined_bytes", "Bytes of several parts that were copied into one.", unsent.joined_bytes)
    yield counter("gateway_unsent_cut_connections", "Connections cut because more would have waited.", unsent.cut)
    yield gauge("gateway_flow_active_consumers", "Consumers the next look is for.", len(control.active))
    yield counter("gateway_flow_looks", "Looks at the consumers, ten a second.", statistics.looks)
    yield counter("gateway_flow_busy_seconds", "Time they took.", statistics.busy_seconds)


def source_metrics(sources: Sources) -> Iterator[Metric]:
    """The upstreams that the gateway watches by itself; nothing where there are none."""
    watched = {source.name: source.statistics for source in sources.watch.sources}
    if not watched:
        return
    read, published = _each(watched, "read"), _each(watched, "published")
    yield counter("gateway_source_read", "Rows or lines a source took from its upstream.", read, "source")
    yield counter("gateway_source_published_messages", "Of them those stored and marked as done.", published, "source")
    refused, failures = _each(watched, "refused"), _each(watched, "failures")
    yield counter("gateway_source_refused", "Rows or lines that can never be published.", refused, "source")
    yield counter("gateway_source_failures", "Times a source could not go on.", failures, "source")
    behind = {source.name: float(source.statistics.behind) for source in sources.watch.sources}
    yield gauge(
        "gateway_source_behind", "Rows or bytes that wait in the upstream, as of the last look.", behind, "source"
    )
    running = {name: float(statistics.state is State.RUNNING) for name, statistics in watched.items()}
    yield gauge("gateway_source_running", "Whether a source has its upstream: 1 or 0.", running, "source")


def tmc_metrics(sources: Sources) -> Iterator[Metric]:
    """The edge of Taobao Message Channel; nothing where it is not enabled."""
    tmc = sources.tmc
    if tmc is None:
        return
    statistics = tmc.statistics
    yield counter("gateway_tmc_connects", "Clients that connected.", statistics.connects)
    refused = {str(code): float(number) for code, number in statistics.refused.items()}
    yield counter("gateway_tmc_refused_connects", "Clients refused, by status code.", refused, "status")
    yield counter("gateway_tmc_pushed_messages", "Messages pushed.", statistics.pushed)
    said = {"confirm": statistics.confirmed, "failed": statistics.failed}
    yield counter("gateway_tmc_settled_messages", "Messages settled, by what clients said.", said, "word")
    yield counter("gateway_tmc_published_messages", "Messages that clients published.", statistics.published)
    yield counter("gateway_tmc_wrong_frames", "Frames that could not be carried out.", statistics.wrong)
    yield counter("gateway_tmc_calls", "HTTP calls.", tmc.rest.answered)
    calls = {str(code): float(number) for code, number in tmc.rest.refused.items()}
    yield counter("gateway_tmc_refused_calls", "HTTP calls refused, by error code.", calls, "error")


def _closed(closes: Mapping[int, int]) -> dict[str, float]:
    """By code, but for those that mean nothing here."""
    shown: dict[str, float] = {str(code): closes.get(code, 0) for code in sorted(_CLOSE_CODES)}
    shown["other"] = sum(number for code, number in closes.items() if code not in _CLOSE_CODES)
    return shown


_COUNTERS: Final = {
    "routed": "Messages the subscription was ever due.",
    "acked": "Messages a consumer settled.",
    "expired": "Messages whose time was over.",
    "dead_lettered": "Messages given up.",
    "skipped": "Of the expired, messages that a seek went past.",
}
_GAUGES: Final = {
    "waiting": "Messages due that wait for a consumer.",
    "in_flight": "Messages leased, or on the way to the dead letters.",
    "delayed": "Messages not due yet.",
}


def subscription_metrics(shown: Sequence[SubscriptionView], count: int, now: int) -> Iterator[Metric]:
    """routed = acked + in flight + waiting + delayed + expired + dead-lettered, for each one; `count`: of all."""
    yield gauge("gateway_subscriptions", "Subscriptions there are.", count)
    yield gauge("gateway_subscriptions_left_out", "Those not shown one by one.", max(count - len(shown), 0))
    numbers = {view.name: view.statistics for view in shown}
    for name, text in _COUNTERS.items():
        yield counter(f"gateway_subscription_{name}_messages", text, _each(numbers, name), "subscription")
    for name, text in _GAUGES.items():
        yield gauge(f"gateway_subscription_{name}_messages", text, _each(numbers, name), "subscription")
    consumers, ages = _each(numbers, "consumers"), {view.name: _age_s(view, now) for view in shown}
    yield gauge("gateway_subscription_consumers", "Connections and pulls attached.", consumers, "subscription")
    yield gauge("gateway_subscription_oldest_age_seconds", "Age of the oldest unsettled message.", ages, "subscription")
    paused = {view.name: float(view.settings.paused) for view in shown}
    yield gauge("gateway_subscription_paused", "Whether delivery rests: 1 or 0.", paused, "subscription")


def _age_s(view: SubscriptionView, now: int) -> float:
    oldest_ms = view.statistics.oldest_ms
    return 0.0 if oldest_ms is None else max(now - oldest_ms, 0) / 1000
