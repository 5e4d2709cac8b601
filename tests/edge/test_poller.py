from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from gateway.edge.poller import Poller
from gateway.edge.stream import Unsent
from gateway.store.timer import Readable

Pair = tuple[socket.socket, socket.socket]


class Reader:
    """Reads what comes, `seconds` each time."""

    def __init__(self, sock: socket.socket, seconds: float = 0) -> None:
        self.sock = sock
        self.seconds = seconds
        self.seen: list[bytes] = []

    def look(self) -> None:
        self.seen.append(self.sock.recv(100))
        time.sleep(self.seconds)


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


async def test_whoever_waits_is_called_each_time_and_no_more_once_removed(
    pairs: list[Pair], nursery: trio.Nursery
) -> None:
    poller = Poller()
    (ours, theirs), *_ = pairs
    reader = Reader(ours)
    poller.add(ours.fileno(), reader)
    nursery.start_soon(poller.run)
    for text in (b"one", b"two"):
        theirs.send(text)
        await trio.testing.wait_all_tasks_blocked()
    poller.remove(ours.fileno())
    theirs.send(b"three")
    await trio.testing.wait_all_tasks_blocked()
    assert reader.seen == [b"one", b"two"]
    assert len(poller) == 0


async def test_what_a_turn_tells_clients_is_gathered(pairs: list[Pair], nursery: trio.Nursery) -> None:
    gathering = Unsent(0).gathering
    poller = Poller(gathering)

    class Watching(Reader):
        def look(self) -> None:
            super().look()
            assert gathering.is_entered

    readers = [Watching(ours) for ours, _ in pairs]
    for (ours, theirs), reader in zip(pairs, readers, strict=True):
        poller.add(ours.fileno(), reader)
        theirs.send(b"one")
    nursery.start_soon(poller.run)
    await trio.testing.wait_all_tasks_blocked()
    assert [reader.seen for reader in readers] == [[b"one"]] * 3
    assert not gathering.is_entered


async def test_the_end_of_a_connection_is_something_to_read(pairs: list[Pair], nursery: trio.Nursery) -> None:
    poller = Poller()
    (ours, theirs), *_ = pairs

    class Once(Reader):
        def look(self) -> None:
            super().look()
            poller.remove(ours.fileno())

    reader = Once(ours)
    poller.add(ours.fileno(), reader)
    nursery.start_soon(poller.run)
    theirs.close()
    await trio.testing.wait_all_tasks_blocked()
    assert reader.seen == [b""]


async def test_a_turn_that_takes_long_lets_others_run_and_goes_on_where_it_was(
    pairs: list[Pair], nursery: trio.Nursery
) -> None:
    poller = Poller()
    readers = [Reader(ours, 0.003) for ours, _ in pairs]
    found: set[int] = set()
    for reader, (ours, theirs) in zip(readers, pairs, strict=True):
        poller.add(ours.fileno(), reader)
        theirs.send(b"1")

    nursery.start_soon(poller.run)
    with trio.fail_after(5):
        while 3 not in found:
            pairs[0][1].send(b"again")  # the first has always something, and the others come nevertheless
            await trio.lowlevel.checkpoint()
            found.add(sum(bool(reader.seen) for reader in readers))
    assert found & {1, 2}


async def test_one_that_was_removed_within_the_turn_is_not_called(pairs: list[Pair], nursery: trio.Nursery) -> None:
    poller = Poller()
    ends = [ours for ours, _ in pairs]

    class Alone(Reader):
        def look(self) -> None:
            super().look()
            for end in ends:
                poller.remove(end.fileno())

    readers = [Alone(end) for end in ends]
    for reader, (ours, theirs) in zip(readers, pairs, strict=True):
        poller.add(ours.fileno(), reader)
        theirs.send(b"x")
    nursery.start_soon(poller.run)
    await trio.testing.wait_all_tasks_blocked()
    assert sum(len(reader.seen) for reader in readers) == 1


class Commits:
    """A disk of one descriptor, and what was asked of it."""

    def __init__(self, pair: Pair) -> None:
        self.sock, self.disk = pair
        self.asked: list[str] = []

    @property
    def readables(self) -> dict[int, Readable]:
        return {self.sock.fileno(): self}

    def look(self) -> None:
        self.asked.append(self.sock.recv(100).decode())

    def attend(self, *, attended: bool) -> None:
        self.asked.append("attended" if attended else "left")

    def __enter__(self) -> None:
        self.asked.append("(")

    def __exit__(self, *_: object) -> None:
        self.asked.append(")")


async def test_commits_are_attended_to_for_as_long_as_it_runs(pairs: list[Pair]) -> None:
    commits = Commits(pairs[0])
    poller = Poller(commits=commits)
    (ours, theirs) = pairs[1]
    poller.add(ours.fileno(), Reader(ours))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        await trio.testing.wait_all_tasks_blocked()
        theirs.send(b"one")
        await trio.testing.wait_all_tasks_blocked()
        commits.disk.send(b"done")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert commits.asked == ["attended", "(", ")", "(", "done", ")", "left"]
    assert len(poller) == 1
