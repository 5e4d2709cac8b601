"""Gates: which of several subscriptions a message goes to, where code beside the engine knows and no filter could say.

One `choose` serves any number of subscriptions: it is asked once a message, and lets it through to those whose key it
gave. It is not durable: whoever has it sets it anew at every start. What it decided is stored with the message.

A message without attributes is asked about once for each topic, and the answer remembered until a gate is set anew; so
the many that have none cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Final

import attrs

Choose = Callable[[str, Mapping[str, str]], Hashable]
"""(topic, attributes) -> the key of the subscriptions that get the message. Quick; raises nothing."""

NO_ATTRIBUTES: Final[Mapping[str, str]] = {}
_DECIDED_MAX: Final = 100_000
"""Decisions remembered; beyond it the memory starts anew."""


@attrs.frozen
class Gate:
    """In front of one subscription."""

    choose: Choose
    key: Hashable


class Gates:
    """All gates there are, by the name of the subscription that they stand in front of."""

    def __init__(self) -> None:
        self._by_name: dict[str, Gate] = {}
        self._chooses: dict[tuple[str, ...], tuple[Choose, ...]] = {}
        self._plain: dict[tuple[str, tuple[str, ...]], tuple[int, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def set(self, name: str, gate: Gate | None) -> None:
        """Put one in front of a subscription, also one that is made later; None takes it away.

        Setting any forgets what was decided, so whoever changes what it chooses sets one anew.
        """
        if gate is not None:
            self._by_name[name] = gate
        else:
            self._by_name.pop(name, None)
        self._chooses.clear()
        self._plain.clear()

    def get(self, name: str) -> Gate | None:
        """The gate in front of a subscription."""
        return self._by_name.get(name)

    def open(self, topic: str, names: tuple[str, ...], attributes: Mapping[str, str]) -> tuple[int, ...]:
        """Indices of those of `names` that get a message; the same object for the same answer to a plain one."""
        if attributes:
            return self._ask(topic, names, attributes)
        found = self._plain.get((topic, names))
        if found is None:
            if len(self._plain) >= _DECIDED_MAX:
                self._plain.clear()
            found = self._plain[topic, names] = self._ask(topic, names, NO_ATTRIBUTES)
        return found

    def _ask(self, topic: str, names: tuple[str, ...], attributes: Mapping[str, str]) -> tuple[int, ...]:
        chosen = {choose: choose(topic, attributes) for choose in self._asked(names)}
        by_name = self._by_name
        return tuple(
            index
            for index, name in enumerate(names)
            if (gate := by_name.get(name)) is None or chosen[gate.choose] == gate.key
        )

    def _asked(self, names: tuple[str, ...]) -> tuple[Choose, ...]:
        found = self._chooses.get(names)
        if found is None:
            if len(self._chooses) >= _DECIDED_MAX:
                self._chooses.clear()
            gates = (self._by_name[name] for name in names if name in self._by_name)
            found = self._chooses[names] = tuple(dict.fromkeys(gate.choose for gate in gates))
        return found
