"""What producers were told, and what consumers were given: enough to say whether a promise was broken.

A publish is invoked; then it is ok (with its position), failed (a definite error), or its outcome stays unknown because
the connection was lost first. Promise 1: what was ok is delivered. Promise 2: what is delivered was published, byte for
byte, and what failed is not.
"""

from __future__ import annotations

import attrs


@attrs.define
class History:
    """Payloads by name. A name is used once."""

    invoked: dict[str, bytes] = attrs.field(factory=dict)
    ok: dict[str, int] = attrs.field(factory=dict)
    failed: set[str] = attrs.field(factory=set)
    delivered: dict[str, list[tuple[int, bytes]]] = attrs.field(factory=dict)

    def deliver(self, name: str, position: int, payload: bytes) -> None:
        self.delivered.setdefault(name, []).append((position, payload))

    @property
    def missing(self) -> set[str]:
        """Answered, and not delivered yet."""
        return self.ok.keys() - self.delivered.keys()

    def violations(self) -> list[str]:
        """Broken promises, in words; what is missing is asked for apart, since it may still come."""
        found: list[str] = []
        for name, deliveries in self.delivered.items():
            if name not in self.invoked:
                found.append(f"{name}: delivered but never published")
                continue
            if name in self.failed:
                found.append(f"{name}: delivered although its publish was refused")
            for position, payload in deliveries:
                if payload != self.invoked[name]:
                    found.append(f"{name}: delivered with another payload")
                if name in self.ok and position != self.ok[name]:
                    found.append(f"{name}: answered with position {self.ok[name]}, delivered at {position}")
            if len({position for position, _ in deliveries}) > 1:
                found.append(f"{name}: delivered at several positions: stored twice")
        by_position: dict[int, str] = {}
        for name, deliveries in self.delivered.items():
            for position, _ in deliveries:
                if by_position.setdefault(position, name) != name:
                    found.append(f"position {position}: given to {by_position[position]} and to {name}")
        return found
