from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.body import compose
from gateway.errors import GatewayError
from gateway.model import Message
from gateway.wire.cloudevents import (
    decode_batch,
    decode_event,
    decode_events,
    decode_headers,
    decode_structured,
    encode_event,
)
from tests.wire.json_texts import json_texts

EVENT: dict[str, Any] = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "shop.paid"}


def structured(topic: str = "shop.paid", **members: Any) -> Message:
    return decode_structured(orjson.dumps({**EVENT, **members}).decode(), topic)


def delivered(message: Message, position: int = 7, time_ms: int = 1_795_326_701_005) -> bytes:
    return encode_event(compose(message, position, "epoch", time_ms))


def test_context_attributes_go_where_the_protocol_says() -> None:
    message = structured("a.b", partitionkey="k", subject="s", n=-5, flag=True, gone=None, data=1)
    assert (message.topic, message.id, message.key) == ("a.b", "e1", "k")
    assert message.attributes == {
        "ce_specversion": "1.0",
        "ce_source": "/shop",
        "ce_type": "shop.paid",
        "ce_subject": "s",
        "ce_n": "-5",
        "ce_flag": "true",
    }


def test_in_a_batch_the_type_is_the_topic() -> None:
    [message], errors = decode_batch(orjson.dumps([{**EVENT, "data": None}]).decode())
    assert (message.topic, message.data, errors) == ("shop.paid", msgspec.Raw(b"null"), {})
    assert message.attributes == {"ce_specversion": "1.0", "ce_source": "/shop"}


@given(json_texts)
def test_data_is_kept_byte_for_byte_in_and_out(text: str) -> None:
    head = orjson.dumps(EVENT).decode()[:-1]
    message = decode_structured(f'{head},"data":{text}}}', "a")
    assert bytes(message.data) == text.strip().encode()  # type: ignore[arg-type]  # not unset
    assert delivered(message).endswith(b',"data":' + text.strip().encode() + b"}")


def test_data_of_another_media_type_stays_what_it_is() -> None:
    message = structured(data="<a/>", datacontenttype="text/xml")
    assert message.data == msgspec.Raw(b'"<a/>"')
    out = orjson.loads(delivered(message))
    assert (out["data"], out["datacontenttype"]) == ("<a/>", "text/xml")


def test_base64_stays_what_it_is() -> None:
    message = structured(data_base64="AAE=", datacontenttype="image/png")
    assert (message.data, message.data_base64, message.content_type) == (msgspec.UNSET, "AAE=", "image/png")
    out = orjson.loads(delivered(message))
    assert (out["data_base64"], out["datacontenttype"]) == ("AAE=", "image/png")


def test_an_event_without_data_comes_out_without_data() -> None:
    assert not {"data", "data_base64"} & orjson.loads(delivered(structured())).keys()


def test_an_event_comes_out_as_it_came_in() -> None:
    event = {**EVENT, "subject": "s", "time": "2026-01-02T03:04:05Z", "partitionkey": "k", "ext": "x", "data": {"a": 1}}
    out = orjson.loads(delivered(decode_structured(orjson.dumps(event).decode(), "other.topic")))
    ours = {"topic": "other.topic", "position": "7", "datacontenttype": "application/json"}
    assert out == {**event, **ours}


def test_a_native_message_comes_out_as_an_event() -> None:
    attributes = {"k": "v", "trace-id": "t", "id": "x", "ce_id": "y", "source": "z", "ce_Bad": "b", "empty": ""}
    out = orjson.loads(delivered(Message("a.b", data=msgspec.Raw(b"[1]"), id="m", key="p", attributes=attributes)))
    assert orjson.loads(out.pop("pushattributes")) == {n: v for n, v in attributes.items() if n != "k"}
    assert out == {
        "specversion": "1.0",
        "id": "m",
        "source": "/v1/topics/a.b",
        "type": "a.b",
        "time": "2026-11-22T05:51:41.005Z",
        "topic": "a.b",
        "position": "7",
        "partitionkey": "p",
        "k": "v",
        "datacontenttype": "application/json",
        "data": [1],
    }


@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(["ce_id", "ce_source", "time", "data"]), st.text()))
def test_no_attribute_is_lost_and_none_takes_the_place_of_ours(attributes: dict[str, str]) -> None:
    out = orjson.loads(delivered(Message("a.b", data_base64="AA==", id="m", attributes=attributes)))
    assert (out["specversion"], out["id"], out["topic"], out["position"]) == ("1.0", "m", "a.b", "7")
    assert out["data_base64"] == "AA=="
    left = orjson.loads(out.get("pushattributes", "{}"))
    for name, value in attributes.items():
        assert left.get(name, out.get(name.removeprefix("ce_"))) == value or name == "ce_specversion"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "CloudEvent: specversion is missing"),
        ('{"specversion":"0.3","id":"1","source":"s","type":"t"}', "specversion '0.3': send 1.0"),
        ('{"specversion":1.0,"id":"1","source":"s","type":"t"}', "specversion: must be text, a whole number"),
        ('{"specversion":"1.0","id":"","source":"s","type":"t"}', "CloudEvent: id is missing"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"t","Ext":"x"}', "attribute 'Ext': a name is lower-case"),
        ('{"specversion":"1.0","id":"1","source":"s","type":"t","x":{}}', "x: must be text"),
        (
            '{"specversion":"1.0","id":"1","source":"s","type":"t","data":1,"data_base64":""}',
            "both data and data_base64",
        ),
        ("[]", "must be a JSON object"),
        ("{", "the CloudEvent is not JSON"),
        ('{"data":' + "[" * 5000 + "]" * 5000 + "}", ""),
    ],
)
def test_a_wrong_event_is_named(text: str, said: str) -> None:
    with pytest.raises(GatewayError) as caught:
        decode_structured(text, "a")
    assert caught.value.code == "bad_request"
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"plain", "plain"), (b"%E2%82%AC%20%25", "€ %"), (b'"quoted \\" one"', 'quoted " one'), (b"%2525", "%25")],
)
def test_header_values_are_decoded_as_the_binding_says(raw: bytes, value: str) -> None:
    headers = [(b"ce-" + name.encode(), text.encode()) for name, text in EVENT.items()]
    message = decode_headers([*headers, (b"ce-subject", raw), (b"host", b"x")], "a")
    assert message.attributes is not None
    assert message.attributes["ce_subject"] == value


# -------------------------------------------------------------------------------------------------------- back again


@given(
    attributes=st.dictionaries(
        st.sampled_from(["k", "traceparent", "Upper", "with_line", "ce_source", "ce_subject", "ce_type", "topic"]),
        st.text(st.characters(codec="utf-8"), max_size=5),
    ),
    key=st.none() | st.text(min_size=1, max_size=5),
    data=json_texts,
)
def test_what_goes_out_is_read_back(attributes: dict[str, str], key: str | None, data: str) -> None:
    message = Message("a.b", data=msgspec.Raw(data.encode()), id="i", key=key, attributes=attributes)
    event = delivered(message)
    found = decode_event(event)
    assert (found.position, found.id, found.topic, found.time_ms) == (7, "i", "a.b", 1_795_326_701_005)
    assert (found.key, bytes(found.data), found.sent) == (key, data.encode(), event)
    kept = {name: value for name, value in attributes.items() if (name, value) != ("ce_type", "a.b")}
    assert found.attributes == kept


@pytest.mark.parametrize(("content_type", "base64"), [("image/png", "AP8="), (None, "")])
def test_so_is_a_payload_that_is_not_json(content_type: str | None, base64: str) -> None:
    found = decode_event(delivered(Message("a.b", data_base64=base64, content_type=content_type)))
    assert (found.data_base64, found.content_type, found.attributes) == (base64, content_type, {})


def test_events_of_a_frame_are_read_with_their_attempts() -> None:
    event = delivered(Message("a.b", data=msgspec.Raw(b"1")))
    frame = decode_events(
        b'{"op":"messages","subscription":"s","lease_ms":9,"messages":[%b],"attempts":{"7":2}}' % event
    )
    assert (frame.subscription, frame.lease_ms, frame.attempts) == ("s", 9, {"7": 2})
    assert [bytes(each.data) for each in frame.messages] == [b"1"]


@pytest.mark.parametrize(
    "event",
    [
        b"{}",
        b"[]",
        b'{"topic":"a","position":"x","id":"i","time":"2026-01-01T00:00:00Z"}',
        b'{"topic":"a","position":"1","id":"i","time":"yesterday"}',
        b'{"topic":"a","position":1,"id":"i","time":"2026-01-01T00:00:00Z"}',
        b'{"topic":"a","position":"1","id":"i","time":"2026-01-01T00:00:00Z","pushattributes":"{"}',
    ],
)
def test_events_of_another_make_are_refused(event: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(event)
