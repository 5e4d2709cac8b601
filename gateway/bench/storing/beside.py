"""What merging costs: publishing at a rate on a gateway that may merge, and on one that may not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs
import trio

from gateway.bench import vitals
from gateway.bench.link import HttpLink, LinkLostError
from gateway.bench.plan import Target, one_to_one
from gateway.bench.run import Run
from gateway.bench.storing.server import Running, gateway_over
from gateway.bench.tally import Percentiles, Tally

SEGMENT_BYTES: Final = 8 * 1024 * 1024
RATE_PER_S: Final = 5000
_MERGES: Final = "gateway_log_merges_total"
_MOVED: Final = "gateway_log_merge_moved_bytes_total"
_FREED: Final = "gateway_log_merge_freed_bytes_total"
_BEGIN_S: Final = 60.0
_WARM: Final = 3 * SEGMENT_BYTES // 350
"""Messages of three segments: what is sealed is merged from the second checkpoint behind it on."""


@attrs.frozen(kw_only=True)
class Beside:
    """One gateway under load; merges are those since its start."""

    merging: bool
    publish: Percentiles
    cpu_us_per_message: float
    merges: float
    moved_bytes: float
    freed_bytes: float


async def publish(store: Path, seconds: float, *, merging: bool) -> Beside:
    """Publish at a rate to one consumer, on a gateway over a store of which nine parts of ten are settled."""
    settings = {
        "GATEWAY_STORE__SEGMENT_BYTES": str(SEGMENT_BYTES),
        "GATEWAY_STORE__MERGE_LIVE_SHARE": "0.25" if merging else "0",
        "GATEWAY_STORE__MERGE_INTERVAL_S": "0.1",
        "GATEWAY_LIMITS__DEDUP_WINDOW_S": "0",
    }
    with gateway_over(store, settings) as running:
        await _load(running.target, _WARM, None)
        before = await (_first_merge(running) if merging else _look(running))
        latency = await _load(running.target, round(RATE_PER_S * seconds), RATE_PER_S)
        after = await _look(running)
    assert before.cpu_s is not None
    assert after.cpu_s is not None
    return Beside(
        merging=merging,
        publish=latency,
        cpu_us_per_message=1e6 * (after.cpu_s - before.cpu_s) / (RATE_PER_S * seconds),
        merges=after.total(_MERGES) or 0.0,
        moved_bytes=after.total(_MOVED) or 0.0,
        freed_bytes=after.total(_FREED) or 0.0,
    )


async def _load(target: Target, messages: int, rate_per_s: float | None) -> Percentiles:
    """From publish to confirmation."""
    plan = one_to_one(messages=messages, rate_per_s=rate_per_s)
    figures = await Run(plan, target, Tally(plan)).measure()
    if not figures.complete or figures.confirm is None:
        raise LinkLostError(f"{figures.lost} of {messages} messages were lost")
    return figures.confirm


async def _first_merge(running: Running) -> vitals.Vitals:
    """Once it has begun: every segment is looked at before the first is merged, with pauses."""
    with trio.move_on_after(_BEGIN_S):
        while not (await _look(running)).total(_MERGES):  # noqa: ASYNC110 - another process has no event
            await trio.sleep(0.1)
    return await _look(running)


async def _look(running: Running) -> vitals.Vitals:
    async with trio.open_nursery() as nursery:
        control = await HttpLink.open(running.control, nursery)
        seen = await vitals.look(running.target, control)
        control.abort()
        nursery.cancel_scope.cancel()
    return seen
