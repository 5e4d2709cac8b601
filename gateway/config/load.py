"""From a file, the environment and flags to a checked `Config`, or to an error that names the source and the mend."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import cattrs

from gateway.config.address import is_loopback, parse_address
from gateway.config.settings import ENVIRONMENT_PREFIX, Config, Entry, entries, sections
from gateway.errors import ConfigError

_FLAGS = {
    "listen.data": "--listen",
    "listen.control": "--control",
    "listen.insecure": "--insecure",
    "store.directory": "--data",
    "log.level": "--log-level",
    "log.format": "--log-format",
}
"""The options of `gateway serve` that are settings."""


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
        merged[name] = _Value(value, f"flag {_FLAGS.get(name, name)}")
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
