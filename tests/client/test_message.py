from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.client.message import Message, encode
from gateway.errors import GatewayError
from gateway.wire import push_v1


def encoded(**members: Any) -> Any:
    return orjson.loads(encode(Message(topic="t", **members)))


def test_members_that_are_not_given_are_not_sent() -> None:
    assert encoded(data={"amount": 12}) == {"topic": "t", "data": {"amount": 12}}


def test_every_member_is_understood_by_the_gateway() -> None:
    body = encode(Message(topic="t", data=1, id="a", key="k", attributes={"x": "y"}, delay_ms=5, ttl_ms=7))
    publish = push_v1.decode('{"op":"publish","messages":[' + body.decode() + "]}")
    assert isinstance(publish, push_v1.Publish)
    [message] = publish.messages
    assert (message.id, message.key, message.attributes) == ("a", "k", {"x": "y"})
    assert (message.delay_ms, message.ttl_ms) == (5, 7)


@pytest.mark.parametrize("data", [None, "text", 3.5, [1, {"a": []}], True])
def test_anything_that_json_can_say_is_sent_as_it_is(data: object) -> None:
    assert encoded(data=data) == {"topic": "t", "data": data}


def test_bytes_are_a_binary_payload() -> None:
    assert encoded(data=b"\x00\xff") == {
        "topic": "t",
        "data_base64": "AP8=",
        "content_type": "application/octet-stream",
    }


def test_bytes_that_are_said_to_be_json_travel_untouched() -> None:
    body = encode(Message(topic="t", data=b'{ "a": 1.0 }', content_type="application/json; charset=utf-8"))
    assert body == b'{"topic":"t","data":{ "a": 1.0 }}'


def test_bytes_that_are_said_to_be_json_and_are_not_are_refused_here() -> None:
    with pytest.raises(GatewayError, match="not JSON") as caught:
        encoded(data=b'{"a":', content_type="application/json")
    assert caught.value.code == "bad_request"


def test_text_with_a_media_type_of_its_own_is_sent_as_bytes() -> None:
    assert encoded(data="ä", content_type="text/plain") == {
        "topic": "t",
        "data_base64": "w6Q=",
        "content_type": "text/plain",
    }


def test_an_object_cannot_be_sent_as_something_else_than_json() -> None:
    with pytest.raises(TypeError, match="text/xml"):
        encoded(data={"a": 1}, content_type="text/xml")


def test_what_json_cannot_say_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        encoded(data=object())
