"""Merging beside the load: what little is due of nearly empty segments is moved together, and their files vanish.

One pass looks at every sealed segment, chooses what is worth it (store/plan.py), has it copied in another thread
(store/merge.py), and puts the copy in place with a checkpoint (store/log.py). Everything is done in steps of about a
millisecond with pauses between them, and can be left at any of them: an unfinished copy is removed.

The copy is of what was due when it was looked at. From then on messages are settled, which does no harm; but a seek,
or a subscription that begins in the past, makes due what the copy may have left out: then it is thrown away. While
anybody counts or searches the segments (`Holds.all`) it waits.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Final

import attrs
import structlog
import trio

from gateway.broker.queue import NO_PAST, Past
from gateway.config import Store as StoreSettings
from gateway.engine.catalogue import Catalogue
from gateway.engine.stragglers import Stragglers
from gateway.store import merge as merges
from gateway.store.log import Log
from gateway.store.merge import CannotMergeError, Merge
from gateway.store.plan import Measured, Plan, choose
from gateway.store.segment import Segment

_log = structlog.get_logger("gateway.engine")
_IDLE: Final = 19
"""Pauses are so many times as long as the steps: merging takes a twentieth of the interpreter's time."""
_STEP_S: Final = 0.0005
_TRIES: Final = 100
_AGAIN_S: Final = 0.02

Standing = dict[int, tuple[int, Past]]
"""By subscription: how often it began anew, and which past it was given."""


@attrs.define(slots=True)
class MergeStatistics:
    """Counters since the start."""

    merges: int = 0
    segments: int = 0
    """That were merged."""
    messages: int = 0
    moved_bytes: int = 0
    freed_bytes: int = 0
    failures: int = 0
    """Copies that were given up: damage, no room, or somebody wanted what they leave out."""


class Merging:
    """`merge` is one pass. `window_ms`: ids so young are needed to recognise repeats.

    `is_pinned`: whether somebody needs the segments to stay as they are.
    """

    def __init__(
        self, log: Log, catalogue: Catalogue, settings: StoreSettings, window_ms: int, is_pinned: Callable[[], bool]
    ) -> None:
        self.statistics = MergeStatistics()
        self._log = log
        self._catalogue = catalogue
        self._settings = settings
        self._window_ms = window_ms
        self._is_pinned = is_pinned
        self._stragglers = Stragglers(catalogue, settings.segment_bytes)
        self._damaged: set[str] = set()  # uids of segments that cannot be read whole
        self._sources_left = False  # files whose segments were merged are still there
        self._hurry = False
        self._under_way = False
        self._step_began = 0.0

    async def merge(self, now: int, *, hurry: bool = False) -> bool:
        """One pass; whether something was merged. `hurry`: without pauses, for a store that nobody uses.

        Does nothing while another is under way. Raises StoreError once the store has failed.
        """
        if self._under_way:  # two copies of the same segments would have the same name
            return False
        self._under_way, self._hurry = True, hurry
        try:
            return await self._merge(now)
        finally:
            self._under_way = False

    async def _merge(self, now: int) -> bool:
        share = self._settings.merge_live_share
        standing = self._standing()
        plan = choose(await self._measure(now, share), self._settings.segment_bytes, share)
        if plan is not None and await self._carry_out(plan, standing):
            self._sources_left = True
            return True
        if self._sources_left:  # they go with the checkpoint behind the one that the merge came with
            self._sources_left = False
            await self._log.checkpoint()
        return False

    # -------------------------------------------------------------------------------------------- deciding

    async def _measure(self, now: int, live_share: float) -> list[Measured | None]:
        self._step_began = perf_counter()
        found: list[Measured | None] = []
        for segment in list(self._log.segments):
            measured = None
            if self._may_be_merged(segment, now):
                measured = await self._stragglers.measure(segment, live_share, self._pause)
            found.append(measured)
            await self._pause()
        self._stragglers.forget_others(self._log.segments)
        return found

    def _may_be_merged(self, segment: Segment, now: int) -> bool:
        """Sealed, and so old that neither checkpoint needs what else is in it, nor anybody the ids of its messages."""
        log = self._log
        return (
            segment.sealed
            and segment.last < log.places[0]
            and segment not in log.unsealed
            and segment.ids_ms + self._window_ms <= now
            and segment.uid not in self._damaged
        )

    def _standing(self) -> Standing:
        return {s.number: (s.restarts, s.past) for s in self._catalogue}

    def _is_untouched(self, before: Standing) -> bool:
        """Whether nothing has become due since that was not."""
        for s in self._catalogue:
            restarts, past = before.get(s.number, (s.restarts, NO_PAST))
            if s.unfilled or s.restarting or s.restarts != restarts or s.past not in (past, NO_PAST):
                return False
        return True

    # ---------------------------------------------------------------------------------------------- acting

    async def _carry_out(self, plan: Plan, before: Standing) -> bool:
        log = self._log
        merge, header = merges.begin(plan, log.epoch)
        try:
            steps = merges.copy(log.files, log.shelf, plan, merge, header)
            try:
                while (size := await trio.to_thread.run_sync(next, steps, None)) is not None:
                    await self._pause(size)
            finally:
                steps.close()
            if await self._adopt(merge, before):
                self._note(merge)
                return True
            self._give_up(merge, "what it leaves out is wanted again, or its segments are in use")
        except OSError as error:
            self._give_up(merge, f"{error.filename or merge.segment.moving_from}: {error.strerror}")
        except CannotMergeError as error:
            self._damaged.add(error.segment.uid)
            self._give_up(merge, str(error))
        finally:
            if not merge.adopted:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(merges.abandon, log.files, merge)
        return False

    async def _adopt(self, merge: Merge, before: Standing) -> bool:
        """Wait for a moment in which nobody needs the segments as they are."""
        for _ in range(_TRIES):
            if not self._is_untouched(before) or merge.sources[0] not in self._log.segments:
                break
            if not self._is_pinned() and await self._log.adopt(
                merge, lambda: not self._is_pinned() and self._is_untouched(before)
            ):
                return True
            await trio.sleep(_AGAIN_S)
        return False

    async def _pause(self, size: int = 0) -> None:
        """Between two steps; `size`: bytes that the last one moved."""
        if self._hurry:
            await trio.lowlevel.checkpoint()
            return
        took = perf_counter() - self._step_began
        if took < _STEP_S and not size:
            return
        await trio.sleep(max(_IDLE * took, size / self._settings.merge_bytes_per_s))
        self._step_began = perf_counter()

    def _note(self, merge: Merge) -> None:
        statistics = self.statistics
        statistics.merges += 1
        statistics.segments += len(merge.sources)
        statistics.messages += merge.messages
        statistics.moved_bytes += merge.segment.size
        statistics.freed_bytes += merge.freed_bytes
        _log.info(
            "merged segments",
            first=merge.segment.number,
            last=merge.segment.last,
            segments=len(merge.sources),
            messages=merge.messages,
            moved_bytes=merge.segment.size,
            freed_bytes=merge.freed_bytes,
        )

    def _give_up(self, merge: Merge, reason: str) -> None:
        self.statistics.failures += 1
        _log.warning("a merge was given up", first=merge.segment.number, last=merge.segment.last, reason=reason)
