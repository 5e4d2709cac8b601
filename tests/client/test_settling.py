from __future__ import annotations

from typing import Any

import orjson

from gateway.client.settling import FRAME_RANGES_MAX, Settles


def frames(settles: Settles) -> list[dict[str, Any]]:
    return [orjson.loads(frame) for frame in settles.frames()]


def test_acks_one_after_the_other_become_one_range() -> None:
    settles = Settles("orders")
    for position in range(10, 500):
        settles.ack(position)
    assert frames(settles) == [{"op": "ack", "subscription": "orders", "ranges": [[10, 499]]}]


def test_a_range_never_spans_a_position_that_was_not_acked() -> None:
    settles = Settles("orders")
    for position in (10, 11, 13, 20, 12):
        settles.ack(position)
    assert frames(settles)[0]["ranges"] == [[10, 11], [13, 13], [20, 20], [12, 12]]


def test_what_was_taken_is_gone() -> None:
    settles = Settles("orders")
    settles.ack(1)
    settles.say("nack", 2)
    assert settles
    assert settles.acks_waiting == 1
    assert len(frames(settles)) == 2
    assert not settles
    assert settles.acks_waiting == 0
    assert frames(settles) == []


def test_words_that_differ_travel_apart_and_extensions_first() -> None:
    settles = Settles("orders")
    settles.say("nack", 1, (("delay_ms", 5),))
    settles.say("nack", 2, (("delay_ms", 5),))
    settles.say("nack", 3)
    settles.say("term", 4, (("reason", "broken"),))
    settles.say("extend", 5, (("lease_ms", 9000),))
    assert frames(settles) == [
        {"op": "extend", "subscription": "orders", "ranges": [[5, 5]], "lease_ms": 9000},
        {"op": "nack", "subscription": "orders", "ranges": [[1, 2]], "delay_ms": 5},
        {"op": "nack", "subscription": "orders", "ranges": [[3, 3]]},
        {"op": "term", "subscription": "orders", "ranges": [[4, 4]], "reason": "broken"},
    ]


def test_a_frame_of_scattered_acks_has_a_bound() -> None:
    settles = Settles("orders")
    for position in range(0, 4 * FRAME_RANGES_MAX, 2):
        settles.ack(position)
    assert [len(frame["ranges"]) for frame in frames(settles)] == [FRAME_RANGES_MAX, FRAME_RANGES_MAX]
