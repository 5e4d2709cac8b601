from __future__ import annotations

from typing import Any

import attrs
import orjson
import pytest

from gateway.errors import GatewayError
from gateway.model import BACKOFF_MS_DEFAULT, LEASE_MS_MAX, Start, SubscriptionSettings, SubscriptionStatistics
from gateway.model import SubscriptionView as View
from gateway.wire.subscription import decode_settings, encode_settings, encode_view

EVERYTHING: dict[str, Any] = {
    "topics": ["trade.>", "refund.*.done"],
    "filter": "data.amount > 10",
    "format": "cloudevents",
    "lease_ms": 60_000,
    "attempts_max": 3,
    "backoff_ms": [1000, 2000],
    "dead_letter": "dead.orders",
    "ordered": True,
    "retention_s": 3600,
    "window_max": 10,
    "start": "start",
    "paused": True,
}


def test_only_topics_are_required_and_the_rest_is_the_design_s() -> None:
    settings = decode_settings({"topics": ["trade.>"]}, None)
    assert encode_settings(settings) == {
        "topics": ["trade.>"],
        "filter": "",
        "format": "native",
        "lease_ms": 30_000,
        "attempts_max": 16,
        "backoff_ms": list(BACKOFF_MS_DEFAULT),
        "dead_letter": None,
        "ordered": False,
        "retention_s": 604_800,
        "window_max": 1000,
        "start": "end",
        "paused": False,
    }


def test_every_setting_is_read_and_written_as_it_was() -> None:
    settings = decode_settings(EVERYTHING, None)
    assert encode_settings(settings) == EVERYTHING
    assert decode_settings(orjson.loads(orjson.dumps(encode_settings(settings))), None) == settings
    assert settings.start is Start.START


def test_there_is_a_case_here_for_every_setting() -> None:
    assert EVERYTHING.keys() == {field.name for field in attrs.fields(SubscriptionSettings)}


@pytest.mark.parametrize("key", EVERYTHING)
def test_a_change_leaves_the_other_settings_alone(key: str) -> None:
    before = decode_settings({"topics": ["a.b"]}, None)
    after = encode_settings(decode_settings({key: EVERYTHING[key]}, before))
    assert after == {**encode_settings(before), key: EVERYTHING[key]}


def test_a_whole_number_may_be_written_as_json_writes_it() -> None:
    assert decode_settings({"topics": ["a"], "lease_ms": 1000.0}, None).lease_ms == 1000


WRONG: list[tuple[Any, str, str]] = [
    ([], "bad_request", "must be a JSON object of settings, such as"),
    (None, "bad_request", "must be a JSON object"),
    ({}, "bad_request", "topics: is required, such as"),
    ({"topics": []}, "bad_request", "topics: name at least one"),
    ({"topics": "a.b"}, "bad_request", "topics: must be a list"),
    ({"topics": [5]}, "bad_request", "topics: must be text"),
    ({"topics": ["a..b"]}, "bad_pattern", '"a..b": it has an empty word'),
    ({"topics": ["a"] * 1001}, "bad_request", "topics: 1001 patterns; at most 1000"),
    ({"topics": ["a"], "topic": ["b"]}, "bad_request", "topic: unknown setting; did you mean topics?"),
    ({"topics": ["a"], "ordered": 1}, "bad_request", "ordered: must be true or false"),
    ({"topics": ["a"], "retention_s": 0}, "bad_request", "retention_s: 0 is not between 1"),
    ({"topics": ["a"], "zzz": 1}, "bad_request", "zzz: unknown setting; known are topics, filter"),
    ({"topics": ["a"], "filter": 5}, "bad_request", "filter: must be text"),
    ({"topics": ["a"], "filter": "x" * 4097}, "bad_request", "filter: number of characters: 4097 is not between 0 and"),
    ({"topics": ["a"], "format": "xml"}, "bad_request", 'format: must be "native" or "cloudevents"'),
    ({"topics": ["a"], "lease_ms": "5"}, "bad_request", "lease_ms: must be a whole number"),
    ({"topics": ["a"], "lease_ms": 5.5}, "bad_request", "lease_ms: must be a whole number"),
    ({"topics": ["a"], "lease_ms": True}, "bad_request", "lease_ms: must be a whole number"),
    ({"topics": ["a"], "lease_ms": None}, "bad_request", "lease_ms: must be a whole number"),
    ({"topics": ["a"], "lease_ms": 99}, "bad_request", f"lease_ms: 99 is not between 100 and {LEASE_MS_MAX}"),
    ({"topics": ["a"], "lease_ms": LEASE_MS_MAX + 1}, "bad_request", "is not between"),
    ({"topics": ["a"], "attempts_max": 0}, "bad_request", "attempts_max: 0 is not between 1"),
    ({"topics": ["a"], "window_max": 0}, "bad_request", "window_max: 0 is not between 1"),
    ({"topics": ["a"], "backoff_ms": 5}, "bad_request", "backoff_ms: must be a list"),
    ({"topics": ["a"], "backoff_ms": []}, "bad_request", "backoff_ms: number of steps: 0 is not between 1"),
    ({"topics": ["a"], "backoff_ms": [-1]}, "bad_request", "backoff_ms: -1 is not between 0"),
    ({"topics": ["a"], "backoff_ms": ["1"]}, "bad_request", "backoff_ms: must be a whole number"),
    ({"topics": ["a"], "dead_letter": 5}, "bad_request", "dead_letter: must be text"),
    ({"topics": ["a"], "dead_letter": "dead.*"}, "bad_topic", "dead.*"),
    ({"topics": ["a"], "start": "middle"}, "bad_request", 'start: must be "start" or "end"'),
    ({"topics": ["a"], "start": ["start"]}, "bad_request", 'start: must be "start" or "end"'),
    ({"topics": ["a"], "paused": 1}, "bad_request", "paused: must be true or false"),
    ({"topics": ["a"], "paused": "true"}, "bad_request", "paused: must be true or false"),
]


@pytest.mark.parametrize(("change", "code", "words"), WRONG)
def test_a_wrong_setting_is_named_with_its_mend(change: Any, code: str, words: str) -> None:
    with pytest.raises(GatewayError) as caught:
        decode_settings(change, None)
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize(("dead_letter", "shown"), [(None, "dead.orders"), ("", ""), ("lost.orders", "lost.orders")])
def test_a_view_names_the_topic_that_dead_letters_go_to(dead_letter: str | None, shown: str) -> None:
    settings = SubscriptionSettings(topics=("trade.>",), dead_letter=dead_letter)
    statistics = SubscriptionStatistics(1, 2, 3, 21, 4, 5, 6, None, 7)
    view = encode_view(View("orders", settings, statistics))
    assert view == {
        "name": "orders",
        **encode_settings(settings),
        "dead_letter": shown,
        "statistics": {
            "waiting": 1,
            "in_flight": 2,
            "delayed": 3,
            "routed": 21,
            "acked": 4,
            "expired": 5,
            "dead_lettered": 6,
            "oldest_ms": None,
            "consumers": 7,
            "skipped": 0,
        },
    }
