import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.kit.topics import matches
from gateway.model import (
    BACKOFF_MS_DEFAULT,
    LEASE_MS_MAX,
    NAME_BYTES_MAX,
    TOPIC_BYTES_MAX,
    Batch,
    Durability,
    Message,
    Start,
    Stored,
    SubscriptionSettings,
    check_pattern,
    check_subscription_name,
    check_topic,
    is_traceparent,
)

words = st.text("abzAZ09_-", min_size=1, max_size=8)
topics = st.lists(words, min_size=1, max_size=6).map(".".join)

WRONG_TOPICS: list[tuple[str, str]] = [
    ("", "it is empty"),
    (".", "empty word"),
    ("a..b", "empty word"),
    (".a", "empty word"),
    ("a.", "empty word"),
    ("a b", "a word may hold"),
    ("a.ü", "a word may hold"),
    ("a\n", "a word may hold"),
    ("a/b", "a word may hold"),
    ("a" * (TOPIC_BYTES_MAX + 1), "256 characters; at most 255"),
]


@given(topics)
def test_a_topic_is_words_joined_by_dots_and_a_pattern_of_itself(topic: str) -> None:
    assert check_topic(topic) == topic
    assert check_pattern(topic) == topic
    assert matches(topic, topic)


@pytest.mark.parametrize(("topic", "why"), [*WRONG_TOPICS, ("trade.*", "a word may hold"), (">", "a word may hold")])
def test_a_wrong_topic_is_refused_with_the_reason(topic: str, why: str) -> None:
    with pytest.raises(GatewayError, match=re.escape(why)) as caught:
        check_topic(topic)
    assert caught.value.code == "bad_topic"
    assert caught.value.message.startswith('topic "')


@pytest.mark.parametrize(
    "pattern", ["a", "*", ">", "*.*", "a.*.b", "a.>", "*.>", "trade.*.paid.>", "a" * TOPIC_BYTES_MAX]
)
def test_a_pattern_may_hold_stars_and_a_final_angle(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        *WRONG_TOPICS,
        ("a.>.b", "> stands alone as the last word"),
        (">.a", "> stands alone as the last word"),
        ("a>", "> stands alone as the last word"),
        (">>", "> stands alone as the last word"),
        ("a*", "* stands for one whole word"),
        ("**", "* stands for one whole word"),
    ],
)
def test_a_wrong_pattern_is_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(GatewayError, match=re.escape(why)) as caught:
        check_pattern(pattern)
    assert caught.value.code == "bad_pattern"


def test_a_message_shows_a_wrong_topic_short_and_without_control_characters() -> None:
    with pytest.raises(GatewayError) as caught:
        check_topic("\x1b[31m" + "x" * 1000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["", "a..b", "a.*", "a b", "a" * (NAME_BYTES_MAX + 1)])
def test_a_wrong_subscription_name_is_refused_with_the_mend(name: str) -> None:
    with pytest.raises(GatewayError, match="joined by single dots, at most 250 characters") as caught:
        check_subscription_name(name)
    assert caught.value.code == "bad_name"


def test_the_dead_letter_topic_of_the_longest_name_is_a_topic() -> None:
    name = check_subscription_name("n" * NAME_BYTES_MAX)
    topic = SubscriptionSettings(topics=(">",)).dead_letter_topic(name)
    assert topic is not None
    assert check_topic(topic) == f"dead.{name}"


@pytest.mark.parametrize(("dead_letter", "topic"), [(None, "dead.orders"), ("", None), ("lost.orders", "lost.orders")])
def test_dead_letters_are_on_by_default_and_off_where_the_topic_is_empty(
    dead_letter: str | None, topic: str | None
) -> None:
    settings = SubscriptionSettings(topics=(">",), dead_letter=dead_letter)
    assert settings.dead_letter_topic("orders") == topic


def test_the_defaults_of_a_subscription_are_those_of_the_protocol() -> None:
    settings = SubscriptionSettings(topics=("trade.>",))
    assert (settings.lease_ms, settings.attempts_max, settings.window_max) == (30_000, 16, 1000)
    assert settings.backoff_ms[:3] == (10_000, 30_000, 60_000)
    assert settings.backoff_ms[-1] == 2 * 3600 * 1000
    assert sorted(BACKOFF_MS_DEFAULT) == list(BACKOFF_MS_DEFAULT)
    assert (settings.start, settings.paused) == (Start.END, False)


THIRTY_DAYS_MS = 30 * 24 * 3600 * 1000


@pytest.mark.parametrize(
    "change",
    [
        {"topics": ("a",) * 1000},
        {"lease_ms": 100},
        {"lease_ms": LEASE_MS_MAX},
        {"attempts_max": 1},
        {"attempts_max": 1_000_000},
        {"window_max": 1},
        {"window_max": 1_000_000},
        {"backoff_ms": (0,)},
        {"backoff_ms": (THIRTY_DAYS_MS,) * 100},
    ],
)
def test_settings_at_their_bounds_are_taken(change: dict[str, Any]) -> None:
    assert SubscriptionSettings(**{"topics": ("a",)} | change)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"topics": ()}, "bad_request", "topics: name at least one topic pattern"),
        ({"topics": ("a",) * 1001}, "bad_request", "topics: 1001 patterns; at most 1000"),
        ({"topics": ("a", "b..c")}, "bad_pattern", 'pattern "b..c": it has an empty word'),
        ({"lease_ms": 99}, "bad_request", "lease_ms: 99 is not between 100 and 43200000"),
        ({"lease_ms": LEASE_MS_MAX + 1}, "bad_request", "lease_ms: 43200001 is not between"),
        ({"attempts_max": 0}, "bad_request", "attempts_max: 0 is not between 1 and"),
        ({"attempts_max": 1_000_001}, "bad_request", "attempts_max: 1000001 is not between"),
        ({"window_max": 0}, "bad_request", "window_max: 0 is not between 1 and"),
        ({"window_max": 1_000_001}, "bad_request", "window_max: 1000001 is not between"),
        ({"backoff_ms": ()}, "bad_request", "backoff_ms: number of steps: 0 is not between 1 and 100"),
        ({"backoff_ms": (0,) * 101}, "bad_request", "backoff_ms: number of steps: 101"),
        ({"backoff_ms": (1, -1)}, "bad_request", "backoff_ms: -1 is not between 0 and"),
        ({"backoff_ms": (THIRTY_DAYS_MS + 1,)}, "bad_request", "backoff_ms: 2592000001 is not between"),
        ({"dead_letter": "dead.*"}, "bad_topic", 'topic "dead.*"'),
    ],
)
def test_wrong_settings_are_refused_with_the_name_and_the_bounds(
    change: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(GatewayError) as caught:
        SubscriptionSettings(**{"topics": ("a",)} | change)
    assert caught.value.code == code
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n", False),
        ("", False),
    ],
)
def test_a_traceparent_is_that_of_trace_context(text: str, valid: bool) -> None:
    assert is_traceparent(text) is valid


def test_a_message_keeps_the_bytes_of_its_data() -> None:
    data = b'{"a" : 1.50,\n "b":"\\u0041"}'
    message = msgspec.json.decode(b'{"topic":"t","data":' + data + b"}", type=Message)
    assert isinstance(message.data, msgspec.Raw)
    assert bytes(message.data) == data


@pytest.mark.parametrize("text", [b'{"data":1}', b'{"topic":"t","colour":1}', b'{"topic":"t","delay_ms":"soon"}'])
def test_a_message_with_missing_unknown_or_wrong_members_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Message)


def new_batch(count: int, done: list[Batch]) -> Batch:
    return Batch([Message(topic="t") for _ in range(count)], Durability.FSYNCED, size=0, done=done.append)


def test_a_batch_of_which_some_fail_or_repeat_answers_for_each_message() -> None:
    done: list[Batch] = []
    batch = new_batch(3, done)
    error, repeat = GatewayError("bad_topic", "no"), Stored("a1", 7, duplicate=True)
    batch.answer(1, error)
    batch.answer(2, repeat)
    assert batch.results == [None, error, repeat]
    assert done == []


def test_a_batch_that_is_new_throughout_keeps_no_object_a_message() -> None:
    assert new_batch(3, []).results is None


def test_a_batch_that_fails_is_done_once_with_its_error() -> None:
    done: list[Batch] = []
    batch = new_batch(2, done)
    error = GatewayError("store_failed", "no")
    batch.fail(error)
    assert batch.error is error
    assert done == [batch]
