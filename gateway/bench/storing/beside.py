"""What merging costs: publishing on a gateway that merges meanwhile, and on one that may not, in turns."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Final

import attrs
import trio

from gateway.bench import vitals
from gateway.bench.figures import Figures
from gateway.bench.link import HttpLink, LinkLostError
from gateway.bench.plan import Target, one_to_one
from gateway.bench.run import Run
from gateway.bench.storing.server import Running, gateway_over
from gateway.bench.tally import Percentiles, Tally

SEGMENT_BYTES: Final = 8 * 1024 * 1024
RATES_PER_S: Final = (None, 5000)
"""None: as fast as it goes, 2,000 messages unconfirmed at most."""
TURNS: Final = (False, True, True, False, True, False, False, True)
"""Whether it merges: what drifts meanwhile bears on both alike."""
_MERGES: Final = "gateway_log_merges_total"
_FREED: Final = "gateway_log_merge_freed_bytes_total"
_BEGIN_S: Final = 60.0
_LOOK_S: Final = 0.02
_WARM: Final = 3 * SEGMENT_BYTES // 350
"""Messages of three segments: what is sealed is merged from the second checkpoint behind it on."""


@attrs.frozen(kw_only=True)
class Beside:
    """One gateway under load; merges are those since its start."""

    rate_per_s: float | None
    merging: bool
    publish: Percentiles
    """From publish to confirmation."""
    published_per_s: float
    cpu_us_per_message: float
    merging_share: float
    """The part of the time in which a copy was being made."""
    copied_bytes_per_s: float
    merges: float
    freed_bytes: float


@attrs.frozen(kw_only=True)
class Ratio:
    """p99 beside merging by that without. The best of each tell most: what else a machine does only adds."""

    best: float
    median: float

    @classmethod
    def of(cls, found: Sequence[Beside]) -> Ratio:
        with_, without = ([e.publish.p99_ms for e in found if e.merging is merging] for merging in (True, False))
        return cls(best=min(with_) / min(without), median=median(with_) / median(without))


async def publish(filled: Path, seconds: float, rate_per_s: float | None, *, merging: bool) -> Beside:
    """Publish to one consumer, on a gateway over a copy of a store of which nine parts of ten are settled."""
    settings = {
        "GATEWAY_STORE__SEGMENT_BYTES": str(SEGMENT_BYTES),
        "GATEWAY_STORE__MERGE_LIVE_SHARE": "0.25" if merging else "0",
        "GATEWAY_STORE__MERGE_INTERVAL_S": "0.1",
        "GATEWAY_LIMITS__DEDUP_WINDOW_S": "0",
    }
    store = filled.with_name(filled.name + "-copy")
    await trio.to_thread.run_sync(shutil.copytree, filled, store)
    try:
        with gateway_over(store, settings) as running:
            return await _publish(running, store, seconds, rate_per_s, merging=merging)
    finally:
        await trio.to_thread.run_sync(shutil.rmtree, store)


async def _publish(running: Running, store: Path, seconds: float, rate_per_s: float | None, *, merging: bool) -> Beside:
    warm = await _load(running.target, _WARM, None)
    copies = _Copies(store)
    if merging:
        await copies.begun()
    before = await _look(running)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(copies.watch)
        figures = await _load(running.target, round((rate_per_s or warm.published_per_s) * seconds), rate_per_s)
        nursery.cancel_scope.cancel()
    after = await _look(running)
    assert figures.confirm is not None
    assert before.cpu_s is not None
    assert after.cpu_s is not None
    return Beside(
        rate_per_s=rate_per_s,
        merging=merging,
        publish=figures.confirm,
        published_per_s=figures.published_per_s,
        cpu_us_per_message=1e6 * (after.cpu_s - before.cpu_s) / figures.published,
        merging_share=copies.share,
        copied_bytes_per_s=copies.bytes / figures.elapsed_s,
        merges=after.total(_MERGES) or 0.0,
        freed_bytes=after.total(_FREED) or 0.0,
    )


async def _load(target: Target, messages: int, rate_per_s: float | None) -> Figures:
    plan = one_to_one(messages=messages, rate_per_s=rate_per_s)
    figures = await Run(plan, target, Tally(plan)).measure()
    if not figures.complete or figures.confirm is None:
        raise LinkLostError(f"{figures.lost} of {messages} messages were lost")
    return figures


class _Copies:
    """The copy that a merge makes: it has a name of its own until it takes the place of what it was made of."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._looks = self._seen = self._size = 0
        self.bytes = 0
        """Written to copies while it was watched."""

    @property
    def share(self) -> float:
        """The part of the time in which there was one."""
        return self._seen / max(self._looks, 1)

    async def begun(self) -> None:
        """Every segment is looked at before the first is merged, with pauses."""
        with trio.fail_after(_BEGIN_S):
            while not self._look():  # noqa: ASYNC110 - another process has no event
                await trio.sleep(_LOOK_S)

    async def watch(self) -> None:
        self._size = self._look()
        while True:
            size = self._look()
            self._looks += 1
            self._seen += size > 0
            self.bytes += size - self._size if size >= self._size else size
            self._size = size
            await trio.sleep(_LOOK_S)

    def _look(self) -> int:
        """Its size; 0 where there is none."""
        for path in self._store.glob("*.log.tmp"):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0


async def _look(running: Running) -> vitals.Vitals:
    async with trio.open_nursery() as nursery:
        control = await HttpLink.open(running.control, nursery)
        seen = await vitals.look(running.target, control)
        control.abort()
        nursery.cancel_scope.cancel()
    return seen
