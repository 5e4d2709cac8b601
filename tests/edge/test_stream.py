from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import cast

import pytest
import trio
import trio.testing

from gateway.edge.poller import Poller
from gateway.edge.stream import OutboxStream, Unsent

LARGE = 2 << 20
"""More than the kernel takes at once."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection, neither of which waits."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
def stream(pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery) -> OutboxStream:
    return OutboxStream(pair[0], nursery)


@pytest.fixture
def peer(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[1]


def read(peer: socket.socket) -> bytes:
    """What has arrived, without waiting."""
    data = bytearray()
    with suppress(BlockingIOError):
        while piece := peer.recv(1 << 20):
            data += piece
    return bytes(data)


async def read_all(peer: socket.socket, size: int) -> bytes:
    data = bytearray()
    with trio.fail_after(10):
        while len(data) < size:
            await trio.lowlevel.wait_readable(peer)
            data += read(peer)
    return bytes(data)


def fill(stream: OutboxStream) -> None:
    """Until the kernel takes no more."""
    while not stream.unsent:
        stream.offer(b"x" * 65536)


async def test_what_fits_is_sent_at_once_and_told(stream: OutboxStream, peer: socket.socket) -> None:
    told: list[str] = []
    stream.offer(b"frame", lambda: told.append("sent"))
    assert (told, stream.unsent, read(peer)) == (["sent"], 0, b"frame")


async def test_what_does_not_fit_is_sent_behind_and_in_order(stream: OutboxStream, peer: socket.socket) -> None:
    told: list[int] = []
    frames = [bytes([number]) * LARGE for number in range(3)] + [b"last"]
    for number, frame in enumerate(frames):
        stream.offer(frame, lambda number=number: told.append(number))  # type: ignore[misc]
    assert told == []
    assert stream.unsent > 2 * LARGE
    assert await read_all(peer, 3 * LARGE + 4) == b"".join(frames)
    await stream.wait_drained()
    assert (told, stream.unsent) == ([0, 1, 2, 3], 0)


async def test_offering_never_waits_even_where_nobody_reads(stream: OutboxStream) -> None:
    for _ in range(100):
        stream.offer(b"x" * 100_000)
    assert stream.unsent > 0


async def test_frames_of_many_writers_never_mix(stream: OutboxStream, peer: socket.socket) -> None:
    async def write(letter: bytes) -> None:
        for _ in range(20):
            await stream.send_all(letter * 50_000)

    async with trio.open_nursery() as nursery:
        for letter in (b"a", b"b", b"c"):
            nursery.start_soon(write, letter)
        data = await read_all(peer, 60 * 50_000)
    assert [data[i : i + 50_000] == data[i : i + 1] * 50_000 for i in range(0, len(data), 50_000)] == [True] * 60


async def test_a_cancelled_send_is_still_sent_whole(stream: OutboxStream, peer: socket.socket) -> None:
    with trio.move_on_after(0.01) as scope:
        await stream.send_all(b"a" * LARGE)
    assert scope.cancelled_caught
    stream.offer(b"b")
    assert await read_all(peer, LARGE + 1) == b"a" * LARGE + b"b"


async def test_the_owner_is_told_when_the_outbox_has_run_empty(stream: OutboxStream, peer: socket.socket) -> None:
    told: list[int] = []
    stream.on_unblocked = lambda: told.append(stream.unsent)
    stream.offer(b"small")
    stream.offer(b"x" * LARGE)
    await read_all(peer, LARGE + 5)
    await stream.wait_drained()
    await trio.testing.wait_all_tasks_blocked()
    assert told == [0]  # once, and not for what never waited


async def test_progress_is_seen(stream: OutboxStream, peer: socket.socket) -> None:
    fill(stream)
    began = stream.progress_at
    await trio.sleep(0.02)
    assert stream.progress_at == began
    read(peer)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert stream.progress_at > began


async def test_what_is_received_comes_as_it_was_sent(stream: OutboxStream, peer: socket.socket) -> None:
    for size in (1, 4096, 4097, 65536, 200_000):
        peer.setblocking(True)
        sent = bytes(range(256)) * (size // 256 + 1)
        received = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_beside, peer, sent)
            while len(received) < len(sent):
                received += await stream.receive_some()
        assert received == sent


async def send_beside(peer: socket.socket, data: bytes) -> None:
    await trio.to_thread.run_sync(peer.sendall, data)


async def test_a_reader_that_always_has_something_lets_others_run(stream: OutboxStream, peer: socket.socket) -> None:
    peer.send(b"x" * 50_000)
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(20):
            await stream.receive_some(1000)
        nursery.cancel_scope.cancel()
    assert others >= 10


async def test_bytes_that_were_pushed_back_come_first(stream: OutboxStream, peer: socket.socket) -> None:
    peer.send(b"new")
    stream.push_back(b"old")
    stream.push_back(b"older, ")
    assert await stream.receive_some(4) == b"olde"
    assert await stream.receive_some() == b"r, old"
    assert await stream.receive_some() == b"new"


async def test_the_end_is_the_end(stream: OutboxStream, peer: socket.socket) -> None:
    peer.close()
    assert await stream.receive_some() == b""


async def test_a_peer_that_has_gone_breaks_the_stream_quietly(stream: OutboxStream, peer: socket.socket) -> None:
    told: list[str] = []
    peer.close()
    stream.offer(b"x", lambda: told.append("sent"))
    stream.offer(b"y", lambda: told.append("sent"))
    assert (told, stream.unsent) == ([], 0)
    with pytest.raises(trio.BrokenResourceError):
        await stream.wait_drained()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"z")


async def test_a_peer_that_goes_while_something_is_unsent_wakes_who_waits(
    stream: OutboxStream, peer: socket.socket
) -> None:
    fill(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, stream)
        await trio.testing.wait_all_tasks_blocked()
        peer.close()
    assert stream.unsent == 0


async def expect_broken(stream: OutboxStream) -> None:
    with trio.fail_after(5), pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        await stream.wait_drained()


async def test_an_abort_wakes_reader_and_writer(stream: OutboxStream) -> None:
    async def expect_closed() -> None:
        with trio.fail_after(5), pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await stream.receive_some()

    fill(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed)
        nursery.start_soon(expect_broken, stream)
        await trio.testing.wait_all_tasks_blocked()
        stream.abort()
    stream.abort()
    stream.offer(b"nothing")
    stream.shutdown()
    assert stream.unsent == 0
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")


async def test_a_shutdown_is_seen_behind_what_was_sent(stream: OutboxStream, peer: socket.socket) -> None:
    await stream.send_all(b"last words")
    stream.shutdown()
    assert (peer.recv(100), peer.recv(100)) == (b"last words", b"")
    peer.send(b"heard")
    assert await stream.receive_some() == b"heard"


async def test_a_socket_that_takes_more_just_as_it_is_aborted_harms_nobody(nursery: trio.Nursery) -> None:
    """The sender is woken by the kernel, and finds its outbox gone: it must not take its nursery down with it."""
    for _ in range(100):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        bell, rung = socket.socketpair()
        with ours, theirs, bell, rung:
            stream = OutboxStream(ours, nursery)
            fill(stream)
            await trio.testing.wait_all_tasks_blocked()
            read(theirs)
            bell.send(b"!")
            await trio.lowlevel.wait_readable(rung)  # woken in the same turn as the sender, before or after it
            stream.abort()
            await trio.testing.wait_all_tasks_blocked()


# ------------------------------------------------------------------------------------------- all streams together


def make_pair(nursery: trio.Nursery, together: Unsent) -> tuple[OutboxStream, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return OutboxStream(ours, nursery, together), theirs


def overfill(stream: OutboxStream) -> None:
    """Until something waits, and a large frame behind it."""
    fill(stream)
    stream.offer(bytes(LARGE))


@pytest.fixture
def together() -> Unsent:
    return Unsent(bytes_max=4 * LARGE)


async def test_what_waits_in_all_streams_is_counted_together(nursery: trio.Nursery, together: Unsent) -> None:
    (one, peer), (two, other) = make_pair(nursery, together), make_pair(nursery, together)
    with peer, other:
        overfill(one)
        overfill(two)
        assert together.bytes == one.unsent + two.unsent > 2 * LARGE
        while one.unsent:
            read(peer)
            await trio.lowlevel.checkpoint()
        assert together.bytes == two.unsent
        two.abort()
        assert (together.bytes, together.cut) == (0, 0)
        one.abort()


async def test_beyond_the_bound_who_has_stood_still_for_longest_is_cut(nursery: trio.Nursery, together: Unsent) -> None:
    told: list[int] = []
    pairs = [make_pair(nursery, together) for _ in range(6)]
    for number, (stream, _) in enumerate(pairs):
        stream.on_cut = partial(told.append, number)
        overfill(stream)
        assert together.bytes <= together.bytes_max
    assert told == list(range(len(told)))
    assert 0 < together.cut == len(told) < len(pairs)
    assert together.bytes == sum(stream.unsent for stream, _ in pairs)
    for stream, peer in pairs:
        stream.abort()
        peer.close()
    assert together.bytes == 0


async def test_a_stream_that_is_itself_the_one_to_go_takes_no_more(nursery: trio.Nursery) -> None:
    together = Unsent(bytes_max=1)
    stream, peer = make_pair(nursery, together)
    with peer:
        while not together.cut:
            stream.offer(bytes(LARGE))
        assert (stream.unsent, together.bytes) == (0, 0)
        with pytest.raises(trio.ClosedResourceError):
            await stream.wait_drained()


@pytest.mark.parametrize(("size", "count"), [(10, 3), (10_000, 3), (10_000, 100), (100_000, 5)])
async def test_parts_are_sent_as_one_and_told_once(
    stream: OutboxStream, peer: socket.socket, size: int, count: int
) -> None:
    parts: list[bytes | memoryview] = [memoryview(bytes([number % 256]) * size) for number in range(count)]
    told: list[int] = []
    stream.offer_parts(parts, lambda: told.append(1))
    assert await read_all(peer, size * count) == b"".join(parts)
    await stream.wait_drained()
    assert told == [1]


async def test_large_parts_are_gathered_by_the_kernel_and_small_ones_joined(
    stream: OutboxStream, peer: socket.socket
) -> None:
    stream.offer_parts([b"x" * 100, b"y" * 100])
    assert stream.gathered_bytes == 0
    stream.offer_parts([b"x" * 10_000, b"y" * 10_000])
    assert stream.gathered_bytes == 20_000
    assert len(await read_all(peer, 20_200)) == 20_200


async def test_parts_wait_behind_what_is_unsent(stream: OutboxStream, peer: socket.socket) -> None:
    fill(stream)
    unsent = stream.unsent
    stream.offer_parts([b"a" * 10_000, b"b" * 10_000])
    assert stream.unsent == unsent + 20_000
    assert stream.gathered_bytes == 0


# ---------------------------------------------------------------------------------------------------- together


class Counting:
    """A socket that counts the calls that send."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sends = 0

    def send(self, data: bytes) -> int:
        self.sends += 1
        return self.sock.send(data)


async def test_what_is_offered_while_answers_are_gathered_goes_in_one_call(
    pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery
) -> None:
    counting, together = Counting(pair[0]), Unsent(1 << 30)
    stream = OutboxStream(cast("socket.socket", counting), nursery, together)
    sent: list[str] = []
    assert (together.gathered_bytes, together.joined_bytes) == (0, 0)
    with together.gathering:
        stream.offer(b"one ", partial(sent.append, "one"))
        stream.offer_parts([b"t", b"wo "], partial(sent.append, "two"))
        stream.offer(b"three")
        assert (counting.sends, sent) == (0, [])
    assert (counting.sends, sent) == (1, ["one", "two"])
    assert read(pair[1]) == b"one two three"
    assert together.joined_bytes == 4
    stream.offer(b"four")
    assert counting.sends == 2


async def test_what_is_gathered_goes_behind_what_is_unsent(
    pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery
) -> None:
    together = Unsent(1 << 30)
    stream = OutboxStream(pair[0], nursery, together)
    stream.offer(b"x" * LARGE)
    with together.gathering:
        stream.offer(b"one")
        stream.offer(b"two")
    data = await read_all(pair[1], LARGE + 6)
    assert data[LARGE:] == b"onetwo"


async def test_what_is_large_is_not_gathered_but_goes_at_once_behind_what_is(
    pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery
) -> None:
    together = Unsent(1 << 30)
    stream = OutboxStream(pair[0], nursery, together)
    with together.gathering:
        stream.offer(b"one")
        stream.offer_parts([b"x" * 10_000, b"y" * 10_000])
        assert read(pair[1]) == b"one" + b"x" * 10_000 + b"y" * 10_000
        assert together.joined_bytes == 0
        stream.offer(b"two")
        stream.offer_parts([b"x" * LARGE, b"y" * LARGE])
        assert stream.unsent > 0
    assert await read_all(pair[1], 3 + 2 * LARGE) == b"two" + b"x" * LARGE + b"y" * LARGE


@pytest.mark.parametrize("end", [OutboxStream.shutdown, OutboxStream.abort])
async def test_what_is_gathered_is_sent_before_the_end(
    pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery, end: Callable[[OutboxStream], None]
) -> None:
    together = Unsent(1 << 30)
    stream = OutboxStream(pair[0], nursery, together)
    with together.gathering:
        stream.offer(b"the last")
        end(stream)
    assert read(pair[1]) == b"the last"


async def test_a_gathering_within_another_is_part_of_it(
    pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery
) -> None:
    counting, together = Counting(pair[0]), Unsent(1 << 30)
    stream = OutboxStream(cast("socket.socket", counting), nursery, together)
    with together.gathering:
        stream.offer(b"one ")
        with together.gathering:
            stream.offer(b"two ")
        stream.offer(b"three")
    assert (counting.sends, read(pair[1])) == (1, b"one two three")


async def test_what_fails_while_answers_are_gathered_keeps_none_of_them_back(
    pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery
) -> None:
    together = Unsent(1 << 30)
    stream = OutboxStream(pair[0], nursery, together)
    with suppress(ZeroDivisionError), together.gathering:
        stream.offer(b"one")
        raise ZeroDivisionError
    assert read(pair[1]) == b"one"


async def test_what_has_arrived_is_seen_without_being_received(stream: OutboxStream, peer: socket.socket) -> None:
    assert not stream.has_unread()
    peer.send(b"pong")
    assert stream.has_unread()
    assert await stream.receive_some() == b"pong"
    assert not stream.has_unread()
    stream.push_back(b"again")
    assert stream.has_unread()


async def test_a_broken_connection_has_nothing_unread(stream: OutboxStream, peer: socket.socket) -> None:
    peer.close()
    assert not stream.has_unread()
    stream.abort()
    assert not stream.has_unread()


# ---------------------------------------------------------------------------------------------- attended by a poller


@pytest.fixture(params=[True, False], ids=["poller", "trio"])
def attended(
    request: pytest.FixtureRequest, pair: tuple[socket.socket, socket.socket], nursery: trio.Nursery
) -> OutboxStream:
    poller = Poller()
    nursery.start_soon(poller.run)
    return OutboxStream(pair[0], nursery, poller=poller if request.param else None)


async def test_what_comes_is_told_until_somebody_has_enough(attended: OutboxStream, peer: socket.socket) -> None:
    seen: list[bytes | None] = []

    def look() -> bool:
        seen.append(attended.receive_now())
        return len(seen) < 3

    async def send() -> None:
        for text in (b"1", b"2", b"3"):
            peer.send(text)
            await trio.testing.wait_all_tasks_blocked()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await attended.attend(look)
    assert seen == [b"1", b"2", b"3"]
    assert attended.receive_now() is None
    peer.send(b"4")
    assert await attended.receive_some() == b"4"  # nobody else takes it


async def test_what_was_pushed_back_is_told_first(attended: OutboxStream) -> None:
    attended.push_back(b"before")
    await attended.attend(lambda: attended.receive_now() != b"before")


async def test_what_goes_wrong_while_looking_is_the_attending_tasks(
    attended: OutboxStream, peer: socket.socket
) -> None:
    def look() -> bool:
        raise ValueError("wrong")

    peer.send(b"x")
    with trio.fail_after(5), pytest.raises(ValueError, match="wrong"):
        await attended.attend(look)


async def test_whoever_attends_to_a_stream_that_is_aborted_is_told(
    attended: OutboxStream, peer: socket.socket, nursery: trio.Nursery
) -> None:
    closed = trio.Event()

    async def attend() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await attended.attend(lambda: True)
        closed.set()

    nursery.start_soon(attend)
    await trio.testing.wait_all_tasks_blocked()
    attended.abort()
    with trio.fail_after(5):
        await closed.wait()
    with pytest.raises(trio.ClosedResourceError):
        await attended.attend(lambda: True)


async def test_a_look_may_abort_the_stream(attended: OutboxStream, peer: socket.socket) -> None:
    def look() -> bool:
        attended.abort()
        return False

    peer.send(b"x")
    with trio.fail_after(5), suppress(trio.ClosedResourceError):
        await attended.attend(look)


async def test_one_that_stops_attending_can_begin_again(attended: OutboxStream, peer: socket.socket) -> None:
    for _ in range(2):
        with trio.move_on_after(0.01) as scope:
            await attended.attend(lambda: True)
        assert scope.cancelled_caught
    peer.send(b"now")
    await attended.attend(lambda: attended.receive_now() is None)
