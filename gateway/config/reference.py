"""The settings as people read them: a configuration file with every default, and the table of the README."""

from __future__ import annotations

from typing import Any

from gateway.config.settings import Entry, entries, sections


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
