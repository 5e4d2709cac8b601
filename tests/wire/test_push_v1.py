from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.model import (
    JSON_DEPTH_MAX,
    POSITION_MAX,
    Batch,
    Delivery,
    Durability,
    Message,
    Settle,
    Settlement,
    Stored,
    Verb,
)
from gateway.wire import push_v1
from gateway.wire.push_v1 import Ack, BadOperationError, Extend, Hello, Nack, Publish, Subscribe, Term, Unsubscribe
from tests.wire.json_texts import json_texts

OPERATIONS: dict[str, push_v1.AnyOperation] = {
    '{"op":"hello"}': Hello(),
    '{"op":"hello","id":1,"token":"t","client":"name/1.0"}': Hello(id=1, token="t", client="name/1.0"),
    '{"op":"subscribe","id":2,"subscription":"orders","window":1000}': Subscribe("orders", id=2, window=1000),
    ' {"subscription":"orders" , "op":"subscribe"}\n': Subscribe("orders"),
    '{"op":"unsubscribe","id":"three","subscription":"orders"}': Unsubscribe("orders", id="three"),
    '{"op":"ack","subscription":"orders","ranges":[[1,50],[52,52]]}': Ack("orders", [(1, 50), (52, 52)]),
    '{"op":"ack","id":4,"subscription":"orders","ranges":[]}': Ack("orders", [], id=4),
    '{"op":"nack","subscription":"orders","ranges":[[51,51]],"delay_ms":5000,"reason":"r"}': Nack(
        "orders", [(51, 51)], delay_ms=5000, reason="r"
    ),
    '{"op":"extend","subscription":"orders","ranges":[[51,51]],"lease_ms":60000}': Extend(
        "orders", [(51, 51)], lease_ms=60000
    ),
    '{"op":"term","subscription":"orders","ranges":[[51,51]],"reason":"r"}': Term("orders", [(51, 51)], reason="r"),
}


@pytest.mark.parametrize("text", OPERATIONS)
def test_an_operation_is_read(text: str) -> None:
    assert push_v1.decode(text) == OPERATIONS[text]


def test_a_publish_is_read() -> None:
    operation = push_v1.decode(
        '{"op":"publish","id":4,"durability":"written","messages":[{"topic":"a.b","data":{"x" : 1.0},"id":"i",'
        '"key":"k","attributes":{"n":"v"},"delay_ms":5,"ttl_ms":6}]}'
    )
    assert isinstance(operation, Publish)
    assert (operation.id, operation.durability, operation.errors) == (4, Durability.WRITTEN, {})
    (message,) = operation.messages
    assert message == Message("a.b", data=message.data, id="i", key="k", attributes={"n": "v"}, delay_ms=5, ttl_ms=6)
    assert message.data is not msgspec.UNSET
    assert bytes(message.data) == b'{"x" : 1.0}'


@given(texts=st.lists(json_texts, min_size=1, max_size=3), spoilt=st.booleans())
def test_the_bytes_of_a_payload_stay_as_they_came(texts: list[str], spoilt: bool) -> None:
    """Also where a message beside them is wrong."""
    messages = [f'{{"topic":"a","data":{text}}}' for text in texts] + (["5"] if spoilt else [])
    operation = push_v1.decode('{"op":"publish","messages":[' + ",".join(messages) + "]}")
    assert isinstance(operation, Publish)
    assert operation.errors.keys() == ({len(texts)} if spoilt else set())
    assert [bytes(m.data).decode() for m in operation.messages if m.data is not msgspec.UNSET] == texts


@pytest.mark.parametrize("reference", [0, -(2**63), 2**63 - 1, "", "a" * 1000, "\u00e4", None])
def test_a_client_s_id_comes_back_as_it_was(reference: int | str | None) -> None:
    text = orjson.dumps({"op": "hello", "id": reference}).decode()
    operation = push_v1.decode(text)
    assert operation.id == reference
    assert orjson.loads(push_v1.encode_ok(operation.id)) == {"op": "ok", "id": reference}


# ---------------------------------------------------------------------------------------------- wrong operations

ALL = "hello, subscribe, unsubscribe, ack, nack, extend, term, publish"
WRONG: dict[str, tuple[str, int | str | None, list[str]]] = {
    '{"op":"nope","id":1}': ("unknown_operation", 1, ["op 'nope' is unknown", ALL]),
    '{"op":"PUBLISH","id":1}': ("unknown_operation", 1, ["op 'PUBLISH' is unknown", ALL]),
    '{"id":"x"}': ("bad_request", "x", [ALL]),
    '{"op":null,"id":1}': ("bad_request", 1, [ALL]),
    '{"op":5,"id":1}': ("bad_request", 1, [ALL]),
    '{"op":["hello"],"id":1}': ("bad_request", 1, [ALL]),
    '{"op":"hello","id":1.5}': ("bad_request", None, ["`id` an integer or a string", "got `float`"]),
    '{"op":"hello","id":true}': ("bad_request", None, ["`id` an integer or a string", "got `bool`"]),
    '{"op":"hello","id":[1]}': ("bad_request", None, ["`id` an integer or a string", "got `array`"]),
    '{"op":"hello","id":9223372036854775808}': ("bad_request", None, ["`int` <= 9223372036854775807", "id"]),
    '{"op":"nope","id":-9223372036854775809}': ("bad_request", None, ["`int` >= -9223372036854775808", "id"]),
    '{"op":"publish","id":18446744073709551616,"messages":[]}': ("bad_request", None, ["`int` <=", "id"]),
    '{"op":"hello","id":1,"tokn":"t"}': ("bad_request", 1, ["hello", "unknown field `tokn`", "known are id, token"]),
    '{"op":"hello","id":1,"client":5}': ("bad_request", 1, ["hello", "client", "Expected `str`"]),
    '{"op":"hello","id":1,"client":"%s"}' % ("x" * 257): ("bad_request", 1, ["client", "length <= 256"]),
    '{"op":"subscribe","id":1}': ("bad_request", 1, ["subscribe", "missing required field `subscription`"]),
    '{"op":"subscribe","id":1,"subscription":5}': ("bad_request", 1, ["subscription", "Expected `str`, got `int`"]),
    '{"op":"subscribe","id":1,"subscription":"s","window":0}': ("bad_request", 1, ["window", "`int` >= 1"]),
    '{"op":"subscribe","id":1,"subscription":"s","window":1.0}': ("bad_request", 1, ["window", "got `float`"]),
    '{"op":"unsubscribe","id":1,"subscription":"s","x":1}': ("bad_request", 1, ["unsubscribe", "unknown field `x`"]),
    '{"op":"ack","id":1,"subscription":"s"}': ("bad_request", 1, ["ack", "missing required field `ranges`"]),
    '{"op":"ack","id":1,"subscription":"s","ranges":[1,2]}': ("bad_request", 1, ["ranges[0]", "got `int`"]),
    '{"op":"ack","id":1,"subscription":"s","ranges":[[1]]}': ("bad_request", 1, ["ranges[0]", "length 2"]),
    '{"op":"ack","id":1,"subscription":"s","ranges":[[1,2,3]]}': ("bad_request", 1, ["ranges[0]", "length 2"]),
    '{"op":"ack","id":1,"subscription":"s","ranges":[[1,"2"]]}': ("bad_request", 1, ["ranges[0][1]", "got `str`"]),
    '{"op":"ack","id":1,"subscription":"s","ranges":[[-1,2]]}': ("bad_request", 1, ["ranges[0][0]", "`int` >= 0"]),
    '{"op":"ack","id":1,"subscription":"s","ranges":[[1,9007199254740992]]}': (
        "bad_request",
        1,
        ["ranges[0][1]", "`int` <= 9007199254740991"],
    ),
    '{"op":"nack","id":1,"subscription":"s","ranges":[],"delay_ms":-1}': ("bad_request", 1, ["delay_ms", ">= 0"]),
    '{"op":"nack","id":1,"subscription":"s","ranges":[],"reason":5}': ("bad_request", 1, ["reason", "got `int`"]),
    '{"op":"extend","id":1,"subscription":"s","ranges":[],"lease_ms":0}': ("bad_request", 1, ["lease_ms", ">= 1"]),
    '{"op":"term","id":1,"subscription":"s","ranges":[],"delay_ms":1}': (
        "bad_request",
        1,
        ["unknown field `delay_ms`"],
    ),
    '{"op":"publish","id":1}': ("bad_request", 1, ["publish", "missing required field `messages`"]),
    '{"op":"publish","id":1,"messages":{}}': ("bad_request", 1, ["messages", "Expected `array`, got `object`"]),
    '{"op":"publish","id":1,"messages":[],"x":1}': ("bad_request", 1, ["unknown field `x`", "known are messages, id"]),
    '{"op":"publish","id":1,"messages":[],"durability":"replicated"}': (
        "bad_request",
        1,
        ["durability", "'replicated'", "use fsynced or written"],
    ),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_operation_is_named_with_its_mend_and_its_id(text: str) -> None:
    code, reference, words = WRONG[text]
    with pytest.raises(BadOperationError) as caught:
        push_v1.decode(text)
    error = caught.value
    assert (error.code, error.reference, error.fatal) == (code, reference, False)
    for word in words:
        assert word in error.message


FATAL = [
    "", " ", "nonsense", "{", '{"op":"hello"', '{"op":"hello"}x', '{"op":"hello"}{"op":"hello"}', '{"op":"hello",}',
    "[]", "5", "null", '"hello"', '[{"op":"hello"}]', "{'op':'hello'}", '{"op":"hello","id":"\\ud800"}',
    '\ufeff{"op":"hello"}', '{"op":"nope",}', '{"op":"hello","x":1,]', '{"op":"publish","messages":[5,]}',
    '{"op":"publish","messages":[{"topic":"a","data":NaN}]}',
    '{"op":"publish","messages":[{"topic":"a","data":"\\udc00"}]}',
    '{"op":"publish","messages":[{"topic":5},{"topic":"a","data":01}]}',
]  # fmt: skip


@pytest.mark.parametrize("text", FATAL)
def test_what_is_no_object_of_the_protocol_at_all_is_fatal(text: str) -> None:
    with pytest.raises(BadOperationError) as caught:
        push_v1.decode(text)
    assert caught.value.fatal
    assert (caught.value.code, caught.value.kind.close) == ("bad_request", 3501)


def test_one_bad_message_of_a_batch_is_answered_by_itself() -> None:
    operation = push_v1.decode(
        '{"op":"publish","id":7,"messages":[{"topic":"a","data":1},{"topic":5},{"topic":"a","dta":1},{"topic":"a","data":4}]}'
    )
    assert isinstance(operation, Publish)
    assert [message.topic for message in operation.messages] == ["a", "", "", "a"]
    assert operation.id == 7
    assert operation.errors.keys() == {1, 2}
    assert operation.errors[1].message.startswith("messages[1]: Expected `str`, got `int`")
    assert "unknown field `dta`; known are topic, data" in operation.errors[2].message


@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX, JSON_DEPTH_MAX + 1])
def test_a_deep_payload_is_left_to_admit(depth: int) -> None:
    operation = push_v1.decode('{"op":"publish","messages":[{"topic":"a","data":%s}]}' % ("[" * depth + "]" * depth))
    assert isinstance(operation, Publish)
    assert operation.errors == {}


def test_a_frame_that_no_parser_would_follow_says_so() -> None:
    with pytest.raises(BadOperationError, match=f"deeper than {JSON_DEPTH_MAX} levels; flatten it") as caught:
        push_v1.decode('{"op":"publish","messages":[{"topic":"a","data":%s}]}' % ("[" * 10**5 + "]" * 10**5))
    assert caught.value.fatal


@given(st.text() | st.text(alphabet='{}[]":,op1 \\'))
def test_any_text_is_an_operation_or_a_named_error(text: str) -> None:
    try:
        push_v1.decode(text)
    except BadOperationError as error:
        orjson.loads(push_v1.encode_error(error, error.reference))


# ------------------------------------------------------------------------------------------------------ settling


@pytest.mark.parametrize(
    ("operation", "settle"),
    [
        (Ack("s", [(1, 5), (7, 7)]), Settle(Verb.ACK, [(1, 5), (7, 7)])),
        (Nack("s", [(1, 1)]), Settle(Verb.NACK, [(1, 1)], delay_ms=None)),
        (Nack("s", [(1, 1)], delay_ms=0, reason="r"), Settle(Verb.NACK, [(1, 1)], delay_ms=0, reason="r")),
        (Extend("s", [(1, 1)], lease_ms=9), Settle(Verb.EXTEND, [(1, 1)], lease_ms=9)),
        (Term("s", [(0, POSITION_MAX)], reason="r"), Settle(Verb.TERM, [(0, POSITION_MAX)], reason="r")),
    ],
)
def test_a_settling_operation_is_one_verb_over_its_ranges(operation: push_v1.Settling, settle: Settle) -> None:
    assert push_v1.to_settle(operation) == settle


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(GatewayError, match=r"\[5,4\] runs backwards; write \[low,high\]"):
        push_v1.to_settle(Ack("s", [(1, 1), (5, 4)]))


@pytest.mark.parametrize(
    ("verb", "word"),
    [(Verb.ACK, "acked"), (Verb.NACK, "nacked"), (Verb.EXTEND, "extended"), (Verb.TERM, "terminated")],
)
def test_a_settlement_is_answered_with_its_counts(verb: Verb, word: str) -> None:
    settlement = Settlement(None, [])
    settlement.counts[verb] = 3
    settlement.unknown = 2
    answer = orjson.loads(push_v1.encode_settled(9, verb, settlement))
    assert answer == {"op": "ok", "id": 9, word: 3, "unknown": 2}


# ------------------------------------------------------------------------------------------------- what is sent


def published(results: list[Stored | GatewayError | None] | None, first: int = 101, count: int = 3) -> dict[str, Any]:
    batch = Batch([Message("a")] * count, Durability.FSYNCED, 0, lambda _: None)
    batch.first, batch.results = first, results
    found: dict[str, Any] = orjson.loads(push_v1.encode_published(4, batch))
    return found


def test_all_new_and_contiguous_is_answered_with_positions() -> None:
    assert published(None) == {"op": "published", "id": 4, "durability": "fsynced", "positions": [101, 103]}


def test_anything_else_is_answered_with_a_result_for_each() -> None:
    refused = GatewayError("bad_topic", "no")
    assert published([Stored("i", 7), refused, Stored("j", 3, duplicate=True)]) == {
        "op": "published",
        "id": 4,
        "durability": "fsynced",
        "results": [
            {"id": "i", "position": 7},
            {"error": {"code": "bad_topic", "message": "no", "temporary": False}},
            {"id": "j", "position": 3, "duplicate": True},
        ],
    }


def test_a_batch_that_failed_as_a_whole_is_an_error() -> None:
    batch = Batch([Message("a")], Durability.FSYNCED, 0, lambda _: None)
    batch.fail(GatewayError("overloaded", "wait"))
    assert orjson.loads(push_v1.encode_published("r", batch)) == {
        "op": "error",
        "id": "r",
        "code": "overloaded",
        "message": "wait",
        "temporary": True,
    }


def test_an_error_that_answers_nothing_has_no_id() -> None:
    assert "id" not in orjson.loads(push_v1.encode_error(GatewayError("bad_request", "no")))


def delivery(attempts: Mapping[str, int] | None = None) -> Delivery:
    made = Delivery("orders", 30_000)
    made.bodies = [b'{"position":1,"data": 1.0}', b'{"position":2,"data":"\\u00e4"}']
    made.attempts = dict(attempts or {})
    return made


def whole(delivery: Delivery) -> bytes:
    """The payload in one piece."""
    payload = push_v1.encode_messages(delivery)
    return payload if isinstance(payload, bytes) else b"".join(payload)


@pytest.mark.parametrize(("size", "pieces"), [(30, 1), (4095, 1), (4096, 3)])
def test_one_small_body_makes_one_piece(size: int, pieces: int) -> None:
    made = Delivery("orders", 30_000)
    made.bodies = [memoryview(b"1" * size)]
    payload = push_v1.encode_messages(made)
    assert (1 if isinstance(payload, bytes) else len(payload)) == pieces
    assert whole(made) == b'{"op":"messages","subscription":"orders","lease_ms":30000,"messages":[%b]}' % (b"1" * size)


def test_a_delivery_is_a_join_of_the_stored_bytes() -> None:
    bodies = b'[{"position":1,"data": 1.0},{"position":2,"data":"\\u00e4"}]'
    start = b'{"op":"messages","subscription":"orders","lease_ms":30000,"messages":'
    assert whole(delivery()) == start + bodies + b"}"
    assert whole(delivery({"2": 3})) == start + bodies + b',"attempts":{"2":3}}'


def test_the_answer_to_a_pull_names_lease_and_attempts() -> None:
    assert orjson.loads(b"".join(push_v1.encode_pulled("l-1", delivery({"2": 3})))) == {
        "lease": "l-1",
        "lease_ms": 30000,
        "messages": [{"position": 1, "data": 1.0}, {"position": 2, "data": "\u00e4"}],
        "attempts": {"2": 3},
    }
    assert orjson.loads(b"".join(push_v1.encode_pulled("l-1", Delivery("", 0))))["messages"] == []


@pytest.mark.parametrize(("heartbeat_s", "shown"), [(25.0, "25"), (0.5, "0.5")])
def test_the_welcome_says_who_and_what(heartbeat_s: float, shown: str) -> None:
    frame = push_v1.encode_welcome("c-1", "node", heartbeat_s, {"batch_messages_max": 1000})
    assert frame.decode() == (
        f'{{"op":"welcome","connection":"c-1","node":"node","heartbeat_s":{shown},"limits":{{"batch_messages_max":1000}}}}'
    )


def test_the_drain_says_when_to_come_back() -> None:
    assert push_v1.encode_drain((500, 20_000)) == b'{"op":"drain","reconnect_ms":[500,20000]}'


# -------------------------------------------------------------------------------------------------- the SDK's side


def test_what_the_gateway_sends_the_sdk_reads() -> None:
    assert push_v1.decode_server(push_v1.encode_welcome("c", "n", 25.0, {"a": 1})) == push_v1.Welcome(
        "c", "n", 25, {"a": 1}
    )
    assert push_v1.decode_server(push_v1.encode_ok(1, acked=2, unknown=0)) == push_v1.Ok(id=1, acked=2, unknown=0)
    assert push_v1.decode_server(push_v1.encode_error(GatewayError("draining", "m"), 5)) == push_v1.Error(
        "draining", "m", True, id=5
    )
    assert push_v1.decode_server(push_v1.encode_drain((1, 2))) == push_v1.Drain((1, 2))
    assert push_v1.decode_server('{"op":"window","subscription":"s","size":640,"reason":"r"}') == push_v1.Window(
        "s", 640, "r"
    )


def test_a_delivery_keeps_its_bytes_up_to_the_sdk() -> None:
    made = Delivery("orders", 5)
    made.bodies = [b'{"position":1,"id":"i","topic":"a","time_ms":3,"data":{"x" : 1.0}}']
    made.attempts = {"1": 2}
    frame = push_v1.decode_server(whole(made))
    assert isinstance(frame, push_v1.Messages)
    assert (frame.subscription, frame.lease_ms, frame.attempts) == ("orders", 5, {"1": 2})
    assert bytes(frame.messages[0].data) == b'{"x" : 1.0}'


def test_what_a_later_version_adds_is_passed_over() -> None:
    assert push_v1.decode_server('{"op":"ok","id":1,"new":{}}') == push_v1.Ok(id=1)
    with pytest.raises(msgspec.DecodeError):
        push_v1.decode_server('{"op":"later"}')
