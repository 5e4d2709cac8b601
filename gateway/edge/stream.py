"""A socket as a trio stream with an outbox.

Everything that is written, whole frames of ours and whole frames of trio-websocket alike, goes through one outbox, so
frames never mix and no lock is held across a wait. `offer` tries the socket at once and never waits: 3 us for a frame
where a task switch and `send_all` cost 21 us (design §10). What does not fit is sent by a task that exists only while
something is unsent; an idle connection has none.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import outcome
import trio

from gateway.edge.poller import Poller

RECEIVE_BYTES: Final = 64 * 1024
_RECEIVE_BYTES_MIN: Final = 4 * 1024
"""A buffer for a large read costs 2 us to make, so it is made for connections that just filled a small one."""
_EXPECTED_BYTES_MAX: Final = 256 * 1024
"""Room made for bytes that are known to come."""
_SEND_BYTES: Final = 256 * 1024
"""At most this much is offered to the kernel at once, so that one large answer does not hold the run loop."""

_FULL: Final = 0.9

_GATHERED_MAX: Final = 32
_GATHERED_BYTES_MIN: Final = 8 * 1024

Sent = Callable[[], None]


class Gathering:
    """While it is entered, what streams are offered is put together, and goes to each socket in one call at the end.

    A commit answers many publishes of one connection, and a system call each would cost more than all else of them. And
    who is told something while it sleeps has to be woken, 20 us each time; of many that are told one behind the other
    most are awake.
    """

    def __init__(self) -> None:
        self.is_entered = False
        self._depth = 0
        self._offered: dict[OutboxStream, list[tuple[bytes, Sent | None]]] = {}

    def __enter__(self) -> None:
        self._depth += 1
        self.is_entered = True

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:  # what is told in a turn of the poller goes with the rest of that
            return
        self.is_entered = False
        offered, self._offered = self._offered, {}
        for stream, items in offered.items():
            stream.offer_all(items)

    def send_now(self, stream: OutboxStream) -> None:
        """What `stream` has been offered so far goes, for something else has to come behind it now."""
        items = self._offered.pop(stream, None)
        if items:
            stream.offer_all(items)

    def add(self, stream: OutboxStream, data: bytes, sent: Sent | None) -> None:
        self._offered.setdefault(stream, []).append((data, sent))


class Unsent:
    """What waits for the sockets of all streams together, bounded whatever their number (promise 7).

    Only what a socket has not taken at once is counted, so a stream that keeps up never comes here.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self.cut = 0
        """Streams cut to make room."""
        self.gathered_bytes = 0
        """Bytes of all streams that the kernel took from where they were stored."""
        self.joined_bytes = 0
        """Bytes that came in several parts, and were copied into one."""
        self.gathering = Gathering()
        self._waiting: dict[OutboxStream, None] = {}

    def count(self, stream: OutboxStream, change: int) -> None:
        """So many bytes more, or fewer, wait in `stream`."""
        self.bytes += change
        if not stream.unsent:
            self._waiting.pop(stream, None)
        elif change > 0:
            self._waiting[stream] = None
            if self.bytes > self.bytes_max:
                self._make_room()

    def _make_room(self) -> None:
        """Cut those that have stood still for longest, to nine tenths: not one at each frame from now on."""
        for stream in sorted(self._waiting, key=lambda stream: stream.progress_at):
            if self.bytes <= self.bytes_max * _FULL:
                break
            self.cut += 1
            if stream.on_cut is not None:
                stream.on_cut()
            stream.abort()


def _call_all(calls: Sequence[Sent]) -> None:
    for sent in calls:
        sent()


def _gathers(parts: int, size: int) -> bool:
    """Whether the kernel gathers these parts sooner than they are joined: each of them costs it about 100 ns."""
    return 1 < parts <= _GATHERED_MAX and _GATHERED_BYTES_MIN <= size <= _SEND_BYTES


class OutboxStream(trio.abc.Stream):
    """A connected, non-blocking TCP socket. The sender runs in `nursery` when one is needed.

    `poller` looks at the socket while somebody attends to it; without one, trio does.
    """

    def __init__(
        self, sock: socket.socket, nursery: trio.Nursery, together: Unsent | None = None, poller: Poller | None = None
    ) -> None:
        self._together = together
        self._poller = poller
        self._readable: Callable[[], bool] | None = None
        self._attending: trio.lowlevel.Task | None = None
        self._sock = sock
        self._nursery = nursery
        self._outbox: deque[tuple[memoryview, Sent | None]] = deque()
        self._sending = False
        self._drained: trio.Event | None = None
        self._pushed_back = b""
        self._receive_size = _RECEIVE_BYTES_MIN
        self._more = False
        self._broken = False
        self._closed = False
        self.gathered_bytes = 0
        """Bytes that the kernel took from where they were stored."""
        self.unsent = 0
        """Bytes that wait for the socket."""
        self.progress_at = trio.current_time()
        """When the socket last took a byte, or when something began to wait for it."""
        self.on_unblocked: Callable[[], None] | None = None
        """Called when the outbox has run empty after having been full."""
        self.on_cut: Callable[[], None] | None = None
        """Called where the stream is cut because too much waits for all sockets together."""

    # -------------------------------------------------------------------------------------------- receiving

    def push_back(self, data: bytes) -> None:
        """Have `data` received again, before anything else."""
        self._pushed_back = data + self._pushed_back

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes as they come; b"" at the end. BrokenResourceError where the connection was reset."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._pushed_back:
            size = RECEIVE_BYTES if max_bytes is None else max_bytes
            data, self._pushed_back = self._pushed_back[:size], self._pushed_back[size:]
            await trio.lowlevel.checkpoint()
            return data
        size = self._receive_size if max_bytes is None else min(self._receive_size, max_bytes)
        while True:
            try:
                if self._more:  # there was more than fitted: it is there without asking
                    await trio.lowlevel.checkpoint()  # a client that never stops sending must not keep the run loop
                else:
                    await trio.lowlevel.wait_readable(self._sock)
                data = self._sock.recv(size)
            except BlockingIOError:
                self._more = False
                continue
            except (OSError, ValueError) as error:
                raise trio.BrokenResourceError(str(error)) from error
            self._more = len(data) == size
            self._receive_size = RECEIVE_BYTES if self._more else _RECEIVE_BYTES_MIN
            return data

    def receive_now(self, expected: int = 0) -> bytes | None:
        """What has come, without waiting; None where there is nothing, b"" at the end. Raises as `receive_some`.

        `expected`: bytes that are known to come, so that there is room for them.
        """
        if self._pushed_back:
            data, self._pushed_back = self._pushed_back, b""
            return data
        size = min(expected, _EXPECTED_BYTES_MAX) or self._receive_size
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            raise trio.BrokenResourceError(str(error)) from error
        if not expected:
            self._receive_size = RECEIVE_BYTES if len(data) == size else _RECEIVE_BYTES_MIN
        return data

    async def attend(self, readable: Callable[[], bool]) -> None:
        """Call `readable` whenever there may be something to receive, until it says False. It must not wait.

        What it raises comes out here. ClosedResourceError where the stream is aborted meanwhile.
        """
        if self._closed:
            raise trio.ClosedResourceError
        if self._pushed_back and not readable():
            return
        if self._poller is None:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                if not readable():
                    return
        self._readable = readable
        self._poller.add(self._sock.fileno(), self)
        self._attending = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._unattended)

    def look(self) -> None:
        """Called by the poller."""
        assert self._readable is not None
        try:
            if self._readable():
                return
        except BaseException as error:  # it is the attending task's
            self._attended(outcome.Error(error))
        else:
            self._attended(outcome.Value(None))

    def _attended(self, result: outcome.Value[None] | outcome.Error) -> None:
        task = self._attending
        if task is not None:  # `readable` may have aborted the stream
            self._unattended()
            trio.lowlevel.reschedule(task, result)

    def _unattended(self, _: object = None) -> trio.lowlevel.Abort:
        assert self._poller is not None
        self._poller.remove(self._sock.fileno())
        self._attending = self._readable = None
        return trio.lowlevel.Abort.SUCCEEDED

    def has_unread(self) -> bool:
        """Whether something has arrived that was not received yet: a gateway that is behind, not a silent peer."""
        try:
            return bool(self._pushed_back) or bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing, or no connection any more
            return False

    # ---------------------------------------------------------------------------------------------- sending

    def offer(self, data: bytes, sent: Sent | None = None) -> None:
        """Send `data`, a whole frame or answer, behind what is unsent; never waits, never raises.

        `sent` is called once the kernel has taken the last byte; never, where the connection breaks before.
        """
        if self._closed or self._broken:
            return
        if self._together is not None and self._together.gathering.is_entered:
            if len(data) < _GATHERED_BYTES_MIN:
                self._together.gathering.add(self, data, sent)
                return
            self._send_gathered()  # whether it fits is to be known at once: one large frame waits, and no more
        self._put(data, sent)

    def _put(self, data: bytes, sent: Sent | None) -> None:
        """The same, of a connection that stands, and not with others."""
        if self._outbox:
            self._outbox.append((memoryview(data), sent))
            self._count(len(data))
            return
        try:
            taken = self._sock.send(data if len(data) <= _SEND_BYTES else memoryview(data)[:_SEND_BYTES])
        except BlockingIOError:
            taken = 0
        except OSError:
            self._break()
            return
        if taken == len(data):
            if sent is not None:
                sent()
            return
        self._leave(memoryview(data)[taken:], sent)

    def offer_all(self, items: Sequence[tuple[bytes, Sent | None]]) -> None:
        """Several at once, and now. Each `sent` is called once all of them have gone."""
        if self._closed or self._broken:
            return
        if len(items) == 1:
            self._put(*items[0])
            return
        calls = [sent for _, sent in items if sent is not None]
        self._put(b"".join([data for data, _ in items]), partial(_call_all, calls) if calls else None)

    def offer_parts(self, parts: Sequence[bytes | memoryview], sent: Sent | None = None) -> None:
        """The same for what lies in several places, such as slices of a mapped file: the kernel gathers it, uncopied.

        Small or scattered parts are joined: a gathering of many costs more than a copy. So is what the kernel leaves.
        """
        size = sum(map(len, parts))
        gathers = _gathers(len(parts), size)
        if gathers:
            self._send_gathered()
        if self._outbox or self._closed or self._broken or not gathers:
            if self._together is not None and len(parts) > 1:
                self._together.joined_bytes += size
            self.offer(b"".join(parts), sent)
            return
        try:
            taken = self._sock.sendmsg(parts)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._break()
            return
        self.gathered_bytes += taken
        if self._together is not None:
            self._together.gathered_bytes += taken
            self._together.joined_bytes += size - taken
        if taken < size:
            self._leave(memoryview(b"".join(parts))[taken:], sent)
        elif sent is not None:
            sent()

    def _send_gathered(self) -> None:
        if self._together is not None:
            self._together.gathering.send_now(self)

    def _leave(self, rest: memoryview, sent: Sent | None) -> None:
        """What the kernel did not take waits for the sender."""
        self._outbox.append((rest, sent))
        self.progress_at = trio.current_time()
        self._count(len(rest))
        if not self._sending and not self._closed:
            self._sending = True
            self._nursery.start_soon(self._send_outbox)

    def _count(self, change: int) -> None:
        self.unsent += change
        if self._together is not None:
            self._together.count(self, change)

    async def _send_outbox(self) -> None:
        """The sender: lives until the outbox is empty or the connection is broken."""
        try:
            while self._outbox and not self._closed:
                await trio.lowlevel.wait_writable(self._sock)
                if self._outbox:  # it may have been aborted between the waking and the running
                    self._send_some()
        except (OSError, ValueError, trio.ClosedResourceError):
            self._break()
        finally:
            self._sending = False
        if self._drained is not None:
            self._drained.set()
            self._drained = None
        if self.on_unblocked is not None and not self._broken:
            self.on_unblocked()

    def _send_some(self) -> None:
        view, sent = self._outbox[0]
        try:
            taken = self._sock.send(view[:_SEND_BYTES])
        except BlockingIOError:
            return
        self.progress_at = trio.current_time()
        self._count(-taken)
        if taken < len(view):
            self._outbox[0] = (view[taken:], sent)
            return
        self._outbox.popleft()
        if sent is not None:
            sent()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """trio's own way to send: returns when the kernel has taken everything. What is offered stays whole."""
        self._check()
        self.offer(bytes(data))
        await self.wait_drained()

    async def wait_drained(self) -> None:
        """Wait until nothing is unsent. BrokenResourceError where that will never be."""
        while self._outbox:
            self._check()
            if self._drained is None:
                self._drained = trio.Event()
            await self._drained.wait()
        self._check()
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        await self.wait_drained()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._broken:
            raise trio.BrokenResourceError("the connection is broken")

    # ---------------------------------------------------------------------------------------------- closing

    def _break(self) -> None:
        self._broken = True
        self._outbox.clear()
        self._count(-self.unsent)
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def shutdown(self) -> None:
        """No more will be sent; the peer sees the end behind what was."""
        self._send_gathered()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._break()

    def abort(self) -> None:
        """Cut the connection now; whoever waits on it is woken."""
        if not self._closed:
            self._send_gathered()
            self._closed = True
            self._break()
            self._attended(outcome.Error(trio.ClosedResourceError()))
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def aclose(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()
