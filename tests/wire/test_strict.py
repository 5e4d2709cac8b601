from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Limits
from gateway.errors import GatewayError
from gateway.model import JSON_DEPTH_MAX, Message
from gateway.wire import cloudevents, payload, push_v1, strict
from gateway.wire.limits import check_payload
from gateway.wire.payload import Decoded
from tests.wire.json_texts import json_texts


def in_array(*data: str) -> Decoded:
    return payload.decode_array("[" + ",".join(f'{{"topic":"a","data":{each}}}' for each in data) + "]")


def in_lines(*data: str) -> Decoded:
    return payload.decode_lines("\n".join(f'{{"topic":"a","data":{each}}}' for each in data))


def in_events(*data: str) -> Decoded:
    head = '"specversion":"1.0","id":"1","source":"s","type":"a"'
    return cloudevents.decode_batch("[" + ",".join(f'{{{head},"data":{each}}}' for each in data) + "]")


def in_frame(*data: str) -> Decoded:
    messages = ",".join(f'{{"topic":"a","data":{each}}}' for each in data)
    operation = push_v1.decode(f'{{"op":"publish","id":1,"messages":[{messages}]}}')
    assert isinstance(operation, push_v1.Publish)
    return operation.messages, operation.errors


ways = pytest.mark.parametrize(
    "decode", [in_array, in_lines, in_events, in_frame], ids=["array", "ndjson", "events", "frame"]
)
Way = Callable[..., Decoded]


def admitted(decoded: Decoded) -> Decoded:
    """What is left when the admit stage has seen it: how deep a decoder goes depends on the version of CPython."""
    messages, errors = decoded
    for index, message in enumerate(messages):
        if index not in errors:
            try:
                check_payload(message, Limits())
            except GatewayError as error:
                errors[index] = GatewayError(error.code, f"messages[{index}]: {error.message}")
    return messages, errors


def data_of(message: Message) -> str:
    assert message.data is not msgspec.UNSET
    return bytes(message.data).decode()


# ------------------------------------------------------------------------------------------ numbers beyond a double


@ways
@pytest.mark.parametrize(
    "number", ["1e999", "-1e400", "1.5E309", "1e+309", "1E0309", "1" + "0" * 400, "1" + "0" * 250 + "e99", "9" * 309]
)
def test_a_number_that_no_double_holds_is_refused_by_itself(decode: Way, number: str) -> None:
    messages, errors = decode("1", f'{{"n":[{number}]}}', f'"{number}"')
    assert [data_of(messages[0]), data_of(messages[2])] == ["1", f'"{number}"']
    assert list(errors) == [1]
    assert "data: number is infinity when parsed as double" in errors[1].message
    assert "[1]" in errors[1].message


@ways
@pytest.mark.parametrize(
    "number",
    [
        "1e308",
        "0e999",
        "1e-999",
        "9" * 308,
        "0." + "0" * 400 + "1",
        '"e1234"',
        "1e99",
        "9" * 30,
        "18446744073709551616",
    ],
)
def test_other_numbers_and_texts_are_left_alone(decode: Way, number: str) -> None:
    messages, errors = decode(number)
    assert errors == {}
    assert data_of(messages[0]) == number


@ways
def test_a_wrong_neighbour_hides_no_number(decode: Way) -> None:
    _, errors = decode("1e999", '1,"key":5', "2")
    assert 0 in errors
    assert "infinity" in errors[0].message


@ways
def test_a_long_text_is_looked_at_too(decode: Way) -> None:
    _, errors = decode('"' + "x" * (1 << 20) + '"', "1e999")
    assert list(errors) == [1]


@given(st.one_of(json_texts, st.text(alphabet='[]{}:,"0123456789eE+-.trufalsn\\ud89c', max_size=30)))
def test_what_passes_is_taken_by_a_strict_parser(text: str) -> None:
    if strict.is_strict(text):
        orjson.loads(text)


@given(json_texts)
def test_what_a_strict_parser_takes_is_never_refused(text: str) -> None:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    assert in_array(text)[1] == in_frame(text)[1] == {}


def test_a_text_leaves_nothing_behind_for_the_next() -> None:
    assert [strict.is_strict(text) for text in ("[1]", "[1", "[1e999]", "[[1]]", "NaN", "1")] == [
        *(True, False, False, True, False, True)
    ]


# --------------------------------------------------------------------------------------------------------- depth


def nest(depth: int, *, around: str = "", objects: bool = False) -> str:
    opening, closing = ('{"a":', "}") if objects else ("[", "]")
    return opening * depth + (around or "1") + closing * depth


@pytest.mark.parametrize("objects", [False, True], ids=["arrays", "objects"])
def test_a_payload_may_be_this_deep_and_no_deeper(objects: bool) -> None:
    strict.check_depth(nest(JSON_DEPTH_MAX, objects=objects).encode())
    with pytest.raises(GatewayError, match=f"deeper than {JSON_DEPTH_MAX} levels; flatten it"):
        strict.check_depth(nest(JSON_DEPTH_MAX + 1, objects=objects).encode())


@pytest.mark.parametrize(
    "text",
    [
        '"' + "[{" * 2000 + '"',
        "[" + ",".join(["[]"] * 2000) + "]",
        json.dumps({str(n): [n, {"n": n}] for n in range(1000)}),
    ],
    ids=["brackets in a string", "wide", "many objects"],
)
def test_brackets_alone_make_no_depth(text: str) -> None:
    strict.check_depth(text.encode())


@pytest.mark.parametrize("depth", [12_000, 100_000])  # CPython 3.11 goes to 1,000, later ones to 10,000
def test_what_no_parser_would_follow_is_refused_with_the_same_mend(depth: int) -> None:
    deep = nest(depth)
    for refuse in (strict.check_depth, payload.check_json):
        with pytest.raises(GatewayError, match=f"deeper than {JSON_DEPTH_MAX} levels; flatten it"):
            refuse(deep.encode())
    _, errors = in_lines(deep)
    assert f"deeper than {JSON_DEPTH_MAX} levels; flatten it" in errors[0].message


@ways
@pytest.mark.parametrize("objects", [False, True], ids=["arrays", "objects"])
@pytest.mark.parametrize("depth", [1000, 10_000])
def test_a_payload_that_its_decoder_cannot_follow_is_refused_by_itself(decode: Way, depth: int, objects: bool) -> None:
    hard = '{"[[{{": "\\"]}[{", "a": [[], {}, "\\\\"]}'
    messages, errors = admitted(decode(hard, nest(depth, objects=objects), "[2]", nest(depth), hard))
    assert list(errors) == [1, 3]
    for index, error in errors.items():
        assert f"s[{index}]" in error.message
        assert f"nested deeper than {JSON_DEPTH_MAX} levels; flatten it" in error.message
    assert [data_of(messages[index]) for index in (0, 2, 4)] == [hard, "[2]", hard]


@pytest.mark.parametrize("decode", [in_array, in_events, in_frame])
def test_what_would_take_too_long_to_look_at_is_refused_as_a_whole(decode: Way) -> None:
    with pytest.raises(GatewayError, match=f"deeper than {JSON_DEPTH_MAX} levels; flatten it"):
        decode("1", nest(100_000))


def test_depth_that_stands_in_no_message_is_refused_all_the_same() -> None:
    assert strict.without_deep("[[1]]", 1) is None
    with pytest.raises(push_v1.BadOperationError):
        push_v1.decode(f'{{"op":"publish","id":{nest(2000)},"messages":[]}}')


def test_a_message_that_looks_like_the_mark_is_no_message() -> None:
    _, errors = payload.decode_array('["nested too deep"]')
    assert errors[0].code == "bad_request"
