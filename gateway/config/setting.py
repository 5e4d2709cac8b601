"""How a setting is declared: its default, its bounds, and the sentence that explains it."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import attrs

KIB: Final = 1024
MIB: Final = 1024 * 1024

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
