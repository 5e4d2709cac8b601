from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from gateway.edge.connections import Connections, ConnectionView
from gateway.errors import GatewayError


@attrs.define(eq=False)
class Connection:
    name: str

    def view(self) -> ConnectionView:
        raise NotImplementedError

    def close(self, code: int, reason: str) -> None:
        raise NotImplementedError

    def reauthorize(self) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        raise NotImplementedError


def test_names_are_never_given_twice() -> None:
    connections = Connections()
    assert len({connections.new_name() for _ in range(1000)}) == 1000
    assert connections.new_name().startswith("c-")


async def test_who_is_open_can_be_listed_and_found() -> None:
    connections = Connections()
    first, second = Connection("c-1"), Connection("c-2")
    connections.add(first)
    connections.add(second)
    assert (list(connections), len(connections), connections.opened) == ([first, second], 2, 2)
    assert connections.get("c-2") is second
    connections.remove(first, 1000)
    connections.remove(second, 1000)
    assert (list(connections), connections.opened, connections.closes) == ([], 2, {1000: 2})
    with pytest.raises(GatewayError, match="connection 'c-2' is not open; GET /v1/connections lists all") as caught:
        connections.get("c-2")
    assert caught.value.code == "connection_not_found"


async def test_the_list_may_change_while_it_is_walked() -> None:
    connections = Connections()
    for number in range(3):
        connections.add(Connection(f"c-{number}"))
    for connection in connections:
        connections.remove(connection, 3001)
    assert len(connections) == 0


async def test_waiting_for_none_ends_with_the_last() -> None:
    connections = Connections()
    await connections.wait_empty()
    first, second = Connection("c-1"), Connection("c-2")
    connections.add(first)
    connections.add(second)
    empty = trio.Event()

    async def wait() -> None:
        await connections.wait_empty()
        empty.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        connections.remove(first, 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert not empty.is_set()
        connections.remove(second, 1000)
        with trio.fail_after(1):
            await empty.wait()
