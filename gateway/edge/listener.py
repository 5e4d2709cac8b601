"""Accepting connections: one task a listening socket, one task a connection."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Final

import structlog
import trio

from gateway.config import parse_address
from gateway.edge.poller import Poller
from gateway.edge.stream import OutboxStream, Unsent
from gateway.engine.base import Commits
from gateway.errors import ConfigError

_log = structlog.get_logger("gateway.listener")
_TURN = 64
"""Connections accepted before other tasks run."""
_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NOTSENT_LOWAT: Final = 25
"""TCP_NOTSENT_LOWAT of Linux (tcp(7)), which Python does not name everywhere: a socket takes no more while so much of
it has not been sent. What is on its way is not counted, so no connection gets slower, however long."""

Serve = Callable[[OutboxStream, str], Awaitable[None]]


class Listener:
    """One address. `serve` is called for each connection, in a task of its own."""

    def __init__(
        self,
        name: str,
        address: str,
        backlog: int,
        unsent: Unsent | None = None,
        kernel_bytes_max: int = 2**30,
        commits: Commits | None = None,
        joining: AbstractContextManager[None] | None = None,
    ) -> None:
        self.name = name
        self._unsent = unsent
        self._poller = Poller(None if unsent is None else unsent.gathering, commits, joining)
        self._kernel_bytes_max = kernel_bytes_max
        self._sockets = [_bind(name, info, backlog) for info in _resolve(name, address)]
        self.accepted = 0
        self.refused = 0
        self.open = 0
        self._open_by_host: dict[str, int] = {}

    @property
    def address(self) -> str:
        """HOST:PORT as bound, with the port that port 0 became."""
        host, port = self._sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def open_of(self, remote: str) -> int:
        """Open connections of the host of `remote`, HOST:PORT."""
        return self._open_by_host.get(_host(remote), 0)

    async def run(self, serve: Serve) -> None:
        """Accept until cancelled. Connections end with it."""
        async with trio.open_nursery() as looking:
            looking.start_soon(self._poller.run)
            async with trio.open_nursery() as connections:
                for sock in self._sockets:
                    connections.start_soon(self._accept_all, sock, serve, connections)
            looking.cancel_scope.cancel()

    async def _accept_all(self, listener: socket.socket, serve: Serve, connections: trio.Nursery) -> None:
        while True:
            try:
                await trio.lowlevel.wait_readable(listener)
            except (trio.ClosedResourceError, ValueError):
                return
            for _ in range(_TURN):
                try:
                    sock, peer = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _RESOURCES:
                        _log.error("cannot accept: out of descriptors or memory; raise LimitNOFILE", error=str(error))
                        await trio.sleep(0.1)
                        break
                    if listener.fileno() < 0:
                        return
                    continue  # that client has gone again
                self.accepted += 1
                connections.start_soon(self._serve, sock, f"{peer[0]}:{peer[1]}", serve, connections)

    async def _serve(self, sock: socket.socket, remote: str, serve: Serve, connections: trio.Nursery) -> None:
        host = _host(remote)
        self.open += 1
        self._open_by_host[host] = self._open_by_host.get(host, 0) + 1
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, self._kernel_bytes_max)
            stream = OutboxStream(sock, connections, self._unsent, self._poller)
            await serve(stream, remote)
        except Exception:
            _log.exception("a connection failed", remote=remote)
        finally:
            self.open -= 1
            self._open_by_host[host] -= 1
            if not self._open_by_host[host]:
                del self._open_by_host[host]
            sock.close()

    def close(self) -> None:
        """Accept no more; what is open goes on."""
        for sock in self._sockets:
            if sock.fileno() >= 0:
                trio.lowlevel.notify_closing(sock)
                sock.close()


def _host(remote: str) -> str:
    return remote.rpartition(":")[0]


def _resolve(name: str, address: str) -> list[tuple[int, tuple[str, int]]]:
    host, port = parse_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(f"listen.{name}: {address}: {error.strerror}; name an address of this machine") from None
    addresses = [(int(family), (str(peer[0]), int(peer[1]))) for family, _, _, _, peer in found]
    return addresses[:1] if port == 0 else list(dict.fromkeys(addresses))


def _bind(name: str, info: tuple[int, tuple[str, int]], backlog: int) -> socket.socket:
    family, address = info
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"listen.{name}: {address[0]}:{address[1]}: {error.strerror}; "
            f"stop what listens there, or choose another address"
        ) from None
    return sock
