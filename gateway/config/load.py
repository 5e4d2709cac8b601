"""From a file, the environment and flags to a checked `Config`, or to an error that names the source and the mend."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import attrs

from gateway.config.address import is_loopback, parse_address
from gateway.config.settings import ENVIRONMENT_PREFIX, Config, Entry, Section, entries, entries_of, sections
from gateway.config.values import Value, check
from gateway.errors import ConfigError, GatewayError

_FLAGS = {
    "listen.data": "--listen",
    "listen.control": "--control",
    "listen.insecure": "--insecure",
    "store.directory": "--data",
    "log.level": "--log-level",
    "log.format": "--log-format",
}
"""The options of `gateway serve` that are settings."""


C = TypeVar("C")


@overload
def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config: ...


@overload
def load(
    file: Path | None, environment: Mapping[str, str] | None, flags: Mapping[str, Any] | None, of: type[C]
) -> C: ...


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    of: type = Config,
) -> Any:
    """Build the configuration: defaults < `file` < `environment` < `flags` (`{"section.key": value}`).

    Lists (`[[name]]`) come from the file only. `of`: another class than Config, made like it. Raises ConfigError
    naming the source, the key and the mend, for the first thing that is wrong.
    """
    known = {entry.name: entry for entry in entries(of) if not entry.repeated}
    merged: dict[str, Value] = {}
    lists: dict[str, list[_Table]] = {}
    if file is not None:
        merged, lists = _from_file(file, sections(of))
    merged.update(_from_environment(environment or {}, known))
    for name, value in (flags or {}).items():
        merged[name] = Value(value, f"flag {_FLAGS.get(name, name)}")
    checked: dict[str, dict[str, Any]] = {name: {} for name, section in sections(of).items() if not section.repeated}
    for name, item in merged.items():
        entry = known[name]
        checked[entry.section][entry.key] = check(entry, item)
    built = {name: _build(sections(of)[name].cls, values, name) for name, values in checked.items()}
    built |= {name: _build_list(sections(of)[name], tables) for name, tables in lists.items()}
    config = of(**built)
    if isinstance(config, Config):
        _check_relations(config)
    return config


def _from_file(file: Path, known: Mapping[str, Section]) -> tuple[dict[str, Value], dict[str, list[_Table]]]:
    """The values of its sections by their full names, and its lists."""
    values: dict[str, Value] = {}
    lists: dict[str, list[_Table]] = {}
    for name, content in _read(file).items():
        section = known.get(name)
        if section is None:
            raise ConfigError(f"{file}: [{name}]: unknown section{_suggest(name, known)}")
        if section.repeated:
            lists[name] = list(_list_of_tables(section, content, f"{file}: {name}"))
        else:
            table = _table(section, content, f"{file}: {name}")
            values.update((f"{name}.{key}", value) for key, value in table.values.items())
    return values, lists


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; name a file that exists") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not TOML: {error}") from None


@attrs.frozen
class _Table:
    """One table of the file: its values by their keys, and where it stands."""

    values: dict[str, Value]
    origin: str


def _list_of_tables(section: Section, content: Any, origin: str) -> Iterator[_Table]:
    if not isinstance(content, list):
        raise ConfigError(f"{origin}: must be a list of tables; write [[{section.name}]]")
    for index, table in enumerate(content):
        yield _table(section, table, f"{origin}[{index}]")


def _table(section: Section, content: Any, origin: str) -> _Table:
    if not isinstance(content, dict):
        raise ConfigError(f"{origin}: must be a table; write {section.header}")
    keys = [field.name for field in attrs.fields(section.cls)]
    for key in content:
        if key not in keys:
            raise ConfigError(f"{origin}.{key}: unknown key{_suggest(key, keys)}")
    return _Table({key: Value(value, f"{origin}.{key}", typed=True) for key, value in content.items()}, origin)


def _build_list(section: Section, tables: list[_Table]) -> tuple[Any, ...]:
    known = {entry.key: entry for entry in entries_of(section)}
    built: list[Any] = []
    names: dict[str, str] = {}
    for table in tables:
        for key, entry in known.items():
            if entry.default is attrs.NOTHING and key not in table.values:
                raise ConfigError(f"{table.origin}: {key} is missing: {entry.help}")
        values = {key: check(known[key], value) for key, value in table.values.items()}
        built.append(_build(section.cls, values, table.origin))
        name = values.get("name")
        if name is not None and names.setdefault(name, table.origin) != table.origin:
            raise ConfigError(f"{table.origin}.name: {name!r} is the name of {names[name]} already; give another")
    return tuple(built)


def _build(cls: type, values: dict[str, Any], origin: str) -> Any:
    try:
        return cls(**values)
    except (ValueError, GatewayError) as error:
        raise ConfigError(f"{origin}: {error}") from None


def _from_environment(environment: Mapping[str, str], known: Mapping[str, Entry]) -> Iterator[tuple[str, Value]]:
    variables = {entry.variable: name for name, entry in known.items()}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or "__" not in variable:
            continue  # other programs' variables, such as GATEWAY_INTERFACE, are not ours to judge
        if variable not in variables:
            raise ConfigError(f"environment: {variable}: unknown setting{_suggest(variable, variables)}")
        yield variables[variable], Value(value, f"environment: {variable}")


def _suggest(word: str, candidates: Any) -> str:
    close = difflib.get_close_matches(word, list(candidates), n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are: {', '.join(candidates)}"


def _check_relations(config: Config) -> None:
    """Settings that contradict each other are named together."""
    rules: list[tuple[bool, str]] = [
        (
            2 * config.trace.segment_bytes <= config.trace.retention_bytes,
            "trace.segment_bytes is more than half of trace.retention_bytes: a file goes as a whole, and nearly all of "
            "the trace with it; lower the first or raise the second",
        ),
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
            config.flow.throttle_after_s <= config.flow.pause_after_s <= config.flow.close_after_s,
            "flow.throttle_after_s, flow.pause_after_s and flow.close_after_s are steps one after the other: "
            "let none be longer than the next",
        ),
        (
            config.disk.high_free_bytes <= config.disk.low_free_bytes
            and config.disk.high_free_share <= config.disk.low_free_share,
            "disk.high_free_bytes or disk.high_free_share is larger than its fellow disk.low_...: a warning comes "
            "first; lower the first or raise the second",
        ),
        (
            config.shutdown.reconnect_ms_min <= config.shutdown.reconnect_ms_max,
            "shutdown.reconnect_ms_min is larger than shutdown.reconnect_ms_max: lower the first or raise the second",
        ),
    ]
    rules += [
        (
            not config.auth.permissions_file or config.has_credentials,
            "auth.permissions_file is set, but there are no credentials: set auth.keys_file or add a [[jwt]]",
        ),
        (
            len({entry.issuer for entry in config.jwt}) == len(config.jwt),
            "jwt: two entries have the same issuer: a token could not tell which; make them one",
        ),
        (
            config.auth.permissions_file != "" or not any(entry.roles for entry in config.jwt),
            "jwt: roles are named, but there is no auth.permissions_file that says what they may do",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise ConfigError(message)
    if not config.listen.insecure and not config.has_credentials:
        for key in ("data", "control"):
            host, _ = parse_address(getattr(config.listen, key))
            if not is_loopback(host):
                raise ConfigError(
                    f"listen.{key}: {host} is not loopback and no credentials are configured: everyone who reaches "
                    f"it could publish and read; set auth.keys_file (gateway key create) or add a [[jwt]], "
                    f"listen on 127.0.0.1, or say --insecure (listen.insecure = true)"
                )
