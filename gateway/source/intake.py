"""The door of the flow as a source uses it: publish, and wait for what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio

from gateway.model import Batch, Durability, Message, Result, Stored

Submit = Callable[[Batch], Awaitable[None]]


class Intake:
    """`base.Publish` over the first stage's `submit`. All is asked to be fsynced: an upstream forgets after it."""

    def __init__(self, submit: Submit, source: str) -> None:
        self._submit = submit
        self._source = source

    async def publish(self, messages: Sequence[Message]) -> list[Result]:
        """The outcome of each message, in their order. Raises GatewayError where the whole batch was not taken."""
        answered = trio.Event()
        batch = Batch(list(messages), Durability.FSYNCED, sum(map(_size, messages)), lambda _batch: answered.set())
        batch.origin = f"source {self._source}"
        await self._submit(batch)
        await answered.wait()
        if batch.error is not None:
            raise batch.error
        if batch.results is None:
            return [Stored(m.id or "", position) for position, m in enumerate(messages, batch.first)]
        assert all(result is not None for result in batch.results)
        return [result for result in batch.results if result is not None]


def _size(message: Message) -> int:
    """Bytes of a message as an edge would have received it, near enough for the budget of what is under way."""
    size = 0 if message.data is msgspec.UNSET else len(memoryview(message.data))
    return size + len(message.data_base64 or "") + sum(map(len, message.attributes or ()))
