"""Publishing into the log: recognise repeats, build bytes once, note who gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from gateway.broker.bodies import Bodies
from gateway.broker.body import compose, compose_plain, own_id
from gateway.broker.dedup import Dedup, digest
from gateway.engine.catalogue import Catalogue
from gateway.engine.sieve import Route
from gateway.errors import GatewayError
from gateway.kit.hashes import key_hash
from gateway.model import Batch, Message, Stored
from gateway.store import record as records
from gateway.store.log import Log
from gateway.store.record import Flag, Record
from gateway.store.segment import Segment


class StoredBody(msgspec.Struct):
    """What is read back from a stored delivery JSON."""

    topic: str
    id: str
    time_ms: int
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


decode_stored = msgspec.json.Decoder(StoredBody).decode


class Appender:
    """The way of a batch into the log. All of it happens in one call, without waiting."""

    def __init__(self, log: Log, catalogue: Catalogue, bodies: Bodies, dedup: Dedup) -> None:
        self.log = log
        self.catalogue = catalogue
        self.bodies = bodies
        self.dedup = dedup

    def append(self, batches: Sequence[Batch], now: int) -> None:
        """Give every message that has no result yet its place, in order. Raises StoreError once the store failed.

        Who gets them is asked once more: subscriptions may have come and gone since the batch was routed. Where there
        are filters the caller has seen to that (`is_routed`).
        Batches of plain messages that go the same way are written as one: a single publish then costs little more
        than one message of a large batch does.
        """
        done = 0
        while done < len(batches):
            segment = self.log.begin(now)
            stop = done + 1
            if _is_uniform(batches[done]):
                route = cast("Route", batches[done].routes[0])
                while stop < len(batches) and _is_uniform(batches[stop]) and batches[stop].routes[0] is route:
                    stop += 1
                plain = self.catalogue.narrow(self._again(route), None)
                self._append_plain(segment, batches[done:stop], plain, now)
            else:
                self._append_any(segment, batches[done], now)
            for batch in batches[done:stop]:
                batch.time_ms = now
                self.log.submit(batch, batch.durability)
            done = stop

    def _append_plain(self, segment: Segment, batches: Sequence[Batch], route: Route, now: int) -> None:
        """The hot path: messages of one topic, all new, with data and nothing else."""
        first = self.log.end
        messages = batches[0].messages
        if len(batches) > 1:
            messages = [message for batch in batches for message in batch.messages]
        bodies = compose_plain(route.topic, messages, first, self.log.epoch, now)
        number = self.log.route(route.topic, route.numbers)
        self._note(segment, route, first, len(messages))
        self.log.messages(bodies, number)
        self.bodies.append(bodies)
        for batch in batches:
            batch.first = first
            batch.routes = (route,)
            first += len(batch.messages)

    def _again(self, route: Route) -> Route:
        """The route as of now. One that a filter decided still holds, or the batch would not have come here."""
        return route if route.generation == self.catalogue.generation else self.catalogue.route(route.topic)

    def _append_any(self, segment: Segment, batch: Batch, now: int) -> None:
        messages: Sequence[Message] = batch.messages
        routes = [self._again(route) for route in cast("Sequence[Route]", batch.routes)]
        if len(routes) < len(messages):
            routes = [routes[0]] * len(messages)
        if self.catalogue.gates:
            narrow = self.catalogue.narrow
            routes = [narrow(route, message.attributes) for route, message in zip(routes, messages, strict=True)]
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
        numbers: list[int] = []
        for position, (message, route) in enumerate(zip(messages, routes, strict=True), first):
            bodies.append(compose(message, position, self.log.epoch, now))
            numbers.append(self.log.route(route.topic, route.numbers))
            self._note(segment, route, position, 1)
        flags, stored = _mark(segment, messages, bodies, first, now)
        self.log.messages(stored, numbers, flags)
        self.bodies.append(bodies)

    def _note(self, segment: Segment, route: Route, first: int, count: int) -> None:
        for number in route.numbers:
            segment.route_to(number, first, first + count - 1)
            self.catalogue.by_number[number].routed += count
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

    def recall(self, record: Record, topic: str, now: int) -> None:
        """A message found at the start: remember its id where the window still covers it."""
        if record.flags & Flag.OWN_ID and record.time_ms > now - self.dedup.window_ms:
            stored = decode_stored(records.split_times(record)[2])
            mark = digest(bytes(stored.data), stored.data_base64)
            self.dedup.remember(topic, stored.id, record.position, mark, record.time_ms)


def _is_uniform(batch: Batch) -> bool:
    return batch.plain and len(batch.routes) == 1


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


def _mark(
    segment: Segment, messages: Sequence[Message], bodies: Sequence[bytes], first: int, now: int
) -> tuple[list[int], list[bytes]]:
    """Flags and stored bodies of messages that have an id of their own, a delay or a TTL."""
    flags: list[int] = []
    stored: list[bytes] = []
    for position, (message, body) in enumerate(zip(messages, bodies, strict=True), first):
        flag: int = Flag.NONE
        if message.key:
            flag = Flag.KEYED
            segment.keys[position] = key_hash(message.key)
        if message.id is not None:
            flag |= Flag.OWN_ID
            segment.ids_ms = now
        if message.delay_ms or message.ttl_ms:
            flag |= Flag.TIMED
            due_ms = now + message.delay_ms if message.delay_ms else 0
            expires_ms = now + message.delay_ms + message.ttl_ms if message.ttl_ms else 0
            segment.timed[position] = (due_ms, expires_ms)
            stored.append(records.with_times(body, due_ms, expires_ms))
        else:
            stored.append(body)
        flags.append(flag)
    return flags, stored
