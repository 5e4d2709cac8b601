import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.body import compose, compose_plain, own_id
from gateway.model import Message

EPOCH = "0badf00d"
NOW_MS = 1_795_326_701_000

payloads = st.sampled_from(
    [b"{}", b"1.50", b'"\xc3\xbc"', b' { "a" : [1, 2] } ', b'{"a":1,"a":2}', b"12345678901234567890", b"%d %b %%"]
)


def test_a_plain_message_byte_for_byte() -> None:
    [body] = compose_plain("trade.paid", [Message("trade.paid", data=msgspec.Raw(b'{"n":1}'))], 4711, EPOCH, NOW_MS)
    assert body == (
        b'{"position":4711,"id":"0badf00d-4711","topic":"trade.paid","time_ms":1795326701000,"data":{"n":1}}'
    )


def test_a_full_message_byte_for_byte() -> None:
    message = Message("a", data=msgspec.Raw(b"[1]"), id="a1", key="tid-9", attributes={"k": "v", "ü": '"'})
    assert (
        compose(message, 7, EPOCH, 5)
        == (
            '{"position":7,"id":"a1","topic":"a","key":"tid-9","time_ms":5,"attributes":{"k":"v","ü":"\\""},"data":[1]}'
        ).encode()
    )


def test_a_payload_that_is_not_json_travels_in_base64_with_its_type() -> None:
    message = Message("a", data_base64="AAEC", content_type="image/png")
    assert orjson.loads(compose(message, 7, EPOCH, 5)) == {
        "position": 7,
        "id": "0badf00d-7",
        "topic": "a",
        "time_ms": 5,
        "content_type": "image/png",
        "data_base64": "AAEC",
    }
    untyped = orjson.loads(compose(Message("a", data_base64=""), 7, EPOCH, 5))
    assert (untyped["content_type"], untyped["data_base64"]) == ("application/octet-stream", "")


@given(st.lists(payloads, max_size=5), st.integers(1, 2**53 - 1))
def test_plain_messages_are_composed_as_any_others_are(data: list[bytes], first: int) -> None:
    messages = [Message("trade.paid", data=msgspec.Raw(payload)) for payload in data]
    assert compose_plain("trade.paid", messages, first, EPOCH, NOW_MS) == [
        compose(message, position, EPOCH, NOW_MS) for position, message in enumerate(messages, first)
    ]


@given(data=payloads, key=st.text(max_size=5), attributes=st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
def test_the_payload_s_bytes_are_those_that_came(data: bytes, key: str, attributes: dict[str, str]) -> None:
    message = Message("a", data=msgspec.Raw(data), key=key, attributes=attributes)
    body = compose(message, 1, EPOCH, 5)
    assert body.endswith(b',"data":' + data + b"}")


@pytest.mark.parametrize("message", [Message("a", key="", attributes={}), Message("a", key=None, attributes=None)])
def test_empty_keys_and_attributes_are_left_out(message: Message) -> None:
    message.data = msgspec.Raw(b"0")
    assert orjson.loads(compose(message, 1, EPOCH, 5)).keys() == {"position", "id", "topic", "time_ms", "data"}


def test_ids_that_the_gateway_gives_name_the_store_s_life_and_the_position() -> None:
    assert own_id(EPOCH, 12) == "0badf00d-12"
