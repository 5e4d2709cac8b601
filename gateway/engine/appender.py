"""Publishing into the log: recognise repeats, build bytes once, note who gets them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import islice
from typing import cast

import msgspec

from gateway.broker.body import compose, compose_plain, own_id
from gateway.broker.dedup import Dedup, digest
from gateway.engine.catalogue import Catalogue
from gateway.engine.routing import TOLD_MAX
from gateway.engine.sieve import Route
from gateway.errors import GatewayError
from gateway.kit.hashes import id_hash, key_hash
from gateway.model import Batch, Message, Stored
from gateway.steps import UNTRACED
from gateway.store.index import Index
from gateway.store.log import Log
from gateway.store.record import Columns
from gateway.store.segment import Segment

_NO_ID = bytes(16)
_LARGE = 32
"""Messages that go one way, and get a record of their own: then it is delivered as it stands."""


class Appender:
    """The way of a batch into the log. All of it happens in one call, without waiting."""

    def __init__(self, log: Log, catalogue: Catalogue, dedup: Dedup) -> None:
        self.log = log
        self.catalogue = catalogue
        self.dedup = dedup

    def append(self, batches: Sequence[Batch], now: int) -> None:
        """Give every message that has no result yet its place, in order. Raises StoreError once the store failed.

        Who gets them is asked once more: subscriptions may have come and gone since the batch was routed. Where there
        are filters the caller has seen to that (`is_routed`).
        Batches of plain messages that go the same way are written as one, and so are small ones whatever their ways: a
        single publish then costs little more than one message of a large batch does. Where the disk is full they are
        refused, all that are left.
        """
        done = 0
        while done < len(batches):
            segment = self.log.begin(now)
            try:
                self.log.check_room()
            except GatewayError as error:
                for batch in batches[done:]:
                    batch.fail(error)
                return
            runs = _runs(batches, done)
            if len(runs) > 1:
                self._append_mixed(segment, runs, now)
            elif runs:
                self._append_plain(segment, runs[0], now)
            else:
                self._append_any(segment, batches[done], now)
            stop = done + (sum(map(len, runs)) or 1)
            for batch in batches[done:stop]:
                batch.time_ms = now
                self.log.submit(batch, batch.durability)
            done = stop

    def _append_plain(self, segment: Segment, run: Sequence[Batch], now: int) -> None:
        """The hot path: messages of one topic, all new, with data and nothing else."""
        route = self._way(run)
        first = self.log.end
        bodies = self._compose(run, route, first, now)
        self.log.messages(bodies, self.log.route(route.topic, route.numbers))
        self._note(segment, route, first, len(bodies))

    def _append_mixed(self, segment: Segment, runs: Sequence[Sequence[Batch]], now: int) -> None:
        """The same for messages of several topics, in one record: they come from many who publish one at a time."""
        first = self.log.end
        bodies: list[bytes] = []
        numbers = array("I")
        noted: list[tuple[Route, int]] = []
        for run in runs:
            route = self._way(run)
            composed = self._compose(run, route, first + len(bodies), now)
            bodies += composed
            noted.append((route, len(composed)))
            number = self.log.route(route.topic, route.numbers)
            numbers.extend([number] * len(composed))
        self.log.messages(bodies, numbers[0], Columns(array("I"), routes=numbers))
        for route, count in noted:
            self._note(segment, route, first, count)
            first += count

    def _way(self, run: Sequence[Batch]) -> Route:
        """Who the messages of plain batches of one topic go to; gates let pass what has no attributes, or do not."""
        whole = self._again(cast("Route", run[0].routes[0]))
        plain = self.catalogue.narrow(whole, None)
        if plain is not whole:
            for batch in run:
                self._tell_gates(batch, [whole] * len(batch.messages), [plain] * len(batch.messages))
        return plain

    def _compose(self, run: Sequence[Batch], route: Route, first: int, now: int) -> list[bytes]:
        """The delivery JSON of batches that go one way, from position `first` on; they are told their places."""
        messages = run[0].messages
        if len(run) > 1:
            messages = [message for batch in run for message in batch.messages]
        place = first
        for batch in run:
            batch.first = place
            batch.routes = (route,)
            place += len(batch.messages)
        return compose_plain(route.topic, messages, first, self.log.epoch, now)

    def _again(self, route: Route) -> Route:
        """The route as of now. One that a filter decided still holds, or the batch would not have come here."""
        return route if route.generation == self.catalogue.generation else self.catalogue.route(route.topic)

    def _append_any(self, segment: Segment, batch: Batch, now: int) -> None:
        messages: Sequence[Message] = batch.messages
        routes = [self._again(route) for route in cast("Sequence[Route]", batch.routes)]
        if len(routes) < len(messages):
            routes = [routes[0]] * len(messages)
        if self.catalogue.gates:
            narrow, whole = self.catalogue.narrow, routes
            routes = [narrow(route, message.attributes) for route, message in zip(routes, messages, strict=True)]
            self._tell_gates(batch, whole, routes)
        batch.routes = routes
        self._recognise(batch, now)
        batch.first = self.log.end
        if batch.results is None:
            self._write(segment, messages, routes, now)
            return
        chosen = [index for index, result in enumerate(batch.results) if result is None]
        if chosen:
            self._write(segment, [messages[i] for i in chosen], [routes[i] for i in chosen], now)
        for position, index in enumerate(chosen, batch.first):
            batch.results[index] = Stored(messages[index].id or own_id(self.log.epoch, position), position)

    def _write(self, segment: Segment, messages: Sequence[Message], routes: Sequence[Route], now: int) -> None:
        first = self.log.end
        bodies: list[bytes] = []
        numbers = array("I")
        for position, (message, route) in enumerate(zip(messages, routes, strict=True), first):
            bodies.append(compose(message, position, self.log.epoch, now))
            numbers.append(self.log.route(route.topic, route.numbers))
        columns = _columns(segment, messages, now)
        if any(number != numbers[0] for number in numbers):
            columns.routes = numbers
        self.log.messages(bodies, numbers[0], columns)
        for position, route in enumerate(routes, first):
            self._note(segment, route, position, 1)
        for position, due_ms in enumerate(columns.due_ms or (), first):
            if not self.catalogue.delays.is_due(position, due_ms):
                for number in routes[position - first].numbers:
                    self.catalogue.by_number[number].not_due += 1

    def _tell_gates(self, batch: Batch, before: Sequence[Route], after: Sequence[Route]) -> None:
        """Whose gates let which messages not through, to the trace."""
        steps = self.catalogue.steps
        if steps is UNTRACED:
            return
        closed: dict[str, list[int]] = {}
        for index, (whole, narrow) in enumerate(zip(before, after, strict=True)):
            if narrow is not whole:
                for name in islice((name for name in whole.names if name not in narrow.names), TOLD_MAX):
                    closed.setdefault(name, []).append(index)
        for name, indexes in closed.items():
            steps.filtered(batch, name, "gate", indexes)

    def _note(self, segment: Segment, route: Route, first: int, count: int) -> None:
        end, route_to, known = first + count, segment.growing.route_to, self.catalogue.by_number
        for number in route.numbers:
            route_to(number, first, end - 1)
            subscription = known[number]
            subscription.routed += count
            subscription.routed_end = end
        self.log.routed(route.numbers)

    # ---------------------------------------------------------------------------------------- deduplication

    def _recognise(self, batch: Batch, now: int) -> None:
        """Answer messages whose (topic, id) was published before; remember the others under the place they get."""
        position = self.log.end
        for index, message in enumerate(batch.messages):
            if batch.results is not None and batch.results[index] is not None:
                continue
            if message.id is not None:
                mark = digest(_payload(message), message.data_base64)
                known = self.dedup.find(message.topic, message.id, now)
                if known is not None:
                    batch.answer(index, _repeat(message.topic, message.id, known, mark))
                    continue
                self.dedup.remember(message.topic, message.id, position, mark, now)
            position += 1

    def recall(self, index: Index, now: int) -> None:
        """A segment found at the start: remember the ids that the window still covers."""
        since = now - self.dedup.window_ms
        halves = array("Q", index.ids).tobytes()
        for place, ordinal in enumerate(index.ids_at):
            time_ms = index.time_ms(ordinal)
            if time_ms > since:
                mark = bytes(index.digests[8 * place : 8 * place + 8])
                hashed = halves[16 * place : 16 * place + 16]
                self.dedup.remember_hashed(hashed, index.position(ordinal), mark, time_ms)


def _is_uniform(batch: Batch) -> bool:
    return batch.plain and len(batch.routes) == 1


def _runs(batches: Sequence[Batch], begin: int) -> list[Sequence[Batch]]:
    """The plain batches from `begin` on that go into one record, those that go the same way together.

    One run, where it is large; else all the small ones that there are. None, where the first batch is not plain.
    """
    runs: list[Sequence[Batch]] = []
    while begin < len(batches) and _is_uniform(batches[begin]):
        route = batches[begin].routes[0]
        stop = begin + 1
        while stop < len(batches) and _is_uniform(batches[stop]) and batches[stop].routes[0] is route:
            stop += 1
        run = batches[begin:stop]
        is_large = sum([len(batch.messages) for batch in run]) > _LARGE
        if is_large and runs:
            break
        runs.append(run)
        if is_large:
            break
        begin = stop
    return runs


def _payload(message: Message) -> bytes:
    return b"" if message.data is msgspec.UNSET else bytes(message.data)


def _repeat(topic: str, message_id: str, known: tuple[int, bytes], mark: bytes) -> Stored | GatewayError:
    position, first_mark = known
    if mark == first_mark:
        return Stored(message_id, position, duplicate=True)
    return GatewayError(
        "id_conflict",
        f"id {message_id!r} was published on topic {topic} with another payload, at position {position}; "
        f"give a new message a new id",
    )


def _columns(segment: Segment, messages: Sequence[Message], now: int) -> Columns:
    """What messages have beside their bodies: times, keys, ids of their own."""
    columns = Columns(array("I"))
    if any(message.delay_ms or message.ttl_ms for message in messages):
        columns.due_ms = array("Q", [now + m.delay_ms if m.delay_ms else 0 for m in messages])
        columns.expires_ms = array("Q", [now + m.delay_ms + m.ttl_ms if m.ttl_ms else 0 for m in messages])
        segment.due_ms = max(segment.due_ms, *columns.due_ms)
        segment.expires_ms = max(segment.expires_ms, *columns.expires_ms)
    if any(message.key for message in messages):
        columns.keys = array("Q", [key_hash(m.key) if m.key else 0 for m in messages])
    if any(message.id is not None for message in messages):
        columns.ids = b"".join([_NO_ID if m.id is None else id_hash(m.topic, m.id) for m in messages])
        columns.digests = b"".join([bytes(8) if m.id is None else digest(_payload(m), m.data_base64) for m in messages])
        segment.ids_ms = now
    return columns
