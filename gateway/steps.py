"""What the stages tell of every message's way: told here in a call a batch, kept by trace/.

`Steps` is all that a stage knows of the trace. Each call takes what the stage has anyway, and none of them waits,
fails, or looks at a payload. The time of a step is the recorder's own clock, where no `now` is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.errors import GatewayError
from gateway.model import Batch, Delivery, Position, Ranges


class Steps(Protocol):
    """Told by the stages, where the decision is made."""

    # publishing
    def refused(self, batch: Batch, error: GatewayError, stage: str) -> None:
        """The whole batch goes no further. What is refused message by message is found in its results by `stored`."""

    def stage(self, batch: Batch, stage: str, outcome: str, indexes: Sequence[int] | None = None) -> None:
        """A stage did something to messages of the batch; None: to all. `outcome` is a word, such as `converted`.

        Kept with the batch until its messages have positions.
        """

    def filtered(self, batch: Batch, subscription: str, outcome: str, indexes: Sequence[int]) -> None:
        """Messages that the subscription's filter let not through: `no match`, or the error's name; or its `gate`."""

    def stored(self, entries: Sequence[object]) -> None:
        """A commit is true: its batches are accepted, routed and stored; their results say what else became of them."""

    # pushing
    def handed(self, delivery: Delivery, now: int) -> None:
        """The socket has a delivery: its leases begin. Before the leases count this attempt."""

    def settled(self, subscription: str, positions: Sequence[Position], cause: int, now: int | None = None) -> None:
        """They are over for the subscription. `cause`: acked (1), expired (2), dead-lettered (3)."""

    def extended(self, subscription: str, positions: Sequence[Position], until_ms: int) -> None:
        """Their leases go on."""

    def returned(
        self, subscription: str, positions: Sequence[Position], attempts: int, cause: str, reason: str, due_ms: int
    ) -> None:
        """They wait again, until `due_ms` (0: due at once). `cause`: nack, lease or disconnect."""

    def doomed(self, subscription: str, positions: Sequence[Position], attempts: int, cause: str, reason: str) -> None:
        """Their deliveries are over: they are on their way to the dead letters."""

    def dead_lettered(self, subscription: str, original: Position, position: Position, topic: str) -> None:
        """The dead letter of `original` is stored at `position`."""

    def redriven(self, subscription: str, ranges: Ranges) -> None:
        """Its dead letters inside `ranges` are due once more, where they are."""

    def sought(self, subscription: str, position: Position) -> None:
        """It reads on from `position`: what is behind that is due, once more where it was settled; no other is."""

    # subscriptions
    def routed(self, subscription: str, ranges: Ranges, why: str) -> None:
        """Older messages are the subscription's too: `backfill`."""

    def changed(self, subscription: str, what: str) -> None:
        """Something that holds for all the subscription's messages: `paused`, `resumed`, `deleted`."""


class Untraced:
    """Nothing is kept. Also what a room has before it is given a recorder."""

    def refused(self, batch: Batch, error: GatewayError, stage: str) -> None:
        pass

    def stage(self, batch: Batch, stage: str, outcome: str, indexes: Sequence[int] | None = None) -> None:
        pass

    def filtered(self, batch: Batch, subscription: str, outcome: str, indexes: Sequence[int]) -> None:
        pass

    def stored(self, entries: Sequence[object]) -> None:
        pass

    def handed(self, delivery: Delivery, now: int) -> None:
        pass

    def settled(self, subscription: str, positions: Sequence[Position], cause: int, now: int | None = None) -> None:
        pass

    def extended(self, subscription: str, positions: Sequence[Position], until_ms: int) -> None:
        pass

    def returned(
        self, subscription: str, positions: Sequence[Position], attempts: int, cause: str, reason: str, due_ms: int
    ) -> None:
        pass

    def doomed(self, subscription: str, positions: Sequence[Position], attempts: int, cause: str, reason: str) -> None:
        pass

    def dead_lettered(self, subscription: str, original: Position, position: Position, topic: str) -> None:
        pass

    def redriven(self, subscription: str, ranges: Ranges) -> None:
        pass

    def sought(self, subscription: str, position: Position) -> None:
        pass

    def routed(self, subscription: str, ranges: Ranges, why: str) -> None:
        pass

    def changed(self, subscription: str, what: str) -> None:
        pass


UNTRACED: Steps = Untraced()
