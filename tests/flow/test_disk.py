from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from gateway.config import Disk
from gateway.errors import GatewayError
from gateway.flow.disk import DiskMarks, Mark, Room, judge, look
from gateway.model import Batch, Durability
from gateway.node import Node
from tests.conftest import Log
from tests.edge.bystander import subscription
from tests.edge.raw import open_http, open_raw_websocket

MIB = 1 << 20
SETTINGS = Disk(low_free_bytes=200 * MIB, low_free_share=0.05, high_free_bytes=100 * MIB, high_free_share=0.01)


@pytest.mark.parametrize(
    ("free", "size", "before", "mark"),
    [
        (200, 1000, Mark.NONE, Mark.NONE),
        (199, 1000, Mark.NONE, Mark.LOW),
        (100, 1000, Mark.NONE, Mark.LOW),
        (99, 1000, Mark.NONE, Mark.HIGH),
        (0, 1000, Mark.LOW, Mark.HIGH),
        # the share counts where it is more
        (499, 10_000, Mark.NONE, Mark.LOW),
        (500, 10_000, Mark.NONE, Mark.NONE),
        (199, 20_000, Mark.NONE, Mark.HIGH),
        # a mark is left a little above where it was reached
        (219, 1000, Mark.LOW, Mark.LOW),
        (221, 1000, Mark.LOW, Mark.NONE),
        (109, 1000, Mark.HIGH, Mark.HIGH),
        (111, 1000, Mark.HIGH, Mark.LOW),
        (109, 1000, Mark.LOW, Mark.LOW),
        (1000, 1000, Mark.HIGH, Mark.NONE),
    ],
)
def test_where_the_marks_stand(free: int, size: int, before: Mark, mark: Mark) -> None:
    assert judge(Room(free * MIB, size * MIB), SETTINGS, before) is mark


def test_a_real_file_system_has_room(tmp_path: Path) -> None:
    room = look(str(tmp_path))
    assert 0 < room.free <= room.size


class FakeDisk:
    """A disk as full as the test wants it."""

    def __init__(self) -> None:
        self.free = 1000 * MIB
        self.broken = False

    def look(self, directory: str) -> Room:
        if self.broken:
            raise OSError("the disk has gone")
        return Room(self.free, 1000 * MIB)


def refuses(marks: DiskMarks) -> bool:
    with suppress(GatewayError):
        marks.check(Batch([], Durability.FSYNCED, 0, lambda _: None))
        return False
    return True


async def test_marks_are_reached_and_left_and_said_once(log: Log) -> None:
    disk = FakeDisk()
    marks = DiskMarks("data", SETTINGS, disk.look)
    states = []
    for free in (1000, 150, 150, 50, 50, 150, 1000):
        disk.free = free * MIB
        await marks.look_now()
        states.append((marks.mark, refuses(marks)))
    low, high = (Mark.LOW, False), (Mark.HIGH, True)
    assert states == [(Mark.NONE, False), low, low, high, high, low, (Mark.NONE, False)]
    assert marks.reached == {Mark.LOW: 2, Mark.HIGH: 1}
    said = [(entry["log_level"], entry["event"]) for entry in log]
    assert said == [
        ("warning", "the disk fills: make room"),
        ("warning", "the disk fills: nothing is published any more"),
        ("warning", "the disk fills: make room"),
        ("info", "there is room on the disk again"),
    ]


async def test_a_disk_that_cannot_be_asked_changes_nothing_and_is_said_once(log: Log) -> None:
    disk = FakeDisk()
    marks = DiskMarks("data", SETTINGS, disk.look)
    disk.free, disk.broken = 50 * MIB, False
    await marks.look_now()
    disk.broken = True
    for _ in range(3):
        await marks.look_now()
    assert (marks.mark, marks.room, marks.error) == (Mark.HIGH, None, "the disk has gone")
    assert refuses(marks)
    assert [entry["event"] for entry in log][1:] == ["cannot see how much room there is"]


async def fill(node: Node, free: int) -> None:
    """The disk of a node has so many MiB free, from now on."""
    disk = FakeDisk()
    disk.free = free * MIB
    node.disk._look = disk.look
    await node.disk.look_now()


async def test_above_the_high_mark_publishes_are_refused_and_everything_else_goes_on(node: Node) -> None:
    await subscription(node)
    async with open_http(node.address) as http, open_raw_websocket(node.address) as client:
        assert (await http.post("/v1/topics/trade.a/messages", b"1")).status == 201
        await fill(node, free=1)
        refused = await http.post("/v1/topics/trade.a/messages", b"2")
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "disk_full", "10")
        many = await http.post("/v1/messages", b'[{"topic":"trade.a","data":1}]')
        assert (many.status, many.code) == (503, "disk_full")
        await client.send({"op": "publish", "id": 1, "messages": [{"topic": "trade.a", "data": 1}]})
        assert (await client.receive())["code"] == "disk_full"
        await client.send({"op": "subscribe", "id": 2, "subscription": "orders"})
        assert (await client.receive())["op"] == "ok"
        assert [m["data"] for m in (await client.receive())["messages"]] == [1]
        await client.send({"op": "ack", "id": 3, "subscription": "orders", "ranges": [[1, 1]]})
        assert (await client.receive())["acked"] == 1
        await fill(node, free=900)
        assert (await http.post("/v1/topics/trade.a/messages", b"3")).status == 201


async def test_a_dead_letter_is_stored_all_the_same(node: Node) -> None:
    """It is what the gateway owes, and lets a message go."""
    await subscription(node)
    async with open_http(node.address) as http, open_raw_websocket(node.address) as client:
        await http.post("/v1/topics/trade.a/messages", b"1")
        await fill(node, free=1)
        await client.send({"op": "subscribe", "id": 2, "subscription": "orders"})
        await client.receive()
        await client.receive()
        await client.send({"op": "term", "id": 3, "subscription": "orders", "ranges": [[1, 1]]})
        assert (await client.receive())["terminated"] == 1
        with trio.fail_after(5):
            while not node.redeliver.statistics.dead_letters:
                await trio.sleep(0.005)
