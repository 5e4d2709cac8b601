"""Every setting there is: its default, its bounds, and the sentence that explains it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import attrs

from gateway.config.address import is_loopback
from gateway.model import check_pattern, check_subscription_name, check_topic, is_topic

KIB: Final = 1024
MIB: Final = 1024 * 1024
ENVIRONMENT_PREFIX: Final = "GATEWAY_"

T = TypeVar("T")


def setting(
    default: T, help_: str, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> T:
    """A setting with its default, the sentence that explains it, its bounds, or the words it may be.

    Its type is bool, int, float, str, a list of text (`tuple[str, ...]`; `choices` are of each), or a free table
    (`dict[str, Any]`), which its reader checks.
    """
    metadata = {"help": help_, "low": low, "high": high, "choices": choices}
    if isinstance(default, dict):
        return attrs.field(factory=default.copy, metadata=metadata)  # type: ignore[return-value]
    return attrs.field(default=default, metadata=metadata)


def required(help_: str, choices: tuple[str, ...] = ()) -> Any:
    """A setting without a default: text that each entry of a list must give."""
    return attrs.field(metadata={"help": help_, "low": None, "high": None, "choices": choices})


@attrs.frozen(kw_only=True)
class Listen:
    """Where the gateway accepts connections."""

    data: str = setting("127.0.0.1:8080", "HOST:PORT of the data plane: HTTP and WebSocket. Port 0 takes a free one.")
    control: str = setting("127.0.0.1:8081", "HOST:PORT of the control plane.")
    insecure: bool = setting(False, "Listen beyond loopback although no credentials are configured.")
    backlog: int = setting(1024, "Connections the kernel holds until they are accepted.", 1, 65535)
    connections_max: int = setting(
        20_000, "Open connections of each plane; an idle one takes about 26 KiB.", 1, 1_000_000
    )
    connections_per_address_max: int = setting(
        0,
        "Open connections of one remote address on each plane; 0 for no limit but connections_max. Behind a proxy all "
        "clients have the proxy's address.",
        0,
        1_000_000,
    )


@attrs.frozen(kw_only=True)
class Store:
    """The embedded log store."""

    directory: str = setting("data", "Directory of the store; made where it is missing. One process a directory.")
    segment_bytes: int = setting(
        64 * MIB, "Size at which a segment is sealed; it is freed as a whole.", 64 * KIB, 2**31
    )
    segment_age_s: int = setting(
        86_400, "Age at which a segment is sealed whatever its size, so that retention can free it.", 1, 10**8
    )
    indexes_max: int = setting(
        32, "Sealed segments whose index is mapped at once; each takes the pages of it that are used.", 2, 100_000
    )
    maps_max: int = setting(
        8, "Sealed segments that are mapped at once to be read from; 8 MiB of each are resident at most.", 1, 100_000
    )
    cache_bytes: int = setting(
        32 * MIB, "Recent message bodies kept in memory; older ones are read from the log.", 0, 2**40
    )
    pending_bytes_max: int = setting(
        64 * MIB, "Bytes that may wait for the disk; beyond it the append stage waits.", MIB, 2**34
    )
    commit_rest_ms: float = setting(
        2.0,
        "Rest between two commits while many small ones would take half of the run loop: it is what they wait longer, "
        "and what they save is up to half of the processor time; 0: never.",
        0,
        100,
    )
    lazy_sync_ms: int = setting(50, "Acks that nobody waits for reach the disk within this time.", 0, 10_000)
    merge_live_share: float = setting(
        0.25,
        "Neighbouring segments of which no more than this share is still due are merged: a byte is moved only where "
        "three go; 0: never.",
        0,
        0.9,
    )
    merge_interval_s: float = setting(
        10.0,
        "Pause between two looks for segments to merge; each merge takes a checkpoint.",
        0.01,
        86400,
    )
    merge_bytes_per_s: int = setting(
        8 * MIB, "What merging moves in a second at most: it shares the disk with publishes.", KIB, 2**40
    )


@attrs.frozen(kw_only=True)
class Http:
    """Limits and deadlines of HTTP/1.1, on both planes."""

    request_line_bytes_max: int = setting(8 * KIB, "Longest request target; a longer one is answered 414.", 64, MIB)
    header_bytes_max: int = setting(
        32 * KIB, "All headers of a request; more is answered 431. Holds 16 KiB of attributes.", 256, MIB
    )
    headers_max: int = setting(128, "Number of headers of a request; more is answered 431.", 4, 10_000)
    body_bytes_max: int = setting(
        6 * MIB, "Largest body; more is answered 413. Holds a batch of 4 MiB in base64.", KIB, 2**31
    )
    header_timeout_s: float = setting(
        10.0, "From the first byte of a request to the end of its headers; then 408.", 0.05, 3600
    )
    body_timeout_s: float = setting(60.0, "From the end of the headers to the end of the body; then 408.", 0.05, 86400)
    idle_timeout_s: float = setting(
        75.0, "A kept-alive connection without a request is closed after this.", 0.05, 86400
    )
    write_timeout_s: float = setting(
        30.0, "A client that takes no byte of what it is due for this long is disconnected.", 0.05, 3600
    )


@attrs.frozen(kw_only=True)
class Limits:
    """What one message, batch or call may hold; `welcome` shows these."""

    payload_bytes_max: int = setting(MIB, "Payload of one message.", 1, 2**30)
    attributes_bytes_max: int = setting(16 * KIB, "Names and values of one message's attributes together.", 0, MIB)
    id_chars_max: int = setting(128, "Characters of a message id or key.", 1, 4096)
    batch_messages_max: int = setting(1000, "Messages in one publish call.", 1, 100_000)
    batch_bytes_max: int = setting(4 * MIB, "Payload bytes in one publish call.", 1, 2**30)
    delay_ms_max: int = setting(30 * 24 * 3600 * 1000, "Longest delay of a message: 30 days.", 0, 2**40)
    dedup_window_s: int = setting(120, "How long a repeated id is recognised.", 0, 86400)
    dedup_ids_max: int = setting(
        1_000_000, "Ids remembered for that; the oldest half is forgotten early beyond it.", 2, 2**32
    )


@attrs.frozen(kw_only=True)
class Ring:
    """The bounded channels between stages."""

    items_max: int = setting(256, "Batches that may wait in front of one stage.", 1, 65536)
    bytes_max: int = setting(
        64 * MIB,
        "Bytes of publishes under way in all stages together; holds several of the largest batches.",
        MIB,
        2**34,
    )
    wait_ms: int = setting(
        5000, "How long a producer waits for a place in a full ring before it is told `overloaded`.", 0, 600_000
    )


@attrs.frozen(kw_only=True)
class WebSocket:
    """The WebSocket edge."""

    frame_bytes_max: int = setting(
        8 * MIB, "Largest message of a client; a larger one closes with 1009. Holds a batch of 4 MiB.", KIB, 2**30
    )
    handshake_timeout_s: float = setting(10.0, "From the upgrade to its end.", 0.05, 600)
    heartbeat_s: float = setting(25.0, "A ping is sent this often.", 0.05, 3600)
    pong_timeout_s: float = setting(8.0, "No pong within this closes with 3012.", 0.05, 3600)
    close_timeout_s: float = setting(5.0, "How long a closing handshake may take before the socket is cut.", 0.05, 600)
    unsent_bytes_max: int = setting(
        MIB,
        "Bytes that may wait for one client's socket; beyond it nothing more is leased to it or read from it.",
        4 * KIB,
        2**30,
    )
    subscriptions_max: int = setting(1000, "Subscriptions one connection may attach to.", 1, 1_000_000)


@attrs.frozen(kw_only=True)
class Pull:
    """Long-poll: pull turned to push."""

    messages_max: int = setting(1000, "Largest `max` of a pull.", 1, 100_000)
    bytes_max: int = setting(4 * MIB, "Largest `max_bytes` of a pull.", KIB, 2**30)
    wait_ms_max: int = setting(300_000, "Largest `wait_ms` of a pull.", 0, 86_400_000)
    waiting_max: int = setting(20_000, "Pulls that may wait at once; beyond it `pull_limit`.", 1, 1_000_000)


@attrs.frozen(kw_only=True)
class Trace:
    """What happened to every message, kept for a while beside the store."""

    enabled: bool = setting(True, "Keep a trace.")
    directory: str = setting("", "Directory of the trace; empty: `trace` in the store's. One process a directory.")
    segment_bytes: int = setting(
        16 * MIB, "Size at which a file of the trace is sealed; it is deleted as a whole.", 64 * KIB, 2**30
    )
    retention_bytes: int = setting(
        1024 * MIB,
        "Beyond this the oldest files are deleted; a million messages take 1 MiB in batches, 14 one by one.",
        MIB,
        2**50,
    )
    retention_s: int = setting(7 * 86400, "Files whose last event is older are deleted: 7 days.", 60, 10 * 365 * 86400)
    buffer_bytes_max: int = setting(
        4 * MIB, "Events that may wait to be written; beyond it they are dropped and counted.", 64 * KIB, 2**30
    )
    flush_ms: int = setting(
        100, "Events are written this long after the first that waits; a killed gateway loses so much.", 1, 60_000
    )
    export_file: str = setting("", "Write the trace as JSON lines to this file too; empty: do not.")
    export_bytes_max: int = setting(64 * MIB, "Size at which that file is renamed to FILE.1.", 64 * KIB, 2**40)
    export_files_max: int = setting(5, "How many of those files are kept, the current one included.", 1, 1000)
    otlp_endpoint: str = setting(
        "",
        "Send spans of messages with a sampled `traceparent` here by OTLP, such as http://collector:4318/v1/traces; "
        "needs the extra `otlp`. Empty: do not.",
    )
    otlp_messages_max: int = setting(
        100_000, "Messages followed for that at once, 1 KiB each; beyond it the oldest have no more spans.", 1, 10**8
    )

    def __attrs_post_init__(self) -> None:
        if self.otlp_endpoint and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.otlp_endpoint):
            raise ValueError(f"otlp_endpoint: {self.otlp_endpoint!r}: write http://HOST:PORT/v1/traces, or https://")


@attrs.frozen(kw_only=True)
class Deliver:
    """The push side."""

    tick_ms: int = setting(100, "Clock of leases, backoff and delay: all are due within one tick.", 1, 10_000)
    frame_messages_max: int = setting(
        500, "Messages in one delivery frame; keeps one frame's work under a few milliseconds.", 1, 100_000
    )
    frame_bytes_max: int = setting(
        256 * KIB, "Body bytes in one delivery frame; a single larger message goes alone.", KIB, 2**30
    )
    handing_ms: int = setting(
        60_000,
        "A frame that its client's socket has not taken by then goes to others; a longer lease is waited for.",
        1000,
        2**40,
    )
    heap_leases_max: int = setting(
        200_000, "Leases kept as objects, 300 bytes each; beyond it the oldest are moved before their time.", 1, 2**31
    )
    direct_bytes_max: int = setting(
        64 * MIB,
        "Records of old leases and of what backs off, in memory; beyond it in a file. Holds 1.4 million.",
        MIB,
        2**40,
    )
    dead_letter_bytes_max: int = setting(
        16 * MIB, "Bodies of dead letters on their way to their topic; the others wait in the log.", KIB, 2**34
    )
    sweep_ms: int = setting(
        1000, "How often messages that nobody takes are asked whether their time is over.", 10, 60_000
    )
    keys_max: int = setting(
        100_000,
        "Keys of an ordered subscription with a message out, 300 bytes each; others wait.",
        1,
        2**31,
    )
    subscriptions_max: int = setting(100_000, "Subscriptions of one gateway.", 1, 2**31)


@attrs.frozen(kw_only=True)
class Flow:
    """Flow control: how much each WebSocket consumer is given, and what becomes of a slow one."""

    floor_messages: int = setting(8, "The adaptive window does not fall below this many messages.", 1, 1_000_000)
    near_ms: int = setting(
        100, "Ack latencies below this are as good as any; the window shrinks beyond twice the best.", 1, 60_000
    )
    in_flight_bytes_max: int = setting(
        16 * MIB, "Bytes in flight to one consumer; a single larger message goes alone.", 4 * KIB, 2**34
    )
    throttle_after_s: float = setting(
        1.0,
        "A client overdue for this long is given the least: its socket takes nothing, or its leases run out.",
        0.05,
        3600,
    )
    pause_after_s: float = setting(
        10.0, "Overdue for this long, it is given nothing; its leases run out and go to others.", 0.05, 86400
    )
    close_after_s: float = setting(60.0, "Overdue for this long, it is closed with 3008.", 0.05, 86400)
    kernel_bytes_max: int = setting(
        256 * KIB,
        "Unsent bytes that the kernel takes of one connection: so a client that does not read is noticed early.",
        16 * KIB,
        2**30,
    )
    unsent_bytes_max: int = setting(
        256 * MIB,
        "Bytes that may wait for the sockets of all connections together; beyond it those that have stood still for "
        "longest are cut.",
        MIB,
        2**40,
    )


@attrs.frozen(kw_only=True)
class Auth:
    """Who may come in. Without `keys_file` and any [[jwt]] nobody is asked, and only loopback is listened on."""

    keys_file: str = setting("", "File of API keys, as `gateway key create` writes it; empty: no API keys are taken.")
    permissions_file: str = setting(
        "", "TOML file of roles and principals, what each may do; empty: only what keys and tokens bring along."
    )
    reload_s: float = setting(
        1.0, "How often these files are looked at; a revocation reaches live connections within it.", 0.05, 4
    )
    leeway_s: int = setting(10, "How far the clocks of token issuers may be off.", 0, 60)
    hello_timeout_s: float = setting(
        10.0, "A WebSocket whose handshake carried no token must send it in `hello` within this; then 3502.", 0.05, 600
    )
    token_bytes_max: int = setting(8 * KIB, "Longest token that is looked at.", 256, 64 * KIB)
    tokens_known_max: int = setting(
        10_000, "Checked tokens that are remembered, so that a signature is verified once.", 1, 1_000_000
    )
    failures_per_s: float = setting(
        10.0,
        "Bad credentials of one address that are looked at in a second; then it is refused unseen, but for credentials "
        "known to be good. Behind a proxy all clients have the proxy's address. 0: no limit.",
        0,
        10_000,
    )
    failures_burst: int = setting(100, "An address that rested may send so many at once.", 1, 1_000_000)
    failures_addresses_max: int = setting(
        10_000, "Addresses remembered for that, 300 bytes each; an IPv6 network of 64 bits counts as one.", 1, 1_000_000
    )
    origins: tuple[str, ...] = setting(
        (), "Origins of web pages that may use the gateway, such as https://app.example.org; all others are refused."
    )
    hosts: tuple[str, ...] = setting(
        (),
        "Host names that a gateway without credentials on loopback may be called by, beside addresses and localhost.",
    )
    open_metrics: bool = setting(False, "Answer /metrics without credentials; /livez, /readyz and /healthz always are.")

    def __attrs_post_init__(self) -> None:
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"origins: {origin!r}: write scheme://host[:port], such as https://app.example.org")


_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._\[\]:-]+")
JWT_ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")


@attrs.frozen(kw_only=True)
class Jwt:
    """An issuer whose JSON Web Tokens are taken. Its subjects are principals called NAME:SUB."""

    name: str = required("What its principals' names begin with; letters, digits, _ and -.")
    issuer: str = required("`iss` of its tokens.")
    audience: str = required("What `aud` of its tokens must name: this gateway.")
    keys: str = required(
        "Its keys: https:// address of a JWKS, or a file that holds a JWKS, a PEM key or certificate, or a secret."
    )
    algorithms: tuple[str, ...] = setting(
        ("RS256",), "Signatures that are taken; each key takes only those of its own type.", choices=JWT_ALGORITHMS
    )
    roles: tuple[str, ...] = setting((), "Roles of the permissions file that all its principals have.")
    claim: str = setting("push", "Claim that says what the principal may do; empty: tokens bring no permissions along.")
    refresh_s: float = setting(300.0, "How often an address is asked for its keys.", 1, 86_400)
    refresh_min_s: float = setting(
        10.0, "It is asked no more often than this, however many tokens name a key that is unknown.", 0.05, 3600
    )

    def __attrs_post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,20}", self.name):
            raise ValueError(f"name: {self.name!r}: use 1 to 20 letters, digits, _ and -")
        for key in ("issuer", "audience", "keys"):
            if not getattr(self, key):
                raise ValueError(f"{key}: is empty")
        if not self.algorithms:
            raise ValueError("algorithms: name at least one")
        if "://" in self.keys:
            parts = urlsplit(self.keys)
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
                raise ValueError(f"keys: {self.keys}: who answers here decides who may come in; use https://")


@attrs.frozen(kw_only=True)
class Audit:
    """The audit log: changes in the control plane, and refusals. It always goes to the log, as `gateway.audit`."""

    file: str = setting("", "File that gets it too, as JSON lines; empty: none. It may be rotated at any time.")
    refusals_per_s: int = setting(
        20, "Refusals written per second, five seconds' worth at once; the rest is counted.", 1, 10_000
    )


@attrs.frozen(kw_only=True)
class Filter:
    """The filters of subscriptions."""

    data_bytes_max: int = setting(
        64 * KIB,
        "Largest payload that filters look into: what CEL does with it grows with it, in time and memory. In a larger "
        "one there is no `data` for them: those that need it count an error, and do not match.",
        KIB,
        2**30,
    )
    inline_bytes_max: int = setting(
        16 * KIB,
        "Largest payload that a filter is asked about on the run loop; beyond it, and where the filter has loops or "
        "patterns, a process of its own asks. Plain equalities are always looked up at once.",
        0,
        MIB,
    )
    timeout_ms: int = setting(
        100,
        "Processor time that process has for one filter and message; past it nothing matches, and the filter rests "
        "for a second, then longer each time.",
        1,
        60_000,
    )
    memory_bytes_max: int = setting(
        1024 * MIB, "Address space of that process; it takes about 200 MiB to start with.", 512 * MIB, 2**40
    )


@attrs.frozen(kw_only=True)
class Pipeline:
    """Stages that messages of some topics pass between `admit` and `route`; a topic's is the first that matches it."""

    name: str = required("Name of the pipeline, in metrics, errors and the trace.")
    topics: tuple[str, ...] = setting((">",), "Patterns of the topics whose messages pass it.")
    stages: tuple[str, ...] = setting(
        (), "Its stages in order: unique_names, schema, projection, or an operator's own, module:callable."
    )
    schema: str = setting("", "File of the JSON Schema that stage `schema` checks payloads against.")
    projection: str = setting("", "JMESPath expression that stage `projection` makes the payload anew with.")
    timeout_ms: int = setting(
        5000, "How long an operator's stage may take for a batch; then the batch fails.", 1, 600_000
    )

    def __attrs_post_init__(self) -> None:
        if not is_topic(self.name):
            raise ValueError(f"name: {self.name!r}: use words of A-Z a-z 0-9 _ - joined by single dots")
        for pattern in self.topics:
            check_pattern(pattern)
        if not self.stages:
            raise ValueError("stages: name at least one: unique_names, schema, projection, or module:callable")
        for key in ("schema", "projection"):
            if (key in self.stages) != bool(getattr(self, key)):
                raise ValueError(f"{key}: goes with the stage {key!r}; give both, or neither")


@attrs.frozen(kw_only=True)
class Quota:
    """How much one principal may publish; more is refused with `quota_exceeded` (429)."""

    messages_per_s: float = setting(0.0, "Messages a second; 0 for no quota.", 0, 1e9)
    bytes_per_s: float = setting(0.0, "Bytes a second, as received; 0 for no quota.", 0, 1e12)
    burst_s: float = setting(
        1.0, "A principal that rested may have so many seconds' worth at once; a batch is taken whole.", 0.1, 3600
    )


@attrs.frozen(kw_only=True)
class Disk:
    """Marks of the store's file system: the larger of bytes and share counts. Reads and acks go on at either."""

    low_free_bytes: int = setting(512 * MIB, "Below this a warning is logged, and /healthz is degraded.", 0, 2**60)
    low_free_share: float = setting(0.02, "The same as a share of the file system.", 0, 1)
    high_free_bytes: int = setting(
        128 * MIB, "Below this publishes are refused with `disk_full` (503), until there is room again.", 0, 2**60
    )
    high_free_share: float = setting(0.0, "The same as a share of the file system.", 0, 1)


@attrs.frozen(kw_only=True)
class Shutdown:
    """The drain."""

    drain_s: float = setting(10.0, "Clients have this long to finish after TERM or INT; then they are cut.", 0, 3600)
    reconnect_ms_min: int = setting(500, "Lower end of the spread that `drain` tells clients to wait.", 0, 600_000)
    reconnect_ms_max: int = setting(20_000, "Upper end of that spread.", 0, 3_600_000)


@attrs.frozen(kw_only=True)
class Log:
    """What the process says of itself, on standard error."""

    level: str = setting("info", "debug, info, warning or error.", choices=("debug", "info", "warning", "error"))
    format: str = setting(
        "auto", "console, json, or auto: console on a terminal, else json.", choices=("console", "json", "auto")
    )


@attrs.frozen(kw_only=True)
class Source:
    """An upstream that the gateway watches by itself; as many of these tables as there are upstreams."""

    name: str = required("Its name, in the form of a topic; the ids of its messages begin with it.")
    type: str = required(
        "postgres (an outbox table) or ndjson (a file of lines that grows and is rotated).", ("postgres", "ndjson")
    )
    topic: str = setting("", "Topic of everything it publishes; where it is empty each row or line names its own.")
    url: str = setting("", "postgres: connection string of libpq; leave the password to a passfile.")
    table: str = setting("outbox", "postgres: the table, with its schema where it needs one.")
    channel: str = setting("outbox", "postgres: NOTIFY on this channel wakes the source; empty: it only polls.")
    id_column: str = setting("id", "postgres: unique; rows are published in its order, and recognised by it.")
    topic_column: str = setting("topic", "postgres: the message's topic, where `topic` is empty.")
    payload_column: str = setting("payload", "postgres: json, jsonb, text or bytea; what is not JSON goes as base64.")
    key_column: str = setting("key", "postgres: the message's key; empty: there is none.")
    attributes_column: str = setting("attributes", "postgres: a JSON object of texts; empty: there is none.")
    error_column: str = setting("error", "postgres: text; why a row can never be published. It is passed over then.")
    done_column: str = setting("", "postgres: timestamptz, set once a row is published; empty: the row is deleted.")
    poll_s: float = setting(
        30.0, "postgres: looks by itself this often, for notifications are lost while it is away.", 0.05, 86400
    )
    rows_max: int = setting(500, "postgres: rows locked and published at once.", 1, 1000)
    path: str = setting("", "ndjson: the file; rotated ones stand beside it and begin with its name.")
    start: str = setting(
        "start", "ndjson: start or end; where a file that was never read is begun.", choices=("start", "end")
    )
    poll_ms: int = setting(250, "ndjson: the file is looked at this often; a look costs about 0.1 ms.", 10, 60_000)

    def __attrs_post_init__(self) -> None:
        check_subscription_name(self.name)
        if self.topic:
            check_topic(self.topic)
        needed = {"postgres": ("url", "table", "id_column", "payload_column", "error_column"), "ndjson": ("path",)}
        for key in needed[self.type]:
            if not getattr(self, key):
                raise ValueError(f"{key} is missing; a source of the type {self.type} needs it")
        if self.type == "postgres" and not (self.topic or self.topic_column):
            raise ValueError("topic and topic_column are both empty; name a topic, or the column that has it")


@attrs.frozen(kw_only=True)
class Tmc:
    """Clients of Taobao Message Channel: WebSocket wire protocol 2 on the path /, and POST /router/rest."""

    enabled: bool = setting(False, "Whether they are served; applications are [[tmc_application]].")
    timestamp_window_s: int = setting(
        600, "How far the time of a signed call may be from now, as at the original.", 1, 86400
    )
    consume_wait_ms: int = setting(1000, "How long taobao.tmc.messages.consume waits for a message.", 0, 30_000)
    idle_timeout_s: float = setting(
        90.0, "A connection that sends nothing is closed after this; clients send every 5 to 30 s.", 0.05, 3600
    )


@attrs.frozen(kw_only=True)
class TmcApplication:
    """An application of TMC. Its groups are the subscriptions `<key>.<group>`; `<key>.default` is always there."""

    key: str = required("Its app_key: letters, digits, _ and -.")
    secret: str = required("What it signs with.")
    topics: tuple[str, ...] = setting((), "Topic patterns that its groups are due, such as taobao_trade_TradeCreate.")
    publish: tuple[str, ...] = setting((), "Topic patterns that it may publish to; empty: its topics.")
    topic_groups: dict[str, Any] = setting({}, "Topic to the group that gets its messages, where it is not default.")

    def __attrs_post_init__(self) -> None:
        check_subscription_name(self.key)
        if "." in self.key:
            raise ValueError(f"key: {self.key!r} has a dot, which stands between key and group")
        if not self.secret:
            raise ValueError("secret is empty; whoever knows the key could sign")
        if not self.topics:
            raise ValueError("topics: name at least one topic pattern; no group would ever get a message")
        for pattern in (*self.topics, *self.publish):
            check_pattern(pattern)
        for topic, group in self.topic_groups.items():
            check_topic(topic)
            if not isinstance(group, str):
                raise ValueError(f"topic_groups: {topic}: must be the name of a group")


@attrs.frozen(kw_only=True)
class Config:
    """All settings of a gateway, checked.

    A field whose type is a class is a section, `[name]`. A field `tuple[Class, ...] = ()` is a list, written `[[name]]`
    once for each entry; entries may have required keys, and where the class has a `name`, no two may share one. What
    the types cannot say, a class of either kind checks in `__attrs_post_init__`, with ValueError or GatewayError.
    """

    listen: Listen = attrs.field(factory=Listen)
    store: Store = attrs.field(factory=Store)
    http: Http = attrs.field(factory=Http)
    limits: Limits = attrs.field(factory=Limits)
    ring: Ring = attrs.field(factory=Ring)
    websocket: WebSocket = attrs.field(factory=WebSocket)
    pull: Pull = attrs.field(factory=Pull)
    trace: Trace = attrs.field(factory=Trace)
    deliver: Deliver = attrs.field(factory=Deliver)
    flow: Flow = attrs.field(factory=Flow)
    auth: Auth = attrs.field(factory=Auth)
    jwt: tuple[Jwt, ...] = ()
    audit: Audit = attrs.field(factory=Audit)
    filter: Filter = attrs.field(factory=Filter)
    pipeline: tuple[Pipeline, ...] = ()
    quota: Quota = attrs.field(factory=Quota)
    disk: Disk = attrs.field(factory=Disk)
    shutdown: Shutdown = attrs.field(factory=Shutdown)
    log: Log = attrs.field(factory=Log)
    tmc: Tmc = attrs.field(factory=Tmc)
    source: tuple[Source, ...] = ()
    tmc_application: tuple[TmcApplication, ...] = ()

    @property
    def has_credentials(self) -> bool:
        """Whether anybody is asked who they are."""
        return bool(self.auth.keys_file or self.jwt)


@attrs.frozen
class Entry:
    """One setting, for the reference and for `genconfig`."""

    section: str
    key: str
    type: str
    """bool, int, float, str, list or table."""
    default: Any
    """attrs.NOTHING where it must be given."""
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    repeated: bool
    """Whether it stands in each entry of a list, `[[section]]`."""

    @property
    def name(self) -> str:
        return f"{self.section}{'[]' if self.repeated else ''}.{self.key}"

    @property
    def variable(self) -> str:
        return f"{ENVIRONMENT_PREFIX}{self.section.upper()}__{self.key.upper()}"


@attrs.frozen
class Section:
    """One section of the file, or one list of them."""

    name: str
    cls: type
    repeated: bool

    @property
    def header(self) -> str:
        return f"[[{self.name}]]" if self.repeated else f"[{self.name}]"


def sections(of: type = Config) -> dict[str, Section]:
    """Every section by its name, in the order of the file."""
    found: dict[str, Section] = {}
    hints = get_type_hints(of)
    for field in attrs.fields(of):
        hint = hints[field.name]
        repeated = get_origin(hint) is tuple
        found[field.name] = Section(field.name, get_args(hint)[0] if repeated else hint, repeated)
    return found


_TYPES: Final = {tuple: "list", dict: "table"}


def entries(of: type = Config) -> Iterator[Entry]:
    """Every setting there is, in the order of the file."""
    for section in sections(of).values():
        yield from entries_of(section)


def entries_of(section: Section) -> Iterator[Entry]:
    """The settings of one section."""
    hints = get_type_hints(section.cls)
    for field in attrs.fields(section.cls):
        hint, meta, default = hints[field.name], field.metadata, field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
            default = default.factory()
        yield Entry(
            section=section.name,
            key=field.name,
            type=_TYPES.get(get_origin(hint) or hint) or hint.__name__,
            default=default,
            help=meta["help"],
            low=meta["low"],
            high=meta["high"],
            choices=meta["choices"],
            repeated=section.repeated,
        )
