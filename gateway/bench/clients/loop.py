"""epoll, and sockets under it."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Final

from gateway.bench.link import LinkLostError

_RECEIVE_BYTES: Final = 256 * 1024
_EVENTS_MAX: Final = 512


class Loop:
    """Sockets that are read when there is something, and a tick between."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, Socket] = {}
        self.over = False
        """Ends `run`."""

    def add(self, sock: Socket) -> None:
        self._sockets[sock.fileno] = sock
        self._epoll.register(sock.fileno, select.EPOLLIN)

    def discard(self, sock: Socket) -> None:
        if self._sockets.pop(sock.fileno, None) is not None:
            self._epoll.unregister(sock.fileno)

    def want_to_write(self, sock: Socket, wanted: bool) -> None:
        self._epoll.modify(sock.fileno, select.EPOLLIN | select.EPOLLOUT if wanted else select.EPOLLIN)

    def run(self, tick: Callable[[], float | None], limit_s: float) -> bool:
        """Until `over`; False where that takes longer than `limit_s`. `tick` says in how many seconds it is due."""
        deadline = time.monotonic() + limit_s
        while True:
            wait_s = tick()
            if self.over:
                break
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._turn(left_s if wait_s is None else min(max(wait_s, 0.0), left_s))
        self.over = False
        return True

    def _turn(self, wait_s: float) -> None:
        sockets = self._sockets
        for fileno, events in self._epoll.poll(wait_s, _EVENTS_MAX):
            sock = sockets.get(fileno)
            if sock is not None:
                sock.react(events)

    def linger(self, seconds: float) -> None:
        """Hear for a while, at least what has come: so that what was sent last is carried out, and pings answered."""
        self._turn(0.0)
        self.run(lambda: None, seconds)
        self.over = False


class Socket:
    """One connection; `hear` is called with what comes."""

    __slots__ = ("_loop", "_pending", "_receive", "_sock", "fileno", "hear")

    def __init__(self, loop: Loop, sock: socket.socket, hear: Callable[[bytes], None]) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._receive = sock.recv
        self._pending: list[memoryview] = []
        self.fileno = sock.fileno()
        self.hear = hear
        loop.add(self)

    @property
    def unsent(self) -> bool:
        return bool(self._pending)

    def send(self, data: bytes) -> None:
        """Now as far as it goes, the rest when there is room."""
        if self._pending:
            self._pending.append(memoryview(data))
            return
        sent = self._offer(data)
        if sent < len(data):
            self._pending.append(memoryview(data)[sent:])
            self._loop.want_to_write(self, True)

    def _offer(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise LinkLostError(f"the connection broke: {error}") from None

    def react(self, events: int) -> None:
        """epoll says there is something. Raises LinkLostError."""
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT:
            try:
                data = self._receive(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                raise LinkLostError(f"the connection broke: {error}") from None
            if not data:
                raise LinkLostError("the gateway ended the connection")
            self.hear(data)

    def _flush(self) -> None:
        while self._pending:
            first = self._pending[0]
            sent = self._offer(first)
            if sent < len(first):
                self._pending[0] = first[sent:]
                return
            del self._pending[0]
        self._loop.want_to_write(self, False)

    def close(self) -> None:
        self._loop.discard(self)
        self._sock.close()


def dial(host: str, port: int, timeout_s: float) -> socket.socket:
    """A TCP connection, which blocks. Raises LinkLostError."""
    try:
        sock = socket.create_connection((host, port), timeout_s)
    except OSError as error:
        raise LinkLostError(f"{host}:{port}: {error.strerror or error}; is the gateway there?") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
