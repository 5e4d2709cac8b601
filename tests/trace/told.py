"""A trace without a node: what was told, written at once, and read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import attrs
import msgspec

from gateway.broker.lease import Consumer, Lease
from gateway.broker.slice import Slice
from gateway.model import Batch, Delivery, Durability, Message, Result
from gateway.store.files import Files
from gateway.trace import search, timeline
from gateway.trace.buffer import Buffer
from gateway.trace.event import Event
from gateway.trace.files import TraceFiles
from gateway.trace.telling import Telling
from gateway.trace.timeline import Story, TracedMessage

BEGAN_MS = 1_795_326_701_000
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@attrs.frozen(eq=False)
class Route:
    """As the engine's."""

    topic: str
    names: tuple[str, ...]


ORDERS = Route("trade.paid", ("orders",))
BOTH = Route("trade.paid", ("orders", "audit"))


class Told:
    """`steps` is what stages have; `now` is its clock."""

    def __init__(
        self, directory: Path, buffer_bytes: int = 1 << 30, file_bytes: int = 1 << 30, files: Files | None = None
    ) -> None:
        self.now = BEGAN_MS
        self.nudges = 0
        self.trace = TraceFiles(directory, files)
        self.buffer = Buffer(directory, "node", buffer_bytes, file_bytes)
        self.buffer.begin(self.trace.open(), self.now)
        self.steps = Telling(self.buffer, lambda: self.now, self._nudge)

    def _nudge(self) -> None:
        self.nudges += 1

    def write(self) -> None:
        chunk = self.buffer.take(self.now, 1 << 60)
        if chunk.parts:
            self.trace.write(chunk.file, b"".join(chunk.parts))

    def finish(self) -> None:
        """As the node ends."""
        self.trace.write(self.buffer.file, b"".join(self.buffer.finish(self.now).parts))

    def about(self, position: int) -> list[Event]:
        return [event for event, _ in search.about(self.trace.files, self.trace.all, position)]

    def steps_of(self, position: int) -> list[str]:
        """Words of the steps, with the subscription where there is one."""
        return [
            step.step if step.subscription is None else f"{step.step} {step.subscription}"
            for step in self.message(position).steps
        ]

    def story(self, position: int) -> Story:
        return timeline.read(self.trace.files, self.trace.all, position)

    def message(self, position: int, kept: dict[str, bool] | None = None) -> TracedMessage:
        """As the timeline tells it, of a message that the store has no more unless `kept` says otherwise."""
        return timeline.finish(self.story(position), "", kept)

    # ------------------------------------------------------------------------------------------- what is told

    def stored(self, first: int, count: int = 1, route: Route = ORDERS, origin: str = "c-1") -> Batch:
        batch = plain(first, count, route, origin)
        batch.time_ms = self.now
        self.steps.stored([batch])
        return batch

    def handed(
        self,
        positions: Sequence[int],
        who: str = "c-9",
        attempts: int = 0,
        held: bool = True,
        subscription: str = "orders",
    ) -> None:
        delivery = Delivery(subscription, 30_000)
        lease = Lease(cast("Consumer", _Labelled(who)), Slice(positions, positions[0], attempts))
        lease.held = held
        delivery.leases = [lease]
        self.steps.handed(delivery, self.now)


class _Labelled:
    def __init__(self, label: str) -> None:
        self.label = label


def plain(first: int, count: int = 1, route: Route = ORDERS, origin: str = "c-1") -> Batch:
    """Messages with data and nothing else, as `notify` sees them."""
    batch = Batch([message() for _ in range(count)], Durability.FSYNCED, 1, lambda _batch: None)
    batch.plain = True
    batch.first = first
    batch.routes = (route,)
    batch.origin = origin
    batch.time_ms = BEGAN_MS
    return batch


def particular(first: int, messages: list[Message], results: list[Result | None] | None = None) -> Batch:
    """Messages that have more, as `notify` sees them."""
    batch = Batch(messages, Durability.FSYNCED, 1, lambda _batch: None)
    batch.first = first
    batch.routes = [ORDERS] * len(messages)
    batch.results = results
    batch.origin = "c-1"
    batch.time_ms = BEGAN_MS
    return batch


def message(message_id: str | None = None, **attributes: str) -> Message:
    return Message("trade.paid", data=msgspec.Raw(b'"secret payload"'), id=message_id, attributes=attributes or None)


def joined(first: int, *origins: str) -> Batch:
    """Single publishes that travelled together."""
    batch = plain(first, len(origins))
    batch.origins = origins
    return batch
