"""TMC wire protocol 2: golden bytes, every value round, every truncation and corruption an error that says where."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.wire.tmc_v2 import (
    KIND,
    Format,
    Frame,
    Kind,
    MessageType,
    Value,
    custom,
    decode,
    encode,
    push_template,
    text,
)

CONNECT = Frame(
    type=MessageType.CONNECT,
    flag=1,
    customs={"app_key": text("12"), "group_name": text("默认"), "n": Value(Format.VOID)},
)
CONNECT_BYTES = bytes.fromhex(
    "02 00"
    "0400 01000000"
    "0100 07000000 6170705f6b6579 01 02000000 3132"
    "0100 0a000000 67726f75705f6e616d65 01 06000000 e9bb98e8aea4"
    "0100 01000000 6e 00"
    "0000"
)
EVERYTHING = Frame(
    type=MessageType.SENDACK,
    status=12,
    phrase="no",
    flag=-1,
    token="t",
    customs={
        "a": Value(Format.BYTE, 255),
        "b": Value(Format.INT16, -2),
        "c": Value(Format.INT32, 3),
        "d": Value(Format.INT64, 2**53),
        "e": Value(Format.DATE, 1795326701000),
        "f": Value(Format.BYTES, b"\x00\xff"),
    },
)
EVERYTHING_BYTES = bytes.fromhex(
    "02 03"
    "0200 0c000000"
    "0300 02000000 6e6f"
    "0400 ffffffff"
    "0500 01000000 74"
    "0100 01000000 61 02 ff"
    "0100 01000000 62 03 feff"
    "0100 01000000 63 04 03000000"
    "0100 01000000 64 05 0000000000002000"
    "0100 01000000 65 06 c86dcf01a2010000"
    "0100 01000000 66 07 02000000 00ff"
    "0000"
)


@pytest.mark.parametrize(("frame", "data"), [(CONNECT, CONNECT_BYTES), (EVERYTHING, EVERYTHING_BYTES)])
def test_golden_bytes(frame: Frame, data: bytes) -> None:
    assert encode(frame) == data
    assert decode(data) == frame


VALUES = st.one_of(
    st.just(Value(Format.VOID)),
    st.builds(Value, st.just(Format.STRING), st.text()),
    st.builds(Value, st.just(Format.BYTE), st.integers(0, 255)),
    st.builds(Value, st.just(Format.INT16), st.integers(-(2**15), 2**15 - 1)),
    st.builds(Value, st.just(Format.INT32), st.integers(-(2**31), 2**31 - 1)),
    st.builds(Value, st.sampled_from([Format.INT64, Format.DATE]), st.integers(-(2**63), 2**63 - 1)),
    st.builds(Value, st.just(Format.BYTES), st.binary()),
)
INT32 = st.integers(-(2**31), 2**31 - 1)
FRAMES = st.builds(
    Frame,
    type=st.sampled_from(MessageType),
    token=st.none() | st.text(),
    flag=st.none() | INT32,
    status=st.none() | INT32,
    phrase=st.none() | st.text(),
    customs=st.dictionaries(st.text(), VALUES, max_size=8),
)


@given(FRAMES)
def test_every_message_comes_back_as_it_was(frame: Frame) -> None:
    assert decode(encode(frame)) == frame


def error_of(data: bytes) -> str | None:
    """The code of the error that `data` is; None where it is a message."""
    try:
        decode(data)
    except GatewayError as error:
        return error.code
    return None


@pytest.mark.parametrize("data", [CONNECT_BYTES, EVERYTHING_BYTES])
def test_every_truncation_is_an_error(data: bytes) -> None:
    whole = [size for size in range(len(data)) if error_of(data[:size]) != "bad_request"]
    assert whole == ([] if data == CONNECT_BYTES else [8]), "at byte 8 it is a whole message with a narrow status"


@given(FRAMES, st.data())
def test_no_bytes_break_the_decoder(frame: Frame, data: st.DataObject) -> None:
    """A message, or an error that a client can be told: nothing else, whatever was changed."""
    raw = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert error_of(bytes(raw)) in (None, "bad_request")


@given(st.binary(max_size=200))
def test_nor_do_bytes_that_never_were_a_message(raw: bytes) -> None:
    assert error_of(b"\x02\x02" + raw) in (None, "bad_request")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it has 0 bytes"),
        (b"\x02", "it has 1 bytes"),
        (b"\x01\x00\x00\x00", "the version is 1; 2 is spoken here"),
        (b"\x02\x04\x00\x00", "the message type 4 is unknown"),
        (b"\x02\x02", "it ends at byte 2, within a header type"),
        (b"\x02\x02\x06\x00\x00\x00", "the header type 6 at byte 2 is unknown"),
        (b"\x02\x02\x00\x00x", "1 bytes stand behind the end of headers"),
        (b"\x02\x02\x05\x00\xff\xff\xff\xff\x00\x00", "the token at byte 4 would have -1 bytes; 2 follow"),
        (b"\x02\x02\x05\x00\xff\xff\xff\x7f\x00\x00", "the token at byte 4 would have 2147483647 bytes; 2 follow"),
        (b"\x02\x02\x03\x00\x01\x00\x00\x00\xff\x00\x00", "the status phrase at byte 4 is not UTF-8"),
        (b"\x02\x02\x01\x00\x01\x00\x00\x00k\x08\x00\x00", "the custom 'k' at byte 9 has the unknown format 8"),
        (b"\x02\x02\x01\x00\x01\x00\x00\x00k\x05\x00\x00", "it ends at byte 12, within the custom 'k'"),
        (b"\x02\x02\x04\x00\x00\x00", "it ends at byte 6, within the flag"),
        (b'{"op":"hello"}', "the version is 123"),
    ],
)
def test_what_is_wrong_is_said_with_its_byte(data: bytes, words: str) -> None:
    with pytest.raises(GatewayError) as raised:
        decode(data)
    assert words in raised.value.message


@pytest.mark.parametrize("format_", [Format.BYTE, Format.INT16, Format.INT32, Format.INT64])
def test_the_kind_comes_in_any_width(format_: Format) -> None:
    frame = decode(encode(Frame(type=MessageType.SEND, customs={KIND: Value(format_, Kind.FAILED)})))
    assert frame.kind == Kind.FAILED


def test_a_status_code_comes_in_either_width() -> None:
    wide = b"\x02\x03\x02\x00" + struct.pack("<i", 5) + b"\x05\x00\x01\x00\x00\x00t\x00\x00"
    narrow = b"\x02\x03\x02\x00" + struct.pack("<h", 5) + b"\x05\x00\x01\x00\x00\x00t\x00\x00"
    assert decode(wide) == decode(narrow) == Frame(type=MessageType.SENDACK, status=5, token="t")
    assert decode(b"\x02\x03\x02\x00\x05\x00\x00\x00").status == 5


def test_headers_come_in_any_order() -> None:
    parts = [
        b"\x05\x00\x01\x00\x00\x00t",
        b"\x04\x00\x07\x00\x00\x00",
        custom("a", Value(Format.BYTE, 1)),
        custom("b", text("二")),
    ]
    frames = {encode(decode(b"\x02\x02" + b"".join(order) + b"\x00\x00")) for order in (parts, parts[::-1])}
    assert len({decode(frame).token for frame in frames}) == 1
    assert {decode(frame).integer("a") for frame in frames} == {1}
    assert {decode(frame).text("b") for frame in frames} == {"二"}


def test_a_custom_that_comes_twice_counts_as_it_came_last() -> None:
    head = b"\x02\x02" + custom("a", text("1")) + custom("a", text("2")) + b"\x00\x00"
    assert decode(head).text("a") == "2"


def test_numbers_and_texts_are_taken_for_each_other_where_they_can_be() -> None:
    frame = Frame(
        type=MessageType.SEND,
        customs={"number": Value(Format.INT32, 12), "text": text("-34"), "void": Value(Format.VOID)},
    )
    assert (frame.text("number"), frame.integer("text")) == ("12", -34)
    assert (frame.text("void"), frame.integer("void"), frame.text("none"), frame.integer("none")) == (
        "",
        None,
        "",
        None,
    )


@pytest.mark.parametrize("value", [text("x"), text(""), text("٣"), text("9" * 30), Value(Format.BYTES, b"1")])
def test_what_is_no_integer_is_named(value: Value) -> None:
    with pytest.raises(GatewayError, match="the custom 'id' is not an integer"):
        Frame(type=MessageType.SEND, customs={"id": value}).integer("id")


def test_bytes_are_no_text() -> None:
    with pytest.raises(GatewayError, match="the custom 'topic' is not text"):
        Frame(type=MessageType.SEND, customs={"topic": Value(Format.BYTES, b"1")}).text("topic")


def test_a_number_that_does_not_fit_is_no_frame() -> None:
    with pytest.raises(OverflowError, match="256 does not fit 1 bytes"):
        encode(Frame(type=MessageType.SEND, customs={"a": Value(Format.BYTE, 256)}))


def test_a_push_is_what_the_general_encoder_makes_of_it() -> None:
    build = push_template("令牌")
    more = custom("publisher", text("12"))
    content = '{"tid":12345678901234567890,"nick":"买家"}'
    built = build(4711, b"taobao_trade_TradeCreate", 1795326701000, content.encode(), more)
    assert decode(built) == Frame(
        type=MessageType.SEND,
        token="令牌",
        customs={
            KIND: Value(Format.BYTE, 3),
            "id": Value(Format.INT64, 4711),
            "topic": text("taobao_trade_TradeCreate"),
            "content": text(content),
            "time": Value(Format.DATE, 1795326701000),
            "publisher": text("12"),
        },
    )
