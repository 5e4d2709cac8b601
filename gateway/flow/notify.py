"""notify: it is true now. Producers and settling clients get their answer; the engine has woken the subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

import attrs

from gateway.engine.base import Engine
from gateway.model import Batch, Settlement
from gateway.steps import UNTRACED, Steps


@attrs.define
class NotifyStatistics:
    """Counters since the start."""

    commits: int = 0
    batches: int = 0
    accepted: int = 0
    refused: int = 0
    duplicates: int = 0
    settlements: int = 0
    busy_seconds: float = attrs.field(default=0.0, eq=False)  # no count


class Notify:
    """The stage behind the flusher."""

    def __init__(
        self,
        engine: Engine,
        steps: Steps = UNTRACED,
        gathering: AbstractContextManager[None] | None = None,
        deliver: Callable[[], None] = lambda: None,
    ) -> None:
        """`gathering` is entered while the answers of a commit are given; `deliver` is called behind them."""
        self._deliver = deliver
        self._gathering = gathering or nullcontext()
        self.statistics = NotifyStatistics()
        self._steps = steps
        self._engine = engine

    async def run(self) -> None:
        await self._engine.tell_commits(self._told)

    def _told(self, entries: Sequence[Batch | Settlement]) -> None:
        began = perf_counter()
        self.statistics.commits += 1
        self._steps.stored(entries)
        with self._gathering:
            self._answer(entries)
        self.statistics.busy_seconds += perf_counter() - began
        self._deliver()

    def _answer(self, entries: Sequence[Batch | Settlement]) -> None:
        for entry in entries:
            if isinstance(entry, Batch):
                self._count(entry)
                entry.finish()
            else:
                self.statistics.settlements += 1
                if entry.done is not None:
                    entry.done(entry)

    def _count(self, batch: Batch) -> None:
        statistics = self.statistics
        statistics.batches += 1
        if batch.error is not None:
            statistics.refused += len(batch.messages)
        elif batch.results is None:
            statistics.accepted += len(batch.messages)
        else:
            for result in batch.results:
                if isinstance(result, Exception):
                    statistics.refused += 1
                elif result is not None and result.duplicate:
                    statistics.duplicates += 1
                else:
                    statistics.accepted += 1
