"""Messages are found whole; whatever else comes is the library's, byte for byte and in its place."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from gateway.wire.inbound import Inbound

MESSAGE_MAX = 70_000


def frame(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=True)


def text(payload: str) -> bytes:
    return frame(Opcode.TEXT, payload.encode())


def read(inbound: Inbound, *pieces: bytes) -> list[str | bytes | tuple[bytes]]:
    """What comes out, in order; what is left to the library in brackets, joined where it is one thing."""
    out: list[str | bytes | tuple[bytes]] = []
    for piece in pieces:
        alone = inbound.text(piece)
        if alone is not None:
            out.append(alone)
            continue
        inbound.feed(piece)
        while True:
            message = inbound.take()
            if message is not None:
                out.append(message)
            elif left := inbound.left():
                out.append((left,))
            else:
                break
    return out


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [piece for piece in [*pieces, data[at:]] if piece]


SIZES = st.lists(st.integers(1, 40_000) | st.integers(1, 9), max_size=12)
MESSAGES = st.lists(st.text(max_size=200) | st.binary(max_size=200) | st.sampled_from(["x" * 126, "y" * 66_000]))


@given(MESSAGES, SIZES)
def test_messages_come_out_as_they_went_in_however_the_bytes_arrive(
    messages: list[str | bytes], sizes: list[int]
) -> None:
    data = b"".join(text(each) if isinstance(each, str) else frame(Opcode.BINARY, each) for each in messages)
    assert read(Inbound(MESSAGE_MAX), *cut(data, sizes)) == messages


@given(MESSAGES)
def test_messages_come_out_as_they_went_in_where_each_comes_alone(messages: list[str | bytes]) -> None:
    frames = [text(each) if isinstance(each, str) else frame(Opcode.BINARY, each) for each in messages]
    assert read(Inbound(MESSAGE_MAX), *frames) == messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 133, 65_535, 65_536])
def test_a_text_of_any_size_that_comes_alone(size: int) -> None:
    inbound = Inbound(MESSAGE_MAX)
    assert inbound.text(text("x" * size)) == ("x" * size if size < 65_536 else None)
    assert read(inbound, text("y" * size), text("z")) == ["y" * size, "z"]


@pytest.mark.parametrize(("size", "width"), [(0x10101, 8), (300, 2)])
def test_the_beginning_of_a_frame_is_not_taken_for_a_whole_one(size: int, width: int) -> None:
    whole = non_minimal(b"x" * size, width)  # which is minimal here, and not masked by chance into what is no text
    for stop in range(6, 280):
        assert Inbound(MESSAGE_MAX).text(whole[:stop]) is None
        assert read(Inbound(MESSAGE_MAX), whole[:stop], whole[stop:]) == ["x" * size]


@given(SIZES)
def test_control_frames_go_to_the_library_in_their_place(sizes: list[int]) -> None:
    ping, close = frame(Opcode.PING, b"p" * 125), frame(Opcode.CLOSE, b"\x03\xe8bye")
    data = text("one") + ping + text("two") + frame(Opcode.PONG, b"") + close
    out = read(Inbound(MESSAGE_MAX), *cut(data, sizes))
    assert [each for each in out if isinstance(each, str)] == ["one", "two"]
    left = [each[0] for each in out if isinstance(each, tuple)]
    assert left[0] == ping
    assert left[-1] == close
    assert out.index("one") < out.index((ping,)) < out.index("two")


def non_minimal(payload: bytes, width: int) -> bytes:
    head = (
        struct.pack(">BBH", 0x81, 0xFE, len(payload)) if width == 2 else struct.pack(">BBQ", 0x81, 0xFF, len(payload))
    )
    return head + bytes(4) + payload


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(frame(Opcode.TEXT, b"a", fin=False), id="a fragment"),
        pytest.param(frame(Opcode.CONT, b"a"), id="a continuation"),
        pytest.param(Frame(Opcode.TEXT, b"hello").serialize(mask=False), id="not masked"),
        pytest.param(frame(Opcode.TEXT, b"\xff\xfe"), id="not UTF-8"),
        pytest.param(frame(Opcode.TEXT, b"x" * (MESSAGE_MAX + 1)), id="too large"),
        pytest.param(b"\x89\x00", id="a ping that is not masked"),
        pytest.param(b"\xc1\x81abcd?", id="compressed"),
        pytest.param(b"\x83\x80abcd", id="no opcode"),
        pytest.param(b"\x89\xfe\x00\x80abcd" + bytes(128), id="a ping that is too long"),
        pytest.param(non_minimal(b"short", 2), id="a length in two bytes that fits one"),
        pytest.param(non_minimal(b"short" * 30, 8), id="a length in eight bytes that fits two"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no WebSocket"),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000, 100_000, pytest.param(0, id="frame by frame")])
def test_from_what_is_odd_on_everything_is_the_librarys(odd: bytes, size: int) -> None:
    rest = odd + text("behind")
    data = text("before") + rest
    inbound = Inbound(MESSAGE_MAX)
    frames = [data[: -len(rest)], odd, rest[len(odd) :]]
    pieces = [data[at : at + size] for at in range(0, len(data), size)] if size else frames
    out = read(inbound, *pieces)
    assert out[0] == "before"
    assert b"".join(each[0] for each in out[1:] if isinstance(each, tuple)) == rest
    assert inbound.plain


def test_what_is_handed_over_half_way_is_whole() -> None:
    inbound = Inbound(MESSAGE_MAX)
    second = text("two")
    data = text("one") + second
    inbound.feed(data[:-2])
    assert inbound.take() == "one"
    inbound.plain = True
    assert inbound.take() is None
    left = inbound.left()
    inbound.feed(data[-2:])
    assert left + inbound.left() == second


def test_two_bytes_are_enough_to_see_that_a_client_does_not_mask() -> None:
    assert read(Inbound(MESSAGE_MAX), b"\x89\x00") == [(b"\x89\x00",)]
