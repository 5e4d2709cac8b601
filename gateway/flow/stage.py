"""A stage of a pipeline: a task with a bounded ring, and work that says what becomes of each message of a batch.

What an operator's own stage needs is here too. It is a callable, plain or async, `module:callable` in the
configuration. It is given the messages of a batch that are its pipeline's, and returns an outcome for each, in order:

    def stamp(messages: Sequence[MessageView]) -> Sequence[Outcome]:
        return [Replace(attributes={**each.attributes, "seen": "yes"}) for each in messages]

`None` keeps a message as it is. A stage that raises, takes longer than its pipeline's `timeout_ms`, or returns anything
else fails its batch: the producer is told, and nothing of it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, Protocol

import attrs
import msgspec
import orjson

from gateway.config import Limits
from gateway.errors import GatewayError
from gateway.flow.ring import Ring, Sink
from gateway.model import Batch, Message
from gateway.steps import UNTRACED, Steps
from gateway.wire.limits import PLAIN_BYTES_MAX, check_attributes, check_payload

_NO_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({})


class MessageView:
    """One message as an operator's stage sees it. Nothing of it can be changed in place."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    @property
    def topic(self) -> str:
        return self._message.topic

    @property
    def id(self) -> str | None:
        """The producer's own; None where the gateway will give one."""
        return self._message.id

    @property
    def key(self) -> str | None:
        return self._message.key

    @property
    def attributes(self) -> Mapping[str, str]:
        return MappingProxyType(self._message.attributes) if self._message.attributes else _NO_ATTRIBUTES

    @property
    def has_json(self) -> bool:
        return self._message.data is not msgspec.UNSET

    @property
    def json(self) -> bytes:
        """The payload as it came, where it is JSON; else ValueError."""
        if self._message.data is msgspec.UNSET:
            raise ValueError(f"the payload is not JSON: {self._message.content_type}")
        return bytes(self._message.data)

    @property
    def data(self) -> Any:
        """The payload as Python values, decoded anew each time, where it is JSON; else ValueError."""
        return orjson.loads(self.json)

    @property
    def data_base64(self) -> str | None:
        """The payload where it is not JSON."""
        return self._message.data_base64

    @property
    def content_type(self) -> str | None:
        """Its media type there."""
        return self._message.content_type


@attrs.frozen
class Refuse:
    """The message is not taken: its producer is told why, and it goes no further."""

    message: str
    code: str = "refused_by_stage"


@attrs.frozen
class Replace:
    """The message goes on with other data, or other attributes, or both.

    `data` is a JSON value, or its text as bytes; `attributes` are all that it has from now on.
    """

    data: Any = msgspec.UNSET
    attributes: Mapping[str, str] | msgspec.UnsetType = msgspec.UNSET


Outcome = Refuse | Replace | None


class StageError(Exception):
    """The stage could not say what becomes of its messages. `str()` is for the producer, and names no payload."""


class Work(Protocol):
    """What a stage does: an outcome for each of `indexes`, or StageError."""

    async def __call__(self, batch: Batch, indexes: Sequence[int]) -> Sequence[object]: ...


class Stage:
    """One task. `passed` counts the messages that went on."""

    def __init__(
        self,
        name: str,
        work: Work,
        is_mine: Callable[[str], bool],
        forward: Sink,
        items_max: int,
        limits: Limits,
        steps: Steps = UNTRACED,
    ) -> None:
        self.ring: Ring[Batch] = Ring(name, items_max)
        self.name = name
        self.passed = 0
        self._work = work
        self._is_mine = is_mine  # whether messages of a topic are this stage's pipeline's
        self._forward = forward
        self._limits = limits
        self._steps = steps

    async def run(self) -> None:
        while True:
            batch = await self.ring.get()
            began = perf_counter()
            try:
                await self._treat(batch)
            except StageError as error:
                self._fail(batch, error)
                continue
            finally:
                self.ring.count_busy(perf_counter() - began)
            await self._forward.put(batch, len(batch.messages))

    async def _treat(self, batch: Batch) -> None:
        results, is_mine = batch.results, self._is_mine
        mine = [
            index
            for index, message in enumerate(batch.messages)
            if (results is None or results[index] is None) and is_mine(message.topic)
        ]
        if mine:
            self._carry_out(batch, mine, _checked(await self._work(batch, mine), len(mine)))

    def _fail(self, batch: Batch, error: StageError) -> None:
        self.ring.count_refused(len(batch.messages))
        told = GatewayError("stage_failed", f"stage {self.name}: {error}; nothing of this batch is stored")
        self._steps.refused(batch, told, self.name)
        batch.fail(told)

    # ------------------------------------------------------------------------------------------------ outcomes

    def _carry_out(self, batch: Batch, mine: list[int], outcomes: Sequence[Outcome]) -> None:
        replaced: list[int] = []
        size = 0
        for index, outcome in zip(mine, outcomes, strict=True):
            error: GatewayError | None = None
            if isinstance(outcome, Replace):
                size += self._replace(batch, index, outcome)
                error = self._too_much(batch.messages[index], size)
                replaced.append(index)
            elif isinstance(outcome, Refuse):
                error = GatewayError(outcome.code, outcome.message)
            if error is None:
                self.passed += 1
            else:
                self.ring.count_refused(1)
                batch.answer(index, error)
        if replaced:
            self._steps.stage(batch, self.name, "converted", replaced)

    def _replace(self, batch: Batch, index: int, replace: Replace) -> int:
        """Bytes of the new payload."""
        message = batch.messages[index]
        size = 0
        if replace.attributes is not msgspec.UNSET:
            message.attributes = dict(replace.attributes)
            batch.plain = False
        if replace.data is not msgspec.UNSET:
            text, value = _json(replace.data)
            size = len(text)
            message.data, message.data_base64, message.content_type = msgspec.Raw(text), None, None
            batch.replace_decoded(index, value)
            batch.plain = batch.plain and size <= PLAIN_BYTES_MAX
        return size

    def _too_much(self, message: Message, size: int) -> GatewayError | None:
        """What a stage makes has the limits that a producer has."""
        try:
            check_payload(message, self._limits)
            check_attributes(message, self._limits)
        except GatewayError as error:
            return GatewayError(error.code, f"after stage {self.name}: {error.message}")
        if size > self._limits.batch_bytes_max:
            return GatewayError(
                "batch_too_large", f"stage {self.name} made the batch larger than limits.batch_bytes_max; send fewer"
            )
        return None


def _checked(outcomes: object, count: int) -> Sequence[Outcome]:
    """Outcomes as they must be, or StageError."""
    if not isinstance(outcomes, Sequence) or isinstance(outcomes, str | bytes):
        raise StageError(f"it returned {type(outcomes).__name__}, not a list of outcomes")
    if len(outcomes) != count:
        raise StageError(f"it returned {len(outcomes)} outcomes for {count} messages")
    for outcome in outcomes:
        if isinstance(outcome, Replace):
            _check_replace(outcome)
        elif isinstance(outcome, Refuse):
            if not _is_text(outcome.message) or outcome.code not in _CODES:
                raise StageError(f"it refused with code {outcome.code!r}; use one of {', '.join(_CODES)}, and a text")
        elif outcome is not None:
            raise StageError(f"it returned {type(outcome).__name__} where None, Refuse or Replace is due")
    return outcomes


_CODES: Final = ("refused_by_stage", "schema_mismatch", "bad_request", "permission_denied")


def _check_replace(replace: Replace) -> None:
    """The whole batch is looked at before any of it is changed."""
    attributes = replace.attributes
    if attributes is not msgspec.UNSET and not _is_text_by_text(attributes):
        raise StageError("it replaced attributes by something else than a mapping of text to text")
    if replace.data is not msgspec.UNSET:
        _json(replace.data)


def _is_text_by_text(value: object) -> bool:
    return isinstance(value, Mapping) and all(_is_text(name) and _is_text(text) for name, text in value.items())


def _is_text(value: object) -> bool:
    """Whether it is text that can be written as UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(data: object) -> tuple[bytes, object]:
    """JSON text and its value, of either; StageError where it is none."""
    try:
        if isinstance(data, bytes):
            return data, orjson.loads(data)
        text = orjson.dumps(data)
        return text, orjson.loads(text)
    except (orjson.JSONEncodeError, orjson.JSONDecodeError) as error:
        raise StageError(f"it replaced data by something that is not JSON: {error}") from None
