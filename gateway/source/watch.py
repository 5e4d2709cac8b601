"""Keeps the sources running: each in a task of its own, started again after a backoff, whatever it failed with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import random
from typing import Final

import structlog
import trio

from gateway.errors import GatewayError
from gateway.kit.backoff import full_jitter_s
from gateway.source.base import Publish, Source, SourceError, State

_log = structlog.get_logger("gateway.source")
BASE_S: Final = 0.2
CAP_S: Final = 30.0
"""Longest wait between two tries: an upstream that is back is found within half a minute."""


class Watch:
    """All sources of a node."""

    def __init__(self, sources: Sequence[Source], door: Callable[[str], Publish]) -> None:
        """`door` gives the source of a name its way in."""
        self.sources = sources
        self._door = door
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Until `stop`. A source's failure ends nothing but its own turn."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                for source in self.sources:
                    nursery.start_soon(self._keep, source)

    def stop(self) -> None:
        """Read no more. What was published and not marked as done comes again after the next start, with its id."""
        self._scope.cancel()

    async def _keep(self, source: Source) -> None:
        statistics, attempt = source.statistics, 0
        while True:
            statistics.state = State.CONNECTING
            began, done = trio.current_time(), statistics.published + statistics.refused
            error = await self._live(source)
            if statistics.published + statistics.refused > done or trio.current_time() - began > CAP_S:
                attempt = 0  # it got on: this is a new trouble
            statistics.failures += 1
            statistics.state, statistics.error = State.WAITING, error
            wait_s = full_jitter_s(attempt, BASE_S, CAP_S, random())
            _log.warning("a source waits", source=source.name, error=error, again_in_s=round(wait_s, 2))
            await trio.sleep(wait_s)
            attempt += 1

    async def _live(self, source: Source) -> str:
        """One life; why it ended."""
        try:
            await source.run(self._door(source.name))
        except SourceError as error:
            return str(error)
        except GatewayError as error:
            return f"the gateway takes nothing from it for now: {error.message}"
        except Exception as error:  # a fault of ours, or of a source that someone else wrote: never the node's end
            _log.exception("a source failed", source=source.name)
            return f"{type(error).__name__}: {error}"
        return "it ended by itself, which a source must not"
