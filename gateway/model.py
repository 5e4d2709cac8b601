"""The words everyone speaks: values that pass between rooms. No I/O, no clock, no run loop.

A `Message` is what a producer sends; a `Batch` is one producer's call on its way through the stages; a `Delivery` is
what one consumer is handed; a `Settlement` is what it says back. `SubscriptionSettings` is the durable description of
a subscription as the control plane takes it (protocol.md §5).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import msgspec
import orjson

from gateway.errors import GatewayError
from gateway.principal import ANONYMOUS, Principal

Position = int
"""A message's place in the log: unique and growing within one store's life, below 2^53."""

Ranges = Sequence[tuple[int, int]]
"""Closed ranges of positions `(lo, hi)`, lo <= hi, as settling operations carry them."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

POSITION_MAX: Final = 2**53 - 1
JSON_DEPTH_MAX: Final = 900
"""Deepest payload taken, in nested arrays and objects: a delivery wraps it thrice, common parsers stop at 1,000."""

_WORD = r"[A-Za-z0-9_-]+"
_TOPIC = re.compile(rf"{_WORD}(?:\.{_WORD})*")
_PATTERN = re.compile(rf"(?:>|(?:{_WORD}|\*)(?:\.(?:{_WORD}|\*))*(?:\.>)?)")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
TOPIC_BYTES_MAX: Final = 255
NAME_BYTES_MAX: Final = 250
"""Five fewer than a topic's, so that `dead.<name>` is a topic too."""


def is_topic(text: str) -> bool:
    """Whether `text` is dot-separated words of [A-Za-z0-9_-], at most 255 bytes."""
    return len(text) <= TOPIC_BYTES_MAX and _TOPIC.fullmatch(text) is not None


def check_topic(topic: str) -> str:
    """Return `topic`, or raise `bad_topic`."""
    if is_topic(topic):
        return topic
    raise GatewayError("bad_topic", f"topic {_short(topic)}: {_why_bad(topic, 'topic')}")


def check_pattern(pattern: str) -> str:
    """Return `pattern`, or raise `bad_pattern`: a topic where `*` stands for one word and a final `>` for the rest."""
    if len(pattern) <= TOPIC_BYTES_MAX and _PATTERN.fullmatch(pattern):
        return pattern
    raise GatewayError("bad_pattern", f"pattern {_short(pattern)}: {_why_bad(pattern, 'pattern')}")


def check_subscription_name(name: str) -> str:
    """Return `name`, or raise `bad_name`: shaped like a topic, at most 250 bytes."""
    if len(name) <= NAME_BYTES_MAX and _TOPIC.fullmatch(name):
        return name
    raise GatewayError(
        "bad_name",
        f"subscription name {_short(name)}: use words of A-Z a-z 0-9 _ - joined by single dots, "
        f"at most {NAME_BYTES_MAX} characters",
    )


def is_traceparent(text: str) -> bool:
    """Whether `text` is a `traceparent` of W3C Trace Context (§3.2) in version 00: 55 characters, no id of zeros."""
    return _TRACEPARENT.fullmatch(text) is not None and text[3:35].strip("0") != "" and text[36:52].strip("0") != ""


def _why_bad(text: str, what: str) -> str:
    if not text:
        return f"it is empty; a {what} is words joined by dots, such as trade.order.paid"
    if len(text) > TOPIC_BYTES_MAX:
        return f"it has {len(text)} characters; at most {TOPIC_BYTES_MAX} are allowed"
    if "" in text.split("."):
        return "it has an empty word; write words joined by single dots, such as trade.order.paid"
    if what == "pattern" and ">" in text:
        return "> stands alone as the last word only, such as trade.>"
    if what == "pattern" and "*" in text:
        return "* stands for one whole word, such as trade.*.paid"
    return "a word may hold A-Z a-z 0-9 _ - only"


def _short(text: str) -> str:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return '"' + shown.encode("unicode_escape").decode() + '"'


class Durability(enum.StrEnum):
    """What was reached before a publish is answered; an answer never claims more than happened."""

    FSYNCED = "fsynced"
    WRITTEN = "written"


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One message as a producer sends it; exactly the members of protocol.md §4 `publish`.

    Decoded straight from the wire: `data` keeps the producer's bytes untouched (a span of JSON text; unset where there
    is none). A payload that is not JSON arrives in `data_base64` with its `content_type`.
    """

    topic: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | None = None
    content_type: str | None = None
    id: str | None = None
    key: str | None = None
    attributes: dict[str, str] | None = None
    delay_ms: int = 0
    ttl_ms: int = 0


@attrs.frozen
class Stored:
    """A message's place after `append`: what the producer is told."""

    id: str
    position: Position
    duplicate: bool = False


Result = Stored | GatewayError
_UNREADABLE: Final = object()


class Batch:
    """One producer's publish call on its way through the stages.

    `results` is aligned with `messages`: None until known, a GatewayError for a refused message, a Stored once it has
    its place. The common case, every message new and accepted, keeps no object per message: `first` is then the
    position of messages[0], the others follow on, and `results` stays None.
    """

    __slots__ = (
        "decoded",
        "done",
        "durability",
        "error",
        "first",
        "messages",
        "on_finished",
        "origin",
        "origins",
        "plain",
        "principal",
        "results",
        "routes",
        "shallow",
        "size",
        "steps",
        "time_ms",
        "topics",
        "trusted",
    )

    def __init__(
        self,
        messages: list[Message],
        durability: Durability,
        size: int,
        done: Callable[[Batch], None],
        principal: Principal = ANONYMOUS,
    ) -> None:
        self.messages = messages
        self.durability = durability
        self.size = size  # bytes as received; what the rings count
        self.done = done  # called once, without waiting: the outcome is known and durable as asked
        self.principal = principal  # who publishes; `admit` asks it for each topic
        self.origin = ""  # who sent it, for people: a connection, an address, a source
        self.origins: Sequence[str] = ()  # the same of each message, where several sent them
        self.steps: list[tuple[object, ...]] | None = None  # the trace's own: what stages did before there was a place
        self.trusted = False  # made by the gateway itself: limits and permissions are not asked
        self.on_finished: Callable[[int], None] | None = None  # told the size once the batch is no longer under way
        self.shallow = False  # no payload is nested too deep: that is known, and not looked for again
        self.plain = False  # set by `admit`: every message has a topic and data, all of them accepted, and no more
        self.topics: set[str] = set()  # of the messages; set by `admit`
        self.time_ms = 0
        self.routes: Sequence[object] = ()  # the engine's own, one for each message, or one for all; set by `route`
        self.results: list[Result | None] | None = None
        self.first: Position = -1
        self.error: GatewayError | None = None  # the whole batch failed with this
        self.decoded: list[object] | None = None  # payloads as Python values, once a stage has asked for one

    def decode(self, index: int) -> Any:
        """The JSON payload of messages[index] as Python values, decoded once for all who ask.

        LookupError where there is none, or none that can be read; nobody may change what is returned.
        """
        if self.decoded is None:
            self.decoded = [msgspec.UNSET] * len(self.messages)
        value = self.decoded[index]
        if value is msgspec.UNSET:
            data = self.messages[index].data
            try:
                value = orjson.loads(b"" if data is msgspec.UNSET else memoryview(data))
            except orjson.JSONDecodeError:
                value = _UNREADABLE
            self.decoded[index] = value
        if value is _UNREADABLE:
            raise LookupError("data")
        return value

    def replace_decoded(self, index: int, value: object) -> None:
        """The payload of messages[index] is another now."""
        if self.decoded is not None:
            self.decoded[index] = value

    def answer(self, index: int, result: Result) -> None:
        """Answer message `index`; with an error, or as a repeat, it goes no further."""
        if self.results is None:
            self.results = [None] * len(self.messages)
        self.results[index] = result

    def finish(self) -> None:
        """The outcome is known: tell those who wait. Called once, by whichever stage ends its way."""
        if self.on_finished is not None:
            self.on_finished(self.size)
        self.done(self)

    def fail(self, error: GatewayError) -> None:
        """Answer the whole batch with `error`."""
        self.error = error
        self.finish()


class Delivery:
    """What one consumer is handed at once: stored bytes, joined by the edge into a frame or an answer.

    `bodies` are the delivery JSON objects in position order, each entry one or more of them with commas between, as a
    frame has them; `attempts` names only what is delivered again.
    """

    __slots__ = ("attempts", "bodies", "count", "last", "lease_ms", "leases", "subscription")

    def __init__(self, subscription: str, lease_ms: int) -> None:
        self.subscription = subscription
        self.lease_ms = lease_ms
        self.leases: list[Any] = []  # the engine's own; started when the frame has been handed to the socket
        self.bodies: list[bytes | memoryview] = []
        self.attempts: dict[str, int] = {}  # by position, as text: JSON's keys
        self.count = 0
        self.last: Position = -1  # of its messages: what an ack's latency is measured on


class Verb(enum.StrEnum):
    """What a consumer can say of a message that it was leased."""

    ACK = "ack"
    NACK = "nack"
    EXTEND = "extend"
    TERM = "term"


class Settle(msgspec.Struct, frozen=True, gc=False):
    """One verb over ranges of positions. `delay_ms` None: the subscription's backoff decides."""

    verb: Verb
    ranges: Ranges
    delay_ms: int | None = None
    lease_ms: int | None = None
    reason: str = ""


_NONE_YET: Final = dict.fromkeys(Verb, 0)


class Settlement:
    """What one consumer says in one call, on its way through `settle`; `done` is called once the answer is true."""

    __slots__ = ("carried_out", "consumer", "counts", "done", "error", "leaves", "settles", "unknown")

    def __init__(
        self,
        consumer: object,
        settles: list[Settle],
        done: Callable[[Settlement], None] | None = None,
        *,
        leaves: bool = False,
    ) -> None:
        self.consumer = consumer  # an engine consumer; None where the lease is not known any more
        self.settles = settles
        self.done = done  # None: nobody waits, so the log may take its time
        self.leaves = leaves  # it takes no more, and what it still holds goes back: behind all that it said before
        self.counts = _NONE_YET.copy()  # an enumeration is iterated in Python: 1.5 us
        self.unknown = 0
        self.error: GatewayError | None = None
        self.carried_out: Callable[[Settlement], None] | None = None  # called where that took more than one step


class Format(enum.StrEnum):
    """How a subscription's messages are written: as protocol.md §1 has it, or as CloudEvents 1.0 in JSON."""

    NATIVE = "native"
    CLOUDEVENTS = "cloudevents"


class Start(enum.StrEnum):
    """Where a new subscription begins to read."""

    START = "start"
    END = "end"


@attrs.frozen(kw_only=True)
class SeekTo:
    """Where a subscription is to go on reading: one of the three is set."""

    position: Position | None = None
    time_ms: int | None = None
    """The first message that was stored at this time or later."""
    edge: Start | None = None


@attrs.frozen
class Sought:
    """Where a seek led, and what it did to the messages that the subscription is due."""

    position: Position
    """The subscription reads on from here; the nearest there is to what was asked for."""
    again: int
    """Messages that had been settled and are due once more; counted as routed again."""
    skipped: int
    """Messages that had not been settled and are due no more; counted as expired."""


@attrs.frozen
class Redriven:
    """What a redrive brought back."""

    redriven: int
    """Messages that are due once more; counted as routed again."""


class WhyReason(enum.StrEnum):
    """Where a message stands that is not being delivered."""

    FILTERED = "filtered"
    """It was never routed to the subscription."""
    WAITING = "waiting"
    """It is due and its turn comes; others may stand before it."""
    WINDOW = "window"
    """Every consumer holds as much as it may, or its socket takes no more."""
    NO_CONSUMER = "no_consumer"
    PAUSED = "paused"
    KEY = "key"
    """An earlier message of its key is not settled."""
    DELAYED = "delayed"
    BACKOFF = "backoff"
    LEASED = "leased"
    DYING = "dead_lettering"
    """Its deliveries are over, and its dead letter is being stored."""
    ACKED = "acked"
    EXPIRED = "expired"
    DEAD_LETTERED = "dead_lettered"
    SKIPPED = "skipped"
    """A seek went past it."""
    SETTLED = "settled"
    """The log does not say any more how."""


@attrs.frozen(kw_only=True)
class Why:
    """Why a message is not delivered to one subscription. Null is what does not apply."""

    position: Position
    reason: WhyReason
    detail: str
    """The same for people, with the mend where there is one."""
    consumer: str | None = None
    """Who holds it."""
    until_ms: int | None = None
    """When that ends."""
    attempts: int | None = None
    """Deliveries so far."""
    behind: Position | None = None
    """The message of the same key that it waits for."""


BACKOFF_MS_DEFAULT: Final = (10_000, 30_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 7_200_000)
RETENTION_S_MAX: Final = 10 * 365 * 24 * 3600
LEASE_MS_MAX: Final = 12 * 3600 * 1000
FILTER_CHARS_MAX: Final = 4096
"""Longest filter; compiling it takes the run loop a few milliseconds."""


@attrs.frozen(kw_only=True)
class SubscriptionSettings:
    """The durable settings of a subscription, as protocol.md §5 names them. Defaults are design §5's.

    `dead_letter` None means the default topic `dead.<name>`; an empty string switches dead letters off. `filter` is CEL
    (broker/filter.py); empty, it lets everything through.
    """

    topics: tuple[str, ...]
    filter: str = ""
    format: Format = Format.NATIVE
    lease_ms: int = 30_000
    attempts_max: int = 16
    backoff_ms: tuple[int, ...] = BACKOFF_MS_DEFAULT
    dead_letter: str | None = None
    ordered: bool = False
    retention_s: int = 7 * 24 * 3600
    window_max: int = 1000
    start: Start = Start.END
    paused: bool = False

    def __attrs_post_init__(self) -> None:
        if not self.topics:
            raise GatewayError("bad_request", "topics: name at least one topic pattern, such as trade.>")
        if len(self.topics) > 1000:
            raise GatewayError("bad_request", f"topics: {len(self.topics)} patterns; at most 1000 are allowed")
        for pattern in self.topics:
            check_pattern(pattern)
        _within("filter: number of characters", len(self.filter), 0, FILTER_CHARS_MAX)
        _within("lease_ms", self.lease_ms, 100, LEASE_MS_MAX)
        _within("attempts_max", self.attempts_max, 1, 1_000_000)
        _within("retention_s", self.retention_s, 1, RETENTION_S_MAX)
        _within("window_max", self.window_max, 1, 1_000_000)
        _within("backoff_ms: number of steps", len(self.backoff_ms), 1, 100)
        for step in self.backoff_ms:
            _within("backoff_ms", step, 0, 30 * 24 * 3600 * 1000)
        if self.dead_letter:
            check_topic(self.dead_letter)

    def dead_letter_topic(self, name: str) -> str | None:
        """The topic dead letters of the subscription `name` go to; None where they are switched off."""
        if self.dead_letter is None:
            return f"dead.{name}"
        return self.dead_letter or None


def _within(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise GatewayError("bad_request", f"{what}: {value} is not between {low} and {high}")


@attrs.frozen
class SubscriptionStatistics:
    """Promise 6 in numbers: routed = acked + in flight + waiting + delayed + expired + dead-lettered.

    Counters only grow, so a message that is made due once more, by a seek or a redrive, is counted as routed once more.
    """

    waiting: int
    in_flight: int
    delayed: int
    routed: int
    acked: int
    expired: int
    dead_lettered: int
    oldest_ms: int | None
    """Publish time of the oldest unsettled message; None where everything is settled."""
    consumers: int
    skipped: int = 0
    """Of the expired, those that a seek went past."""


@attrs.frozen
class SubscriptionView:
    """One subscription as the control plane shows it."""

    name: str
    settings: SubscriptionSettings
    statistics: SubscriptionStatistics
