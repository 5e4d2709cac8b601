import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from gateway.wire.websocket import close_frame, text_frame


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_header_is_the_shortest_that_holds_the_size(size: int, header: bytes) -> None:
    payload = b"x" * size
    assert text_frame(payload) == header + payload


@given(st.lists(st.text(max_size=300), min_size=1, max_size=4))
def test_frames_behind_each_other_are_read_as_they_were_written(texts: list[str]) -> None:
    reader = Protocol(Side.CLIENT)
    reader.receive_data(b"".join(text_frame(text.encode()) for text in texts))
    assert reader.events_received() == [Frame(Opcode.TEXT, text.encode()) for text in texts]


@pytest.mark.parametrize("code", [1002, 1007])
def test_a_close_frame_is_read_with_its_code(code: int) -> None:
    reader = Protocol(Side.CLIENT)
    reader.receive_data(close_frame(code))
    assert reader.events_received() == [Frame(Opcode.CLOSE, code.to_bytes(2, "big"))]
