"""WebSocket connections: opened and attached many at a time, then under the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import orjson

from gateway.bench.clients.loop import Loop, Socket, dial
from gateway.bench.frames import CLOSE, PING, PONG, TEXT, Frame, FrameReader, Handshake, client_frame
from gateway.bench.link import LinkLostError, authorization
from gateway.bench.load import raise_if_ending, subscribe
from gateway.bench.plan import PATH, Address

AT_ONCE: Final = 64
_TIMEOUT_S: Final = 30.0
_RECEIVE_BYTES: Final = 64 * 1024
_END_OF_HEAD: Final = b"\r\n\r\n"


class Opening:
    """A connection that is being opened; blocks."""

    def __init__(self, address: Address) -> None:
        self.sock = dial(address.host, address.port, _TIMEOUT_S)
        self.reader = FrameReader()
        self._frames: list[Frame] = []
        self._handshake = Handshake(address.netloc, PATH, authorization(address))
        self.sock.sendall(self._handshake.request)

    def shake_hands(self) -> None:
        """The answer, and the welcome. Raises LinkLostError."""
        answer = b""
        while _END_OF_HEAD not in answer:
            answer += self._receive()
        head, _, rest = answer.partition(_END_OF_HEAD)
        wrong = self._handshake.check(head)
        if wrong:
            raise LinkLostError(wrong)
        self._frames += self.reader.feed(rest)
        self._next()

    def ask(self, operation: bytes) -> None:
        self.sock.sendall(client_frame(operation))

    def wait_ok(self) -> None:
        """Raises LinkLostError where the answer is none."""
        answer = orjson.loads(self._next())
        if answer.get("op") != "ok":
            raise LinkLostError(f"{answer.get('code', answer.get('op'))}: {answer.get('message', '')}")

    def _next(self) -> bytes:
        """The next text."""
        while True:
            while self._frames:
                opcode, payload = self._frames.pop(0)
                if opcode == TEXT:
                    return payload
            self._frames += self.reader.feed(self._receive())

    def _receive(self) -> bytes:
        try:
            data = self.sock.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise LinkLostError(f"no answer while connecting: {error}") from None
        if not data:
            raise LinkLostError("the gateway ended the connection")
        return data

    @property
    def early(self) -> list[bytes]:
        """Texts that have come behind the last answer."""
        return [payload for opcode, payload in self._frames if opcode == TEXT]


class Connection:
    """One under the loop: texts in, operations out; pings are answered."""

    __slots__ = ("_on_text", "_reader", "socket")

    def __init__(self, loop: Loop, opened: Opening, on_text: Callable[[bytes], None]) -> None:
        self._reader = opened.reader
        self._on_text = on_text
        self.socket = Socket(loop, opened.sock, self._hear)
        for text in opened.early:
            on_text(text)

    def offer(self, operation: bytes) -> None:
        self.socket.send(client_frame(operation))

    def _hear(self, data: bytes) -> None:
        for opcode, payload in self._reader.feed(data):
            if opcode == TEXT:
                self._on_text(payload)
            elif opcode == PING:
                self.socket.send(client_frame(payload, PONG))
            elif opcode == CLOSE:
                code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")
                raise LinkLostError(f"the gateway closed a connection with {code} {reason}".rstrip())


def open_many(address: Address, names: Sequence[str | None], window: int) -> Iterator[list[Opening]]:
    """A connection for each, attached to the subscription of that name; None: to none. Some at a time: those that are
    there already want to be heard meanwhile, or they are taken for dead."""
    for first in range(0, len(names), AT_ONCE):
        some = [(Opening(address), name) for name in names[first : first + AT_ONCE]]
        for opening, _ in some:
            opening.shake_hands()
        for opening, name in some:
            if name is not None:
                opening.ask(subscribe(name, window))
        for opening, name in some:
            if name is not None:
                opening.wait_ok()
        yield [opening for opening, _ in some]


def open_one(address: Address) -> Opening:
    """A connection that is attached to nothing."""
    [[opening]] = open_many(address, [None], 1)
    return opening


def pass_over(text: bytes) -> None:
    """What is neither a delivery nor an answer: LinkLostError where it spoils the measurement."""
    raise_if_ending(orjson.loads(text))
