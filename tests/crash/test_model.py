"""The engine against a dictionary: appends, settlements, seals, merges, expiries, restarts, bad hints; equal answers.

Whenever it is asked, each subscription is due exactly what the model says, byte for byte, and every crash is recovered
from twice, with the same result.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import event, given
from hypothesis import strategies as st

from gateway.model import Start
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import BEGAN_MS, Driven, driven, message

SUBSCRIPTIONS: Final = {"all": "t.>", "some": "t.a"}
TTL_MS: Final = 60_000
SETTINGS: Final[dict[str, Any]] = {"segment_bytes": 3000, "cache_bytes": 0, "merge_live_share": 0.5}

RESTARTS: Final = ("crash", "crash", "reopen")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 6), st.sampled_from(["t.a", "t.a", "t.b"])),
        st.tuples(st.just("publish_with_ttl"), st.integers(1, 3), st.just("t.a")),
        st.tuples(st.just("ack"), st.integers(0, 2**16), st.sampled_from(list(SUBSCRIPTIONS))),
        st.tuples(st.sampled_from(["seal", "expire", "sweep", "merge", "merge"]), st.just(0), st.just("")),
        st.tuples(st.sampled_from(RESTARTS), st.integers(0, 2**16), st.sampled_from(["", "damage the hints"])),
    ),
    min_size=6,
    max_size=20,
)
Steps = list[tuple[str, int, str]]


@attrs.define
class Model:
    """Bodies by position, and for each subscription what is due; `expires_ms` by position, where it has a time."""

    due: dict[str, dict[int, str]] = attrs.field(factory=lambda: {name: {} for name in SUBSCRIPTIONS})
    expires_ms: dict[int, int] = attrs.field(factory=dict)
    count: int = 0

    def publish(self, position: int, topic: str, text: str, expires_ms: int | None) -> None:
        for name, pattern in SUBSCRIPTIONS.items():
            if topic == pattern or pattern == "t.>":
                self.due[name][position] = text
        if expires_ms is not None:
            self.expires_ms[position] = expires_ms

    def at(self, now: int) -> dict[str, dict[int, str]]:
        return {
            name: {position: text for position, text in due.items() if self.expires_ms.get(position, now + 1) > now}
            for name, due in self.due.items()
        }


class Run:
    """One sequence of steps over one store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.model = Model()
        self.now = BEGAN_MS
        self.merges = 0

    async def follow(self, every: Steps) -> None:
        """The steps between two restarts are one life; a crash ends it without a flush."""
        while every:
            life, every = cut_off(every)
            ending, seed, also = life.pop() if life[-1][0] in RESTARTS else ("reopen", 0, "")
            async with driven(
                self.directory, FaultyFiles(), now=self.now, crash=ending == "crash", **SETTINGS
            ) as gateway:
                await self.create(gateway)
                for step in life:
                    await self.take(gateway, *step)
                    await self.check(gateway)
            if also:
                self.damage_hints(Random(seed))
            await self.check_twice()

    def damage_hints(self, dice: Random) -> None:
        """They are caches: whatever becomes of them, the answers are the same."""
        for path in self.directory.glob("*.hint"):
            data = bytearray(path.read_bytes())
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            path.write_bytes(data[: dice.choice([0, len(data) // 2, len(data)])])
            if dice.random() < 0.3:
                path.unlink()

    async def create(self, gateway: Driven) -> None:
        for name, pattern in SUBSCRIPTIONS.items():
            await gateway.subscribe(name, pattern, start=Start.START, attempts_max=1_000_000, dead_letter="")

    async def take(self, gateway: Driven, verb: str, number: int, word: str) -> None:
        if verb in ("publish", "publish_with_ttl"):
            await self.publish(gateway, number, word, TTL_MS if verb == "publish_with_ttl" else None)
        elif verb == "ack":
            await self.ack(gateway, word, Random(number))
        elif verb == "seal":
            await gateway.seal()
        elif verb == "expire":
            gateway.pass_time(TTL_MS + 1000)
            self.now = gateway.now
        elif verb == "sweep":
            await gateway.engine.sweep(gateway.now)
        elif verb == "merge":
            await self.merge(gateway)

    async def merge(self, gateway: Driven) -> None:
        """All that is worth it, behind two checkpoints that know what is settled."""
        for _ in range(2):
            await gateway.engine._log.checkpoint()
        before = gateway.engine.statistics().merges
        while await gateway.engine._merging.merge(gateway.now, hurry=True):
            pass
        self.merges += gateway.engine.statistics().merges - before

    async def publish(self, gateway: Driven, number: int, topic: str, ttl_ms: int | None) -> None:
        texts = [f"{self.model.count + index} " + "." * 80 for index in range(number)]
        self.model.count += number
        batch = await gateway.publish(*(message(topic, text, ttl_ms=ttl_ms or 0) for text in texts))
        assert batch.error is None
        for position, text in enumerate(texts, batch.first):
            self.model.publish(position, topic, text, self.now + ttl_ms if ttl_ms else None)

    async def ack(self, gateway: Driven, name: str, dice: Random) -> None:
        client = gateway.attach(name)
        await gateway.deliver()
        share = dice.choice([0.3, 0.7, 0.9])
        said = [position for position in client.received if dice.random() < share]
        if said:
            assert await gateway.ack(client, *((position, position) for position in said)) == len(said)
        for position in said:
            del self.model.due[name][position]
        gateway.engine.detach(client.consumer, gateway.now)

    async def check(self, gateway: Driven) -> dict[str, list[bytes]]:
        """What everybody is due, as the model has it."""
        bodies: dict[str, list[bytes]] = {}
        for name, due in self.model.at(gateway.now).items():
            client = gateway.attach(name)
            await gateway.deliver()
            assert dict(zip(client.received, client.data, strict=True)) == due
            assert len(client.received) == len(due)
            bodies[name] = sorted(client.bodies)
            client.forget()
            gateway.engine.detach(client.consumer, gateway.now)
            assert gateway.statistics(name).waiting == len(due)
        return bodies

    async def check_twice(self) -> None:
        """Recovering twice tells what recovering once told."""
        told = []
        for _ in range(2):
            async with driven(self.directory, FaultyFiles(), now=self.now, crash=True, **SETTINGS) as gateway:
                told.append((gateway.engine.statistics().positions_end, await self.check(gateway)))
        assert told[0] == told[1]


def cut_off(every: Steps) -> tuple[Steps, Steps]:
    """The steps up to the first restart, and those behind it."""
    for index, step in enumerate(every, 1):
        if step[0] in RESTARTS:
            return every[:index], every[index:]
    return list(every), []


def follow(every: Steps) -> Run:
    with tempfile.TemporaryDirectory() as directory:
        run = Run(Path(directory) / "store")
        trio.run(run.follow, every)
        return run


STRAGGLERS: Final[Steps] = [
    *(("publish", 6, "t.a"), ("publish_with_ttl", 3, "t.a"), ("publish", 6, "t.b")) * 3,
    *(("ack", number, name) for number in range(4) for name in SUBSCRIPTIONS),
    *(("seal", 0, ""), ("merge", 0, ""), ("expire", 0, ""), ("sweep", 0, "")),
    *(("publish", 6, "t.a"), ("ack", 7, "all"), ("seal", 0, ""), ("merge", 0, "")),
]
"""What is left of a few segments here and there, moved together, and once more when it is less."""


@pytest.mark.parametrize("restart", ["crash", "reopen"])
def test_a_merged_store_answers_as_a_dictionary_does(restart: str) -> None:
    once: Steps = [*STRAGGLERS, (restart, 1, "")]
    assert follow([*once, *STRAGGLERS, (restart, 2, "damage the hints"), ("publish", 1, "t.a")]).merges >= 4


@given(steps)
def test_the_engine_answers_as_a_dictionary_does(every: Steps) -> None:
    event(f"{min(follow(every).merges, 3)} merges")
