"""Filters that are plain equalities, such as `data.type == "paid" && attributes.region == "eu"`, read off their text.

They need no CEL: a path is followed once for all filters that begin with it, and the value found is looked up among
theirs. What is not of this form exactly is left to CEL, so nothing here has to know the rest of the language.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any, Final

import attrs

STRING: Final = r'"[^"\\\n]*"|\'[^\'\\\n]*\''
PATH: Final = rf"(?:topic|key|(?:attributes|data)(?:\.[A-Za-z_][A-Za-z0-9_]*|\[(?:{STRING})\])+|data)"
_LITERAL: Final = rf"{STRING}|-?\d+\.\d+|-?\d+|true|false|null"
_TERM: Final = re.compile(rf"\s*(?:({PATH})\s*==\s*({_LITERAL})|({_LITERAL})\s*==\s*({PATH}))\s*")
_STEP: Final = re.compile(rf"\.([A-Za-z0-9_]+)|\[({STRING})\]")
_WORDS: Final = {"true": (True,), "false": (False,), "null": None}
_NONE: Final = object()

Path = tuple[str, ...]
"""A variable and the names of the members below it."""


@attrs.frozen
class Equality:
    """`path == value`; the value as `key_of` makes it."""

    path: Path
    value: Hashable


def recognise(text: str) -> tuple[Equality, ...] | None:
    """The equalities that `text`, known to be valid CEL, joins by `&&`; None where it is anything else."""
    terms: list[Equality] = []
    at = 0
    while (match := _TERM.match(text, at)) is not None:
        path, literal = match.group(1) or match.group(4), match.group(2) or match.group(3)
        terms.append(Equality(path_of(path), _value(literal)))
        at = match.end()
        if at == len(text):
            return tuple(terms)
        if not text.startswith("&&", at):
            return None
        at += 2
    return None


def path_of(text: str) -> Path:
    """A path off its text, as PATH matches it."""
    root = re.match(r"\w+", text)
    assert root is not None
    steps = [name or string[1:-1] for name, string in _STEP.findall(text, root.end())]
    return (root.group(), *steps)


def _value(literal: str) -> Hashable:
    if literal[0] in "\"'":
        return literal[1:-1]
    if literal in _WORDS:
        return _WORDS[literal]
    return float(literal) if "." in literal else int(literal)


def key_of(value: object) -> Hashable:
    """What a value is looked up by: CEL tells true from 1, Python does not. None of a filter's values is a list."""
    kind = value.__class__
    if kind is bool:
        return (value,)
    return _NONE if kind is list or kind is dict else value


def follow(variables: Mapping[str, Any], path: Path) -> object:
    """The value at `path`. LookupError where there is none, as CEL says no such key."""
    found: Any = variables
    for name in path:
        if found.__class__ is not dict:
            raise KeyError(name)
        found = found[name]
    return found


def holds(variables: Mapping[str, Any], terms: tuple[Equality, ...]) -> bool:
    """Whether all `terms` hold; LookupError where a path is missing and no other term is false, as CEL has it."""
    missing: LookupError | None = None
    for term in terms:
        try:
            if key_of(follow(variables, term.path)) != term.value:
                return False
        except LookupError as error:
            missing = error
    if missing is not None:
        raise missing
    return True
