from __future__ import annotations

import base64
import json
from collections.abc import Callable

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.model import Message
from gateway.wire import payload
from gateway.wire.payload import Decoded
from tests.wire.json_texts import json_texts


def message_with(data: str) -> str:
    return f'{{"topic":"a.b","data":{data}}}'


def in_array(*items: str) -> Decoded:
    return payload.decode_array("[" + ",".join(items) + "]")


def in_lines(*items: str) -> Decoded:
    return payload.decode_lines("\n".join(items))


def each(*items: str) -> Decoded:
    return payload.decode_each([msgspec.Raw(item) for item in items])


ways = pytest.mark.parametrize("decode", [in_array, in_lines, each], ids=["array", "ndjson", "one by one"])


def data_of(message: Message) -> str:
    assert message.data is not msgspec.UNSET
    return bytes(message.data).decode()


# --------------------------------------------------------------------------------------------------- byte for byte


@given(texts=st.lists(json_texts, min_size=1, max_size=3))
def test_the_bytes_of_a_payload_in_an_array_stay_as_they_came(texts: list[str]) -> None:
    messages, errors = in_array(*map(message_with, texts))
    assert errors == {}
    assert [data_of(message) for message in messages] == texts


@given(texts=st.lists(json_texts, min_size=1, max_size=3))
def test_they_stay_so_where_a_neighbour_is_wrong(texts: list[str]) -> None:
    messages, errors = in_array(*map(message_with, texts), '{"topic":1}')
    assert errors.keys() == {len(texts)}
    assert [data_of(message) for message in messages[:-1]] == texts


@given(texts=st.lists(json_texts.map(lambda text: text.replace("\n", " ")), min_size=1, max_size=3))
def test_the_bytes_of_a_payload_in_a_line_stay_as_they_came(texts: list[str]) -> None:
    messages, errors = in_lines(*map(message_with, texts))
    assert errors == {}
    assert [data_of(message) for message in messages] == texts


@given(text=json_texts)
def test_what_the_strategy_calls_json_is_json(text: str) -> None:
    json.loads(text)
    payload.check_json(text.encode())


def test_every_member_of_a_message_is_read() -> None:
    ((message, other), errors) = in_array(
        '{"topic":"a","data":{"x": 1},"id":"i","key":"k","attributes":{"n":"v"},"delay_ms":5,"ttl_ms":6}',
        '{"topic":"a","data_base64":"AAE=","content_type":"text/plain"}',
    )
    assert errors == {}
    assert (message.id, message.key, message.attributes, message.delay_ms, message.ttl_ms) == (
        "i",
        "k",
        {"n": "v"},
        5,
        6,
    )
    assert (other.data, other.data_base64, other.content_type) == (msgspec.UNSET, "AAE=", "text/plain")


# ------------------------------------------------------------------------------------------- wrong by itself

WRONG = {
    "5": ["messages[1]", "Expected `object`, got `int`"],
    "[]": ["Expected `object`, got `array`"],
    "{}": ["missing required field `topic`"],
    '{"data":1}': ["missing required field `topic`"],
    '{"topic":7}': ["Expected `str`, got `int`", "topic"],
    '{"topic":"a","data":1,"topik":2}': ["unknown field `topik`", "known are topic, data, data_base64", "ttl_ms"],
    '{"topic":"a","data":1,"delay_ms":"5"}': ["Expected `int`, got `str`", "delay_ms"],
    '{"topic":"a","data":1,"delay_ms":5.5}': ["Expected `int`, got `float`", "delay_ms"],
    '{"topic":"a","data":1,"id":5}': ["Expected `str | null`, got `int`", "id"],
    '{"topic":"a","data":1,"attributes":[]}': ["Expected `object | null`, got `array`", "attributes"],
    '{"topic":"a","data":1,"attributes":{"n":1}}': ["Expected `str`, got `int`", "attributes"],
}


@ways
@pytest.mark.parametrize("wrong", WRONG)
def test_one_bad_message_is_answered_by_itself(decode: Callable[..., Decoded], wrong: str) -> None:
    messages, errors = decode(message_with("1"), wrong, message_with("3"))
    assert (data_of(messages[0]), data_of(messages[2])) == ("1", "3")
    assert len(messages) == 3
    assert errors.keys() == {1}
    assert errors[1].code == "bad_request"
    for words in ["messages[1]", *WRONG[wrong]]:
        assert words in errors[1].message


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "nonsense",
        message_with("NaN"),
        message_with("1") + "x",
        message_with('"\\ud800"'),
        message_with("[" * 5000),
    ],
)
def test_one_bad_line_is_answered_by_itself(line: str) -> None:
    messages, errors = in_lines(message_with("1"), line, "", "  \t\r", message_with("3"))
    assert [data_of(messages[0]), data_of(messages[2])] == ["1", "3"]
    assert errors.keys() == {1}
    assert errors[1].message.startswith("messages[1]")


@pytest.mark.parametrize("text", ["", "[", "nonsense", "[1,]", "[1]]", "[{}", "x{}", '["\\x"]', "\ufeff[]"])
def test_what_is_no_json_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(GatewayError, match="the body is not JSON") as caught:
        payload.decode_array(text)
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("text", ["{}", "{}x", "1", "null", '"a"'])
def test_what_is_no_list_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(GatewayError, match="must be a JSON array of message objects"):
        payload.decode_array(text)


def test_no_messages_are_none() -> None:
    assert payload.decode_array("[]") == ([], {})
    assert payload.decode_lines("\n \n") == ([], {})


NOT_JSON = [
    "NaN", "Infinity", "-Infinity", "01", "-", "+1", "1.", ".5", "1e", "0x1", "tru", "nul", "'a'", "[1,]", '{"a":1,}',
    "{a:1}", '{"a" 1}', '{1:2}', "[1 2]", "[,]", '"\\x"', '"\\u12"', '"a\tb"', '"\x00"', '"\\ud800"', '"\\udc00"',
    '"\\ud800\\ud800"', '"\\udc00\\ud800"', '"abc', "/**/1", "\u00a01", "1 2", "",
]  # fmt: skip


@ways
@pytest.mark.parametrize("data", NOT_JSON)
def test_what_is_no_json_never_becomes_a_payload(decode: Callable[..., Decoded], data: str) -> None:
    found: list[GatewayError] = []
    try:
        _, errors = decode(message_with(data))
        found += errors.values()
    except GatewayError as error:  # the text around it is none either
        found.append(error)
    assert [error.code for error in found] == ["bad_request"]


@pytest.mark.parametrize("data", NOT_JSON)
def test_nor_does_it_as_a_body_that_is_called_json(data: str) -> None:
    with pytest.raises(GatewayError, match="the body is not JSON"):
        payload.check_json(data.encode())


@given(text=json_texts, at=st.integers(0, 200), put=st.binary(max_size=3), cut=st.integers(0, 2))
def test_a_body_is_json_where_another_parser_says_so_too(text: str, at: int, put: bytes, cut: int) -> None:
    body = text.encode()
    body = body[:at] + put + body[at + cut :]
    assert passes(body) is parses(body)


@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf1", b"12345678901234567890123", b'"\\ud800"', b" [1]\n", b'"%b"' % (b"x" * 2**21)]
)
def test_also_where_parsers_differ(body: bytes) -> None:
    assert passes(body) is parses(body)


def passes(body: bytes) -> bool:
    try:
        payload.check_json(body)
    except GatewayError:
        return False
    return True


def parses(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def test_text_that_is_not_utf_8_names_the_place() -> None:
    assert payload.decode_text("aä€😀".encode()) == "aä€😀"
    for body, place in [(b"ab\xffc", 2), (b"\xed\xa0\x80", 0), (b"abc\xe4", 3), (b"\xc0\x80", 0)]:
        with pytest.raises(GatewayError, match=f"not UTF-8: byte {place} is wrong"):
            payload.decode_text(body)


# -------------------------------------------------------------------------------------------- sizes and types


@given(st.binary(max_size=300))
def test_base64_stands_for_so_many_bytes(body: bytes) -> None:
    assert base64.b64decode(payload.to_base64(body)) == body
    assert payload.check_base64(payload.to_base64(body)) == len(body)


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AA",
        "AAA",
        "AA=",
        "A===",
        "AAAA=",
        "=AAA",
        "AA==AA==",
        "AA A",
        "AAAA\n",
        " AAAA",
        "AA-_",
        "AAAA====",
        "====",
        "A\u00c4A=",
        "AA===",
    ],
)
def test_base64_is_strict(text: str) -> None:
    with pytest.raises(GatewayError, match="data_base64 is not base64"):
        payload.check_base64(text)


@pytest.mark.parametrize(
    ("members", "size"),
    [('"data":{"a": 1}', 8), ('"data":"\u20ac"', 5), ('"data_base64":"AAECAw=="', 6), ('"key":"k"', 0)],
)
def test_the_size_of_a_payload_is_near_enough(members: str, size: int) -> None:
    ((message,), _) = in_array(f'{{"topic":"a",{members}}}')
    assert payload.size(message) == size


@pytest.mark.parametrize(
    ("media_type", "is_json"),
    [
        ("application/json", True),
        ("text/json", True),
        ("application/vnd.api+json", True),
        ("application/json-seq", False),
        ("application/jsonp", False),
        ("text/plain", False),
        ("", False),
    ],
)
def test_a_media_type_is_json_or_not(media_type: str, is_json: bool) -> None:
    assert payload.is_json_type(media_type) is is_json


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("text/plain", True),
        ("text/plain; charset=utf-8", True),
        ("text/plain;charset=utf-8", True),
        ("application/vnd.a.b+xml", True),
        ("text", False),
        ("/plain", False),
        ("text/", False),
        ("text/plain charset", False),
        ("text/plain; a=\u00e4", False),
        ("text/plain\r\nx: y", False),
        ("text/" + "x" * 251, False),
        ("", False),
    ],
)
def test_a_media_type_is_checked(text: str, good: bool) -> None:
    assert payload.is_media_type(text) is good
