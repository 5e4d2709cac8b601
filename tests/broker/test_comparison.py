from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.comparison import decide, recognise
from gateway.broker.filter import Activation, Filter, FilterError
from tests.broker.test_equality import PATHS, VALUES

PLAIN = [
    "data.amount > 10",
    'data.amount>=10.5&&data.type != "x"',
    "  topic < 'b'  ",
    'data["a b"].c <= -3',
    'data.a == 1 && key > "k"',
]
OTHER = [
    "10 < data.amount",
    "data.a > 1 || data.b > 2",
    "!(data.a > 1)",
    "data.a > 1u",
    "data.a > 0x10",
    "data.a > 1e3",
    "data.a > data.b",
    "data.a + 1 > 2",
    "data.a > 1 // more",
    "data.a != true",
    "data.a != null",
    'data.a > "a\\n"',
    "data[0] > 1",
    "data.a.size() > 1",
    "data.a > 1 ? true : false",
]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_comparisons_are_recognised(text: str) -> None:
    assert recognise(text) is not None
    assert Filter(text).terms is None  # and it is CEL, too


@pytest.mark.parametrize("text", OTHER)
def test_everything_else_is_left_to_cel(text: str) -> None:
    assert recognise(text) is None
    Filter(text)


SIGNS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
LITERALS = st.one_of(
    st.sampled_from(
        ['"a"', "'1'", '""', '"\u00e9"', "0", "1.0", "1.5", "-1", "9223372036854775807", "9007199254740993"]
    ),
    st.integers(-(2**63), 2**63 - 1).map(str),
)
NUMBERS = (
    st.integers(-(2**63), 2**63 - 1)  # CEL takes no data at all in which there is a larger one
    | st.integers(2**53 - 2, 2**53 + 2)
    | st.sampled_from([2.0**53, 2.0**53 + 2])
    | st.floats(allow_nan=False, allow_infinity=False)
)


def by_cel(text: str, variables: dict[str, Any]) -> bool | str:
    filter_ = Filter(text)
    filter_._comparisons = None
    return said(filter_, variables)


def said(filter_: Filter, variables: dict[str, Any]) -> bool | str:
    try:
        return filter_.evaluate(Activation(variables))
    except FilterError:
        return "error"


@given(
    st.lists(st.tuples(PATHS, SIGNS, LITERALS), min_size=1, max_size=3),
    VALUES | st.fixed_dictionaries({"a": NUMBERS | st.text(max_size=3), "b": st.fixed_dictionaries({"a": NUMBERS})}),
)
def test_comparisons_say_what_cel_says(terms: list[tuple[str, str, str]], data: Any) -> None:
    of_text = ("topic", "key", "attributes.a")
    text = " && ".join(" ".join(term) for term in terms if term[0] not in of_text or term[2][0] in "\"'")
    if text:
        variables = {"topic": "a", "key": "1", "attributes": {"b": "a"}, "data": data}
        assert said(Filter(text), variables) == by_cel(text, variables), text


@pytest.mark.parametrize("found", [2**53, 2**53 + 1, float(2**53), 1.5, -0.0, 0, "", "\U0001f600", "\ue000", "z"])
@pytest.mark.parametrize("literal", ["9007199254740993", "9007199254740992.0", "0", '"\U0001f600"', '"\ue000"', '""'])
def test_the_edges_of_numbers_and_texts_are_where_cel_has_them(found: Any, literal: str) -> None:
    for sign in ("<", "<=", ">", ">=", "!=", "=="):
        text = f"data.a {sign} {literal}"
        assert said(Filter(text), {"data": {"a": found}}) == by_cel(text, {"data": {"a": found}}), text


@pytest.mark.parametrize("found", [True, None, [], {}, "x", 2**63, -(2**63) - 1])
def test_what_is_no_number_is_left_to_cel(found: Any) -> None:
    terms = recognise("data.a > 1")
    assert terms is not None
    assert decide({"data": {"a": found}}, terms) is None


def test_one_that_is_false_decides_and_what_is_missing_does_not() -> None:
    terms = recognise("data.a > 1 && data.b > 1")
    assert terms is not None
    assert decide({"data": {"a": 0}}, terms) is False
    assert decide({"data": {"b": 0}}, terms) is False
    assert decide({"data": {"a": 2}}, terms) is None
    assert decide({"data": {"a": 2, "b": 1.5}}, terms) is True
