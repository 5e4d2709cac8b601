"""The platform's HTTP calls: signatures of its documents' examples, times, parameters, the shape of answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from urllib.parse import urlencode

import orjson
import pytest

from gateway.wire import top
from gateway.wire.top import Parameters, TopError

NOW = 1_795_324_301_000  # 2026-11-22 13:11:41 in Beijing


def test_the_example_of_the_documents_is_signed_as_they_say() -> None:
    """taobao.item.seller.get of the platform's page on signatures, with the secret helloworld."""
    parameters = {
        "method": "taobao.item.seller.get",
        "app_key": "12345678",
        "session": "test",
        "timestamp": "2016-01-01 12:00:00",
        "format": "json",
        "v": "2.0",
        "sign_method": "md5",
        "fields": "num_iid,title,nick,price,num",
        "num_iid": "11223344",
    }
    assert top.sign(parameters, "helloworld") == "66987CB115214E59E6EC978214934FB8"


def test_each_method_signs_in_its_way() -> None:
    parameters = {"b": "二", "a": "1", "sign": "not part of it"}
    text = "a1b二"
    assert top.sign(parameters, "s", "md5") == hashlib.md5(f"s{text}s".encode()).hexdigest().upper()
    for method, digest in (("hmac", "md5"), ("hmac-sha256", "sha256")):
        pad = b"s".ljust(64, b"\0")
        inner = hashlib.new(digest, bytes(c ^ 0x36 for c in pad) + text.encode()).digest()
        outer = hashlib.new(digest, bytes(c ^ 0x5C for c in pad) + inner).hexdigest().upper()
        assert top.sign(parameters, "s", method) == outer


@pytest.mark.parametrize("method", ["md5", "hmac", "hmac-sha256"])
def test_a_signature_is_right_or_wrong(method: str) -> None:
    parameters = {"a": "1", "b": ""}
    signed = parameters | {"sign": top.sign(parameters, "secret", method)}
    assert top.is_signed(signed, "secret", method)
    assert top.is_signed(parameters | {"sign": top.sign({"a": "1"}, "secret", method)}, "secret", method)
    assert top.is_signed(signed | {"sign": signed["sign"].lower()}, "secret", method)
    for wrong in (
        signed | {"a": "2"},
        signed | {"c": "3"},
        signed | {"sign": ""},
        signed | {"sign": signed["sign"][:-1]},
        signed | {"sign": "签" * 8},
        parameters,
    ):
        assert not top.is_signed(wrong, "secret", method)
    assert not top.is_signed(signed, "other", method)


def test_an_unknown_method_of_signing_is_named() -> None:
    with pytest.raises(TopError, match="use md5, hmac, hmac-sha256"):
        top.is_signed({}, "s", "none")


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01 00:00:00", "2026-11-22T13:11:41", "9" * 19, "-1", "٣" * 13]
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert top.parse_time(text) is None


def test_times_are_beijings_in_both_directions() -> None:
    assert top.format_time(0) == "1970-01-01 08:00:00"
    assert top.parse_time("1970-01-01 08:00:00") == 0
    assert top.format_time(NOW) == "2026-11-22 13:11:41"
    assert top.parse_time("2026-11-22 13:11:41") == top.parse_time(str(NOW)) == NOW


def ticks(time_ms: int) -> str:
    """As .NET counts: 100 ns since the year 1."""
    return str((time_ms + 62_135_596_800_000) * 10_000)


@pytest.mark.parametrize(
    ("text", "current"),
    [
        (str(NOW - 600_000), True),
        (str(NOW + 600_000), True),
        (str(NOW - 600_001), False),
        (str(NOW + 600_001), False),
        ("", False),
        ("x", False),
        (ticks(NOW), True),
        (ticks(NOW + 8 * 3600 * 1000), True),
        (ticks(NOW - 24 * 3600 * 1000), False),
        ("0", False),
    ],
)
def test_an_old_time_is_not_current(text: str, current: bool) -> None:
    assert top.is_current(text, NOW, 600_000) is current


def test_a_form_is_read_in_utf_8() -> None:
    assert top.parse_form(urlencode({"a": "买家 1", "b": ""}).encode()) == {"a": "买家 1", "b": ""}
    assert top.parse_form(b"") == {}
    assert top.parse_form(b"a=1&a=2") == {"a": "2"}


@pytest.mark.parametrize("body", [b"a", b"\xff=1", b"a=%ff", b"&".join(b"a%d=1" % n for n in range(101)), b'{"a":1}'])
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(TopError) as raised:
        top.parse_form(body)
    assert raised.value.code == 23


def test_parameters_are_taken_or_named() -> None:
    parameters = Parameters({"n": "12", "ids": "1, 2,,3", "big": "9" * 30, "neg": "-1", "names": "a,b"})
    assert parameters.integer("n", 5, 1, 20) == 12
    assert parameters.integer("none", 5, 1, 20) == 5
    assert parameters.ids("ids", 3) == [1, 2, 3]
    assert parameters.names("names", 2) == ["a", "b"]
    assert parameters.names("none", 2) == []
    wrong: list[tuple[Callable[[], object], int, str]] = [
        (lambda: parameters.required("none"), 40, "isv.missing-parameter:none"),
        (lambda: parameters.integer("n", 5, 1, 11), 41, "isv.invalid-parameter:n"),
        (lambda: parameters.integer("big", 5, 1, 11), 41, "isv.invalid-parameter:big"),
        (lambda: parameters.integer("neg", 5, 1, 11), 41, "isv.invalid-parameter:neg"),
        (lambda: parameters.ids("ids", 2), 41, "isv.invalid-parameter:ids"),
        (lambda: parameters.ids("names", 2), 41, "isv.invalid-parameter:names"),
        (lambda: parameters.names("names", 1), 41, "isv.invalid-parameter:names"),
    ]
    for call, code, sub_code in wrong:
        with pytest.raises(TopError) as raised:
            call()
        assert (raised.value.code, raised.value.sub_code) == (code, sub_code)


def test_answers_have_the_platforms_shape() -> None:
    answer = top.encode_answer("taobao.tmc.messages.consume", {"messages": {"tmc_message": []}}, "r1")
    assert orjson.loads(answer) == {
        "tmc_messages_consume_response": {"messages": {"tmc_message": []}, "request_id": "r1"}
    }
    error = top.encode_error(top.invalid("quantity", "too many"), "r2")
    assert orjson.loads(error) == {
        "error_response": {
            "code": 41,
            "msg": "Invalid Arguments",
            "sub_code": "isv.invalid-parameter:quantity",
            "sub_msg": "quantity: too many",
            "request_id": "r2",
        }
    }
    assert orjson.loads(top.encode_error(TopError("invalid_signature"), "r3")) == {
        "error_response": {"code": 25, "msg": "Invalid Signature", "request_id": "r3"}
    }
