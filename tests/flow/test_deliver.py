from __future__ import annotations

from typing import cast

import pytest
import trio
import trio.testing

from gateway.broker.lease import Consumer
from gateway.edge.stream import Unsent
from gateway.flow.deliver import Deliver
from gateway.model import Batch, Delivery, Durability
from gateway.node import Node
from gateway.wire.payload import decode_array
from tests.conftest import StartNode
from tests.edge.bystander import subscription
from tests.engine.driving import bodies_of
from tests.flow.engine import ScriptedEngine

NOBODY = cast("Consumer", None)


def delivery(name: str, count: int = 1, again: int = 0) -> Delivery:
    made = Delivery(name, 1000)
    made.count = count
    made.attempts = {str(number): 2 for number in range(again)}
    return made


async def test_what_is_due_is_handed_over_and_counted(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    deliver = Deliver(engine.as_engine, lambda: 0)
    nursery.start_soon(deliver.run)
    await trio.testing.wait_all_tasks_blocked()
    due = [delivery("a", 10), delivery("b", 5, again=3), delivery("c", 1)]
    engine.due = [(NOBODY, one) for one in due]
    engine.ready.set()
    await trio.testing.wait_all_tasks_blocked()
    assert engine.sent == due
    statistics = deliver.statistics
    assert (statistics.frames, statistics.messages, statistics.redelivered, statistics.cold_frames) == (3, 16, 3, 0)
    assert statistics.busy_seconds > 0


async def test_what_a_turn_hands_over_is_gathered(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, gathering, entered = ScriptedEngine(), Unsent(0).gathering, list[bool]()
    monkeypatch.setattr(engine, "send", lambda *_: entered.append(gathering.is_entered))
    engine.due = [(NOBODY, delivery("a")), (NOBODY, delivery("b"))]
    nursery.start_soon(Deliver(engine.as_engine, lambda: 0, gathering).run)
    await trio.testing.wait_all_tasks_blocked()
    assert (entered, gathering.is_entered) == ([True, True], False)


async def test_a_stage_with_much_to_do_lets_others_run(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    engine.due = [(NOBODY, delivery("a")) for _ in range(1000)]
    nursery.start_soon(Deliver(engine.as_engine, lambda: 0).run)
    longest = 0
    while len(engine.sent) < 1000:
        before = len(engine.sent)
        await trio.lowlevel.checkpoint()
        longest = max(longest, len(engine.sent) - before)
    assert longest <= 32


async def test_what_must_be_read_first_holds_up_nothing_else(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    deliver = Deliver(engine.as_engine, lambda: 0)
    cold, warm = delivery("cold", 7), delivery("warm")
    engine.cold = {cold}
    engine.loads = {cold: trio.Event()}
    engine.due = [(NOBODY, cold), (NOBODY, warm)]
    nursery.start_soon(deliver.run)
    await trio.testing.wait_all_tasks_blocked()
    assert engine.sent == [warm]
    engine.loads[cold].set()
    await trio.testing.wait_all_tasks_blocked()
    assert engine.sent == [warm, cold]
    assert (deliver.statistics.cold_frames, deliver.statistics.messages) == (1, 8)


async def test_who_has_just_come_is_handed_what_is_there_and_the_stage_sleeps_on(nursery: trio.Nursery) -> None:
    engine = ScriptedEngine()
    deliver = Deliver(engine.as_engine, lambda: 0)
    nursery.start_soon(deliver.run)
    await trio.testing.wait_all_tasks_blocked()
    deliver.at_once(NOBODY)
    assert engine.sent == []
    warm, cold = delivery("warm", 3), delivery("cold", 2)
    engine.cold = {cold}
    engine.loads = {cold: trio.Event()}
    engine.due = [(NOBODY, warm), (NOBODY, cold)]
    deliver.at_once(NOBODY)
    assert engine.sent == [warm]
    deliver.at_once(NOBODY)
    assert engine.sent == [warm]
    engine.loads[cold].set()
    await trio.testing.wait_all_tasks_blocked()
    assert engine.sent == [warm, cold]
    assert (deliver.statistics.frames, deliver.statistics.messages, deliver.statistics.cold_frames) == (2, 5, 1)


@pytest.fixture
async def gated(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> tuple[Node, trio.Event]:
    """A node that keeps few bodies in memory, and whose disk is read only once the event is set."""
    node = await start_node({"store.cache_bytes": 64 * 1024})
    gate = trio.Event()
    load = node.engine.load

    async def slow_load(one: Delivery) -> None:
        await gate.wait()
        await load(one)

    monkeypatch.setattr(node.engine, "load", slow_load)
    return node, gate


async def test_a_subscription_far_behind_does_not_hold_up_one_that_is_not(gated: tuple[Node, trio.Event]) -> None:
    node, gate = gated
    await subscription(node, "far.behind", "old.event")
    await subscription(node, "up.to.date", "new.event")
    await publish(node, "old.event", 200)
    received: dict[str, list[bytes]] = {"far.behind": [], "up.to.date": []}
    for name, bodies in received.items():

        def send(one: Delivery, bodies: list[bytes] = bodies) -> None:
            bodies.extend(bodies_of(one))
            node.engine.handed(one, node.clock())

        node.engine.attach(name, window=1000, send=send, label=name, on_deleted=lambda: None)
    await publish(node, "new.event", 3)
    with trio.fail_after(5):
        while len(received["up.to.date"]) < 3:
            await trio.sleep(0.002)
    assert received["far.behind"] == []
    assert node.deliver.statistics.cold_frames == 1
    gate.set()
    with trio.fail_after(5):
        while len(received["far.behind"]) < 200:
            await trio.sleep(0.002)
    places = [int(body.split(b",")[0].partition(b":")[2]) for body in received["far.behind"]]
    assert places == list(range(1, 201))  # in order, although they came from the disk


async def publish(node: Node, topic: str, count: int) -> None:
    text = "[" + ",".join([f'{{"topic":"{topic}","data":"{"x" * 1000}"}}'] * count) + "]"
    messages, _ = decode_array(text)
    stored = trio.Event()
    await node.admit.submit(Batch(messages, Durability.FSYNCED, len(text), lambda _: stored.set()))
    with trio.fail_after(5):
        await stored.wait()
