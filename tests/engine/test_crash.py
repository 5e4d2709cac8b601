"""Every point at which the process may die or the power go, and what must be true when the store is opened again.

The same life is lived over and over: each time the disk stops at a later call. Then the directory is brought to what
may be found there, and promises 1 to 3 are asked of it.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import orjson
import pytest
import trio

from gateway.errors import GatewayError, StoreError
from gateway.model import Start, Verb
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import Client, Driven, driven, message

ROUNDS = 3
NAMES = ("orders", "late")


@attrs.define
class Witness:
    """What was answered, and what was delivered, before the end came."""

    published: dict[int, str] = attrs.field(factory=dict)  # by position, answered fsynced
    sent: set[str] = attrs.field(factory=set)  # everything that was ever handed to the gateway
    acked: set[int] = attrs.field(factory=set)  # answered, of "orders"
    settling: set[int] = attrs.field(factory=set)  # acks that were sent, of "orders"
    subscribed: dict[str, int] = attrs.field(factory=dict)  # answered; the first position that is due for certain


async def live(gateway: Driven, witness: Witness) -> None:
    """A life: subscriptions, messages, deliveries, acks, full segments, some of them released. Ends with an error."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.notify)
        nursery.start_soon(gateway.engine.run)
        await subscribe(gateway, witness, "orders")
        client = gateway.attach()
        for number in range(ROUNDS):
            await publish(gateway, witness, number)
            await gateway.deliver()
            await ack(gateway, client, witness)
            if number == 1:
                await subscribe(gateway, witness, "late", start=Start.START)
        nursery.cancel_scope.cancel()


async def subscribe(gateway: Driven, witness: Witness, name: str, **settings: Start) -> None:
    end = gateway.engine._log.end
    await gateway.subscribe(name, "trade.>", **settings)
    witness.subscribed[name] = gateway.engine._log.segments[0].base if settings else end


async def publish(gateway: Driven, witness: Witness, number: int) -> None:
    """Two calls at once: where the first fills the segment, the second begins the next in the same commit."""
    data = [[f"{number} {call} {index} " + "x" * 150 for index in range(4)] for call in range(2)]
    witness.sent.update(*data)
    answered = [trio.Event(), trio.Event()]
    batches = [
        gateway.batch(*(message(f"trade.{index % 2}", each) for index, each in enumerate(call)), done=done)
        for call, done in zip(data, answered, strict=True)
    ]
    for batch in batches:
        gateway.engine.route(batch)
    gateway.engine.append(batches, gateway.now)
    for call, batch, done in zip(data, batches, answered, strict=True):
        await gateway.wait(done)
        if batch.error is not None:
            raise batch.error
        witness.published.update(enumerate(call, batch.first))


async def ack(gateway: Driven, client: Client, witness: Witness) -> None:
    """All but one in four, and that one later."""
    due = [position for position in client.received if position % 4 != 1 or position < client.received[-1] - 4]
    witness.settling.update(due)
    settlement = await gateway.settle(client, Verb.ACK, *((position, position) for position in due))
    if settlement.error is not None:
        raise settlement.error
    witness.acked.update(due)


async def check(directory: Path, witness: Witness) -> None:
    async with driven(directory, FaultyFiles(), segment_bytes=1000, cache_bytes=0) as gateway:
        found = {view.name for view in gateway.engine.subscriptions(gateway.now)}
        assert set(witness.subscribed) <= found <= set(NAMES)
        for name in found:
            shown = gateway.statistics(name)
            client = gateway.attach(name, window=1000)
            await gateway.deliver()
            assert shown.waiting == len(client.received)
            got = dict(zip(client.received, client.data, strict=True))
            assert len(got) == len(client.received)
            assert set(got.values()) <= witness.sent, "invented"
            assert all(got.get(position, data) == data for position, data in witness.published.items())
            settled = witness.acked if name == "orders" else set()
            maybe = witness.settling if name == "orders" else set()
            assert not settled & got.keys(), "delivered after it was acked"
            if name in witness.subscribed:
                due = {position for position in witness.published if position >= witness.subscribed[name]}
                assert due - maybe <= got.keys(), "lost"
            await gateway.ack(client)
            assert gateway.statistics(name).waiting == 0
    async with driven(directory, FaultyFiles(), segment_bytes=1000) as gateway:
        for name in found:
            assert await gateway.consume(name) == []


async def crash(directory: Path, nth: int) -> tuple[Witness, FaultyFiles, bool]:
    """Live until the disk's `nth` call; whether it came to that."""
    disk = FaultyFiles()
    witness = Witness()
    disk.fail(nth=nth, ever=True, kept=100)
    gateway = Driven(directory, disk, 0, {"segment_bytes": 1000})
    try:
        await gateway.engine.open()
    except StoreError:
        return witness, disk, True
    died = False
    try:
        await live(gateway, witness)
    except* (StoreError, GatewayError, OSError):
        died = True
    try:
        await gateway.engine.aclose()
    except StoreError:
        died = True
    return witness, disk, died


FOUND = {
    "what a killed process leaves": (1.0, True),
    "no more than was synced": (0.0, False),
    "new names, but not what was written into them": (0.0, True),
    "half of what was not synced, and new names": (0.5, True),
    "all that was written, but no new names": (1.0, False),
}


@pytest.mark.parametrize("name", FOUND)
async def test_whenever_the_disk_stops_no_answer_was_a_lie(tmp_path: Path, name: str) -> None:
    kept, names = FOUND[name]
    nth, died = 0, True
    while died:
        nth += 1
        directory = tmp_path / str(nth)
        witness, disk, died = await crash(directory, nth)
        if directory.exists():
            disk.cut_power(kept=kept, names=names)
            await check(directory, witness)
    assert nth > 60  # or the life is not worth the test
    assert len(witness.published) == 8 * ROUNDS
    assert orjson.loads((directory / "checkpoint").read_bytes().partition(b"\n")[0])["first"] > 1
