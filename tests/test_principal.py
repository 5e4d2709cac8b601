from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.topics import matches
from gateway.principal import ANONYMOUS, Principal, Scope

words = st.sampled_from(["a", "b", "c-1"])
topics = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.builds(
    lambda head, rest: ".".join([*head, *rest]) or ">",
    st.lists(st.one_of(words, st.just("*")), max_size=3),
    st.sampled_from([[], [">"]]),
)


@given(st.lists(patterns, max_size=3), topics)
def test_a_scope_covers_a_topic_as_the_trie_matches_it(allowed: list[str], topic: str) -> None:
    scope = Scope(allowed)
    expected = any(matches(pattern, topic) for pattern in allowed)
    assert [scope.covers(topic), scope.covers(topic)] == [expected, expected]  # and remembers it


@given(patterns, patterns, topics)
def test_a_pattern_that_is_covered_gives_nothing_that_the_scope_does_not(allowed: str, asked: str, topic: str) -> None:
    if Scope([allowed]).covers(asked) and matches(asked, topic):
        assert matches(allowed, topic)


@pytest.mark.parametrize(
    ("allowed", "asked", "covered"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a.*", True),
        ("a.*", "a.>", False),
        ("a.b", "a.*", False),
        ("a.>", "a.*", True),
        ("a.>", "a.>", True),
        ("a.>", "a", False),
        ("a.>", "*.b", False),
        ("a.>", ">", False),
        (">", ">", True),
        ("*.b", "a.b", True),
        ("*", "a.b", False),
    ],
)
def test_a_pattern_covers_another_where_it_covers_all_of_it(allowed: str, asked: str, covered: bool) -> None:
    assert Scope([allowed]).covers(asked) is covered


def test_a_scope_of_nothing_covers_nothing() -> None:
    assert not Scope().covers("")
    assert not Scope().covers("a")
    assert Scope().covers_all(set())


def test_the_memory_of_a_scope_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.principal._KNOWN_MAX", 3)
    scope = Scope(["a.*"])
    for number in range(10):
        assert scope.covers(f"a.{number}")
        assert not scope.covers(f"b.{number}")
        assert len(scope._covered) <= 3


def test_everybody_may_do_everything_while_there_are_no_credentials() -> None:
    for ask in (ANONYMOUS.may_publish, ANONYMOUS.may_subscribe, ANONYMOUS.may_view, ANONYMOUS.may_admin):
        assert ask("any.thing")
    assert ANONYMOUS.may_read(">")
    assert ANONYMOUS.expires_ms is None


def test_a_principal_may_do_nothing_that_it_was_not_given() -> None:
    nobody = Principal(name="nobody")
    assert not nobody.may_publish("a")
    assert not nobody.may_subscribe("a")
    assert not nobody.may_view()
    assert not nobody.may_admin("a")
    assert not nobody.may_read("a")


def test_who_administers_everything_may_look_at_everything_and_no_more() -> None:
    operator = Principal(name="operator", admin=Scope([">"]))
    assert operator.may_view()
    assert operator.may_read(">")
    assert not operator.may_publish("a")
    assert not operator.may_subscribe("a")


def test_who_administers_some_subscriptions_does_not_administer_the_gateway() -> None:
    shop = Principal(name="shop", admin=Scope(["shop.>"]))
    assert shop.may_admin("shop.orders")
    assert not shop.may_admin()
    assert not shop.may_view()
    assert shop.may_view("shop.orders")


def test_a_refusal_names_the_principal_and_what_it_may_not() -> None:
    error = Principal(name="shop").denied("publish to a.b")
    assert error.code == "permission_denied"
    assert "principal 'shop' may not publish to a.b" in error.message
