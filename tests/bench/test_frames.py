import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Request, TextMessage
from wsproto.frame_protocol import FrameProtocol

from gateway.bench.frames import CLOSE, PING, TEXT, FrameReader, Handshake, client_frame
from gateway.wire.push_v1 import SUBPROTOCOL
from gateway.wire.websocket import text_frame

SIZES = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 65535, 65536, 70000]))


def shaken() -> tuple[Handshake, WSConnection, bytes]:
    """A handshake with a WebSocket library as the server: its side, and its answer."""
    handshake = Handshake("127.0.0.1:1", "/v1/connect")
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(handshake.request)
    [request] = list(server.events())
    assert isinstance(request, Request)
    assert request.target == "/v1/connect"
    assert request.subprotocols == [SUBPROTOCOL]
    return handshake, server, server.send(AcceptConnection(subprotocol=SUBPROTOCOL))


def test_a_library_and_the_handshake_accept_each_other() -> None:
    handshake, _, answer = shaken()
    assert handshake.check(answer) is None


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"101", b"503", "503"),
        (b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x", "does not belong"),
        (SUBPROTOCOL.encode(), b"push.v2.json", "does not speak"),
    ],
)
def test_a_wrong_answer_is_refused(old: bytes, new: bytes, why: str) -> None:
    handshake, _, answer = shaken()
    wrong = answer.replace(b"sec-websocket-accept", b"Sec-WebSocket-Accept").replace(old, new)
    assert wrong != answer
    assert why in (handshake.check(wrong) or "")


@given(SIZES)
def test_a_library_reads_what_is_sent(size: int) -> None:
    _, server, _ = shaken()
    server.receive_data(client_frame(b"x" * size) + client_frame(b"here?", PING))
    events = list(server.events())
    assert "".join(event.data for event in events if isinstance(event, TextMessage)) == "x" * size
    assert [event.payload for event in events if isinstance(event, Ping)] == [b"here?"]


def test_a_library_reads_the_close() -> None:
    _, server, _ = shaken()
    server.receive_data(client_frame((1000).to_bytes(2, "big"), CLOSE))
    [event] = list(server.events())
    assert isinstance(event, CloseConnection)
    assert event.code == 1000


@given(st.lists(SIZES, max_size=5), st.integers(1, 100_000))
def test_frames_are_read_however_they_are_cut(sizes: list[int], step: int) -> None:
    payloads = [bytes([number % 100]) * size for number, size in enumerate(sizes)]
    stream = b"".join(map(text_frame, payloads)) + FrameProtocol(client=False, extensions=[]).ping(b"here?")
    reader = FrameReader()
    frames = [frame for at in range(0, len(stream), step) for frame in reader.feed(stream[at : at + step])]
    assert frames == [*((TEXT, payload) for payload in payloads), (PING, b"here?")]


def test_frames_are_read_byte_by_byte() -> None:
    stream = text_frame(b"a" * 200) + text_frame(b"")
    reader = FrameReader()
    assert [frame for byte in stream for frame in reader.feed(bytes([byte]))] == [(TEXT, b"a" * 200), (TEXT, b"")]
