"""Stores to be damaged, and what a start comes to then."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

from gateway.errors import StoreError
from gateway.model import Start
from gateway.testing.faulty import FaultyFiles
from gateway.testing.power import Contents, lay_out
from tests.crash.verdict import let_go
from tests.engine.driving import driven, message

SETTINGS: Final[dict[str, Any]] = {"segment_bytes": 4096, "cache_bytes": 0}


@attrs.define
class Store:
    """A store as it was before the damage."""

    directory: Path
    bodies: dict[int, bytes]
    """Everything that is due, to both of its subscriptions, by position."""
    contents: Contents = attrs.field(factory=dict)

    @property
    def segments(self) -> list[Path]:
        return sorted(self.directory.glob("*.log"))

    @property
    def active(self) -> Path:
        return self.segments[-1]

    def records_of(self, segment: Path) -> list[tuple[int, int]]:
        """Position and end of each message in a segment file; each is a record of its own, and its body stands last."""
        data = segment.read_bytes()
        found = {position: data.find(body) for position, body in self.bodies.items()}
        return [(position, at + len(self.bodies[position])) for position, at in sorted(found.items()) if at >= 0]

    def positions_of(self, segment: Path) -> list[int]:
        return [position for position, _ in self.records_of(segment)]

    def copy(self, directory: Path) -> Store:
        """The same files elsewhere, and no others."""
        if not self.contents:
            self.contents.update({path.name: path.read_bytes() for path in self.directory.iterdir()})
        lay_out(self.contents, directory)
        return Store(directory, self.bodies, self.contents)


@attrs.frozen
class Flip:
    """One bit of one file that goes the other way, in a copy of the store."""

    store: Store
    name: str
    bit: int

    def __str__(self) -> str:
        return f"bit {self.bit} of {self.name}"

    def carry_out(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[self.bit >> 3] ^= 1 << (self.bit & 7)
        path.write_bytes(data)


def build(directory: Path, *, crash: bool) -> Store:
    async def fill() -> dict[int, bytes]:
        async with driven(directory, FaultyFiles(), crash=crash, **SETTINGS) as gateway:
            await gateway.subscribe("orders")
            number = 0
            while gateway.engine.statistics().segments < 6:
                await gateway.publish(message("trade.a", f"{number} " + "x" * 300))
                number += 1
            await gateway.subscribe("late", start=Start.START)
            for rest in range(4):
                await gateway.publish(message("trade.a", f"rest {rest} " + "x" * 300))
            client = gateway.attach("orders")
            await gateway.deliver()
            return dict(zip(client.received, client.bodies, strict=True))

    return Store(directory, trio.run(fill))


MERGED: Final = 3
"""So many segments are merged into the first by `build_merged`."""


def build_merged(directory: Path) -> tuple[Store, Contents]:
    """A store whose first segment was merged from three, as a killed process leaves it; and what those three were."""

    async def fill() -> tuple[dict[int, bytes], Contents]:
        async with driven(directory, FaultyFiles(), crash=True, **SETTINGS, merge_live_share=0.5) as gateway:
            for name in ("orders", "also"):
                await gateway.subscribe(name)
            clients = [gateway.attach(name, 1000) for name in ("orders", "also")]
            while gateway.engine.statistics().segments < 6:
                await gateway.publish(message("trade.a", "x" * 300))
            await gateway.deliver()
            bodies = dict(zip(clients[0].received, clients[0].bodies, strict=True))
            end = gateway.engine._log.segments[MERGED].base
            acked = [position for position in bodies if position < end and position % 3]
            for client in clients:
                assert await gateway.ack(client, *((position, position) for position in acked)) == len(acked)
            sources = {each.path.name: each.path.read_bytes() for each in gateway.engine._log.segments[:MERGED]}
            for _ in range(2):
                await gateway.engine._log.checkpoint()
            while await gateway.engine._merging.merge(gateway.now, hurry=True):
                pass
            assert gateway.engine.statistics().merged_segments == MERGED
            let_go(clients)
            return {position: bodies[position] for position in bodies.keys() - set(acked)}, sources

    bodies, sources = trio.run(fill)
    return Store(directory, bodies), sources


@attrs.frozen
class Outcome:
    """What a start on a damaged store came to."""

    refusal: str
    """Why it was refused; empty where it was not."""
    served: dict[int, bytes]
    said: list[MutableMapping[str, Any]]
    """What was logged, at the level of a warning or above."""

    @property
    def text(self) -> str:
        return self.refusal + " ".join(map(str, self.said))


async def start(store: Store) -> Outcome:
    """Open the store and deliver all that is due; all subscriptions that are there must be given the same."""
    refusals: list[str] = []
    served: list[dict[int, bytes]] = []
    with structlog.testing.capture_logs() as said:
        try:
            async with driven(store.directory, FaultyFiles(), crash=True, conserved=False, **SETTINGS) as gateway:
                there = [view.name for view in gateway.engine.subscriptions(gateway.now)]
                clients = [gateway.attach(name) for name in there]
                await gateway.deliver()
                served = [dict(zip(client.received, client.bodies, strict=True)) for client in clients]
                let_go(clients)
        except* StoreError as errors:
            refusals = [str(error) for error in errors.exceptions]
    assert all(each == served[0] for each in served)
    return Outcome(" ".join(refusals), served[0] if served else {}, [e for e in said if e["log_level"] != "info"])


def judge(store: Store, outcome: Outcome, damaged: Path, missing: set[int]) -> None:
    """Nothing is altered, nothing is missing but `missing`; what is missing, or refused, is said by its file's name."""
    assert outcome.served.items() <= store.bodies.items(), "served altered"
    if outcome.refusal or outcome.served != store.bodies:
        assert damaged.name in outcome.text, outcome
    if not outcome.refusal:
        assert store.bodies.keys() - outcome.served.keys() <= missing
