"""One value from its source to a setting's type and bounds, or to an error that names where it stands."""

from __future__ import annotations

from typing import Any, Final

import attrs
import cattrs

from gateway.config.address import parse_address
from gateway.config.settings import Entry
from gateway.errors import ConfigError


@attrs.frozen
class Value:
    """One value with where it came from, for the error message."""

    value: Any
    origin: str
    typed: bool = False
    """Whether the source has types of its own, so that text is not another way to write a number."""


_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
_TYPE_WORDS: Final = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "list": 'a list of texts, such as ["a", "b"]',
    "table": 'a table, such as {a = 1, b = "x"}',
}


def _convert(entry: Entry, value: Any, typed: bool) -> Any:
    """Text of the environment becomes the setting's type; a file's value must already have it."""
    if entry.type == "list":
        return _list(value, typed)
    if entry.type == "table":
        if not isinstance(value, dict):
            raise ValueError(f"must be {_TYPE_WORDS['table']}")
        return value
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


def _list(value: Any, typed: bool) -> tuple[str, ...]:
    if isinstance(value, str) and not typed:
        value = [word.strip() for word in value.split(",") if word.strip()]  # of the environment: a,b
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"must be {_TYPE_WORDS['list']}")
    return tuple(value)


def check(entry: Entry, item: Value) -> Any:
    """The value in the setting's type, or ConfigError."""
    try:
        value = _convert(entry, item.value, item.typed)
    except ValueError as error:
        raise ConfigError(f"{item.origin}: {item.value!r}: {error}") from None
    if entry.low is not None and not value >= entry.low:
        raise ConfigError(f"{item.origin}: {value} is too small; the least is {entry.low:g}")
    if entry.high is not None and not value <= entry.high:
        raise ConfigError(f"{item.origin}: {value} is too large; the most is {entry.high:g}")
    if entry.choices:
        for each in value if entry.type == "list" else (value,):
            if each not in entry.choices:
                *others, last = entry.choices
                raise ConfigError(f"{item.origin}: {each!r}: use {', '.join(others)} or {last}")
    if entry.section == "listen" and entry.key in ("data", "control"):
        try:
            parse_address(value)
        except ValueError as error:
            raise ConfigError(f"{item.origin}: {value!r}: {error}") from None
    return value
