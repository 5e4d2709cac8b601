"""Asking for messages by id: where they are, what happened to them, where they stand.

The trace is searched in a thread, one search at a time: it competes with the run loop for the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec
import trio

from gateway.engine.base import Engine
from gateway.errors import GatewayError
from gateway.model import Position
from gateway.store.files import Files
from gateway.trace import search, timeline
from gateway.trace.files import TraceFile
from gateway.trace.recorder import Recorder
from gateway.trace.timeline import LINKED_MAX, TracedMessage, TraceStep, TraceView

T = TypeVar("T")
_Search = Callable[[Files, Sequence[TraceFile]], T]
_AFTER_MS: Final = 1000
"""Losses this long before the first and behind the last step known count: they may hide steps."""


class _Stored(msgspec.Struct):
    id: str


_decode = msgspec.json.Decoder(_Stored).decode


class Query:
    """Over an engine, and a trace where one is kept."""

    def __init__(self, engine: Engine, recorder: Recorder | None) -> None:
        self._engine = engine
        self._recorder = recorder
        self._one = trio.CapacityLimiter(1)
        self._files = Files()

    async def message(self, message_id: str, position: Position | None) -> tuple[Position, list[Position], bytes]:
        """(position, all positions of this id, delivery JSON). Raises GatewayError `message_not_found`."""
        positions = await self._engine.lookup(message_id)
        if not positions or position not in (None, *positions):
            positions, _ = await self._resolve(message_id, position)
        if not positions:
            raise unknown(message_id)
        at = _chosen(message_id, position, positions)
        body = await self._engine.read(at)
        if body is None:
            raise GatewayError(
                "message_not_found",
                f"message {message_id!r} at position {at} is not in the store any more: all its subscriptions have "
                f"settled it; GET /v1/messages/ID/trace may still know how",
            )
        return at, positions, body

    async def trace(self, message_id: str, position: Position | None) -> TraceView:
        """All that is known of it. Raises GatewayError `message_not_found`, or `not_supported` without a trace."""
        recorder = self._recorder
        if recorder is None:
            raise GatewayError("not_supported", "this gateway keeps no trace; switch it on with trace.enabled")
        await recorder.flush()
        positions, refused = await self._resolve(message_id, position)
        if not positions and not refused:
            raise unknown(message_id)
        messages = await self._follow(_chosen(message_id, position, positions)) if positions else []
        steps = [step for message in messages for step in message.steps] + refused
        if not steps and not any(message.standing for message in messages):
            raise unknown(message_id)
        files = recorder.readable()
        return TraceView(
            id=message_id,
            positions=positions,
            messages=messages,
            refused=refused,
            lost=await self._losses(steps),
            since_ms=files[0].first_ms if files else None,
        )

    async def _resolve(self, message_id: str, position: Position | None) -> tuple[list[Position], list[TraceStep]]:
        """(every position known for this id, ascending; what was refused under it)."""
        positions = set(await self._engine.lookup(message_id))
        refused: list[TraceStep] = []
        if self._recorder is not None and not message_id.startswith(f"{self._engine.epoch}-"):
            found, refused = await self._search(lambda files, trace: timeline.by_id(files, trace, message_id))
            positions.update(found)
        if position is not None and position not in positions:
            body = await self._engine.read(position)
            if body is not None and _decode(body).id == message_id:
                positions.add(position)
        return sorted(positions), refused

    async def _follow(self, position: Position) -> list[TracedMessage]:
        """The message at `position`, and those it became or came from, each once."""
        found: dict[Position, TracedMessage] = {}
        waiting = {position: ""}
        while waiting and len(found) < LINKED_MAX:
            at = min(waiting)
            relation = waiting.pop(at)
            story = await self._search(partial(_read, position=at))
            found[at] = timeline.finish(story, relation, self._engine.standing(at))
            waiting.update({to: how for to, how in story.links.items() if to not in found and to not in waiting})
        return list(found.values())

    async def _losses(self, steps: Sequence[TraceStep]) -> int:
        if not steps:
            return 0
        times = [step.time_ms for step in steps]
        low, high = min(times) - _AFTER_MS, max(times) + _AFTER_MS
        return await self._search(lambda files, trace: search.losses(files, trace, low, high))

    async def _search(self, function: _Search[T]) -> T:
        assert self._recorder is not None
        return await trio.to_thread.run_sync(function, self._files, self._recorder.readable(), limiter=self._one)


def _read(files: Files, trace: Sequence[TraceFile], position: Position) -> timeline.Story:
    return timeline.read(files, trace, position)


def _chosen(message_id: str, asked: Position | None, positions: Sequence[Position]) -> Position:
    if asked is None:
        return positions[-1]
    if asked in positions:
        return asked
    known = ", ".join(map(str, positions[-20:])) or "none"
    raise GatewayError(
        "message_not_found", f"there is no message {message_id!r} at position {asked}; its positions are: {known}"
    )


def unknown(message_id: str) -> GatewayError:
    """The error for an id that nobody knows, or that who asks may not know of."""
    return GatewayError(
        "message_not_found",
        f"message {message_id!r} is known neither to the store nor to the trace: it was never accepted, or all its "
        f"subscriptions settled it and the trace of that time is gone (trace.retention_s, trace.retention_bytes)",
    )
