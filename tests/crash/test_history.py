"""The checker itself finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.crash.history import History


def history() -> History:
    made = History()
    for name, payload in (("a", b"1"), ("b", b"2"), ("c", b"3")):
        made.invoke(name, payload)
    made.answer("a", 10)
    made.fail(["c"])
    return made


def test_a_good_history_has_no_violations() -> None:
    good = history()
    good.deliver("a", 10, b"1")
    good.deliver("a", 10, b"1")
    good.deliver("b", 11, b"2")  # its outcome was unknown: it may have been stored
    good.answer("b", 11)
    good.ack([10, 11])
    assert good.violations == []
    assert good.missing == set()


def test_an_answered_message_that_does_not_come_is_missing() -> None:
    assert history().missing == {"a"}


def test_what_was_neither_answered_nor_refused_is_unknown() -> None:
    assert history().unknown == ["b"]


@pytest.mark.parametrize(
    ("name", "position", "payload", "word"),
    [
        ("d", 12, b"3", "never published"),
        ("a", 10, b"x", "another payload"),
        ("a", 9, b"1", "answered with position 10, delivered at 9"),
        ("c", 12, b"3", "refused"),
        ("b", 10, b"2", "given to a and to b"),
    ],
)
def test_a_broken_promise_is_named(name: str, position: int, payload: bytes, word: str) -> None:
    bad = history()
    bad.deliver(name, position, payload)
    assert any(word in violation for violation in bad.violations)


def test_a_message_that_is_stored_twice_is_named() -> None:
    bad = history()
    bad.deliver("b", 11, b"2")
    bad.deliver("b", 12, b"2")
    assert any("stored twice" in violation for violation in bad.violations)


def test_a_message_that_is_answered_twice_at_two_places_is_named() -> None:
    bad = history()
    bad.answer("a", 11)
    assert any("and with 11" in violation for violation in bad.violations)


def test_an_answer_that_comes_behind_its_delivery_is_held_against_it() -> None:
    bad = history()
    bad.deliver("a", 10, b"1")
    bad.answer("b", 10)
    assert any("given to a and to b" in violation for violation in bad.violations)


def test_what_comes_after_its_ack_was_answered_is_named() -> None:
    bad = history()
    bad.deliver("a", 10, b"1")
    bad.ack([10])
    bad.deliver("a", 10, b"1")
    assert any("after the ack" in violation for violation in bad.violations)
