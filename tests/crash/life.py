"""A life of a gateway's engine, drawn by chance from its seed, and a witness who takes notes of it.

Publishing in several shapes, subscriptions that come and go, deliveries, acks, nacks, terms, dead letters, leases that
run out, segments that fill up and are merged, messages whose time is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import orjson
import trio

from gateway.errors import GatewayError, StoreError
from gateway.kit.topics import matches
from gateway.model import Batch, Durability, Message, Settle, Settlement, Start, Verb
from gateway.store.files import Files
from tests.crash.witness import Witness
from tests.engine.driving import BEGAN_MS, Client, Driven, answer_of, message

LEASE_MS: Final = 1_800_000
DELAY_MS: Final = 60_000
TTL_MS: Final = 2 * LEASE_MS
RETENTION_S: Final = 2 * LEASE_MS // 1000
FORGET_MS: Final = 121_000
"""Behind limits.dedup_window_s: a segment is merged only when nobody needs the ids in it any more."""
CHECKPOINTS: Final = 3
"""So many segments later both checkpoints have their places behind what was sealed."""
SETTINGS: Final[dict[str, Any]] = {
    "segment_bytes": 3000,
    "lazy_sync_ms": 1,
    "cache_bytes": 0,
    "merge_live_share": 0.5,
    "merge_bytes_per_s": 1 << 30,
}
TOPICS: Final = ("trade.a", "trade.b", "stock.b", "nobody")
PATTERNS: Final = (("trade.>",), ("trade.a", "stock.*"), ("*.b",), ("dead.>",))


@attrs.define
class Reader:
    """A subscription that is there, with its one consumer. `held`: positions it was handed and has said nothing of."""

    name: str
    patterns: tuple[str, ...]
    client: Client
    retention_s: int
    held: dict[int, None] = attrs.field(factory=dict)


class Life:
    """`run` so many operations, and a merge behind them; a fault of the disk ends it early, with an exception."""

    def __init__(self, directory: Path, files: Files, witness: Witness, seed: int) -> None:
        self.witness = witness
        self.dice = Random(seed)
        self.driven = Driven(directory, files, BEGAN_MS, SETTINGS)
        self.readers: dict[str, Reader] = {}
        self.operations = 0
        self.refusals = 0
        self._payloads = 0
        self._names = 0
        self._ids: list[str] = []

    async def run(self, operations: int) -> None:
        await self.driven.engine.open()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.driven.notify)
                nursery.start_soon(self.driven.engine.run)
                await self._live(operations)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self.driven.engine.aclose()

    async def _live(self, operations: int) -> None:
        verbs: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.publish, 20),
            (self.publish_two_calls_at_once, 10),
            (self.publish_with_everything, 10),
            (self.publish_again, 5),
            (self.publish_as_written, 5),
            (self.deliver_and_ack, 30),
            (self.nack, 4),
            (self.term, 4),
            (self.let_leases_run_out, 2),
            (self.merge, 5),
            (self.sweep, 2),
            (self.subscribe, 3),
            (self.change, 2),
            (self.delete, 1),
        ]
        self.witness.clock(self.driven.now)
        await self.subscribe(PATTERNS[0])
        while self.operations < operations:
            self.operations += 1
            (verb,) = self.dice.choices([verb for verb, _ in verbs], [weight for _, weight in verbs])
            await self._try(verb)
        await self._try(self.merge)

    async def _try(self, verb: Callable[[], Awaitable[None]]) -> None:
        """Where there is no room it is said so, and life goes on."""
        try:
            await verb()
        except GatewayError as error:
            if error.code == "store_failed":
                raise
            self.refusals += 1

    # ---------------------------------------------------------------------------------------------- publishing

    def payload(self) -> str:
        self._payloads += 1
        return f"{self._payloads} " + "." * self.dice.randint(1, 200)

    def messages(self, **more: Any) -> list[Message]:
        return [message(self.dice.choice(TOPICS), self.payload(), **more) for _ in range(self.dice.randint(1, 4))]

    async def publish(self) -> None:
        await self._publish(self.messages())

    async def publish_as_written(self) -> None:
        await self._publish(self.messages(), durability=Durability.WRITTEN)

    async def publish_two_calls_at_once(self) -> None:
        """Where the first fills the segment, the second begins the next in the same commit."""
        await self._publish(self.messages(), self.messages())

    async def publish_with_everything(self) -> None:
        name = f"id-{self._payloads}"
        await self._publish(
            [
                message(self.dice.choice(TOPICS), self.payload(), id=name, key="k", attributes={"a": "b"}),
                message(self.dice.choice(TOPICS), self.payload(), delay_ms=DELAY_MS),
                message(self.dice.choice(TOPICS), self.payload(), ttl_ms=TTL_MS),
            ]
        )
        self._ids.append(name)

    async def publish_again(self) -> None:
        """An id that was used before, with another payload: refused while it is remembered, new later."""
        if self._ids:
            await self._publish([message("trade.a", self.payload(), id=self.dice.choice(self._ids))])

    async def _publish(self, *calls: list[Message], durability: Durability = Durability.FSYNCED) -> None:
        engine = self.driven.engine
        self.witness.clock(self.driven.now)
        self.witness.sent({text_of(each): each.ttl_ms for call in calls for each in call}, self.driven.now)
        told = [trio.Event() for _ in calls]
        batches = [
            self.driven.batch(*call, durability=durability, done=done) for call, done in zip(calls, told, strict=True)
        ]
        for batch in batches:
            engine.route(batch)
        try:
            engine.append(batches, self.driven.now)
        except (StoreError, GatewayError):
            self.witness.refused(*(text_of(each) for call in calls for each in call))
            raise
        for batch, done in zip(batches, told, strict=True):
            await self.driven.wait(done)
            self._note(batch)
            if batch.error is not None:
                raise batch.error

    def _note(self, batch: Batch) -> None:
        """What the producer was told. A store that fails while a batch waits for it may have it or not."""
        if batch.error is not None:
            if batch.error.code != "store_failed":
                self.witness.refused(*map(text_of, batch.messages))
            return
        for index, each in enumerate(batch.messages):
            text, answer = text_of(each), answer_of(batch, index)
            if isinstance(answer, GatewayError):
                self.witness.refused(text)
            elif not answer.duplicate:
                readers = [r.name for r in self.readers.values() if any(matches(p, each.topic) for p in r.patterns)]
                durable = batch.durability is Durability.FSYNCED
                self.witness.answered(answer.position, text, readers, durable=durable)
                if each.id and durable:
                    self.witness.named(each.topic + " " + each.id, answer.position, text, self.driven.now)

    # ---------------------------------------------------------------------------------------------- delivering

    async def deliver(self) -> None:
        await self.driven.deliver()
        for reader in self.readers.values():
            for body in reader.client.bodies:
                position = orjson.loads(body)["position"]
                reader.held[position] = None
                self.witness.delivered(reader.name, position, body)
            reader.client.forget()

    async def deliver_and_ack(self) -> None:
        """Most of what is held, answered or not."""
        await self.deliver()
        for reader in self.readers.values():
            said = [position for position in reader.held if self.dice.random() < 0.9]
            if said:
                await self._ack(reader, said, answered=self.dice.random() < 0.7)

    async def _ack(self, reader: Reader, said: list[int], *, answered: bool) -> None:
        self._say(reader, said, settling=True)
        if not answered:
            settle = Settle(Verb.ACK, [(position, position) for position in said])
            self.driven.engine.settle(Settlement(reader.client.consumer, [settle]), self.driven.now)
            return
        settlement = await self.driven.settle(reader.client, Verb.ACK, *((position, position) for position in said))
        if settlement.error is not None:
            raise settlement.error
        assert settlement.counts[Verb.ACK] == len(said)
        self.witness.settled(reader.name, said)

    def _say(self, reader: Reader, said: list[int], *, settling: bool) -> None:
        if settling:
            self.witness.settling(reader.name, said)
        for position in said:
            del reader.held[position]

    async def nack(self) -> None:
        await self.deliver()
        for reader in self.readers.values():
            said = [position for position in reader.held if self.dice.random() < 0.5]
            self._say(reader, said, settling=False)
            delay_ms = self.dice.choice([0, None])
            await self.driven.settle(reader.client, Verb.NACK, *((p, p) for p in said), delay_ms=delay_ms)

    async def term(self) -> None:
        """Give up on a few; their dead letters are published, then they are settled."""
        await self.deliver()
        for reader in self.readers.values():
            said = [position for position in reader.held if self.dice.random() < 0.3]
            if said:
                self._say(reader, said, settling=True)
                await self.driven.settle(reader.client, Verb.TERM, *((p, p) for p in said))
                for letter in await self.driven.engine.dead_letters():
                    await self._publish([message(letter.topic, self.payload())])
                    self.driven.engine.bury(letter, self.driven.now)

    async def merge(self) -> None:
        """Most of what there is is acked, what is left stands far behind, and is moved together beside the load."""
        for _ in range(3):
            await self._publish([message(topic, self.payload()) for topic in TOPICS])
        await self.deliver()
        for reader in self.readers.values():
            said = [position for position in reader.held if self.dice.random() < 0.85]
            if said:
                await self._ack(reader, said, answered=True)
        if self.dice.random() < 0.7:
            self.driven.pass_time(FORGET_MS)
            self.witness.clock(self.driven.now)
        for _ in range(CHECKPOINTS):
            await self._publish([message("nobody", self.payload() + "." * SETTINGS["segment_bytes"])])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._move_together)
            for verb in (self.publish, self.deliver_and_ack, self.publish):
                await self._try(verb)

    async def _move_together(self) -> None:
        merging = self.driven.engine._merging
        while await merging.merge(self.driven.now, hurry=True):
            pass

    async def sweep(self) -> None:
        """What has waited for too long is settled as expired, and that is durable when a publish behind it is."""
        await self.let_leases_run_out()
        await self.driven.engine.sweep(self.driven.now)
        await self._publish([message("nobody", self.payload())])
        self.witness.swept(self.driven.now)

    async def let_leases_run_out(self) -> None:
        self.driven.pass_time(LEASE_MS + 1000)
        self.witness.clock(self.driven.now)
        for reader in self.readers.values():
            reader.held.clear()

    # ------------------------------------------------------------------------------------------- subscriptions

    async def subscribe(self, patterns: tuple[str, ...] | None = None) -> None:
        if len(self.readers) >= 4:
            return
        self._names += 1
        name = f"reader-{self._names}"
        patterns = patterns or self.dice.choice(PATTERNS)
        retention_s = self.dice.choice([RETENTION_S, 100 * RETENTION_S])
        self.witness.creating(name, retention_s)
        start = self.dice.choice(list(Start))
        await self.driven.subscribe(name, *patterns, start=start, lease_ms=LEASE_MS, retention_s=retention_s)
        self.witness.subscribed(name)
        self.readers[name] = Reader(name, patterns, self.driven.attach(name), retention_s)
        await self.deliver()

    async def change(self) -> None:
        reader = self.dice.choice(list(self.readers.values()))
        reader.patterns = self.dice.choice(PATTERNS)
        await self.driven.subscribe(reader.name, *reader.patterns, lease_ms=LEASE_MS, retention_s=reader.retention_s)

    async def delete(self) -> None:
        if len(self.readers) > 1:
            name = self.dice.choice(list(self.readers))
            del self.readers[name]
            self.witness.deleting(name)
            await self.driven.delete(name)
            self.witness.deleted(name)


class LifeOfStragglers(Life):
    """Two readers of the same; one of them leaves a few, and everything is merged as soon as there is something to."""

    async def _live(self, operations: int) -> None:
        self.witness.clock(self.driven.now)
        for _ in range(2):
            await self.subscribe(PATTERNS[0])
        first, second = self.readers.values()
        for self.operations in range(1, operations + 1):
            await self._publish([message("trade.a", self.payload()) for _ in range(4)])
            await self.deliver()
            await self._ack(first, list(first.held), answered=True)
            await self._ack(second, [p for p in second.held if p % 8], answered=True)
            await self._move_together()


def text_of(each: Message) -> str:
    text: str = orjson.loads(bytes(each.data))  # type: ignore[arg-type]  # every message here has data
    return text
