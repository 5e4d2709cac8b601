"""Who each message of a batch goes to: by its topic, and by what the subscriptions' filters say of it.

Without filters a topic's route holds for all its messages, and is looked up once a batch. Where there are some, `route`
asks those that are quick; `is_routed` says whether that was all, and still holds; `ask` waits for the others. What was
decided is stored with the message, so a restart does not ask again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, cast

import msgspec

from gateway.broker.filter import Activation, FilterError
from gateway.config import Filter as FilterSettings
from gateway.engine.catalogue import Catalogue
from gateway.engine.longfilters import LongFilters, Question
from gateway.engine.sieve import Failures, Route, Rule, ask
from gateway.model import Batch
from gateway.steps import UNTRACED, Steps

TOLD_MAX: Final = 32
"""Filters of a topic, and subscriptions of a filter, of which a trace is told whom a message did not match."""


class _Verdict:
    """What is known of one message so far. `left` are rules still to be asked, elsewhere."""

    __slots__ = ("activation", "failed", "left", "matched", "route")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.matched: list[Rule] = []
        self.failed: Failures = []
        self.left: tuple[Rule, ...] = ()
        self.activation: Activation | None = None


class _Undecided(list[Route | _Verdict]):
    """Stands in `batch.routes` until the long filters have been asked."""

    generation: int


class Router:
    """The decisions of the route stage."""

    def __init__(self, catalogue: Catalogue, settings: FilterSettings, long: LongFilters, steps: Steps) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._long = long
        self._steps = steps

    def route(self, batch: Batch) -> None:
        """Into `batch.routes`, unless a filter takes long; `is_routed` tells."""
        route = self._catalogue.route
        if len(batch.topics) == 1:
            batch.routes = [route(topic) for topic in batch.topics]
        else:
            batch.routes = [route(message.topic) for message in batch.messages]
        if self._catalogue.filters and any(each.sieve for each in cast("list[Route]", batch.routes)):
            self._sift(batch)

    def is_routed(self, batch: Batch) -> bool:
        """Whether every message's route is decided, by the subscriptions that there are now."""
        catalogue = self._catalogue
        if not catalogue.filters:
            return True  # the appender asks for the topics' routes once more
        if isinstance(batch.routes, _Undecided):
            return False
        return cast("Route", batch.routes[0]).generation == catalogue.generation

    async def ask(self, batch: Batch) -> None:
        """Decide once more, waiting for filters that take long. Then see whether it still `is_routed`."""
        verdicts = batch.routes
        if not isinstance(verdicts, _Undecided) or verdicts.generation != self._catalogue.generation:
            self.route(batch)
            verdicts = batch.routes
            if not isinstance(verdicts, _Undecided):
                return
        questions = [
            (verdict, rule, Question(rule.filter, verdict.activation))
            for verdict in verdicts
            if isinstance(verdict, _Verdict) and verdict.activation is not None
            for rule in verdict.left
        ]
        await self._long.ask([question for _, _, question in questions])
        for verdict, rule, question in questions:
            if isinstance(question.answer, FilterError):
                verdict.failed.append((rule, str(question.answer)))
            elif question.answer:
                verdict.matched.append(rule)
        if verdicts.generation == self._catalogue.generation:
            self._decide(batch, verdicts)

    # -------------------------------------------------------------------------------------------- deciding

    def _sift(self, batch: Batch) -> None:
        verdicts = _Undecided(self._judge(batch, index) for index in range(len(batch.messages)))
        verdicts.generation = self._catalogue.generation
        if any(isinstance(verdict, _Verdict) and verdict.left for verdict in verdicts):
            batch.routes = verdicts
        else:
            self._decide(batch, verdicts)

    def _judge(self, batch: Batch, index: int) -> Route | _Verdict:
        """Ask the quick filters about one message."""
        message = batch.messages[index]
        route = self._catalogue.route(message.topic)
        sieve = route.sieve
        if sieve is None or (batch.results is not None and batch.results[index] is not None):
            return route
        verdict = _Verdict(route)
        size = 0 if message.data is msgspec.UNSET else len(memoryview(message.data))
        variables = self._variables(batch, index, size)
        sieve.look_up(variables, verdict.matched, verdict.failed)
        if sieve.short or sieve.long:
            verdict.activation = activation = Activation(variables, sieve.members)
            if size > self._settings.inline_bytes_max:
                verdict.left = sieve.short + sieve.long
            else:
                verdict.left = sieve.long
                for rule in sieve.short:
                    ask(rule, activation, verdict.matched, verdict.failed)
        return verdict

    def _variables(self, batch: Batch, index: int, size: int) -> dict[str, Any]:
        """What filters see. `data` is not there where the payload is not JSON, or too large."""
        message = batch.messages[index]
        variables: dict[str, Any] = {
            "topic": message.topic,
            "key": message.key or "",
            "attributes": message.attributes or {},
        }
        if 0 < size <= self._settings.data_bytes_max:
            with suppress(LookupError):
                variables["data"] = batch.decode(index)
        return variables

    def _decide(self, batch: Batch, verdicts: _Undecided) -> None:
        routes: list[Route] = []
        if self._steps is not UNTRACED:
            self._tell(batch, verdicts)
        for verdict in verdicts:
            if isinstance(verdict, Route):
                routes.append(verdict)
                continue
            for rule, _ in verdict.failed:
                self._catalogue.count_filter_error(rule)
            assert verdict.route.sieve is not None
            routes.append(verdict.route.sieve.decided(verdict.route, verdict.matched))
        first = routes[0]
        batch.routes = [first] if all(route is first for route in routes) else routes

    def _tell(self, batch: Batch, verdicts: _Undecided) -> None:
        """Who did not get which messages, and why, to the trace."""
        told: dict[tuple[str, str], list[int]] = {}
        for index, verdict in enumerate(verdicts):
            if isinstance(verdict, Route) or verdict.route.sieve is None:
                continue
            failed = dict(verdict.failed)
            passed = set(verdict.matched)
            for rule in verdict.route.sieve.rules[:TOLD_MAX]:
                if rule not in passed:
                    for name in rule.names[:TOLD_MAX]:
                        told.setdefault((name, failed.get(rule, "no match")), []).append(index)
        for (name, outcome), indexes in told.items():
            self._steps.filtered(batch, name, outcome, indexes)
