"""What a source is, and what it tells of itself."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import attrs

from gateway.model import Message, Result

Publish = Callable[[Sequence[Message]], Awaitable[list[Result]]]
"""Publishes messages, at most a batch's, and waits until the outcome of each is known and on the disk.

A `Stored` is stored, now or before; a GatewayError that is temporary is worth another try, any other never. Raises
GatewayError where the gateway takes nothing for now.
"""


class State(enum.StrEnum):
    """How a source does."""

    CONNECTING = "connecting"
    RUNNING = "running"
    WAITING = "waiting"
    """It failed, and is tried again after its backoff."""


class SourceError(Exception):
    """A source cannot go on for now; the message names the thing and the mend. It is started again after a while."""


@attrs.define
class SourceStatistics:
    """Counters since the start; `behind`, `state` and `error` are now."""

    read: int = 0
    """Rows or lines taken from the upstream; one that is read again counts again."""
    published: int = 0
    """Of them those that are stored, and known to the upstream as done."""
    refused: int = 0
    """Of them those that can never be published: passed over, with the reason where the upstream can hold it."""
    behind: int = 0
    """How much of the upstream is not published yet, in `Source.unit`, as of the last look."""
    state: State = State.CONNECTING
    failures: int = 0
    """Times it could not go on, and was started again."""
    error: str = ""
    """Why it waits."""


class Source(Protocol):
    """One upstream. `run` is one life of it: begins with nothing open and leaves nothing open."""

    name: str
    unit: str
    """Of `statistics.behind`: rows or bytes."""
    statistics: SourceStatistics

    async def run(self, publish: Publish) -> None:
        """Publish what there is and what comes, until cancelled. Sets the state to running once it has its upstream.

        Raises SourceError or GatewayError where it cannot go on; it is called again after a while.
        """
