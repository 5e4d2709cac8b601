"""What the process of a load is told, and what it says: one JSON object a line, both ways."""

from __future__ import annotations

from typing import Any, Final, Protocol

import attrs

from gateway.bench.plan import Address

READY: Final = "ready"
GO: Final = b"go\n"
PROGRESS: Final = "progress"
OVER: Final = "over"
FAILED: Final = "failed"


@attrs.define(kw_only=True)
class Result:
    """What came of a load; also as it grows."""

    published: int = 0
    refused: int = 0
    refusal: str = ""
    delivered: int = 0
    lost: int = 0
    duplicates: int = 0
    invented: int = 0
    frames: int = 0
    """Delivery frames, or answered pulls."""
    elapsed_s: float = 0.0
    cpu_s: float = 0.0
    """Of the load's process meanwhile."""
    latency: dict[str, dict[int, int]] = attrs.field(factory=dict)
    """Of what -> microseconds -> how often."""
    timed: dict[str, list[tuple[int, int]]] = attrs.field(factory=dict)
    """Of what -> for each, when it began and how long it took, in microseconds of the load's clock."""
    positions: list[tuple[int, int]] = attrs.field(factory=list)
    """Ranges that were accepted, for a check after the load."""
    extra: dict[str, float] = attrs.field(factory=dict)

    def refuse(self, count: int, why: str) -> None:
        self.refused += count
        self.refusal = self.refusal or why


class Load(Protocol):
    """One kind of load."""

    result: Result

    def open(self, address: Address) -> None:
        """Connect and attach; blocks. Raises LinkLostError."""

    def run(self) -> None:
        """Until all is done, or `limit_s` is over; fills `result`. Raises LinkLostError."""

    def progress(self) -> tuple[int, int]:
        """How much is done, and how much there is."""


@attrs.frozen(kw_only=True)
class Order:
    """The first line that it reads."""

    load: str
    """The name of its class."""
    address: Address
    arguments: dict[str, Any]
