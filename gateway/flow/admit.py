"""admit: is this something the gateway takes? Permissions, limits and topics, each message answered for itself.

Also the door that edges publish through: `submit` is where a full gateway pushes back to its producers.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import Final

import msgspec
import trio

from gateway.config import Limits
from gateway.config import Ring as RingSettings
from gateway.errors import GatewayError
from gateway.flow.ring import Budget, Ring, Sink, Wait, overloaded
from gateway.model import Batch, Message, check_topic, is_topic
from gateway.steps import UNTRACED, Steps
from gateway.wire.limits import PLAIN_BYTES_MAX, check_attributes, check_payload, is_shallow

_TOPICS_MAX: Final = 100_000
"""Topics remembered as valid; beyond it the memory starts anew."""
_DATA: Final = attrgetter("data")
_VIEW: Final[Callable[[object], Sized]] = memoryview  # type: ignore[assignment]  # of a Raw, which has no len()
_TTL_MS_MAX: Final = 10 * 365 * 24 * 3600 * 1000  # ten years: keeps sums of times far from 2^53


class Admit:
    """The first stage."""

    def __init__(self, limits: Limits, ring: RingSettings, forward: Sink, steps: Steps = UNTRACED) -> None:
        self.ring: Ring[Batch] = Ring("admit", ring.items_max)
        self.budget = Budget(ring.bytes_max)
        self.closed: GatewayError | None = None
        """Set while nothing is accepted: the gateway drains, or its store has failed."""
        self.on_denied: Callable[[Batch, GatewayError], None] = lambda _batch, _error: None
        """Called for each batch with topics that its principal may not publish to."""
        self.doors: list[Callable[[Batch], None]] = []
        """Asked of each batch that comes from outside, before it takes a place; GatewayError refuses it whole."""
        self._limits = limits
        self._wait_s = ring.wait_ms / 1000
        self._forward = forward
        self._steps = steps
        self._topics: set[str] = set()
        if isinstance(forward, Ring):
            self.ring.at_once = partial(self._at_once, forward)

    def offer(self, batch: Batch) -> Wait | None:
        """Send `batch` on its way; its `done` will be called. What is returned waits for room, and is on its way then.

        Raises GatewayError where it is not taken; so does the waiting, where there is no room in time.
        """
        try:
            if self.closed:
                raise self.closed
            if not batch.trusted:
                for door in self.doors:
                    door(batch)
        except GatewayError as error:
            self._refused(batch, error)
            raise
        if not self.ring.takes() or not self.budget.take_now(batch.size):
            return partial(self._wait_for_room, batch)
        batch.on_finished = self.budget.give
        self.ring.put_nowait(batch, len(batch.messages))
        return None

    async def submit(self, batch: Batch) -> None:
        """The same, for whoever can wait."""
        wait = self.offer(batch)
        if wait is not None:
            await wait()

    def _refused(self, batch: Batch, error: GatewayError) -> None:
        self.ring.count_refused(len(batch.messages))
        self._steps.refused(batch, error, "admit")

    async def _wait_for_room(self, batch: Batch) -> None:
        try:
            await self.budget.take(batch.size, self._wait_s)
            batch.on_finished = self.budget.give
            await self._wait_for_place(batch)
        except GatewayError as error:
            self._refused(batch, error)
            raise

    async def _wait_for_place(self, batch: Batch) -> None:
        sent = False
        try:
            with trio.move_on_after(self._wait_s):
                await self.ring.put(batch, len(batch.messages))
                sent = True
        finally:
            if not sent:
                self.budget.give(batch.size)
        if not sent:
            raise overloaded(self._wait_s)

    async def run(self) -> None:
        while True:
            batch = await self.ring.get()
            self._look(batch)
            await self._forward.put(batch, len(batch.messages))

    def _at_once(self, forward: Ring[Batch], batch: Batch) -> bool:
        if not forward.takes():
            return False
        self._look(batch)
        forward.put_nowait(batch, len(batch.messages))
        return True

    def _look(self, batch: Batch) -> None:
        began = perf_counter()
        if batch.trusted:
            batch.topics = {message.topic for message in batch.messages}
        else:
            self.check(batch)
        self.ring.count_busy(perf_counter() - began)

    def check(self, batch: Batch) -> None:
        """Answer the messages that are not taken, and say what the others are."""
        messages = batch.messages
        batch.topics = {message.topic for message in messages}
        if not batch.principal.publish.covers_all(batch.topics):
            self._deny(batch)
        unset = msgspec.UNSET
        if (
            batch.results is None and batch.topics <= self._topics and batch.size <= self._limits.payload_bytes_max
        ):  # what all messages have in common is fine: look only for what few have, at 0.2 us each
            for m in messages:
                if (
                    m.data is unset
                    or m.id is not None
                    or m.key is not None
                    or m.attributes is not None
                    or m.data_base64 is not None
                    or m.content_type is not None
                    or m.delay_ms
                    or m.ttl_ms
                ):
                    break
            else:
                deep = PLAIN_BYTES_MAX
                batch.plain = (
                    batch.shallow
                    or batch.size <= deep
                    or max(map(len, map(_VIEW, map(_DATA, messages)))) <= deep
                    or all(map(is_shallow, map(_DATA, messages)))
                )
                if batch.plain:
                    return
        for index, message in enumerate(messages):
            if batch.results is not None and batch.results[index] is not None:
                continue
            try:
                self._check(message)
            except GatewayError as error:
                batch.answer(index, error)
                self.ring.count_refused(1)

    def _deny(self, batch: Batch) -> None:
        """Answer the messages on topics that the principal may not publish to; a topic that is none is found later."""
        principal = batch.principal
        denied = {topic for topic in batch.topics if is_topic(topic) and not principal.may_publish(topic)}
        if denied:
            self.on_denied(batch, principal.denied(f"publish to {' '.join(sorted(denied))}"))
        for index, message in enumerate(batch.messages):
            if message.topic in denied and (batch.results is None or batch.results[index] is None):
                batch.answer(index, principal.denied(f"publish to {message.topic}"))
                self.ring.count_refused(1)

    def _check(self, message: Message) -> None:
        if message.topic not in self._topics:
            check_topic(message.topic)
            if len(self._topics) >= _TOPICS_MAX:
                self._topics.clear()
            self._topics.add(message.topic)
        check_payload(message, self._limits)
        for name, value in (("id", message.id), ("key", message.key)):
            if value is not None and len(value) > self._limits.id_chars_max:
                raise GatewayError(
                    "bad_request", f"{name}: {len(value)} characters; at most {self._limits.id_chars_max} are allowed"
                )
        if message.id == "":
            raise GatewayError("bad_request", "id: is empty; leave it out to be given one")
        check_attributes(message, self._limits)
        for name, milliseconds in (("delay_ms", message.delay_ms), ("ttl_ms", message.ttl_ms)):
            if milliseconds < 0:
                raise GatewayError("bad_request", f"{name}: {milliseconds} is negative")
        if message.delay_ms > self._limits.delay_ms_max:
            raise GatewayError(
                "bad_request", f"delay_ms: {message.delay_ms} is more than {self._limits.delay_ms_max} (30 days)"
            )
        if message.ttl_ms > _TTL_MS_MAX:
            raise GatewayError("bad_request", f"ttl_ms: {message.ttl_ms} is more than {_TTL_MS_MAX}; 0 is for ever")
