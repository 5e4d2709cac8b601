"""The filtered subscriptions of one topic: which of them a message goes to.

Each distinct filter text is asked once for a message, however many subscriptions have it. Plain equalities are not even
asked: filters that begin with the same path are filed under the value they want, so a thousand cost one look-up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final

import attrs

from gateway.broker.equality import Path, follow, holds, key_of
from gateway.broker.filter import Activation, Filter, FilterError, missing

_DECIDED_MAX: Final = 10_000
"""Sets of subscriptions remembered for a topic; beyond it the memory starts anew."""


@attrs.frozen(eq=False)
class Rule:
    """One filter, and the subscriptions that have it."""

    filter: Filter
    numbers: tuple[int, ...]
    names: tuple[str, ...]


@attrs.frozen(eq=False)
class Route:
    """Who messages of one topic go to, as of now; `sieve` where that is not the same for all of them."""

    topic: str
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    generation: int = 0
    """Of the subscriptions that there were."""
    sieve: Sieve | None = None


Failures = list[tuple[Rule, str]]
"""Rules that could not say, with the reason."""


@attrs.define(eq=False)
class _Table:
    """Rules that begin with the same path, by the value they want there."""

    path: Path
    rules: list[Rule] = attrs.field(factory=list)
    by_value: dict[Hashable, list[Rule]] = attrs.field(factory=dict)


class Sieve:
    """The rules of one topic, in an order that does not change."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self.members = _union(rule.filter.members for rule in self.rules if rule.filter.terms is None)
        """Members of `data` that the rules for CEL can look at; None where they may look at all of it."""
        self.long = tuple(rule for rule in self.rules if rule.filter.terms is None and rule.filter.is_long)
        self.short = tuple(rule for rule in self.rules if rule.filter.terms is None and not rule.filter.is_long)
        """Rules for CEL whose cost is told by their length and the payload's; `long` are the others."""
        self._tables: dict[Path, _Table] = {}
        for rule in self.rules:
            if rule.filter.terms is not None:
                first = rule.filter.terms[0]
                table = self._tables.setdefault(first.path, _Table(first.path))
                table.rules.append(rule)
                table.by_value.setdefault(first.value, []).append(rule)
        self._decided: dict[tuple[Rule, ...], Route] = {}

    def look_up(self, variables: Mapping[str, Any], matched: list[Rule], failed: Failures) -> None:
        """Ask the equalities."""
        for table in self._tables.values():
            try:
                found = table.by_value.get(key_of(follow(variables, table.path)), ())
            except LookupError as error:
                reason = missing(error)
                failed += [(rule, reason) for rule in table.rules]
                continue
            for rule in found:
                rest = rule.filter.terms[1:] if rule.filter.terms else ()
                try:
                    if not rest or holds(variables, rest):
                        matched.append(rule)
                except LookupError as error:
                    failed.append((rule, missing(error)))

    def decided(self, route: Route, matched: list[Rule]) -> Route:
        """The route of a message that matched these: the same object for the same ones, so that batches can tell."""
        key = tuple(matched)
        found = self._decided.get(key)
        if found is None:
            its = dict(zip(route.numbers, route.names, strict=True))
            for rule in matched:
                its.update(zip(rule.numbers, rule.names, strict=True))
            numbers = tuple(sorted(its))
            if len(self._decided) >= _DECIDED_MAX:
                self._decided.clear()
            names = tuple(its[number] for number in numbers)
            found = self._decided[key] = Route(route.topic, numbers, names, route.generation)
        return found


def _union(sets: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """None, all there is, takes the others in."""
    found: frozenset[str] = frozenset()
    for each in sets:
        if each is None:
            return None
        found |= each
    return found


def ask(rule: Rule, variables: Activation, matched: list[Rule], failed: Failures) -> None:
    """Ask CEL."""
    try:
        if rule.filter.evaluate(variables):
            matched.append(rule)
    except FilterError as error:
        failed.append((rule, str(error)))
