"""`connect`: one gateway, kept connected until the program leaves."""

from __future__ import annotations

import logging
import math
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

import trio

from gateway import __version__
from gateway.client.connection import Connection, End
from gateway.client.dialing import Address, OpenStream, Token, parse_url
from gateway.client.errors import ClientError, ConnectionEndedError, NotConnectedError
from gateway.client.message import Message
from gateway.client.publishing import Limits, Publication, Publisher, Result, Stored, split
from gateway.client.session import Session
from gateway.client.subscription import BatchSubscription, Reading, Subscription, already_read
from gateway.kit.backoff import full_jitter_s

logger = logging.getLogger("gateway.client")

BACKOFF_BASE_S: Final = 0.5
BACKOFF_CAP_S: Final = 20.0
SETTLED_S: Final = 10.0
"""A connection that stood this long was a good one: the next backoff starts small again."""
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Largest frame taken from the gateway; its own are 256 KiB, or one message of the largest payload."""
CANCELLED_CLOSE_S: Final = 1.0
"""A program that is cancelled still tells what it has finished, if the gateway takes it this soon."""


class Gateway:
    """A gateway as a program sees it: publish to it, subscribe to it. It comes from `connect`."""

    def __init__(self, address: Address, close_timeout_s: float, nursery: trio.Nursery) -> None:
        self._address = address
        self._nursery = nursery
        self._close_timeout_s = close_timeout_s
        self._publisher = Publisher()
        self._readings: dict[str, Reading[Any]] = {}
        self._ended: ClientError | None = None
        self._closing = False
        self._opened = trio.Event()  # connected for the first time, or never
        self._stopped = trio.Event()
        self._current: Session | None = None

    # ---------------------------------------------------------------------------------------------------- publish

    async def publish(
        self,
        topic: str,
        data: object,
        *,
        id: str | None = None,
        key: str | None = None,
        attributes: Mapping[str, str] | None = None,
        delay_ms: int = 0,
        ttl_ms: int = 0,
        content_type: str | None = None,
        durability: str = "fsynced",
    ) -> Stored:
        """Publish one message and wait until it is stored as `durability` says (see `Message` for the rest).

        Any number of tasks may publish at once: their messages travel together. While there is no connection, it waits
        for the next; bound that with `trio.fail_after`.

        Raises GatewayError (its `code` says why the gateway refused), OutcomeUnknownError (the connection was lost
        before the answer, and the message has no id to be sent again with), ConnectionEndedError.
        """
        message = Message(
            topic=topic,
            data=data,
            id=id,
            key=key,
            attributes=attributes,
            delay_ms=delay_ms,
            ttl_ms=ttl_ms,
            content_type=content_type,
        )
        [result] = await self.publish_batch([message], durability=durability)
        if isinstance(result, Stored):
            return result
        raise result

    async def publish_batch(self, messages: Iterable[Message], *, durability: str = "fsynced") -> list[Result]:
        """Publish many at once; the results, in order, are each a Stored or the exception `publish` would raise.

        Any number: what is too much for one batch of the gateway is sent in several, in order. Raises only where
        nothing was sent: TypeError for data that JSON cannot say, ConnectionEndedError.
        """
        publications = list(split(messages, durability, self._publisher.limits))
        if self._ended is not None:
            raise self._ended
        await trio.lowlevel.checkpoint()
        for publication in publications:
            self._publisher.put(publication)
        if self.session is not None:
            self.session.to_send.set()
        results: list[Result] = []
        try:
            for publication in publications:
                await publication.done.wait()
                results += [result for result in publication.results if result is not None]
        except trio.Cancelled:
            self._withdraw(publications)
            raise
        return results

    def _withdraw(self, publications: list[Publication]) -> None:
        for publication in publications:
            self._publisher.withdraw(publication)

    # -------------------------------------------------------------------------------------------------- subscribe

    def subscribe(self, name: str, *, window: int | None = None, auto_ack: bool = True) -> Subscription:
        """Read a subscription message by message; see Subscription.

        `window`: how many messages may be here unsettled, waiting ones included: it bounds the memory they take. None
        leaves it to the subscription. Raises GatewayError at the first step (or on entering the context), such as
        `subscription_not_found`. Lost connections are mended behind it; only ConnectionEndedError ends it.
        """
        return Subscription(self, name, window, auto_ack)

    def subscribe_batches(
        self, name: str, *, window: int | None = None, batch_max: int = 500, auto_ack: bool = True
    ) -> BatchSubscription:
        """Read a subscription in batches of up to `batch_max` messages: whatever waits, never waiting for more."""
        return BatchSubscription(self, name, window, auto_ack, batch_max)

    # ------------------------------------------------------------------------------------------------- connection

    @property
    def connected(self) -> bool:
        """Whether there is an open connection at this moment."""
        return self.session is not None

    @property
    def connection_id(self) -> str | None:
        """The gateway's name for the open connection (`GET /v1/connections` of the control plane shows it)."""
        session = self.session
        return session.welcome.connection if session is not None and session.welcome is not None else None

    @property
    def session(self) -> Session | None:
        """What is said over the open connection; None while there is none."""
        current = self._current
        return current if current is not None and current.welcome is not None else None

    def later(self, attempt: int, act: Callable[[], None]) -> None:
        """Call `act` after the backoff of this attempt."""

        async def wait() -> None:
            await trio.sleep(full_jitter_s(attempt, BACKOFF_BASE_S, BACKOFF_CAP_S, random.random()))
            act()

        self._nursery.start_soon(wait)

    def register(self, reading: Reading[Any]) -> None:
        """A subscription wants to be resumed on every connection. Raises where its name is taken, or all is over."""
        if self._ended is not None:
            raise self._ended
        if reading.name in self._readings:
            raise already_read(reading.name)
        self._readings[reading.name] = reading

    def unregister(self, reading: Reading[Any]) -> None:
        self._readings.pop(reading.name, None)

    def _welcomed(self, session: Session) -> None:
        if session.welcome is not None:
            logger.info("connected to %s as %s", self._address.netloc, session.welcome.connection)
            self._publisher.limits = Limits.of(session.welcome.limits)
        self._opened.set()
        for reading in list(self._readings.values()):
            reading.resume(session)

    async def keep_connected(self, wait_s: float) -> None:
        """Connect, and connect again, until the end. The first connection may take `wait_s`."""
        give_up_s = trio.current_time() + wait_s
        attempt = 0
        try:
            while self._ended is None:
                started_s = trio.current_time()
                self._current = session = Session(self._publisher, self._welcomed)
                end = await Connection(self._address, session, self._close_timeout_s).run()
                self._current = None
                now_s = trio.current_time()
                if self._closing:
                    break
                if end.is_final:
                    self._end(ConnectionEndedError(end.code, end.reason))
                elif not self._opened.is_set() and now_s >= give_up_s:
                    self._end(NotConnectedError(f"cannot connect to {self._address.netloc}: {end.reason}"))
                else:
                    if end.reconnect_ms is not None or (session.welcome is not None and now_s - started_s >= SETTLED_S):
                        attempt = 0
                    await self._back_off(end, attempt, math.inf if self._opened.is_set() else give_up_s - now_s)
                    attempt += 1
        finally:
            self._current = None
            self._stopped.set()

    async def _back_off(self, end: End, attempt: int, longest_s: float) -> None:
        if end.reconnect_ms is not None:
            delay_s = random.uniform(*end.reconnect_ms) / 1000
        else:
            delay_s = full_jitter_s(attempt, BACKOFF_BASE_S, BACKOFF_CAP_S, random.random())
        delay_s = min(delay_s, longest_s)
        logger.warning(
            "%s: %s (%d); connecting again in %.1f s", self._address.netloc, end.reason or "closed", end.code, delay_s
        )
        await trio.sleep(delay_s)

    def _end(self, error: ClientError) -> None:
        self._ended = error
        if isinstance(error, ConnectionEndedError):
            self._publisher.end(error)
        for reading in list(self._readings.values()):
            reading.fail(error)
        self._opened.set()

    async def wait_opened(self) -> None:
        """Wait for the first connection; raises why there is none."""
        await self._opened.wait()
        if self._ended is not None:
            raise self._ended

    async def close(self, error: BaseException | None) -> None:
        """Settle what is in hand as `error` says, tell the gateway what it does not know yet, and close."""
        for reading in self._readings.values():
            reading.let_go(error)
        self._closing = True
        if self.session is not None:
            cancelled = error is not None and not isinstance(error, Exception | KeyboardInterrupt)
            limit_s = min(CANCELLED_CLOSE_S, self._close_timeout_s) if cancelled else self._close_timeout_s
            self.session.finish()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + limit_s):
                await self._stopped.wait()
        if self._ended is None:
            self._end(ConnectionEndedError(1000, "this program has left `connect`"))


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Token = None,
    name: str = f"push-gateway-python/{__version__}",
    wait_s: float = 0.0,
    timeout_s: float = 10.0,
    close_timeout_s: float = 5.0,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    tls: ssl.SSLContext | None = None,
    open_stream: OpenStream | None = None,
) -> AsyncIterator[Gateway]:
    """Connect to a gateway, and stay connected until the `async with` block is left.

    `url`: such as ws://127.0.0.1:8080/v1/connect, wss:// for TLS. `token`: the credential, an API key or a JSON Web
    Token, or an async function that gives a fresh one: for each connection, and again before a token ends. `name`: of
    this program and its version, as the gateway shows it.

    The first connection must succeed within `wait_s` (0: at once, with one attempt) or NotConnectedError is raised.
    After that lost connections are replaced without end, with full jitter, and subscriptions go on by themselves.

    `timeout_s`: of each attempt. `close_timeout_s`: how long leaving may take. `message_bytes_max`: largest frame
    taken. `tls`: a context of your own, for a private authority. `open_stream`: how to reach the gateway where it is
    not by TCP: a Unix socket, a tunnel, a test.

    Raises NotConnectedError, ConnectionEndedError (the gateway refuses this program), ValueError for a bad `url`.
    """
    host, port, resource, context = parse_url(url, tls)
    address = Address(host, port, resource, context, token, name, timeout_s, message_bytes_max, open_stream)
    try:
        async with trio.open_nursery() as nursery:
            gateway = Gateway(address, close_timeout_s, nursery)
            nursery.start_soon(gateway.keep_connected, wait_s)
            error: BaseException | None = None
            await gateway.wait_opened()
            try:
                yield gateway
            except BaseException as raised:
                error = raised
                raise
            finally:
                await gateway.close(error)
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        _raise_as_it_was(_of_the_body(group))


def _of_the_body(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What the body raised, without the group that the nursery puts around it."""
    causes = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
    return causes[0] if len(causes) == 1 else group


def _raise_as_it_was(error: BaseException) -> NoReturn:
    """Raise an exception without a trace of the group it came out of."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
