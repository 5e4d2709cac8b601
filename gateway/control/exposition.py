"""Families of numbers as text, in OpenMetrics or Prometheus' classic format; and how to make one of a number.

The text is made in turns: the library takes 10 to 20 us a sample, which for a thousand subscriptions would hold up
every client for a fifth of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import trio
from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics

OPENMETRICS: Final = "application/openmetrics-text"
PLAIN: Final = "text/plain"
TURN: Final = 50
"""Samples written before other tasks run: about a millisecond."""
Values = float | Mapping[str, float]
"""One value, or values by label."""


class _Part:
    """Some samples of one family, as the library's writers take them."""

    def __init__(self, family: Metric, start: int) -> None:
        self._part = Metric(family.name, family.documentation, family.type, family.unit)
        self._part.samples = family.samples[start : start + TURN]

    def collect(self) -> Iterable[Metric]:
        return (self._part,)


async def write(families: Iterable[Metric], media: str) -> bytes:
    """The text of `families`, made in turns."""
    encode = _encode_openmetrics if media == OPENMETRICS else exposition.generate_latest
    text: list[bytes] = []
    for family in families:
        for start in range(0, max(len(family.samples), 1), TURN):
            part = encode(_Part(family, start))
            text.append(part if start == 0 else _without_head(part))
            await trio.lowlevel.checkpoint()
    if media == OPENMETRICS:
        text.append(_EOF)
    return b"".join(text)


_EOF: Final = b"# EOF\n"


def _encode_openmetrics(part: _Part) -> bytes:
    text: bytes = openmetrics.generate_latest(part)  # type: ignore[no-untyped-call]
    return text.removesuffix(_EOF)


def _without_head(part: bytes) -> bytes:
    """The samples only: the family has its head already."""
    return b"".join(line for line in part.splitlines(keepends=True) if not line.startswith(b"#"))


# ------------------------------------------------------------------------------------------------------ making


def counter(name: str, text: str, values: Values, label: str = "") -> Metric:
    """A counter; the writers add `_total` to its name."""
    labels = [label] if isinstance(values, Mapping) else None
    family = CounterMetricFamily(name, text, labels=labels, unit=_unit(name))
    for names, value in _items(values):
        family.add_metric(names, value)
    return family


def gauge(name: str, text: str, values: Values, label: str = "") -> Metric:
    labels = [label] if isinstance(values, Mapping) else None
    family = GaugeMetricFamily(name, text, labels=labels, unit=_unit(name))
    for names, value in _items(values):
        family.add_metric(names, value)
    return family


def _items(values: Values) -> Iterator[tuple[list[str], float]]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield [name], value
    else:
        yield [], values


def _unit(name: str) -> str:
    unit = name.rpartition("_")[2]
    return unit if unit in ("seconds", "bytes") else ""
