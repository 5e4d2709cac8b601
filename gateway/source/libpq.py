"""A connection to PostgreSQL on this run loop: psycopg's libpq, waited for with trio.

psycopg's own async connection needs asyncio. Its `psycopg.pq` is the documented layer below: libpq's non-blocking
calls, which never wait, and whose socket trio can wait for. That is sounder here than a worker thread with the blocking
connection: a cancelled wait leaves nothing behind, a server that hangs holds no thread, and waiting for a notification
costs neither. The order of calls is that of libpq's manual, "Asynchronous Command Processing" and PQconnectStart.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

import psycopg
import trio
from psycopg import conninfo, pq

from gateway.source.base import SourceError

_GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class Connection:
    """One session. For one task; any SourceError of it is its end."""

    def __init__(self, connection: pq.abc.PGconn) -> None:
        self._pg = connection

    @classmethod
    async def open(cls, url: str, timeout_s: float) -> Connection:
        """Connect by a libpq connection string or URL. Raises SourceError, also where it takes too long."""
        try:
            with trio.fail_after(timeout_s):
                text = await _resolved(url)
                pg = pq.PGconn.connect_start(text.encode())
                try:
                    await _finish_connecting(pg)
                except BaseException:
                    pg.finish()
                    raise
        except trio.TooSlowError:
            raise SourceError(f"PostgreSQL did not answer within {timeout_s:g} s") from None
        except psycopg.Error as error:
            raise SourceError(f"PostgreSQL: {_one_line(str(error))}") from None
        pg.nonblocking = 1
        return cls(pg)

    def close(self) -> None:
        self._pg.finish()

    async def execute(
        self, statement: bytes, values: Sequence[bytes | None] = (), timeout_s: float = 60.0
    ) -> pq.abc.PGresult:
        """One statement with values as text. Raises SourceError with what the server said."""
        try:
            with trio.fail_after(timeout_s):
                self._pg.send_query_params(statement, list(values))
                await self._flush()
                result = await self._result()
        except trio.TooSlowError:
            raise SourceError(f"PostgreSQL did not finish a statement within {timeout_s:g} s") from None
        except psycopg.Error as error:
            raise SourceError(f"PostgreSQL: {_one_line(str(error))}") from None
        if result.status not in _GOOD:
            raise SourceError(f"PostgreSQL: {_one_line(result.get_error_message())}")
        return result

    async def _flush(self) -> None:
        """Send what is queued; the server may want to be read from meanwhile."""
        while self._pg.flush():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_first, trio.lowlevel.wait_writable, self._pg.socket, nursery.cancel_scope)
                nursery.start_soon(_first, trio.lowlevel.wait_readable, self._pg.socket, nursery.cancel_scope)
            self._pg.consume_input()

    async def _result(self) -> pq.abc.PGresult:
        """The last result of the statement; there is one for each, and then None."""
        found: pq.abc.PGresult | None = None
        while True:
            while self._pg.is_busy():
                await trio.lowlevel.wait_readable(self._pg.socket)
                self._pg.consume_input()
            result = self._pg.get_result()
            if result is None:
                break
            if found is None or found.status in _GOOD:  # the first error says most
                found = result
        if found is None:
            raise SourceError("PostgreSQL: the connection was lost")
        return found

    async def wait_notified(self, timeout_s: float) -> bool:
        """Wait for a notification; True at once where some came meanwhile. False after `timeout_s`."""
        with trio.move_on_after(timeout_s):
            while not self._take_notifications():
                await trio.lowlevel.wait_readable(self._pg.socket)
                try:
                    self._pg.consume_input()
                except psycopg.Error as error:
                    raise SourceError(f"PostgreSQL: {_one_line(str(error))}") from None
            return True
        return False

    def _take_notifications(self) -> bool:
        some = False
        while self._pg.notifies() is not None:
            some = True
        return some


async def _first(wait: object, descriptor: int, scope: trio.CancelScope) -> None:
    await wait(descriptor)  # type: ignore[operator]
    scope.cancel()


async def _finish_connecting(pg: pq.abc.PGconn) -> None:
    if pg.status == pq.ConnStatus.BAD:
        raise SourceError(f"PostgreSQL: {_one_line(pg.get_error_message())}")
    step: int = pq.PollingStatus.WRITING
    while step != pq.PollingStatus.OK:  # the socket may be another one after each step
        if step == pq.PollingStatus.READING:
            await trio.lowlevel.wait_readable(pg.socket)
        else:
            await trio.lowlevel.wait_writable(pg.socket)
        step = pg.connect_poll()
        if step == pq.PollingStatus.FAILED:
            raise SourceError(f"PostgreSQL: {_one_line(pg.get_error_message())}")


async def _resolved(url: str) -> str:
    """`url` with the addresses of its host names: libpq's own look-up would block.

    A host with several addresses is written once for each, which libpq then tries in turn.
    """
    parameters = conninfo.conninfo_to_dict(url)
    hosts = str(parameters.get("host") or "").split(",")
    if parameters.get("hostaddr") or not any(map(_is_name, hosts)):
        return url
    ports = str(parameters.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    found: list[tuple[str, str, str]] = []
    for host, port in zip(hosts, ports, strict=False):
        found += [(host, address, port) for address in await _addresses(host)]
    names, addresses, numbers = zip(*found, strict=True)
    return conninfo.make_conninfo(
        url, host=",".join(names), hostaddr=",".join(addresses), port=",".join(numbers) if any(numbers) else None
    )


def _is_name(host: str) -> bool:
    """Not a Unix socket."""
    return bool(host) and not host.startswith(("/", "@"))


async def _addresses(host: str) -> list[str]:
    if not _is_name(host):
        return [""]
    try:
        found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SourceError(f"PostgreSQL: the host {host!r} is not found: {error.strerror}") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _one_line(text: str) -> str:
    return " ".join(text.split())
