"""What producers were told, and what consumers were given: enough to say whether a promise was broken.

A publish is invoked; then it is ok (with its position), failed (a definite error), or its outcome stays unknown because
the connection was lost first. Promise 1: what was ok is delivered. Promise 2: what is delivered was published, byte for
byte, and what failed is not. Promise 3: what was answered as acked does not come again.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs


@attrs.define
class History:
    """Payloads by name. A name is used for one message, however often it is published; everything is judged at once."""

    invoked: dict[str, bytes] = attrs.field(factory=dict)
    ok: dict[str, int] = attrs.field(factory=dict)
    failed: set[str] = attrs.field(factory=set)
    delivered: dict[str, int] = attrs.field(factory=dict)
    """The position at which it came."""
    deliveries: int = 0
    """How many there were, repeats too."""
    violations: list[str] = attrs.field(factory=list)
    """Broken promises, in words; what is missing is asked for apart, since it may still come."""
    _names: dict[int, str] = attrs.field(factory=dict)  # by position
    _acked: set[int] = attrs.field(factory=set)

    def invoke(self, name: str, payload: bytes) -> None:
        self.invoked[name] = payload

    def answer(self, name: str, position: int) -> None:
        if self.ok.setdefault(name, position) != position:
            self.violations.append(f"{name}: answered with position {self.ok[name]}, and with {position}")
        self._place(name, position)

    def fail(self, names: Iterable[str]) -> None:
        """They were answered with a definite error."""
        self.failed.update(names)

    def deliver(self, name: str, position: int, payload: bytes) -> None:
        self.deliveries += 1
        found = self.violations
        if name not in self.invoked:
            found.append(f"{name}: delivered but never published")
        elif payload != self.invoked[name]:
            found.append(f"{name}: delivered with another payload")
        if name in self.failed:
            found.append(f"{name}: delivered although its publish was refused")
        if self.delivered.setdefault(name, position) != position:
            found.append(f"{name}: delivered at {self.delivered[name]} and at {position}: stored twice")
        if position in self._acked:
            found.append(f"{name}: delivered after the ack of position {position} was answered")
        self._place(name, position)

    def ack(self, positions: Iterable[int]) -> None:
        """It was answered that they are acked."""
        self._acked.update(positions)

    def _place(self, name: str, position: int) -> None:
        if self._names.setdefault(position, name) != name:
            self.violations.append(f"position {position}: given to {self._names[position]} and to {name}")
        if self.ok.get(name, position) != position:
            self.violations.append(f"{name}: answered with position {self.ok[name]}, delivered at {position}")

    @property
    def missing(self) -> set[str]:
        """Answered, and not delivered yet."""
        return self.ok.keys() - self.delivered.keys()

    @property
    def unknown(self) -> list[str]:
        """Published, and neither answered nor refused."""
        return [name for name in self.invoked if name not in self.ok and name not in self.failed]
