"""Filters that are plain comparisons, such as `data.amount > 10 && data.type == "paid"`, read off their text.

CEL has to convert a message before it can look at it, which is most of what it costs: 8 us for 20 values. A comparison
of a number with a number, or of a text with a text, means the same in Python, and takes 0.5 us. Whatever else is found
at a path, another type, nothing at all, an integer beyond 64 bits, is left to CEL, which says what that means.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from gateway.broker.equality import PATH, STRING, Path, follow, path_of

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TERM: Final = re.compile(rf"\s*({PATH})\s*({'|'.join(_OPERATORS)})\s*({STRING}|-?\d+\.\d+|-?\d+)\s*(?:&&|$)")
_INT64: Final = range(-(2**63), 2**63)
_EXACT: Final = range(-(2**53), 2**53 + 1)
"""Integers that doubles hold."""


@attrs.frozen
class Comparison:
    """`path operator value`; the value is a number or a text."""

    path: Path
    compare: Callable[[Any, Any], bool]
    value: float | int | str


def recognise(text: str) -> tuple[Comparison, ...] | None:
    """The comparisons that `text`, known to be valid CEL, joins by `&&`; None where it is anything else."""
    terms: list[Comparison] = []
    at = 0
    while (match := _TERM.match(text, at)) is not None:
        path, sign, literal = match.groups()
        terms.append(Comparison(path_of(path), _OPERATORS[sign], _value(literal)))
        at = match.end()
        if at == len(text):
            return None if text.endswith("&&") else tuple(terms)
    return None


def _value(literal: str) -> float | int | str:
    if literal[0] in "\"'":
        return literal[1:-1]
    return float(literal) if "." in literal else int(literal)


def decide(variables: Mapping[str, Any], terms: tuple[Comparison, ...]) -> bool | None:
    """Whether all `terms` hold; None where only CEL can say. One that is false decides, whatever the others are."""
    known = True
    for term in terms:
        try:
            found = follow(variables, term.path)
        except LookupError:
            known = False
            continue
        if not _is_of_one_kind(found, term.value):
            known = False
        elif not term.compare(found, term.value):
            return False
    return True if known else None


def _is_of_one_kind(found: object, value: float | int | str) -> bool:
    """Whether both are texts, or numbers that CEL compares as Python does: it makes doubles of an integer and a double,
    and of large ones that is not exact."""
    kind, its = found.__class__, value.__class__
    if kind is its:
        return kind is not int or found in _INT64
    return (kind is int and its is float and found in _EXACT) or (kind is float and its is int and value in _EXACT)
