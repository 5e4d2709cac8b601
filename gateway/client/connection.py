"""One WebSocket connection: made, spoken over, and ended with a reason. `session.py` decides; this file waits.

One task writes, and only the end of the connection cancels it: a send that is cancelled half way leaves half a frame.
One task reads, always, so that no answer ever waits behind messages; how much it may read is bounded by the windows of
the subscriptions.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import attrs
import msgspec
import trio
import trio_websocket
import wsproto.utilities

from gateway.client.attachment import TICK_S
from gateway.client.dialing import Address, WatchedStream, handshake, is_expired, read_refusal
from gateway.client.errors import FINAL_STATUSES, may_reconnect
from gateway.client.renewal import delay_s
from gateway.client.session import Session
from gateway.wire import cloudevents, push_v1

logger = logging.getLogger("gateway.client")

ACK_DELAY_S: Final = 0.02
"""Acks wait this long for each other while the program is busy with the next message."""
DRAIN_S: Final = 5.0
"""After a drain frame, messages in hand and publishes on their way may take this long; a gateway gives 10 s."""
SILENCE_BEATS: Final = 2
SILENCE_GRACE_S: Final = 8.0
"""A gateway pings every `heartbeat_s`. Two beats and this much later without a byte, it is taken for dead."""

_LOST: Final = (
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    wsproto.utilities.LocalProtocolError,  # a ping answered while the connection closes raises it in the library
    wsproto.utilities.RemoteProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    OSError,
)


@attrs.frozen
class End:
    """Why a connection ended: a close code (1006 where there was none) or the HTTP status of a refused handshake."""

    code: int
    reason: str
    reconnect_ms: tuple[int, int] | None = None
    """The gateway drained, and asked for this delay before the next connection."""
    is_renewable: bool = False
    """The token had ended, and the program's function gives a fresh one for each connection."""

    @property
    def is_final(self) -> bool:
        """Whether another connection would end the same way."""
        if self.is_renewable:
            return False
        return self.code in FINAL_STATUSES if self.code < 1000 else not may_reconnect(self.code)


class Connection:
    """One connection to the gateway; `run` is called once."""

    def __init__(self, address: Address, session: Session, close_timeout_s: float) -> None:
        self._address = address
        self._session = session
        self._close_timeout_s = close_timeout_s
        self._closed = trio.Event()

    async def run(self) -> End:
        """Dial, speak until the end, and say why it ended. Raises only what nobody foresaw."""
        end = self._end(1006, "the connection was lost")
        try:
            end = await self._dial_and_speak()
        except* _LOST as group:
            end = self._translate(group)
        finally:
            self._session.end(trio.current_time())
        return end

    def _end(self, code: int, reason: str) -> End:
        session = self._session
        if session.last_error is not None and not reason:
            reason = session.last_error.message
        return End(code, reason, session.drain.reconnect_ms if session.drain is not None else None)

    def _translate(self, group: BaseExceptionGroup[BaseException]) -> End:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, trio_websocket.ConnectionRejected):
            renewable = callable(self._address.token) and is_expired(error)
            return attrs.evolve(self._end(error.status_code, read_refusal(error)), is_renewable=renewable)
        return self._end(1006, str(error) or type(error).__name__)

    async def _dial_and_speak(self) -> End:
        end = self._end(1006, "the gateway has been silent for too long")
        try:
            token = await self._address.fresh_token()
        except trio.TooSlowError:
            return self._end(1006, "the program's function gave no token in time")
        try:
            stream = await self._address.dial()
        except trio.TooSlowError:
            return self._end(1006, f"{self._address.netloc} does not answer")
        async with WatchedStream(stream) as watched, trio.open_nursery() as nursery:
            ws = await handshake(nursery, watched, self._address, token)
            if ws is None:
                end = self._end(1006, f"{self._address.netloc} does not answer the handshake")
            elif ws.subprotocol != push_v1.SUBPROTOCOL:
                end = self._end(1002, f"{self._address.netloc} does not speak {push_v1.SUBPROTOCOL}: is it a gateway?")
            else:
                nursery.start_soon(self._renew_token, token)
                end = await self._speak(ws, watched, nursery)
            nursery.cancel_scope.cancel()
        return end

    async def _speak(self, ws: trio_websocket.WebSocketConnection, stream: WatchedStream, nursery: trio.Nursery) -> End:
        self._session.say_hello(self._address.name)
        nursery.start_soon(self._write, ws)
        nursery.start_soon(self._send_acks_in_time)
        nursery.start_soon(self._keep_leases)
        nursery.start_soon(self._drain_when_told, nursery.cancel_scope)
        nursery.start_soon(self._watch, stream, nursery.cancel_scope)
        end = await self._read(ws)
        if self._session.finishing:
            await self._closed.wait()  # cut before the closing handshake, our last acks might never be read
        return end

    async def _read(self, ws: trio_websocket.WebSocketConnection) -> End:
        while True:
            try:
                text = await ws.get_message()
            except trio_websocket.ConnectionClosed as closed:
                if closed.reason is None:
                    return self._end(1006, "")
                return self._end(closed.reason.code, closed.reason.reason or "")
            try:
                frame = _decode(text)
            except msgspec.DecodeError as error:
                logger.warning("passed over a frame that is none of %s: %s", push_v1.SUBPROTOCOL, error)
                continue
            self._session.handle(frame, trio.current_time())

    async def _write(self, ws: trio_websocket.WebSocketConnection) -> None:
        session = self._session
        while True:
            frame = session.take_frame(trio.current_time())
            if frame is not None:
                try:
                    await ws.send_message(frame.decode())
                except trio_websocket.ConnectionClosed:
                    break  # the reader knows why
            elif session.finishing:
                break
            else:
                await session.to_send.wait()
                session.to_send = trio.Event()
        with trio.move_on_after(self._close_timeout_s):
            await ws.aclose()
        self._closed.set()

    async def _renew_token(self, token: str | None) -> None:
        """Say hello with a fresh token before the one in use ends, and the gateway closes with 3005."""
        while token is not None and callable(self._address.token):
            wait_s = delay_s(token, time.time())
            if wait_s is None:
                return
            await trio.sleep(wait_s)
            try:
                token = await self._address.fresh_token()
            except trio.TooSlowError:
                continue
            answer = await self._session.ask({"op": "hello", "token": token, "client": self._address.name})
            if isinstance(answer, push_v1.Error):
                logger.warning("%s does not take the fresh token: %s", self._address.netloc, answer.message)

    async def _send_acks_in_time(self) -> None:
        while True:
            await self._session.acks_wait.wait()
            await trio.sleep(ACK_DELAY_S)
            self._session.flush_soon_due()

    async def _keep_leases(self) -> None:
        session = self._session
        while True:
            await session.messages_wait.wait()
            holding = [attachment for attachment in session.attachments if attachment.frames]
            await trio.sleep(min((attachment.tick_s for attachment in holding), default=TICK_S))
            for attachment in session.attachments:
                attachment.keep_leases(trio.current_time())
            if not any(attachment.frames for attachment in session.attachments):
                session.messages_wait = trio.Event()

    async def _drain_when_told(self, scope: trio.CancelScope) -> None:
        session = self._session
        await session.draining.wait()
        with trio.move_on_after(DRAIN_S):
            while session.is_busy:
                session.progress = trio.Event()
                await session.progress.wait()
        session.finish()
        await trio.sleep(self._close_timeout_s)
        scope.cancel()  # the socket takes nothing any more

    async def _watch(self, stream: WatchedStream, scope: trio.CancelScope) -> None:
        """End a connection on which nothing comes, not even a ping."""
        await trio.sleep(self._address.timeout_s)
        while (welcome := self._session.welcome) is not None:
            due_s = stream.received_s + SILENCE_BEATS * welcome.heartbeat_s + SILENCE_GRACE_S
            if trio.current_time() >= due_s:
                break
            await trio.sleep_until(due_s)
        scope.cancel()


def _decode(text: str | bytes) -> push_v1.AnyServerFrame:
    """One frame of the gateway; a subscription may be written as CloudEvents. Raises msgspec.DecodeError."""
    try:
        return push_v1.decode_server(text)
    except msgspec.ValidationError as error:
        try:
            return cloudevents.decode_events(text)
        except msgspec.DecodeError:
            raise error from None
