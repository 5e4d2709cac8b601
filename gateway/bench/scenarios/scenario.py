"""What a scenario is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from gateway.bench.ground import Ground
from gateway.bench.record import Case

Run = Callable[[Ground], Awaitable[list[Case]]]


@attrs.frozen
class Scenario:
    """A load that has a name."""

    name: str
    what: str
    """In a few words."""
    run: Run
    limit_s: float = 180.0
    """By then it is over at full size, on a slow machine: longer is a fault."""
    own_only: bool = False
    """It kills its gateway, or configures it, so that it cannot be measured on one that was given."""
