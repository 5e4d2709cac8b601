"""Raw configuration to checked, derived settings.

Sources, weakest first: the defaults below, a TOML file, the environment (`GATEWAY_<SECTION>__<KEY>`), flags of the
command line. Every bound of the program stands here with its reason (`help`), and `gateway genconfig` prints them.
An unknown key or a wrong value is an error that names the source, the key and the mend; settings that contradict each
other are named together.
"""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints

import attrs
import cattrs

from gateway.errors import ConfigError

KIB: Final = 1024
MIB: Final = 1024 * 1024
ENVIRONMENT_PREFIX: Final = "GATEWAY_"

T = TypeVar("T")


def setting(default: T, help_: str, low: float | None = None, high: float | None = None) -> T:
    """A setting with its default, the sentence that explains it, and its bounds."""
    return attrs.field(default=default, metadata={"help": help_, "low": low, "high": high})


@attrs.frozen(kw_only=True)
class Listen:
    """Where the gateway accepts connections."""

    data: str = setting("127.0.0.1:8080", "HOST:PORT of the data plane: HTTP and WebSocket. Port 0 takes a free one.")
    control: str = setting("127.0.0.1:8081", "HOST:PORT of the control plane.")
    insecure: bool = setting(False, "Listen beyond loopback although there are no credentials yet.")
    backlog: int = setting(1024, "Connections the kernel holds until they are accepted.", 1, 65535)
    connections_max: int = setting(20_000, "Open connections in total; one takes about 40 KiB.", 1, 1_000_000)


@attrs.frozen(kw_only=True)
class Store:
    """The embedded log store."""

    directory: str = setting("data", "Directory of the store; made where it is missing. One process a directory.")
    segment_bytes: int = setting(
        64 * MIB, "Size at which a segment is sealed; it is freed as a whole.", 64 * KIB, 2**31
    )
    cache_bytes: int = setting(
        64 * MIB, "Recent message bodies kept in memory; older ones are read from the log.", 0, 2**40
    )
    pending_bytes_max: int = setting(
        64 * MIB, "Bytes that may wait for the disk; beyond it the append stage waits.", MIB, 2**34
    )
    lazy_sync_ms: int = setting(50, "Acks that nobody waits for reach the disk within this time.", 0, 10_000)


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
class Deliver:
    """The push side."""

    tick_ms: int = setting(100, "Clock of leases, backoff and delay: all are due within one tick.", 1, 10_000)
    frame_messages_max: int = setting(
        500, "Messages in one delivery frame; keeps one frame's work under a few milliseconds.", 1, 100_000
    )
    frame_bytes_max: int = setting(
        256 * KIB, "Body bytes in one delivery frame; a single larger message goes alone.", KIB, 2**30
    )
    subscriptions_max: int = setting(100_000, "Subscriptions of one gateway.", 1, 2**31)


@attrs.frozen(kw_only=True)
class Shutdown:
    """The drain."""

    drain_s: float = setting(10.0, "Clients have this long to finish after TERM or INT; then they are cut.", 0, 3600)
    reconnect_ms_min: int = setting(500, "Lower end of the spread that `drain` tells clients to wait.", 0, 600_000)
    reconnect_ms_max: int = setting(20_000, "Upper end of that spread.", 0, 3_600_000)


@attrs.frozen(kw_only=True)
class Log:
    """What the process says of itself, on standard error."""

    level: str = setting("info", "debug, info, warning or error.")
    format: str = setting("auto", "console, json, or auto: console on a terminal, else json.")


@attrs.frozen(kw_only=True)
class Config:
    """All settings of a gateway, checked."""

    listen: Listen = attrs.field(factory=Listen)
    store: Store = attrs.field(factory=Store)
    http: Http = attrs.field(factory=Http)
    limits: Limits = attrs.field(factory=Limits)
    ring: Ring = attrs.field(factory=Ring)
    websocket: WebSocket = attrs.field(factory=WebSocket)
    pull: Pull = attrs.field(factory=Pull)
    deliver: Deliver = attrs.field(factory=Deliver)
    shutdown: Shutdown = attrs.field(factory=Shutdown)
    log: Log = attrs.field(factory=Log)


@attrs.frozen
class Entry:
    """One setting, for the reference and for `genconfig`."""

    section: str
    key: str
    type: str
    default: Any
    help: str
    low: float | None
    high: float | None

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        return f"{ENVIRONMENT_PREFIX}{self.section.upper()}__{self.key.upper()}"


def sections() -> dict[str, type]:
    """Section name -> its class, in the order of the file."""
    hints = get_type_hints(Config)
    return {field.name: hints[field.name] for field in attrs.fields(Config)}


def entries() -> Iterator[Entry]:
    """Every setting there is, in the order of the file."""
    for section, cls in sections().items():
        hints = get_type_hints(cls)
        for field in attrs.fields(cls):
            meta = field.metadata
            yield Entry(
                section, field.name, hints[field.name].__name__, field.default, meta["help"], meta["low"], meta["high"]
            )


@attrs.frozen
class _Value:
    """One value with where it came from, for the error message."""

    value: Any
    origin: str
    typed: bool = False
    """Whether the source has types of its own, so that text is not another way to write a number."""


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Build the configuration: defaults < `file` < `environment` < `flags` (`{"section.key": value}`).

    Raises ConfigError naming the source, the key and the mend, for the first thing that is wrong.
    """
    known = {entry.name: entry for entry in entries()}
    merged: dict[str, _Value] = {}
    if file is not None:
        merged.update(_from_file(file, known))
    merged.update(_from_environment(environment or {}, known))
    for name, value in (flags or {}).items():
        merged[name] = _Value(value, f"flag --{name.split('.')[1].replace('_', '-')}")
    checked: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for name, item in merged.items():
        entry = known[name]
        checked[entry.section][entry.key] = _check(entry, item)
    config = Config(**{section: cls(**checked[section]) for section, cls in sections().items()})
    _check_relations(config)
    return config


def _from_file(file: Path, known: Mapping[str, Entry]) -> Iterator[tuple[str, _Value]]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; name a file that exists") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not TOML: {error}") from None
    for section, table in document.items():
        if section not in sections():
            raise ConfigError(f"{file}: [{section}]: unknown section{_suggest(section, sections())}")
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {section}: must be a table; write [{section}]")
        for key, value in table.items():
            name = f"{section}.{key}"
            if name not in known:
                keys = [entry.key for entry in known.values() if entry.section == section]
                raise ConfigError(f"{file}: {name}: unknown key{_suggest(key, keys)}")
            yield name, _Value(value, f"{file}: {name}", typed=True)


def _from_environment(environment: Mapping[str, str], known: Mapping[str, Entry]) -> Iterator[tuple[str, _Value]]:
    variables = {entry.variable: name for name, entry in known.items()}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or "__" not in variable:
            continue  # other programs' variables, such as GATEWAY_INTERFACE, are not ours to judge
        if variable not in variables:
            raise ConfigError(f"environment: {variable}: unknown setting{_suggest(variable, variables)}")
        yield variables[variable], _Value(value, f"environment: {variable}")


def _suggest(word: str, candidates: Any) -> str:
    close = difflib.get_close_matches(word, list(candidates), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are: {', '.join(candidates)}"


_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


def _convert(entry: Entry, value: Any, typed: bool) -> Any:
    """Text of the environment becomes the setting's type; a file's value must already have it."""
    if typed and isinstance(value, str) and entry.type != "str":
        raise ValueError(f"must be {_TYPE_WORDS[entry.type]}, without quotes")
    if entry.type == "bool":
        if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        if not isinstance(value, bool):
            raise ValueError(f"must be {_TYPE_WORDS[entry.type]}")
        return value
    if isinstance(value, bool) or (entry.type == "int" and isinstance(value, float)):
        raise ValueError(f"must be {_TYPE_WORDS[entry.type]}")
    if entry.type == "str" and not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")
    types: dict[str, type] = {"int": int, "float": float, "str": str}
    try:
        return cattrs.structure(value, types[entry.type])
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"must be {_TYPE_WORDS[entry.type]}") from None


_TYPE_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}


def _check(entry: Entry, item: _Value) -> Any:
    try:
        value = _convert(entry, item.value, item.typed)
    except ValueError as error:
        raise ConfigError(f"{item.origin}: {item.value!r}: {error}") from None
    if entry.low is not None and not value >= entry.low:
        raise ConfigError(f"{item.origin}: {value} is too small; the least is {entry.low:g}")
    if entry.high is not None and not value <= entry.high:
        raise ConfigError(f"{item.origin}: {value} is too large; the most is {entry.high:g}")
    if entry.name == "log.level" and value not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"{item.origin}: {value!r}: use debug, info, warning or error")
    if entry.name == "log.format" and value not in ("console", "json", "auto"):
        raise ConfigError(f"{item.origin}: {value!r}: use console, json or auto")
    if entry.section == "listen" and entry.key in ("data", "control"):
        try:
            parse_address(value)
        except ValueError as error:
            raise ConfigError(f"{item.origin}: {value!r}: {error}") from None
    return value


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` -> (host, port); an IPv6 host stands in brackets. Raises ValueError with the mend."""
    host, colon, port = text.rpartition(":")
    if not colon or host in ("", "[]"):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets, such as [::1]:8080")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("the port must be a number from 0 to 65535")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # no other name: 127.example.org resolves to wherever its owner likes


def _check_relations(config: Config) -> None:
    """Settings that contradict each other are named together."""
    rules: list[tuple[bool, str]] = [
        (
            config.limits.payload_bytes_max <= config.limits.batch_bytes_max,
            "limits.payload_bytes_max is larger than limits.batch_bytes_max: raise the second",
        ),
        (
            config.limits.batch_bytes_max <= config.websocket.frame_bytes_max,
            "limits.batch_bytes_max is larger than websocket.frame_bytes_max: a full batch would not fit its frame; "
            "lower the first or raise the second",
        ),
        (
            config.limits.batch_bytes_max <= config.http.body_bytes_max,
            "limits.batch_bytes_max is larger than http.body_bytes_max: a full batch would not fit its body; "
            "lower the first or raise the second",
        ),
        (
            config.http.body_bytes_max <= config.ring.bytes_max
            and config.websocket.frame_bytes_max <= config.ring.bytes_max,
            "ring.bytes_max is smaller than http.body_bytes_max or websocket.frame_bytes_max: "
            "the largest publish would never find a place; raise the first",
        ),
        (
            config.websocket.pong_timeout_s <= config.websocket.heartbeat_s,
            "websocket.pong_timeout_s is longer than websocket.heartbeat_s: pings would overtake each other; "
            "lower the first or raise the second",
        ),
        (
            config.shutdown.reconnect_ms_min <= config.shutdown.reconnect_ms_max,
            "shutdown.reconnect_ms_min is larger than shutdown.reconnect_ms_max: lower the first or raise the second",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise ConfigError(message)
    if not config.listen.insecure:
        for key in ("data", "control"):
            host, _ = parse_address(getattr(config.listen, key))
            if not is_loopback(host):
                raise ConfigError(
                    f"listen.{key}: {host} is not loopback and this version has no credentials: everyone who reaches "
                    f"it could publish and read; listen on 127.0.0.1 behind a proxy that authenticates, "
                    f"or say --insecure (listen.insecure = true)"
                )


def generate() -> str:
    """A complete configuration file with every default, each explained. What `gateway genconfig` prints."""
    lines = ["# Configuration of the push gateway. Every line shows its default; uncomment what you change.", ""]
    section = ""
    for entry in entries():
        if entry.section != section:
            section = entry.section
            doc = (sections()[section].__doc__ or "").strip()
            lines += ["", f"# {doc}", f"[{section}]"]
        lines.append(f"# {entry.help}{_bounds(entry)}")
        lines.append(f"# {entry.key} = {toml_value(entry.default)}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The Markdown table of the README, generated so that it cannot be wrong."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    rows += [f"| `{e.name}` | `{toml_value(e.default)}` | {e.help}{_bounds(e)} |" for e in entries()]
    return "\n".join(rows) + "\n"


def _bounds(entry: Entry) -> str:
    return "" if entry.low is None else f" ({entry.low:,} to {entry.high:,})"


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
