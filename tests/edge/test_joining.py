from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import orjson
import pytest
import trio
import trio.testing

from gateway.config import Limits, Pipeline
from gateway.config import Ring as RingSettings
from gateway.edge.http import HttpConnection
from gateway.edge.joining import Joining
from gateway.errors import GatewayError
from gateway.flow.admit import Admit
from gateway.flow.append import FEW, FEW_BYTES
from gateway.flow.ring import Ring
from gateway.flow.stage import MessageView
from gateway.model import Batch, Durability, Message
from gateway.node import Node
from gateway.principal import ANONYMOUS, Principal, Scope
from gateway.wire.http import Response
from tests.conftest import running
from tests.edge.bystander import subscription
from tests.edge.raw import RawHttp, open_http

FSYNCED, WRITTEN = Durability.FSYNCED, Durability.WRITTEN


class Client:
    """A connection that keeps its answers."""

    def __init__(self, remote: str) -> None:
        self.remote = remote
        self.answers: list[tuple[int, Any]] = []

    def respond(self, response: Response) -> None:
        self.answers.append((response.status, orjson.loads(response.body)))


class Door:
    """What is joined in turns, and the batches that came of it."""

    def __init__(self, limits: Limits, **ring: int) -> None:
        self.forward: Ring[Batch] = Ring("route", 100)
        self.admit = Admit(limits, RingSettings(**ring), self.forward)
        self.joining = Joining(self.admit, limits, "e")
        self.clients: list[Client] = []

    def publish(
        self,
        topic: str = "a.b",
        size: int = 3,
        durability: Durability = FSYNCED,
        principal: Principal = ANONYMOUS,
    ) -> bool:
        """From a client of its own. Whether it is joined."""
        client = Client(f"host:{len(self.clients)}")
        message = Message(topic, data=msgspec.Raw(b'"' + b"x" * (size - 2) + b'"'))
        joined = self.joining.add(message, size, durability, principal, cast("HttpConnection", client))
        if joined:
            self.clients.append(client)
        return joined

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self.joining:
            yield

    def batches(self) -> list[Batch]:
        found = []
        while (batch := self.forward.get_nowait()) is not None:
            found.append(batch)
        return found

    @property
    def codes(self) -> list[str]:
        return [answer["code"] for client in self.clients for _, answer in client.answers]


OpenDoor = Callable[..., Awaitable[Door]]


@pytest.fixture
def open_door(nursery: trio.Nursery) -> OpenDoor:
    async def start(limits: Limits | None = None, runs: bool = True, **ring: int) -> Door:
        door = Door(limits or Limits(), **ring)
        nursery.start_soon(door.joining.run)
        if runs:
            nursery.start_soon(door.admit.run)
        await trio.testing.wait_all_tasks_blocked()
        return door

    return start


async def test_what_comes_in_one_turn_is_one_batch_and_each_is_answered_for_itself(open_door: OpenDoor) -> None:
    door = await open_door()
    with door.turn():
        assert all(door.publish() for _ in range(3))
        assert door.batches() == []
    (batch,) = door.batches()
    assert (len(batch.messages), batch.size, batch.durability) == (3, 9, FSYNCED)
    assert list(batch.origins) == ["host:0", "host:1", "host:2"]
    batch.first = 7
    batch.finish()
    assert door.admit.budget.used == 0
    for position, client in enumerate(door.clients, 7):
        assert client.answers == [(201, {"id": f"e-{position}", "position": position, "durability": "fsynced"})]


async def test_one_that_is_refused_leaves_the_others(open_door: OpenDoor) -> None:
    door = await open_door(Limits(payload_bytes_max=10))
    with door.turn():
        for size in (3, 11, 3):
            assert door.publish(size=size)
    (batch,) = door.batches()
    assert batch.results is not None
    assert [isinstance(result, GatewayError) for result in batch.results] == [False, True, False]


async def test_topics_are_batches_of_their_own(open_door: OpenDoor) -> None:
    door = await open_door()
    with door.turn():
        assert all(door.publish(topic) for topic in ("a", "b", "a"))
    assert [(batch.messages[0].topic, len(batch.messages)) for batch in door.batches()] == [("a", 2), ("b", 1)]


@pytest.mark.parametrize(
    "differing",
    [{"durability": WRITTEN}, {"principal": Principal(name="shop")}, {"size": FEW_BYTES // 4 + 1}],
    ids=["durability", "principal", "large"],
)
async def test_what_differs_in_more_than_its_payload_goes_by_itself(
    open_door: OpenDoor, differing: dict[str, Any]
) -> None:
    door = await open_door()
    with door.turn():
        assert door.publish()
        assert not door.publish(**differing)
        assert door.publish()
    assert [len(batch.messages) for batch in door.batches()] == [2]


async def test_what_is_not_permitted_goes_by_itself_so_that_each_is_audited(open_door: OpenDoor) -> None:
    door = await open_door()
    with door.turn():
        assert not door.publish("a.b", principal=Principal(name="shop", publish=Scope(("x.*",))))
    assert door.batches() == []


async def test_nothing_is_joined_outside_a_turn(open_door: OpenDoor) -> None:
    door = await open_door()
    assert not door.publish()
    with door.turn():
        pass
    assert not door.publish()


@pytest.mark.parametrize(("most", "expected"), [(1000, [FEW, 8]), (5, [5] * 8)], ids=["few", "limits"])
async def test_a_batch_holds_no_more_messages_than_wait_for_a_commit(
    open_door: OpenDoor, most: int, expected: list[int]
) -> None:
    door = await open_door(Limits(batch_messages_max=most))
    with door.turn():
        for _ in range(40):
            assert door.publish()
    assert [len(batch.messages) for batch in door.batches()] == expected


async def test_a_batch_holds_no_more_bytes_than_wait_for_a_commit(open_door: OpenDoor) -> None:
    door = await open_door()
    with door.turn():
        for _ in range(5):
            assert door.publish(size=FEW_BYTES // 4)
    assert [batch.size for batch in door.batches()] == [FEW_BYTES, FEW_BYTES // 4]


async def test_a_door_that_is_shut_is_said_to_each(open_door: OpenDoor) -> None:
    door = await open_door()
    door.admit.closed = GatewayError("draining", "the gateway is going down")
    with door.turn():
        assert door.publish()
        assert door.publish()
    assert door.codes == ["draining", "draining"]
    assert door.admit.ring.statistics().refused == 2


async def test_what_finds_no_room_waits_for_it(open_door: OpenDoor, autojump_clock: trio.abc.Clock) -> None:
    door = await open_door(bytes_max=10, wait_ms=1000)
    with door.turn():
        assert door.publish(size=8)
    (before,) = door.batches()
    with door.turn():
        assert door.publish(size=4)
        assert door.publish(size=4)
    assert door.batches() == []
    before.first = 1
    before.finish()
    await trio.sleep(0.5)
    assert [len(batch.messages) for batch in door.batches()] == [2]


async def test_what_finds_no_room_in_time_is_told_so(open_door: OpenDoor, autojump_clock: trio.abc.Clock) -> None:
    door = await open_door(bytes_max=10, wait_ms=1000)
    with door.turn():
        assert door.publish(size=8)
    with door.turn():
        assert door.publish(size=4)
        assert door.publish(size=4)
    await trio.sleep(1.5)
    assert door.codes == ["overloaded", "overloaded"]


async def test_clients_that_publish_at_once_each_learn_the_place_of_their_own_message(node: Node) -> None:
    await subscription(node, "orders", "trade.>")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_http(node.address)) for _ in range(8)]
        path, json = "/v1/topics/trade.paid/messages", {"Content-Type": "application/json"}
        assert (await clients[0].post(path, b"[0]", json)).status == 201  # from now on its head is known
        before = node.admit.ring.statistics()
        answers: dict[int, Any] = {}

        async def publish(number: int) -> None:
            answer = await clients[number].post(path, b"[%d]" % number, json)
            assert answer.status == 201
            answers[answer.json["position"]] = [number]

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(publish, number)
        after = node.admit.ring.statistics()
        pulled = (await clients[0].post("/v1/subscriptions/orders/pull", b'{"wait_ms":50}')).json["messages"]
    assert {message["position"]: message["data"] for message in pulled[1:]} == answers
    assert after.messages - before.messages == 8
    assert after.items - before.items < 8


async def fail_on_bad(messages: Sequence[MessageView]) -> list[None]:
    """An operator's stage that one message can break."""
    if any(message.json == b'"bad"' for message in messages):
        raise ValueError("bad")
    return [None] * len(messages)


async def test_a_message_that_breaks_an_operators_stage_fails_nobody_elses(tmp_path: Path) -> None:
    pipeline = (Pipeline(name="mine", stages=(f"{__name__}:fail_on_bad",)),)
    path, json = "/v1/topics/trade.paid/messages", {"Content-Type": "application/json"}
    statuses: list[int] = []
    async with running(tmp_path, pipeline=pipeline) as node, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_http(node.address)) for _ in range(8)]
        assert (await clients[0].post(path, b"0", json)).status == 201

        async def publish(client: RawHttp, body: bytes) -> None:
            statuses.append((await client.post(path, body, json)).status)

        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for number, client in enumerate(clients):
                    nursery.start_soon(publish, client, b'"bad"' if number == 3 else b'"good"')
    assert sorted(statuses) == [201] * 140 + [500] * 20
