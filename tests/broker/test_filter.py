from __future__ import annotations

from typing import Any

import pytest

from gateway.broker.filter import Activation, BrokenFilter, Filter, FilterError, matches
from gateway.errors import GatewayError


def variables(data: Any = None, **more: Any) -> Activation:
    return Activation({"topic": "trade.paid", "key": "", "attributes": {}, "data": data, **more})


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("data.amount > 10", {"amount": 10.5}),
        ("data.amount > 10.5", {"amount": 11}),
        ("data.n == 18446744073709551615u", {"n": 2**64 - 1}),
        ('data.items.exists(i, i.sku == "b")', {"items": [{"sku": "a"}, {"sku": "b"}]}),
        ("has(data.gone) || data.here == 1", {"here": 1}),
        ("data.gone == 1 || data.here == 1", {"here": 1}),
        ('topic.startsWith("trade.") && data.name.matches("^[a-c]+$")', {"name": "abc"}),
        ("data", True),
    ],
)
def test_a_filter_is_cel(text: str, data: Any) -> None:
    assert matches(Filter(text), variables(data))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data.amount >", r"column 14: Syntax error: mismatched input '<EOF>'"),
        ("data.a == 1 &&\n data. > 3", r"line 2, column 8: Syntax error"),
        ('foo(1) == "x"', r"column 4: undeclared reference to 'foo'; a filter knows topic, key, attributes, data"),
        ("dta.x == 1", r"column 4: undeclared reference to 'dta.x'"),
        ("topic + 1 == 2", r"column 7: found no matching overload for '_\+_'"),
        ("data.size()", r"it gives int; compare it with something"),
        ("", r"column 1: Syntax error"),
        ("(" * 40 + "true" + ")" * 40, r"nested deeper than 32 levels"),
        ("data.a == 1 \ud800", r"column 13: is no character of Unicode"),
        ("data == 1\x00", r"column 10: Syntax error: token recognition error"),
    ],
)
def test_a_wrong_filter_is_told_where(text: str, said: str) -> None:
    with pytest.raises(GatewayError, match=said) as caught:
        Filter(text)
    assert caught.value.code == "bad_filter"
    assert caught.value.message.startswith("filter: ")
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("text", "data", "said"),
    [
        ("data.gone > 1", {}, 'Key not found in map : "gone"'),
        ("data.gone == 1", {}, "there is no 'gone'"),
        ("data.a > 1", {"a": "x"}, "No matching overloads found"),
        ("data.a > 1", None, "Applying SELECT to non-message type"),
        ("data.a > 1", {"a": 10**30}, "out of range"),
        ("1 / data.a > 1", {"a": 0}, "divide by zero"),
        ("data.a", {"a": 12}, "the filter gives int, not true or false"),
        ("data.a.matches(data.b)", {"a": "x", "b": "("}, "invalid regular expression"),
        ("data.all(a, data.all(b, a + b >= 0))", list(range(200)), "Iteration budget exceeded"),
    ],
)
def test_what_a_filter_cannot_say_is_an_error(text: str, data: Any, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        matches(Filter(text), variables(data))


def test_a_message_without_readable_data_has_none_for_a_filter() -> None:
    for text in ("data.a == 1", "data.a > 1"):
        with pytest.raises(FilterError):
            matches(Filter(text), Activation({"topic": "a", "key": "", "attributes": {}}))
    assert matches(Filter('topic == "a"'), Activation({"topic": "a"}))


@pytest.mark.parametrize("text", ["data.exists(a, a > 1)", "data . all\n// x\n(a, a)", 'data.x.matches("a")'])
def test_loops_and_patterns_are_long(text: str) -> None:
    assert Filter(text).is_long
    assert not Filter(text).is_quick(0, 100)
    assert not Filter("data.a > 1").is_long


def test_what_a_filter_costs_is_told_by_its_kind_and_the_payload() -> None:
    assert Filter("data.a > 1").is_quick(100, 100)
    assert not Filter("data.a > 1").is_quick(101, 100)
    assert Filter("data.a == 1").is_quick(101, 100)
    assert Filter("data.map == 1").is_quick(101, 100)


def test_a_slow_filter_rests_longer_each_time_and_is_forgiven() -> None:
    filter_ = Filter("data.a > 1")
    assert not filter_.is_set_aside(0)
    assert [filter_.set_aside(now) for now in (0, 1000, 3000)] == [1000, 2000, 4000]
    assert filter_.is_set_aside(6999)
    assert not filter_.is_set_aside(7000)
    for _ in range(20):
        filter_.set_aside(7000)
    assert filter_.set_aside(7000) == 300_000
    assert filter_.set_aside(7000 + 300_000 + 600_001) == 1000


def test_a_filter_that_is_not_taken_any_more_never_matches() -> None:
    broken = BrokenFilter("data.a ==== 1", "filter: column 10")
    assert broken.text == "data.a ==== 1"
    with pytest.raises(FilterError, match="column 10"):
        matches(broken, variables())


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("data.amount > 10", {"amount"}),
        ("data.a.b > 1 && has(data . c) || data.items.exists(i, i.n > 3)", {"a", "c", "items"}),
        ("topic == 'x'", set()),
        ('attributes.data == "x" && key == "data.more"', None),
        ('data["amount"] > 10', None),
        ("data.size() > 3", None),
        ("data . size () > 3", None),
        ("data", None),
        ("data.a > 1 && data == data", None),
        ('"a" in data', None),
        ("data // a comment\n.amount > 10", None),
        ("data.exists(k, k == 'a')", None),
        ('[{"x": 2}].all(data, data.x > 1)', None),
    ],
)
def test_what_a_filter_can_see_of_data_is_read_off_its_text(text: str, members: set[str] | None) -> None:
    assert Filter(text).members == members


def test_an_activation_takes_no_more_of_data_than_is_looked_at() -> None:
    data = {"a": 1, "b": 2}
    assert Activation({"data": data}, frozenset({"a", "z"})).variables == {"data": {"a": 1}}
    assert Activation({"data": data}).variables == {"data": data}
    assert Activation({"data": [1]}, frozenset({"a"})).variables == {"data": [1]}
    assert Activation({"topic": "a"}, frozenset({"a"})).variables == {"topic": "a"}
    assert data == {"a": 1, "b": 2}
