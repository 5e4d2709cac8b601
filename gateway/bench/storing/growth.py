"""How the figures of `restart` and `backlog` grow with the messages stored, and what they would come to beyond."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, linear_regression, median
from typing import Any, Final

import attrs

from gateway.bench.storing.parts import MIB, Part, Row

BEYOND: Final = 100_000_000
"""Messages that nobody fills a disk with to measure this."""
_MILLION: Final = 1_000_000

Point = tuple[int, float]
"""Messages, and what was measured with so many."""


@attrs.frozen
class Line:
    """The straight line through what was measured, by least squares; level where that falls: it does not grow then."""

    fixed: float
    per_million: float
    off: float
    """By how much of itself a measurement is off the line at most."""

    @classmethod
    def through(cls, points: Sequence[Point]) -> Line:
        """Through two sizes at least."""
        values = [value for _, value in points]
        slope, fixed = linear_regression([messages / _MILLION for messages, _ in points], values)
        line = cls(fixed, slope, 0.0) if slope > 0 else cls(fmean(values), 0.0, 0.0)
        off = max((abs(line.at(messages) - value) / value for messages, value in points if value), default=0.0)
        return attrs.evolve(line, off=off)

    def at(self, messages: int) -> float:
        return self.fixed + self.per_million * messages / _MILLION


@attrs.frozen
class Curve:
    """One figure over several sizes."""

    name: str
    unit: str
    points: Sequence[Point]


def curves(parts: Iterable[dict[str, Any]]) -> list[Curve]:
    """Of the plain data of parts; those of which there are two sizes at least, in the order in which they come."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for part in parts:
        for messages, name, unit, value in (*_of_restart(part), *_of_backlog(part)):
            found.setdefault((name, unit), {})[messages] = value
    return [Curve(name, unit, sorted(of.items())) for (name, unit), of in found.items() if len(of) > 1]


Figure = tuple[int, str, str, float]
"""Messages, name, unit, value."""


def _of_restart(part: dict[str, Any]) -> Iterator[Figure]:
    if "restart" not in part:
        return
    messages = part["restart"]["filled"]["messages"]
    for start in part["restart"]["starts"][1:]:  # the first is that of an empty store
        yield messages, f"restart {start['start']}, to /readyz", "s", start["ready_s"]
        yield messages, f"restart {start['start']}, CPU", "s", start["cpu_s"]
        yield messages, f"restart {start['start']}, resident", "MiB", start["resident_bytes"] / MIB


def _of_backlog(part: dict[str, Any]) -> Iterator[Figure]:
    if "backlog" not in part:
        return
    found = part["backlog"]
    messages = found["filled"]["messages"]
    yield messages, "backlog, resident at the start", "MiB", found["at_start"]["resident_bytes"] / MIB
    yield messages, "backlog, first message, cold", "ms", 1000 * median(found["first_message_cold_s"])
    yield messages, "backlog, first message, warm", "ms", 1000 * median(found["first_message_warm_s"])


def grown(parts: Iterable[dict[str, Any]]) -> Part | None:
    """One table of them all; None where everything was measured with one size only."""
    rows: list[Row] = []
    plain: list[dict[str, Any]] = []
    for curve in curves(parts):
        line = Line.through(curve.points)
        measured = " · ".join(f"{_count(messages)} {value:,.2f}" for messages, value in curve.points)
        rows.append((curve.name, f"{measured} {curve.unit}", _in_words(line, curve)))
        plain.append({**attrs.asdict(curve), **attrs.asdict(line), "beyond": {str(BEYOND): line.at(BEYOND)}})
    return Part("growth", rows, {"growth": plain}) if rows else None


def _in_words(line: Line, curve: Curve) -> str:
    on = f"{line.fixed:,.2f} {line.per_million:+,.3f} a million" if line.per_million else "does not grow"
    off = f" (off by {line.off:.0%} at most)" if len(curve.points) > 2 else ""  # any two are on a line
    return f"{on}{off}; {_count(BEYOND)} would be {line.at(BEYOND):,.2f} {curve.unit}"


def _count(messages: int) -> str:
    return f"{messages / _MILLION:g} M"
