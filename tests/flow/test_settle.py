from __future__ import annotations

from typing import cast

import trio
import trio.testing

from gateway.broker.lease import Consumer
from gateway.errors import GatewayError
from gateway.flow.settle import Settle
from gateway.model import Settle as Verbs
from gateway.model import Settlement, Verb
from tests.flow.engine import ScriptedEngine


def settlement(*verbs: Verb, done: list[Settlement] | None = None) -> Settlement:
    settles = [Verbs(verb, [(1, 1)]) for verb in verbs]
    return Settlement(None, settles, None if done is None else done.append)


async def test_settlements_are_carried_out_in_the_order_they_came(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    settle = Settle(engine.as_engine, 4, lambda: 5)
    nursery.start_soon(settle.run)
    many = [settlement(Verb.ACK) for _ in range(20)]
    for one in many:
        await settle.ring.put(one)
    await trio.testing.wait_all_tasks_blocked()
    assert engine.settled == many


def test_what_was_settled_is_counted_by_verb() -> None:
    settle = Settle(ScriptedEngine().as_engine, 4, lambda: 5)
    done: list[Settlement] = []
    settle.settle(settlement(Verb.ACK, Verb.ACK, Verb.NACK, done=done))
    settle.settle(settlement(Verb.TERM, Verb.EXTEND))
    assert settle.counts == {Verb.ACK: 2, Verb.NACK: 1, Verb.TERM: 1, Verb.EXTEND: 1}
    assert settle.unknown == 2
    assert done == []  # the commit answers, not the stage


def test_what_could_not_be_carried_out_is_answered_at_once_and_not_counted() -> None:
    engine = ScriptedEngine()
    engine.error = GatewayError("store_failed", "going down")
    settle = Settle(engine.as_engine, 4, lambda: 5)
    done: list[Settlement] = []
    one = settlement(Verb.ACK, done=done)
    settle.settle(one)
    settle.settle(settlement(Verb.ACK))
    assert done == [one]
    assert one.error is engine.error
    assert (settle.counts[Verb.ACK], settle.unknown) == (0, 0)


SOMEBODY = cast("Consumer", object())


async def test_an_ack_of_one_lease_goes_the_short_way_and_is_counted_as_any(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    settle = Settle(engine.as_engine, 4, lambda: 5)
    engine.leased = {(1, 4): 3}
    nursery.start_soon(settle.run)
    await trio.testing.wait_all_tasks_blocked()
    assert settle.ack(SOMEBODY, 1, 4, 5)
    assert not settle.ack(SOMEBODY, 1, 4, 5)
    assert (engine.acked, settle.counts[Verb.ACK], settle.unknown) == (3, 3, 1)
    shown = settle.ring.statistics()
    assert (shown.items, shown.messages, shown.depth, shown.peak, shown.sizes[0]) == (1, 1, 0, 0, 1)
    await settle.ring.put(settlement(Verb.ACK))  # the ring goes on as before
    assert len(engine.settled) == 1


async def test_an_ack_never_overtakes_what_waits(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    settle = Settle(engine.as_engine, 4, lambda: 5)
    engine.leased = {(1, 1): 1}
    assert not settle.ack(SOMEBODY, 1, 1, 5)  # nobody works yet
    await settle.ring.put(settlement(Verb.NACK))
    assert not settle.ack(SOMEBODY, 1, 1, 5)
    nursery.start_soon(settle.run)
    await trio.testing.wait_all_tasks_blocked()
    assert settle.ack(SOMEBODY, 1, 1, 5)


async def test_the_short_way_leaves_what_cannot_be_carried_out_to_the_ring(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    settle = Settle(engine.as_engine, 4, lambda: 5)
    nursery.start_soon(settle.run)
    await trio.testing.wait_all_tasks_blocked()
    engine.error = GatewayError("store_failed", "going down")
    assert not settle.ack(SOMEBODY, 1, 1, 5)
    assert (settle.counts[Verb.ACK], settle.ring.statistics().items) == (0, 0)
