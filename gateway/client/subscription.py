"""Reading a subscription: `async for`, with an ack for each body that was left normally.

Python does not tell an iterator how the body of its `async for` was left: a `break` and an exception look alike, as
silence. So two things settle a message by themselves. *Asking for the next* acks the one before: its body was left
normally. *Leaving a context* settles the one in hand: `async with gateway.subscribe(...)`, or, where there is none, the
`async with client.connect(...)` around it. Normally, or by `break`: ack. By an exception: nack, and the subscription's
backoff decides when it comes again. By cancellation or Ctrl-C: neither; the message is not to blame, and goes back at
once.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import trio

from gateway.client.attachment import Attachment
from gateway.client.errors import answered
from gateway.client.received import ReceivedBatch, ReceivedMessage
from gateway.errors import GatewayError
from gateway.wire import push_v1

if TYPE_CHECKING:
    from typing import Self

    from gateway.client.session import Session

STEPS_PER_CHECKPOINT: Final = 64
"""A step of `async for` that finds a message waiting does not pause; each 64th does. A checkpoint costs 3 us, the rest
of a step 1 us, and other tasks have their turn often enough."""
LEAVE_S: Final = 2.0
"""Leaving waits this long for the gateway to confirm; after it the name may be read again."""


class _Settleable(Protocol):
    def ack_nowait(self) -> None: ...

    def nack_nowait(self, *, delay_ms: int | None = None, reason: str = "") -> None: ...


T = TypeVar("T", bound=_Settleable)


class Host(Protocol):
    """What a subscription needs of its `Gateway`."""

    @property
    def session(self) -> Session | None:
        """What is said over the open connection."""

    def later(self, attempt: int, act: Callable[[], None]) -> None:
        """Call `act` after the backoff of this attempt."""

    def register(self, reading: Reading[Any]) -> None:
        """Have `resume` called for each new connection. Raises where the name is read already, or all is over."""

    def unregister(self, reading: Reading[Any]) -> None: ...


class Reading(Generic[T]):
    """What both forms of a subscription share: it attaches, resumes on every new connection, waits, and leaves."""

    def __init__(self, host: Host, name: str, window: int | None, auto_ack: bool) -> None:
        self.name = name
        self.window = window
        self.auto_ack = auto_ack
        self._host = host
        self._attachment: Attachment | None = None
        self._in_hand: T | None = None
        self._registered = False
        self._left = False
        self._answered = trio.Event()
        self._failure: Exception | None = None
        self._resume_attempts = 0
        self._lot = trio.lowlevel.ParkingLot()

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.let_go(error)
        await self._leave()

    # ------------------------------------------------------------------------- called by the gateway; do not wait

    def resume(self, session: Session) -> None:
        """There is a new connection: attach to it."""
        attachment = session.attach(self.name, self.window, self._wake, lambda answer: self._hear(answer, attachment))
        self._attachment = attachment

    def _hear(self, answer: push_v1.Ok | push_v1.Error | None, attachment: Attachment) -> None:
        if attachment is not self._attachment or answer is None:
            return  # of an earlier connection, or this one has ended: `resume` comes
        if isinstance(answer, push_v1.Ok):
            self._resume_attempts = 0
            self._answered.set()
            return
        self._attachment = None
        if answer.temporary and self._answered.is_set():
            self._host.later(self._resume_attempts, self._resume_if_detached)
            self._resume_attempts += 1
        else:
            self.fail(answered(answer.code, answer.message, answer.temporary))

    def _resume_if_detached(self) -> None:
        if self._registered and self._attachment is None and self._host.session is not None:
            self.resume(self._host.session)

    def fail(self, error: Exception) -> None:
        """There will be no more messages: whoever asks for one gets `error`."""
        self._failure = error
        if self._registered:
            self._registered = False
            self._host.unregister(self)
        self._answered.set()
        self._wake()

    def let_go(self, error: BaseException | None) -> None:
        """Settle what is in hand as the way out says; see the head of this file."""
        in_hand, self._in_hand = self._in_hand, None
        if in_hand is None:
            return
        if error is None:
            in_hand.ack_nowait()
        elif isinstance(error, Exception):
            in_hand.nack_nowait(reason=type(error).__name__)

    def _wake(self) -> None:
        self._lot.unpark_all()

    # ----------------------------------------------------------------------------------------------------- wait

    async def _start(self) -> None:
        if self._registered:
            return
        self._check()
        self._host.register(self)
        self._registered = True
        if self._host.session is not None:
            self.resume(self._host.session)
        try:
            await self._answered.wait()
        except trio.Cancelled:
            await self._leave()
            raise
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._left:
            raise trio.ClosedResourceError(f"subscription {self.name} has been left")

    async def _waiting(self) -> Attachment:
        """The attachment, once messages wait at it. Acks that wait go out first: nothing else would be delivered."""
        await self._start()
        while True:
            self._check()
            attachment = self._attachment
            if attachment is not None:
                if attachment.frames:
                    return attachment
                attachment.flush()
            if self.auto_ack and self._lot:
                raise trio.BusyResourceError(
                    f"two tasks wait for messages of {self.name}: pass auto_ack=False and settle each message"
                )
            await self._lot.park()

    async def _leave(self) -> None:
        self._left = True
        if not self._registered:
            return
        self._registered = False
        attachment, self._attachment = self._attachment, None
        session = self._host.session
        if attachment is not None and attachment.alive and session is not None:
            left = trio.Event()
            session.detach(attachment, lambda _: left.set())
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
                await left.wait()
        self._host.unregister(self)
        self._wake()


class Subscription(Reading[ReceivedMessage]):
    """Messages of a subscription, one by one: an async iterator, better used as a context manager too.

        async with gateway.subscribe("orders") as messages:
            async for message in messages:
                await book(message.data)      # left normally: ack; left by an exception: nack

    One task reads it. Where several tasks share one, pass `auto_ack=False` and say `message.ack()`.
    """

    _steps = 0

    async def __anext__(self) -> ReceivedMessage:
        if self._in_hand is not None:
            self._in_hand.ack_nowait()
            self._in_hand = None
        self._steps += 1
        attachment = self._attachment
        if attachment is not None and self._steps % STEPS_PER_CHECKPOINT:
            message = attachment.take(trio.current_time())
            if message is not None:
                if self.auto_ack:
                    self._in_hand = message
                return message
        return await self._wait_for_next()

    async def _wait_for_next(self) -> ReceivedMessage:
        await trio.lowlevel.checkpoint()
        while True:
            message = (await self._waiting()).take(trio.current_time())
            if message is not None:
                if self.auto_ack:
                    self._in_hand = message
                return message


class BatchSubscription(Reading[ReceivedBatch]):
    """Messages of a subscription as they wait together, the fastest way to read: asking for the next batch acks what
    is not settled of the one before, and an exception nacks it."""

    def __init__(self, host: Host, name: str, window: int | None, auto_ack: bool, batch_max: int) -> None:
        super().__init__(host, name, window, auto_ack)
        self._batch_max = batch_max

    async def __anext__(self) -> ReceivedBatch:
        if self._in_hand is not None:
            self._in_hand.ack_nowait()
            self._in_hand = None
        await trio.lowlevel.checkpoint()
        while True:
            messages = (await self._waiting()).take_many(self._batch_max, trio.current_time())
            if messages:
                batch = ReceivedBatch(messages)
                if self.auto_ack:
                    self._in_hand = batch
                return batch


def already_read(name: str) -> GatewayError:
    return GatewayError(
        "already_subscribed",
        f"subscription {name} is being read already; leave it first, or share it with auto_ack=False",
    )
