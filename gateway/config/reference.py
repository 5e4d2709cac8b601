"""The settings as people read them: a configuration file with every default, and the table of the README."""

from __future__ import annotations

import inspect
from typing import Any

import attrs

from gateway.config.settings import Config, Entry, entries, sections


def generate(of: type = Config) -> str:
    """A complete configuration file with every default, each explained. What `gateway genconfig` prints."""
    lines = ["# Configuration of the push gateway. Every line shows its default; uncomment what you change.", ""]
    section = ""
    for entry in entries(of):
        if entry.section != section:
            section = entry.section
            found = sections(of)[section]
            lines += ["", *(f"# {line}".rstrip() for line in inspect.cleandoc(found.cls.__doc__ or "").splitlines())]
            lines.append(f"# {found.header}" if entry.repeated else found.header)
        lines.append(f"# {entry.help}{_bounds(entry)}")
        lines.append(f"# {entry.key} = {toml_value(entry.default)}")
    return "\n".join(lines) + "\n"


def reference(of: type = Config) -> str:
    """The Markdown table of the README, generated so that it cannot be wrong."""
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    rows += [f"| `{e.name}` | {_default(e)} | {e.help}{_bounds(e)} |" for e in entries(of)]
    return "\n".join(rows) + "\n"


def _default(entry: Entry) -> str:
    return "required" if entry.default is attrs.NOTHING else f"`{toml_value(entry.default)}`"


def _bounds(entry: Entry) -> str:
    return "" if entry.low is None else f" ({entry.low:,} to {entry.high:,})"


def toml_value(value: Any) -> str:
    """A default as TOML writes it; what must be given is an empty text to fill."""
    if value is attrs.NOTHING:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml_value(each)}' for key, each in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else str(value)
