"""Open a store as a crash left it, and say which promises it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import orjson

from gateway.errors import GatewayError, StoreError
from gateway.model import Stored
from gateway.testing.faulty import FaultyFiles
from tests import conservation
from tests.crash.life import DELAY_MS, SETTINGS
from tests.crash.witness import DEDUP_MS, Known
from tests.engine.driving import Client, Driven, answer_of, driven, message

WINDOW = 100_000
SLACK_MS = DELAY_MS + 1000
"""So much later, what was delayed is due."""
STATES = ("acked", "in_flight", "waiting", "delayed", "expired", "dead_lettered")


@attrs.frozen
class Answers:
    """All that a store that was just opened says: what each subscription is, and what it is due."""

    epoch: str
    end: int
    views: dict[str, Any]
    bodies: dict[str, list[bytes]]


async def violations(directory: Path, known: Known, *, killed: bool, thorough: bool = True) -> list[str]:
    """Broken promises, in words. `killed`: the power stayed on, so that what was answered as written is there too.

    The store is opened and left as by a crash, opened again, given one more message and emptied, and with `thorough`
    opened once more.
    """
    try:
        async with driven(directory, FaultyFiles(), now=known.now, crash=True, conserved=False, **SETTINGS) as gateway:
            found, clients = await ask(gateway)
            let_go(clients)
            broken = _unbalanced(gateway)
        broken += _judge(found, known, killed=killed)
        async with driven(directory, FaultyFiles(), now=known.now, conserved=False, **SETTINGS) as gateway:
            again, clients = await ask(gateway)
            if again != found:
                broken.append("the second recovery differs from the first")
            broken += await _go_on(gateway, known, clients)
            let_go(clients)
            broken += _unbalanced(gateway)
        if thorough:
            async with driven(directory, FaultyFiles(), now=known.now, conserved=False, **SETTINGS) as gateway:
                left, clients = await ask(gateway)
                let_go(clients)
                broken += [
                    f"{name}: {len(due)} delivered after they were acked" for name, due in left.bodies.items() if due
                ]
    except StoreError as error:
        return [f"the store does not open: {error}"]
    except GatewayError as error:
        return [f"the store does not work: {error}"]
    return broken


def _unbalanced(gateway: Driven) -> list[str]:
    """Promise 6, as a broken promise among others and not as the end of the judging."""
    try:
        conservation.check_engine(gateway.engine)
    except AssertionError as error:
        return [f"a message is in no hand, or in two: {error}"]
    return []


async def ask(gateway: Driven) -> tuple[Answers, list[Client]]:
    """What everybody is due, delayed messages included."""
    gateway.pass_time(SLACK_MS)
    views = {view.name: view for view in gateway.engine.subscriptions(gateway.now)}
    clients = {name: gateway.attach(name, WINDOW) for name in views}
    await gateway.deliver()
    end = gateway.engine.statistics().positions_end
    epoch = gateway.engine.epoch if views or end > 1 else ""  # a store in which nothing is yet has none that stays
    bodies = {name: client.bodies for name, client in clients.items()}
    return Answers(epoch, end, views, bodies), list(clients.values())


def let_go(clients: list[Client]) -> None:
    """Give the bodies back: they are slices of maps, which a lease would keep that is held when its engine goes."""
    for client in clients:
        client.forget()


def _judge(found: Answers, known: Known, *, killed: bool) -> list[str]:
    broken: list[str] = []
    gone = (known.subscribed - known.deleting) - found.views.keys()
    broken += [f"{name}: answered as created, and gone" for name in gone]
    invented = found.views.keys() - (known.created - known.deleted)
    broken += [f"{name}: there, but never created, or answered as deleted" for name in invented]
    places: dict[str, int] = {}
    for name, bodies in found.bodies.items():
        broken += _judge_bodies(name, bodies, known, places, killed=killed)
        shown = found.views[name].statistics
        if shown.waiting != len(bodies):
            broken.append(f"{name}: {shown.waiting} said to wait, {len(bodies)} delivered")
        if shown.routed != sum(getattr(shown, state) for state in STATES):
            broken.append(f"{name}: what was routed is not conserved: {shown}")
    return broken


def _judge_bodies(name: str, bodies: list[bytes], known: Known, places: dict[str, int], *, killed: bool) -> list[str]:
    broken: list[str] = []
    answered = {**known.answered, **known.written} if killed else known.answered
    told = known.answered.keys() | known.written.keys() | known.seen.keys()
    got: set[int] = set()
    for body in bodies:
        document = orjson.loads(body)
        position, text = document["position"], document["data"]
        if position in got:
            broken.append(f"{name}: position {position} delivered twice at once")
        got.add(position)
        if text not in known.sent:
            broken.append(f"{name}: position {position} was never published: {text!r}")
        if text in known.refused:
            broken.append(f"{name}: position {position} delivered although it was refused")
        if answered.get(position, text) != text or places.setdefault(text, position) != position:
            broken.append(f"{name}: position {position} used for two messages, or a message stored twice")
        if known.seen.get(position, body) != body:
            broken.append(f"{name}: position {position} is not byte for byte what it was")
    again = sorted(known.settled.get(name, set()) & got)
    broken += [f"{name}: position {position} delivered after its ack was answered" for position in again]
    again = sorted(p for p in got & told if known.is_over(name, p, known.swept_ms.get(name, 0)))
    broken += [f"{name}: position {position} delivered after it had expired" for position in again]
    if name in known.subscribed and name not in known.deleting:
        lost = sorted(known.due.get(name, set()) - known.settling.get(name, set()) - got)
        broken += [f"{name}: position {p} lost" for p in lost if not known.is_over(name, p, known.now + SLACK_MS)]
    return broken


async def _go_on(gateway: Driven, known: Known, clients: list[Client]) -> list[str]:
    """The store must be good for more: a new message has a new place, an old id is recognised, all can be acked."""
    broken: list[str] = []
    batch = await gateway.publish(message("trade.a", "one more"))
    used = known.answered.keys() | known.seen.keys()
    if batch.error is not None:
        broken.append(f"the store does not take another message: {batch.error}")
    elif batch.first in used:
        broken.append(f"position {batch.first} is used again")
    for name, (position, text, at) in known.ids.items():
        topic, _, message_id = name.partition(" ")
        if gateway.now - at < DEDUP_MS:
            answer = answer_of(await gateway.publish(message(topic, text, id=message_id)))
            if answer != Stored(message_id, position, duplicate=True):
                broken.append(f"id {message_id} of position {position} is not recognised: {answer}")
    await gateway.deliver()
    acked = [await gateway.ack(client) for client in clients]
    if acked != [len(client.received) for client in clients]:
        broken.append("not all that was delivered could be acked")
    return broken
