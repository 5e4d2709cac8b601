"""The subscriptions there are, who a topic goes to, and both as plain data for log and checkpoint."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

import attrs
import orjson
import structlog

from gateway.broker.attempts import Attempts
from gateway.broker.backoffs import Backoffs
from gateway.broker.clockwork import Clockwork
from gateway.broker.filter import BrokenFilter, Filter
from gateway.broker.queue import NO_PAST, Past
from gateway.broker.revisit import replay_redrive, replay_seek
from gateway.broker.subscription import KEYS_MAX, Cause, Subscription
from gateway.engine.gate import NO_ATTRIBUTES, Gates
from gateway.engine.sieve import Route, Rule, Sieve
from gateway.errors import GatewayError
from gateway.kit.ranges import RangeSet
from gateway.kit.topics import TopicTrie
from gateway.model import SubscriptionSettings
from gateway.steps import UNTRACED, Steps
from gateway.store import record as records
from gateway.store.record import Kind, Record
from gateway.wire.subscription import decode_settings, encode_settings

_log = structlog.get_logger("gateway.filter")
ROUTES_MAX: Final = 100_000
"""Topics whose routes are remembered; beyond it the memory starts anew."""


class Catalogue:
    """Subscriptions by name and by number. Numbers are never given twice in one store's life."""

    def __init__(self, clockwork: Clockwork, subscriptions_max: int, keys_max: int = KEYS_MAX) -> None:
        self.by_name: dict[str, Subscription] = {}
        self.by_number: dict[int, Subscription] = {}
        self.backfilled: dict[Subscription, None] = {}
        """Those that have a past."""
        self.subscriptions_max = subscriptions_max
        self._keys_max = keys_max
        self.steps: Steps = UNTRACED
        self._clockwork = clockwork
        self.delays = clockwork.delays
        self._next_number = 1
        self._trie: TopicTrie[int] = TopicTrie()
        self._routes: dict[str, Route] = {}
        self.filters: dict[int, Filter] = {}
        """Of subscriptions that have one, by number; those with the same text share it."""
        self.generation = 0
        """Counts changes of who messages go to."""
        self._by_text: WeakValueDictionary[str, Filter] = WeakValueDictionary()
        self._filter_errors: dict[int, int] = {}
        self._failed: dict[Rule, int] = {}
        self.gates = Gates()
        self._narrowed: dict[tuple[Route, tuple[int, ...]], Route] = {}

    def __iter__(self) -> Iterator[Subscription]:
        return iter(self.by_name.values())

    def known(self, name: str) -> Subscription:
        subscription = self.by_name.get(name)
        if subscription is None:
            raise GatewayError(
                "subscription_not_found",
                f"subscription {name!r} does not exist; create it with PUT /v1/subscriptions/NAME on the control plane",
            )
        return subscription

    def route(self, topic: str) -> Route:
        """Who `topic` goes to. The subscriptions' patterns are asked once for each topic."""
        route = self._routes.get(topic)
        if route is None:
            route = self._find(topic)
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            self._routes[topic] = route
        return route

    def narrow(self, route: Route, attributes: Mapping[str, str] | None) -> Route:
        """`route` without the subscriptions whose gate lets a message with these attributes not through."""
        if not self.gates:
            return route
        is_open = self.gates.open(route.topic, route.names, attributes or NO_ATTRIBUTES)
        if len(is_open) == len(route.names):
            return route
        found = self._narrowed.get((route, is_open))
        if found is None:
            numbers = tuple(route.numbers[index] for index in is_open)
            found = attrs.evolve(route, numbers=numbers, names=tuple(route.names[index] for index in is_open))
            if len(self._narrowed) >= ROUTES_MAX:
                self._narrowed.clear()
            self._narrowed[route, is_open] = found
        return found

    def _find(self, topic: str) -> Route:
        numbers = sorted(self._trie.match(topic))
        if not self.filters:
            return Route(topic, tuple(numbers), self._names(numbers), self.generation)
        filtered: dict[Filter, list[int]] = {}
        for number in numbers:
            if number in self.filters:
                filtered.setdefault(self.filters[number], []).append(number)
        rules = [Rule(each, tuple(its), self._names(its)) for each, its in filtered.items()]
        plain = [number for number in numbers if number not in self.filters]
        return Route(topic, tuple(plain), self._names(plain), self.generation, Sieve(rules) if rules else None)

    def _names(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.by_number[number].name for number in numbers)

    # ---------------------------------------------------------------------------------------------- filters

    def count_filter_error(self, rule: Rule, messages: int = 1) -> None:
        """Messages of which the rule's filter could not say whether they match."""
        self._failed[rule] = self._failed.get(rule, 0) + messages
        if len(self._failed) > ROUTES_MAX:
            self.filter_errors()

    def filter_errors(self) -> dict[int, int]:
        """Such messages since the start, by the number of each subscription that has a filter."""
        for rule, count_ in self._failed.items():
            for number in rule.numbers:
                self._filter_errors[number] = self._filter_errors.get(number, 0) + count_
        self._failed.clear()
        self._filter_errors = {number: self._filter_errors.get(number, 0) for number in self.filters}
        return self._filter_errors

    def compile(self, text: str) -> Filter:
        """The filter of this text, the same one for all subscriptions that have it; `bad_filter` where it is wrong."""
        found = self._by_text.get(text)
        if found is None:
            found = self._by_text[text] = Filter(text)
        return found

    def _compile_known(self, text: str) -> Filter:
        """The same for a filter that was taken once: a start must not fail because a library has changed."""
        try:
            return self.compile(text)
        except GatewayError as error:
            _log.error("a filter is not taken any more: nothing matches it", filter=text[:200], reason=error.message)
            return BrokenFilter(text, error.message)

    # --------------------------------------------------------------------------------------------- changing

    def create(self, name: str, settings: SubscriptionSettings, front: int) -> Subscription:
        """A new subscription that reads from position `front` on."""
        if len(self.by_name) >= self.subscriptions_max:
            raise GatewayError(
                "subscription_limit",
                f"there are {len(self.by_name)} subscriptions; delete one, or raise deliver.subscriptions_max",
            )
        _checked = self.compile(settings.filter) if settings.filter else None
        return self._add(self._next_number, name, settings, front)

    def _add(self, number: int, name: str, settings: SubscriptionSettings, front: int) -> Subscription:
        subscription = Subscription(number, name, settings, front, self._clockwork, self._keys_max)
        subscription.steps = self.steps
        self._next_number = max(self._next_number, number + 1)
        self.by_name[name] = self.by_number[number] = subscription
        self._file(subscription)
        return subscription

    def change(self, subscription: Subscription, settings: SubscriptionSettings) -> None:
        _checked = self.compile(settings.filter) if settings.filter else None  # before anything is changed
        self._unfile(subscription)
        subscription.change(settings)
        self._file(subscription)

    def remove(self, subscription: Subscription) -> None:
        self._unfile(subscription)
        del self.by_name[subscription.name], self.by_number[subscription.number]
        self.backfilled.pop(subscription, None)
        subscription.close()

    def _file(self, subscription: Subscription) -> None:
        for pattern in subscription.settings.topics:
            self._trie.add(pattern, subscription.number)
        if subscription.settings.filter:
            self.filters[subscription.number] = self._compile_known(subscription.settings.filter)
        self._forget_routes()

    def _unfile(self, subscription: Subscription) -> None:
        for pattern in set(subscription.settings.topics):
            self._trie.remove(pattern, subscription.number)
        self.filters.pop(subscription.number, None)
        self._forget_routes()

    def _forget_routes(self) -> None:
        self._routes.clear()
        self.generation += 1
        self._narrowed.clear()

    # --------------------------------------------------------------------------------------- log, checkpoint

    def snapshot(self, first: int) -> dict[str, Any]:
        """Everything, as plain data; positions below `first` are gone from the log."""
        for subscription in self:
            subscription.buried.remove(1, first - 1)  # they cannot be redriven any more
            if subscription.past.end <= first:
                subscription.past = NO_PAST
                self.backfilled.pop(subscription, None)
        return {
            "next_number": self._next_number,
            "subscriptions": [
                {
                    "number": s.number,
                    "name": s.name,
                    "settings": encode_settings(s.settings),
                    "settled": b64encode(s.settled.encode()).decode("ascii"),
                    "created": s.created,
                    "unfilled": s.unfilled,
                    "past": [s.past.end, b64encode(s.past.positions.encode()).decode("ascii")],
                    "routed": s.routed,
                    "counts": [s.counts[cause] for cause in Cause],
                    "buried": b64encode(s.buried.encode()).decode("ascii"),
                    "attempts": s.attempts.encode(),
                    "backoffs": s.backoffs.encode(),
                }
                for s in self
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._next_number = state["next_number"]
        for item in state["subscriptions"]:
            settings = decode_settings(item["settings"], None)
            settled = _settled(item)
            subscription = self._add(item["number"], item["name"], settings, settled.floor)
            subscription.settled = settled
            subscription.created = item["created"]
            subscription.unfilled = item["unfilled"]
            end, positions = item["past"]
            subscription.past = Past(RangeSet.decode(b64decode(positions)), end)
            if end:
                self.backfilled[subscription] = None
            subscription.routed = item["routed"]
            subscription.counts.update(zip(Cause, item["counts"], strict=False))  # causes may have been added since
            if "buried" in item:
                subscription.buried = RangeSet.decode(b64decode(item["buried"]))
            subscription.attempts = Attempts.decode(item.get("attempts", {}))
            subscription.backoffs = Backoffs.decode(item.get("backoffs", {}))

    def replay(self, record: Record) -> None:
        """A control record of the log's tail."""
        if record.kind == Kind.SUBSCRIPTION:
            self._replay_subscription(record)
            return
        subscription = self.by_number.get(record.number)
        if subscription is None:
            return  # deleted further on in the log
        if record.kind == Kind.SETTLE:
            cause, counted, ranges = records.decode_settle(record.body)
            for low, high in ranges:
                subscription.settled.add(low, high)
                subscription.attempts.forget(low, high)
            if cause == Cause.DEAD_LETTERED:
                subscription.bury_at(ranges)
            subscription.counts[Cause(cause)] += counted
        elif record.kind == Kind.SEEK:
            replay_seek(subscription, *records.decode_seek(record.body))
        elif record.kind == Kind.REDRIVE:
            replay_redrive(subscription, *records.decode_redrive(record.body))
        elif record.kind == Kind.ATTEMPTS:
            attempts, ranges = records.decode_attempts(record.body)
            subscription.attempts.note(
                attempts, [gap for low, high in ranges for gap in subscription.settled.gaps(low, high)]
            )
        elif record.kind == Kind.BACKOFF:
            due_ms, ranges = records.decode_backoff(record.body)
            subscription.backoffs.note(due_ms, ranges, record.time_ms)
        elif record.kind == Kind.BACKFILL:
            self.fill(subscription, decode_past(record.body))
        subscription.front = subscription.settled.floor

    def fill(self, subscription: Subscription, past: Past) -> None:
        """Note the older positions that are `subscription`'s too; it begins to read at the first of them."""
        subscription.unfilled = False
        subscription.past = past
        self.backfilled[subscription] = None
        found = past.positions.count_in(0, past.end)
        subscription.routed += found
        subscription.look_again()
        if found:
            subscription.settled = RangeSet(0)
            subscription.front = 0

    def _replay_subscription(self, record: Record) -> None:
        document = orjson.loads(record.body)
        known = self.by_number.get(document["number"])
        if document["settings"] is None:
            if known:
                self.remove(known)
            return
        settings = decode_settings(document["settings"], None)
        if known:
            self.change(known, settings)
        else:
            self._add(document["number"], document["name"], settings, record.position)


def _settled(item: dict[str, Any]) -> RangeSet:
    """The settled set of a subscription in a checkpoint; the first checkpoints named each range."""
    if "settled" in item:
        return RangeSet.decode(b64decode(item["settled"]))
    return RangeSet(item["floor"], item["ranges"])


def encode_past(past: Past) -> bytes:
    """The body of a BACKFILL record."""
    return past.end.to_bytes(8, "little") + past.positions.encode()


def decode_past(body: bytes) -> Past:
    return Past(RangeSet.decode(body[8:]), int.from_bytes(body[:8], "little"))


def subscription_record(subscription: Subscription, settings: SubscriptionSettings | None) -> bytes:
    """The body of a SUBSCRIPTION record; no settings where it is deleted."""
    plain = None if settings is None else encode_settings(settings)
    return orjson.dumps({"number": subscription.number, "name": subscription.name, "settings": plain})
