"""What a run is asked to do, checked; and the gateway that it is done to."""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import urlsplit

import attrs

from gateway.bench.layout import SIZE_MIN

PATH: Final = "/v1/connect"
BATCH_DEFAULT: Final = 200
BATCH_BYTES_MAX: Final = 3 * 1024 * 1024
"""Payload bytes in one publish frame; below limits.batch_bytes_max, which counts the frame around them too."""
HTTP_PUBLISHERS_DEFAULT: Final = 64
"""A single-message publish waits for the disk, so only many at once can share a commit."""


@attrs.frozen(kw_only=True)
class Plan:
    """The load. Raises ValueError with the mend where it contradicts itself."""

    messages: int
    size_bytes: int
    publishers: int
    subscribers: int
    shared: bool
    window: int
    batch: int
    rate_per_s: float | None
    """Messages per second of all publishers together; None for as fast as the window allows."""
    http: bool
    idle: int
    slow_readers: int = 0
    """Of the subscribers, how many never read."""
    no_ack: int = 0
    """How many never acknowledge."""
    late_ack: int = 0
    """How many acknowledge after five seconds."""
    backlog: int = 0
    """Messages that are published before there is a consumer."""
    own_topics: bool = False
    """Each subscription has a topic of its own, and each message goes to one of them."""
    filter: str = ""
    """Of each subscription; all messages pass it."""
    fields: bool = False
    """The payload is an object of a few fields, and not a string."""

    def __attrs_post_init__(self) -> None:
        if self.size_bytes < SIZE_MIN:
            raise ValueError(f"--size {self.size_bytes}: the least is {SIZE_MIN}, which holds the time stamp")
        if self.misfits > self.subscribers or (self.misfits and (self.shared or self.own_topics)):
            raise ValueError(
                f"--slow-readers, --no-ack and --late-ack are {self.misfits} of --subscribers {self.subscribers}, "
                f"each with a subscription of its own to all messages"
            )
        if self.own_topics and (self.shared or self.http or self.backlog):
            raise ValueError("--own-topics goes with neither --shared, --http nor --backlog")
        if not self.http and self.batch > self.window:
            raise ValueError(f"--batch {self.batch} is larger than --window {self.window}: it would never be sent")
        if self.batch > 1 and self.batch * self.size_bytes > BATCH_BYTES_MAX:
            raise ValueError(
                f"--batch {self.batch} of --size {self.size_bytes} is more than the {BATCH_BYTES_MAX} bytes that one "
                f"publish may hold; lower either"
            )

    @property
    def misfits(self) -> int:
        """Subscribers that do not keep up."""
        return self.slow_readers + self.no_ack + self.late_ack

    @property
    def deliveries(self) -> int:
        """Deliveries that are due where every message is accepted."""
        once = self.shared or self.own_topics
        return (self.messages + self.backlog) * (min(self.subscribers, 1) if once else self.subscribers)

    def share(self, publisher: int) -> int:
        """How many of the messages this publisher sends."""
        share, rest = divmod(self.messages, self.publishers)
        return share + (publisher < rest)


def make_plan(
    *,
    messages: int,
    size_bytes: int,
    publishers: int | None,
    subscribers: int,
    shared: bool,
    window: int,
    batch: int | None,
    rate_per_s: float | None,
    http: bool,
    idle: int,
    slow_readers: int = 0,
    no_ack: int = 0,
    late_ack: int = 0,
    backlog: int = 0,
    own_topics: bool = False,
    filter: str = "",
    fields: bool = False,
) -> Plan:
    """A plan with what was left open filled in so that it fits the rest."""
    if publishers is None:
        publishers = HTTP_PUBLISHERS_DEFAULT if http else 1
    if http and batch not in (None, 1):
        raise ValueError("--batch goes with WebSocket; --http publishes single messages")
    if batch is None:
        batch = 1 if http else max(1, min(BATCH_DEFAULT, window, BATCH_BYTES_MAX // size_bytes))
    return Plan(
        messages=messages,
        size_bytes=size_bytes,
        publishers=max(1, min(publishers, messages)),
        subscribers=subscribers,
        shared=shared,
        window=window,
        batch=batch,
        rate_per_s=rate_per_s,
        http=http,
        idle=idle,
        slow_readers=slow_readers,
        no_ack=no_ack,
        late_ack=late_ack,
        backlog=backlog,
        own_topics=own_topics,
        filter=filter,
        fields=fields,
    )


def describe(plan: Plan) -> str:
    """The load in one line."""
    if not plan.messages:
        return f"{plan.idle:,} idle connections"
    way = "one HTTP request each" if plan.http else f"in batches of up to {plan.batch:,}"
    speed = f"{plan.rate_per_s:,.0f}/s" if plan.rate_per_s else "as fast as it goes"
    if plan.rate_per_s is None and not plan.http:
        speed += f", {plan.window:,} unconfirmed on each connection"
    ends = f"from {_many(plan.publishers, 'publisher')} to {_many(plan.subscribers, 'subscriber')}"
    shared = " of one subscription" if plan.shared else " with a topic each" if plan.own_topics else ""
    for count, what in ((plan.slow_readers, "never read"), (plan.no_ack, "never ack"), (plan.late_ack, "ack late")):
        if count:
            shared += f", {count:,} of which {what}"
    if plan.backlog:
        shared += f", behind a backlog of {plan.backlog:,}"
    return f"{plan.messages:,} messages of {plan.size_bytes:,} bytes, {way}, {ends}{shared}; {speed}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


@attrs.frozen
class Address:
    """One plane of a gateway."""

    host: str
    port: int
    token: str | None = attrs.field(default=None, repr=False)
    """The credential of a gateway of our own that asks for one."""

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Target:
    """The gateway under load."""

    data: Address
    control: Address
    pid: int | None
    """Its process, where it is on this machine and known."""
    own_directory: str | None = None
    """The store of a gateway that was started for this run."""


def parse_address(url: str) -> Address:
    """`ws://HOST:PORT/...` or `http://HOST:PORT` -> its address. Raises ValueError with the mend."""
    parts = urlsplit(url)
    if parts.scheme in ("wss", "https"):
        raise ValueError(f"{url!r}: the load is made without TLS; name the gateway itself, not a proxy before it")
    if parts.scheme not in ("ws", "http") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a gateway; write ws://host:port or http://host:port")
    return Address(parts.hostname, parts.port or 80)


one_to_one: Final = partial(
    make_plan,
    size_bytes=256,
    publishers=1,
    subscribers=1,
    shared=False,
    window=2000,
    batch=None,
    rate_per_s=None,
    http=False,
    idle=0,
)
"""One publisher and one consumer, and what else is said."""
