"""A subscription's filter: one CEL expression over `topic`, `key`, `attributes` and `data` (protocol.md §5).

CEL is evaluated by Google's own implementation. Of those on PyPI it alone checks types when it compiles, so that a
misspelt name is an error at creation and not a subscription that never gets anything, and it bounds the iterations of
an evaluation (10,000). Measured, for a document of 20 values: 8 us to convert it, once a message, and 2 us a filter.
The Rust one takes 48 us and 0.3 us, and any number of iterations; the one in Python 290 us in all. None of them lets go
of the interpreter meanwhile: what may take long is asked elsewhere (engine/longfilters.py). Plain comparisons need no
CEL once they are compiled (broker/comparison.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cel_expr_python import cel

from gateway.broker import comparison
from gateway.broker.equality import Equality, holds, recognise
from gateway.errors import GatewayError

VARIABLES: Final = ("topic", "key", "attributes", "data")
_ENVIRONMENT: Final = cel.NewEnv(
    variables={
        "topic": cel.Type.STRING,
        "key": cel.Type.STRING,
        "attributes": cel.Type.Map(cel.Type.STRING, cel.Type.STRING),
        "data": cel.Type.DYN,
    }
)
_TRUTHS: Final = ("BOOL", "DYN")
_LONG: Final = re.compile(r"\b(all|exists|exists_one|map|filter|matches)\b")
_DATA: Final = re.compile(r"\bdata\b(?:\s*\.\s*([A-Za-z_][A-Za-z0-9_]*)(?!\w|\s*\())?")
_PLACE: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_SAID_MAX: Final = 300
_SET_ASIDE_MS: Final = 1000
_SET_ASIDE_MS_MAX: Final = 300_000
_FORGIVEN_MS: Final = 600_000


class FilterError(Exception):
    """The filter could not say: a field is missing, types do not fit, or it took too long. `str()` is the reason."""


class Filter:
    """One compiled expression, shared by all subscriptions with the same text."""

    __slots__ = (
        "__weakref__",
        "_comparisons",
        "_program",
        "_set_aside_ms",
        "_slow_at",
        "evaluations",
        "is_long",
        "members",
        "terms",
        "text",
    )

    def __init__(self, text: str) -> None:
        """Compile; GatewayError `bad_filter` names the column and what is wrong there."""
        self.text = text
        self._program = _compile(text)
        self.terms: tuple[Equality, ...] | None = recognise(text)
        self._comparisons = comparison.recognise(text) if self.terms is None else None
        self.is_long = _LONG.search(text) is not None
        """Whether it may loop or match patterns: its length does not tell its cost."""
        self.members = _members(text)
        """Members of `data` that it can look at; None where it may look at all of it."""
        self.evaluations = 0
        self._slow_at = 0
        self._set_aside_ms = 0

    def evaluate(self, variables: Activation) -> bool:
        """Whether the message matches. Raises FilterError where it cannot be said."""
        self.evaluations += 1
        if self._comparisons is not None:
            verdict = comparison.decide(variables.variables, self._comparisons)
            if verdict is not None:
                return verdict
        try:
            value = self._program.eval(variables.made())
            found = value.value()
        except Exception as error:  # whatever the library says of data that it cannot take
            raise FilterError(_reason(str(error))) from None
        if found is True or found is False:
            return bool(found)
        if value.type() == cel.Type.ERROR:
            raise FilterError(_reason(str(found)))
        raise FilterError(f"the filter gives {value.type().name().lower()}, not true or false")

    def is_quick(self, size: int, size_max: int) -> bool:
        """Whether it can be asked at once about a payload of `size` bytes; equalities always."""
        return self.terms is not None or (not self.is_long and size <= size_max)

    # ------------------------------------------------------------------------------------------------ slowness

    def is_set_aside(self, now: int) -> bool:
        """Whether it was too slow of late: it is not asked then, and nothing matches."""
        return now < self._slow_at + self._set_aside_ms

    def set_aside(self, now: int) -> int:
        """It took too long: it rests for a second, and twice as long each time it does so again. Milliseconds."""
        forgiven = not self._set_aside_ms or now - self._slow_at > self._set_aside_ms + _FORGIVEN_MS
        self._set_aside_ms = _SET_ASIDE_MS if forgiven else min(self._set_aside_ms * 2, _SET_ASIDE_MS_MAX)
        self._slow_at = now
        return self._set_aside_ms


class BrokenFilter(Filter):
    """Stands for a filter that was taken once and is not any more, after an update: it can never say."""

    __slots__ = ("_why",)

    def __init__(self, text: str, reason: str) -> None:
        super().__init__("false")
        self.text = text
        self._why = reason

    def evaluate(self, variables: Activation) -> bool:
        raise FilterError(self._why)


class Activation:
    """The variables of one message, converted for CEL once however many filters look at them.

    Converting is most of the cost, so `members`, where they are given, are all that it takes of `data`.
    """

    __slots__ = ("_made", "variables")

    def __init__(self, variables: Mapping[str, Any], members: frozenset[str] | None = None) -> None:
        if members is not None and (data := variables.get("data")).__class__ is dict:
            variables = {**variables, "data": {name: data[name] for name in members if name in data}}
        self.variables = variables
        self._made: cel.Activation | None = None

    def made(self) -> cel.Activation:
        """Raises RuntimeError for what CEL has no value for, such as a whole number beyond 64 bits."""
        if self._made is None:
            self._made = _ENVIRONMENT.Activation(self.variables)
        return self._made


def matches(filter_: Filter, variables: Activation) -> bool:
    """Whether the filter lets a message through, by the shortest way. Raises FilterError where it cannot be said."""
    if filter_.terms is None:
        return filter_.evaluate(variables)
    try:
        return holds(variables.variables, filter_.terms)
    except LookupError as error:
        raise FilterError(missing(error)) from None


def _members(text: str) -> frozenset[str] | None:
    """Names behind `data.`, where `data` stands nowhere else; what a text or a comment says only adds to them."""
    names = _DATA.findall(text)
    return None if "" in names else frozenset(names)


def missing(error: LookupError) -> str:
    return f"there is no {error.args[0]!r}"


def _compile(text: str) -> cel.Expression:
    try:
        text.encode()  # JSON can escape half a surrogate pair; the library would call it a wrong type
        program = _ENVIRONMENT.compile(text)
    except UnicodeEncodeError as error:
        raise GatewayError("bad_filter", f"filter: column {error.start + 1}: is no character of Unicode") from None
    except RuntimeError as error:
        raise GatewayError("bad_filter", f"filter: {_where(str(error))}") from None
    if program.return_type().name().upper() not in _TRUTHS:
        kind = program.return_type().name().lower()
        raise GatewayError("bad_filter", f'filter: it gives {kind}; compare it with something, as data.type == "paid"')
    return program


def _where(said: str) -> str:
    """The first error, and its place as people count."""
    place = _PLACE.search(said)
    if place is None or place.group(1) == "-1":
        if "recursion" in said:
            return "it is nested deeper than 32 levels, or has more than 32 operators in a row; use parentheses or in"
        return _reason(said)
    line, column, what = place.groups()
    where = f"column {column}" if line == "1" else f"line {line}, column {column}"
    what = what.replace(" (in container '')", "")
    if what.startswith("undeclared reference"):
        what += f"; a filter knows {', '.join(VARIABLES)}, and the functions of CEL"
    return f"{where}: {what[:_SAID_MAX]}"


def _reason(said: str) -> str:
    """The library's sentence without its status code."""
    text = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$", "", said.strip())
    return text[:_SAID_MAX]
