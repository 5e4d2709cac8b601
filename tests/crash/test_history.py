"""The checker itself finds what it is there to find."""

from __future__ import annotations

import pytest

from tests.crash.history import History


def history() -> History:
    return History(invoked={"a": b"1", "b": b"2"}, ok={"a": 10})


def test_a_good_history_has_no_violations() -> None:
    good = history()
    good.deliver("a", 10, b"1")
    good.deliver("a", 10, b"1")
    good.deliver("b", 11, b"2")  # its outcome was unknown: it may have been stored
    assert good.violations() == []
    assert good.missing == set()


def test_an_answered_message_that_does_not_come_is_missing() -> None:
    assert history().missing == {"a"}


@pytest.mark.parametrize(
    ("name", "position", "payload", "word"),
    [
        ("c", 12, b"3", "never published"),
        ("a", 10, b"x", "another payload"),
        ("a", 9, b"1", "answered with position"),
    ],
)
def test_a_broken_promise_is_named(name: str, position: int, payload: bytes, word: str) -> None:
    bad = history()
    bad.deliver(name, position, payload)
    assert any(word in violation for violation in bad.violations())


def test_a_reused_position_is_named() -> None:
    bad = history()
    bad.deliver("a", 10, b"1")
    bad.deliver("b", 10, b"2")
    assert any("given to a and to b" in violation for violation in bad.violations())


def test_a_refused_message_that_is_delivered_is_named() -> None:
    bad = history()
    bad.failed.add("b")
    bad.deliver("b", 11, b"2")
    assert any("refused" in violation for violation in bad.violations())
