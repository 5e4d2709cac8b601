"""Where the gateway's time went: its stages by its own metrics, over the run."""

from __future__ import annotations

from typing import Final

import attrs

from gateway.bench.vitals import COMMIT_SECONDS, COMMITS, Vitals, growth

_RINGS: Final = ("admit", "route", "append", "settle")


@attrs.frozen(kw_only=True)
class Stage:
    """One stage during the run; None for what it does not count."""

    name: str
    batches: float
    messages_per_batch: float | None
    waits: float | None
    """Times a sender found its ring full."""
    peak_items: float | None
    """The most that waited in its ring, since the start."""
    busy_share: float | None
    """Of one core; of the flusher's, in waiting for the disk."""
    us_per_message: float | None
    """Time it worked, for each message that was published."""


def stages(before: Vitals, after: Vitals, published: int, passed_s: float) -> list[Stage]:
    """In the order of a message's way; those that the gateway does not show are left out."""

    def stage(name: str, batches: str, messages: str, busy: str, ring: str = "") -> Stage | None:
        count, inside, busy_s = (growth(before, after, metric) for metric in (batches, messages, busy))
        if count is None:
            return None
        return Stage(
            name=name,
            batches=count,
            messages_per_batch=round(inside / count, 2) if inside is not None and count else None,
            waits=growth(before, after, f"gateway_stage_waits_total{ring}") if ring else None,
            peak_items=after.total(f"gateway_ring_peak_items{ring}") if ring else None,
            busy_share=None if busy_s is None or not passed_s else round(busy_s / passed_s, 4),
            us_per_message=None if busy_s is None or not published else round(busy_s * 1e6 / published, 3),
        )

    def of_ring(name: str) -> Stage | None:
        label = f'{{stage="{name}"}}'
        metrics = ("gateway_stage_items_total", "gateway_stage_messages_total", "gateway_stage_busy_seconds_total")
        batches, messages, busy = (metric + label for metric in metrics)
        return stage(name, batches, messages, busy, label)

    busy = 'gateway_stage_busy_seconds_total{{stage="{}"}}'.format
    published_messages = "gateway_published_messages_total"
    found = [
        *(of_ring(name) for name in _RINGS[:3]),
        stage("flusher", COMMITS, published_messages, COMMIT_SECONDS),
        stage("notify", "gateway_notify_commits_total", published_messages, busy("notify")),
        stage("deliver", "gateway_delivered_frames_total", "gateway_delivered_messages_total", busy("deliver")),
        of_ring(_RINGS[3]),
        stage("flow control", "gateway_flow_looks_total", "-", "gateway_flow_busy_seconds_total"),
    ]
    return [each for each in found if each is not None]
