"""Single publishes that come in one turn of the poller, and differ in their payload alone, travel as one batch.

A publish of one message costs the stages, the trace and the answering stage as much as a batch does. So those on one
topic, of one principal, that ask for the same durability are put together while the poller's turn lasts, and are one
batch at its end: nobody waits for that. Each is answered for itself, and the trace knows where each came from. Only
what has a payload of JSON and nothing else is joined.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from gateway.config import Limits
from gateway.edge.answers import answer_one
from gateway.edge.http import HttpConnection
from gateway.errors import GatewayError
from gateway.flow.admit import Admit
from gateway.flow.append import FEW, FEW_BYTES
from gateway.flow.ring import Wait
from gateway.model import Batch, Durability, Message
from gateway.principal import Principal

_SIZE_MAX: Final = FEW_BYTES // 4
"""Bytes of a payload that is joined: of larger ones the payload is what costs."""


class Joined(Batch):
    """Several publishes of one message each; `connections` wait for the answers, in the order of the messages."""

    __slots__ = ("connections",)

    def __init__(self, durability: Durability, epoch: str, principal: Principal) -> None:
        super().__init__([], durability, 0, partial(_answer_each, epoch), principal)
        self.connections: list[HttpConnection] = []
        self.origins: list[str] = []

    def add(self, message: Message, size: int, connection: HttpConnection) -> None:
        self.messages.append(message)
        self.size += size
        self.connections.append(connection)
        self.origins.append(connection.remote)


class Joining:
    """Entered for each turn of the poller; `run` is the task of what found no room at its end."""

    def __init__(self, admit: Admit, limits: Limits, epoch: str) -> None:
        self._admit = admit
        self._epoch = epoch
        self._messages_max = min(FEW, limits.batch_messages_max)
        self._open: dict[str, Joined] = {}  # by topic
        self._is_entered = False
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def __enter__(self) -> None:
        self._is_entered = self._nursery is not None

    def __exit__(self, *_: object) -> None:
        self._is_entered = False
        if self._open:
            joined, self._open = self._open, {}
            for batch in joined.values():
                self._send(batch)

    def add(
        self, message: Message, size: int, durability: Durability, principal: Principal, connection: HttpConnection
    ) -> bool:
        """Have `message`, of `size` bytes and plain, published with others, and `connection` answered.

        False, and nothing done, where it has to go by itself; so has what is not permitted, which is audited singly.
        """
        if not self._is_entered or size > _SIZE_MAX:
            return False
        batch = self._open.get(message.topic)
        if batch is None or len(batch.messages) >= self._messages_max or batch.size + size > FEW_BYTES:
            if not principal.may_publish(message.topic):
                return False
            if batch is not None:
                self._send(batch)
            batch = self._open[message.topic] = Joined(durability, self._epoch, principal)
        elif batch.principal is not principal or batch.durability is not durability:
            return False
        batch.add(message, size, connection)
        return True

    def _send(self, batch: Joined) -> None:
        try:
            wait = self._admit.offer(batch)
        except GatewayError as error:
            batch.fail(error)
            return
        if wait is not None:
            assert self._nursery is not None  # or nothing would have been joined
            self._nursery.start_soon(self._wait, batch, wait)

    async def _wait(self, batch: Joined, wait: Wait) -> None:
        try:
            await wait()
        except GatewayError as error:
            batch.fail(error)


def _answer_each(epoch: str, batch: Batch) -> None:
    assert isinstance(batch, Joined)
    for index, connection in enumerate(batch.connections):
        answer_one(connection, epoch, batch, index)
