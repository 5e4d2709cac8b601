from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.equality import Equality, holds, recognise
from gateway.broker.filter import Activation, Filter, FilterError

PLAIN = [
    ('data.type == "paid"', (Equality(("data", "type"), "paid"),)),
    ("'paid'==data.type", (Equality(("data", "type"), "paid"),)),
    ('  topic == "a.b"  ', (Equality(("topic",), "a.b"),)),
    ('attributes["trace-id"] == "x"', (Equality(("attributes", "trace-id"), "x"),)),
    ("data.a['b c'].d == -3", (Equality(("data", "a", "b c", "d"), -3),)),
    ("data == null", (Equality(("data",), None),)),
    ("data.x == true", (Equality(("data", "x"), (True,)),)),
    ("data.x == 1.5", (Equality(("data", "x"), 1.5),)),
    ('key == "k"&&data.n == 1', (Equality(("key",), "k"), Equality(("data", "n"), 1))),
]
OTHER = [
    'data.type == "a" || data.type == "b"',
    'data.type != "a"',
    '!(data.type == "a")',
    '(data.type == "a")',
    'data.type == "a\\n"',
    'data.type == r"a"',
    "data.type == b'a'",
    'data.type == """a"""',
    "data.n == 1u",
    "data.n == 0x10",
    "data.n == 1e3",
    "data.n == 1 && data.m > 2",
    'data.n == 1 // and no more"',
    "data[0] == 1",
    "data.a == data.b",
    "topic.size() == 1",
]


@pytest.mark.parametrize(("text", "terms"), PLAIN)
def test_plain_equalities_are_recognised(text: str, terms: tuple[Equality, ...]) -> None:
    assert recognise(text) == terms
    assert Filter(text).terms == terms  # and it is CEL, too


@pytest.mark.parametrize("text", OTHER)
def test_everything_else_is_left_to_cel(text: str) -> None:
    assert recognise(text) is None


def test_a_missing_path_is_an_error_unless_another_term_is_false() -> None:
    terms = recognise("data.a == 1 && data.b == 2")
    assert terms is not None
    assert holds({"data": {"a": 1, "b": 2}}, terms)
    assert not holds({"data": {"b": 3}}, terms)
    with pytest.raises(LookupError):
        holds({"data": {"b": 2}}, terms)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([0, 1, -1, 1.0, 0.0, 1.5])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "1", "true", "é"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c d"]), inner, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from(["data", "data.a", "data.b.a", 'data["c d"]', "attributes.a", "topic", "key"])
LITERALS = st.sampled_from(['"a"', "'1'", '""', "1", "0", "1.0", "1.5", "-1", "true", "false", "null"])
TERMS = st.lists(st.tuples(PATHS, LITERALS), min_size=1, max_size=3)


@given(TERMS, VALUES, st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["a", "1"])))
def test_equalities_say_what_cel_says(terms: list[tuple[str, str]], data: Any, attributes: dict[str, str]) -> None:
    terms = [term for term in terms if term[0] not in ("topic", "key", "attributes.a") or term[1][0] in "\"'"]
    text = " && ".join(f"{path} == {literal}" for path, literal in terms)
    if not text:
        return
    filter_ = Filter(text)
    assert filter_.terms is not None
    variables = {"topic": "a", "key": "1", "attributes": attributes, "data": data}
    assert _or_error(lambda: holds(variables, filter_.terms or ())) == _or_error(
        lambda: filter_.evaluate(Activation(variables))
    )


def _or_error(ask: Any) -> bool | str:
    try:
        return bool(ask())
    except (LookupError, FilterError):
        return "error"


@pytest.mark.parametrize("data", [True, False, 1, 0, 1.0, 0.0, "true", "1", None, [], {}, [True], 2**63])
@pytest.mark.parametrize("literal", ["true", "false", "1", "0", "1.0", '"true"', '"1"', "null"])
def test_kinds_of_values_are_told_apart_as_cel_does(data: Any, literal: str) -> None:
    filter_ = Filter(f"data == {literal}")
    assert filter_.terms is not None
    variables = {"data": data}
    assert holds(variables, filter_.terms) == filter_.evaluate(Activation(variables))
