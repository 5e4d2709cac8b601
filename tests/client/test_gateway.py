from __future__ import annotations

import logging
import time
from base64 import urlsafe_b64encode

import msgspec
import orjson
import pytest
import trio

from gateway import client
from gateway.broker.body import compose
from gateway.model import Message
from gateway.wire.cloudevents import encode_event
from tests.client.conftest import Connect, Connected
from tests.client.fake import URL, FakeGateway


async def test_the_handshake_carries_the_token_and_the_name(fake: FakeGateway, connected: Connected) -> None:
    async with connected(token="secret", name="my-app/1.0") as (gateway, peer):
        assert peer.headers[b"authorization"] == b"Bearer secret"
        assert peer.headers[b"user-agent"] == b"my-app/1.0"
        assert gateway.connected
        assert gateway.connection_id == "c-1"


async def test_each_connection_asks_for_a_fresh_token(fake: FakeGateway, connected: Connected) -> None:
    tokens = iter(["first", "second"])

    async def token() -> str:
        return next(tokens)

    async with connected(token=token) as (_, peer):
        await peer.close(3005, "credentials expired")
        assert (await fake.welcomed_peer()).headers[b"authorization"] == b"Bearer second"


async def test_leaving_closes_with_a_close_frame(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (_, peer):
        nursery.start_soon(peer.expect_close)
    await trio.testing.wait_all_tasks_blocked()
    assert peer.ws.closed is not None
    assert peer.ws.closed.code == 1000


@pytest.mark.parametrize("url", ["tcp://a", "ws:///x", "127.0.0.1:8080", "ws://user:pw@a/", "ws://a/?token=x"])
async def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        async with client.connect(url):
            pass


async def test_the_first_connection_fails_at_once_where_no_wait_is_asked(fake: FakeGateway, connect: Connect) -> None:
    fake.unreachable = 1
    with pytest.raises(client.NotConnectedError, match=r"gateway\.test:80.*nobody listens"):
        async with connect():
            pass
    assert len(fake.dials_s) == 1


async def test_the_first_connection_is_tried_again_for_as_long_as_asked(fake: FakeGateway, connect: Connect) -> None:
    fake.unreachable = 10**6
    started_s = trio.current_time()
    with pytest.raises(client.NotConnectedError):
        async with connect(wait_s=60):
            pass
    assert trio.current_time() - started_s >= 60
    assert len(fake.dials_s) > 3


async def test_a_side_that_hangs_up_on_the_handshake_is_not_waited_for(fake: FakeGateway, connect: Connect) -> None:
    fake.answers_handshakes = False
    with pytest.raises(client.NotConnectedError):
        async with connect():
            pass
    assert trio.current_time() < 1


async def test_a_refused_handshake_says_why(fake: FakeGateway, connect: Connect) -> None:
    fake.refusal = (401, b'{"code":"permission_denied","message":"the token is not known","temporary":false}')
    with pytest.raises(client.ConnectionEndedError, match="the token is not known") as caught:
        async with connect(wait_s=60):
            pass
    assert caught.value.code == 401
    assert len(fake.dials_s) == 1


async def test_a_busy_gateway_is_asked_again(fake: FakeGateway, connect: Connect, nursery: trio.Nursery) -> None:
    fake.refusal = (503, b"busy")

    async def recover() -> None:
        await trio.sleep(5)
        fake.refusal = None
        await fake.welcomed_peer()

    nursery.start_soon(recover)
    async with connect(wait_s=60) as gateway:
        assert gateway.connected


async def test_a_server_that_is_no_gateway_is_named(fake: FakeGateway, connect: Connect) -> None:
    fake.subprotocol = None
    with pytest.raises(client.ConnectionEndedError, match=r"push\.v1\.json"):
        async with connect(wait_s=60):
            pass


async def test_what_the_body_raises_comes_out_as_it_was(connected: Connected) -> None:
    cause = KeyError("cause")
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        async with connected():
            raise ZeroDivisionError("mine") from cause
    assert caught.value.__cause__ is cause
    assert not isinstance(caught.value.__context__, BaseExceptionGroup)


async def test_cancelling_the_body_is_not_hindered(connected: Connected) -> None:
    with trio.move_on_after(3) as scope:
        async with connected():
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() < 10


@pytest.mark.parametrize("code", [1001, 1011, 1012, 3001, 3008, 3013, 3499])
async def test_a_passing_end_is_followed_by_a_new_connection(
    fake: FakeGateway, connected: Connected, code: int
) -> None:
    async with connected() as (gateway, peer):
        await peer.close(code, "for a while")
        await fake.welcomed_peer()
        await trio.testing.wait_all_tasks_blocked()
        assert gateway.connected


async def test_a_lost_connection_is_replaced(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer):
        await peer.cut()
        await fake.welcomed_peer()
        await trio.testing.wait_all_tasks_blocked()
        assert gateway.connected


@pytest.mark.parametrize("code", [1008, 1009, 3500, 3503, 3507, 3999])
async def test_a_final_end_is_told_with_its_code_and_reason(fake: FakeGateway, connected: Connected, code: int) -> None:
    async with connected() as (gateway, peer):
        await peer.close(code, "go away")
        with pytest.raises(client.ConnectionEndedError, match="go away") as caught:
            await gateway.publish("t", 1)
        assert (caught.value.code, caught.value.reason) == (code, "go away")
        with pytest.raises(client.ConnectionEndedError):
            await gateway.subscribe("orders").__anext__()
    assert len(fake.dials_s) == 1


async def test_a_final_end_reaches_whoever_waits(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(client.ConnectionEndedError):
                await gateway.subscribe("orders").__anext__()

        nursery.start_soon(read)
        await peer.expect_attach()
        await peer.close(3507, "subscription deleted")


async def test_the_error_before_an_end_without_words_is_its_reason(connected: Connected) -> None:
    async with connected() as (gateway, peer):
        await peer.send(op="error", code="permission_denied", message="no such key", temporary=False)
        await peer.close(3503)
        with pytest.raises(client.ConnectionEndedError, match="no such key"):
            await gateway.publish("t", 1)


async def test_delays_between_attempts_grow_and_have_a_ceiling(
    fake: FakeGateway, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    async with connected() as (_, peer):
        fake.unreachable = 8
        await peer.cut()
        await fake.welcomed_peer()
    gaps_s = [later - earlier for earlier, later in zip(fake.dials_s, fake.dials_s[1:], strict=False)]
    assert gaps_s == pytest.approx([0.5, 1, 2, 4, 8, 16, 20, 20, 20])


async def test_a_good_connection_makes_the_next_delay_short_again(
    fake: FakeGateway, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    async with connected() as (_, peer):
        fake.unreachable = 3
        await peer.cut()
        peer = await fake.welcomed_peer()
        await trio.sleep(30)
        ended_s = trio.current_time()
        await peer.cut()
        await fake.welcomed_peer()
        assert fake.dials_s[-1] - ended_s == pytest.approx(0.5)


async def test_a_gateway_that_falls_silent_is_given_up(fake: FakeGateway, connected: Connected) -> None:
    async with connected():
        await fake.welcomed_peer()
        assert fake.dials_s[-1] == pytest.approx(2 * 25 + 8, abs=1)


async def test_a_gateway_that_pings_is_not_silent(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (_, peer):
        for _ in range(10):
            await trio.sleep(25)
            await peer.ws.ping()
        assert len(fake.dials_s) == 1


async def test_a_gateway_that_never_says_welcome_is_given_up(fake: FakeGateway, connect: Connect) -> None:
    with pytest.raises(client.NotConnectedError):
        async with connect(timeout_s=4):
            pass
    assert trio.current_time() == pytest.approx(4)


async def test_frames_of_a_later_version_are_passed_over(
    connected: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        await peer.send(op="fireworks", colour="red")
        await peer.send(op="window", subscription="orders", size=640, reason="ack_latency", more=1)
        nursery.start_soon(peer.publish_answered, 5)
        assert (await gateway.publish("t", 1)).position == 5
    assert "fireworks" in caplog.text


async def test_a_frame_beyond_the_limit_ends_the_connection_with_the_reason(
    fake: FakeGateway, connected: Connected
) -> None:
    async with connected(message_bytes_max=1000) as (gateway, peer):
        await peer.send(op="window", subscription="s", size=1, reason="x" * 2000)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(client.ConnectionEndedError, match="1000 bytes") as caught:
            await gateway.publish("t", 1)
        assert caught.value.code == 1009


async def test_a_drain_is_followed_by_a_connection_within_its_spread(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (_, peer):
        told_s = trio.current_time()
        await peer.send(op="drain", reconnect_ms=[3000, 4000])
        await peer.expect_close()
        await fake.welcomed_peer()
        assert 3 <= fake.dials_s[-1] - told_s <= 4


async def test_a_drain_makes_the_next_delays_short_again(
    fake: FakeGateway, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    async with connected() as (_, peer):
        fake.unreachable = 5
        await peer.cut()
        peer = await fake.welcomed_peer()
        fake.unreachable = 1
        await peer.send(op="drain", reconnect_ms=[0, 0])
        await fake.welcomed_peer()
    assert fake.dials_s[-1] - fake.dials_s[-2] == pytest.approx(1.0)


async def test_a_drain_waits_for_publishes_on_their_way_and_holds_back_new_ones(
    fake: FakeGateway, connected: Connected
) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        positions: list[int] = []

        async def publish() -> None:
            positions.append((await gateway.publish("t", 1)).position)

        nursery.start_soon(publish)
        frame = await peer.expect("publish")
        await peer.send(op="drain", reconnect_ms=[100, 200])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(publish)
        await peer.expect_silence(2)
        await peer.send(op="published", id=frame["id"], durability="fsynced", positions=[1, 1])
        await peer.expect_close()
        await (await fake.welcomed_peer()).publish_answered(2)
    assert positions == [1, 2]


async def test_a_drain_does_not_wait_for_ever(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:

        async def publish() -> None:
            with pytest.raises(client.OutcomeUnknownError):
                await gateway.publish("t", 1)

        nursery.start_soon(publish)
        await peer.expect("publish")
        told_s = trio.current_time()
        await peer.send(op="drain", reconnect_ms=[100, 200])
        await peer.expect_close()
        assert trio.current_time() - told_s == pytest.approx(5)


async def test_the_reconnect_is_logged_with_its_reason(
    fake: FakeGateway, connected: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.client")
    async with connected() as (_, peer):
        await peer.close(3008, "slow consumer")
        await fake.welcomed_peer()
    assert "slow consumer (3008)" in caplog.text
    assert "connected to gateway.test:80 as c-1" in caplog.text


async def test_leaving_reads_until_the_gateway_has_closed_too(fake: FakeGateway, connect: Connect) -> None:
    """Cut earlier, a TCP connection with unread bytes is reset, and our last acks may be lost with it."""
    seen: list[str] = []

    class Watched(trio.abc.Stream):
        def __init__(self, stream: trio.abc.Stream) -> None:
            self._stream = stream

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self._stream.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await self._stream.wait_send_all_might_not_block()

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            data = await self._stream.receive_some(max_bytes)
            seen.append("close frame" if data[:1] == b"\x88" else "data")
            return data

        async def aclose(self) -> None:
            seen.append("end")
            await self._stream.aclose()

    async def open_stream() -> trio.abc.Stream:
        return Watched(await fake.open_stream())

    async def serve() -> None:
        await (await fake.welcomed_peer()).expect_close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with client.connect(URL, open_stream=open_stream):
            pass
    assert seen[seen.index("close frame") :][:2] == ["close frame", "end"]


async def test_leaving_does_not_wait_for_a_gateway_that_does_not_answer(fake: FakeGateway, connect: Connect) -> None:
    near, far = trio.testing.memory_stream_pair()

    async def open_stream() -> trio.abc.Stream:
        return near

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fake._serve, far)
        nursery.start_soon(fake.welcomed_peer)
        async with client.connect(URL, open_stream=open_stream, close_timeout_s=3):
            far.send_stream.close()  # nothing comes from there any more, and nothing is read
            far.receive_stream.receive_some_hook = trio.sleep_forever
            left_s = trio.current_time()
        assert trio.current_time() - left_s <= 3
        nursery.cancel_scope.cancel()


# ------------------------------------------------------------------------------------------------------------- tokens


def token_for(seconds: float) -> str:
    claims = orjson.dumps({"exp": time.time() + seconds})
    return f"e30.{urlsafe_b64encode(claims).rstrip(b'=').decode()}.x"


async def test_a_fresh_token_is_brought_before_the_old_one_ends(fake: FakeGateway, connected: Connected) -> None:
    tokens = [token_for(60), token_for(61), token_for(62)]  # real time stands still, and the connection needs a sign
    given = iter(tokens)

    async def token() -> str:
        return next(given)

    async with connected(token=token) as (_, peer):
        began = trio.current_time()
        for expected, at in ((tokens[1], 30), (tokens[2], 61)):
            hello = await peer.expect("hello")
            assert hello["token"] == expected
            assert trio.current_time() - began == pytest.approx(at, abs=5)
            await peer.send(op="ok", id=hello["id"])


async def test_a_token_that_is_a_text_is_not_brought_again(fake: FakeGateway, connected: Connected) -> None:
    async with connected(token=token_for(60)) as (_, peer):
        await peer.expect_silence(50)


async def test_a_refused_renewal_is_no_reason_to_leave(
    fake: FakeGateway, connected: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    async def token() -> str:
        return token_for(60)

    async with connected(token=token) as (_, peer):
        hello = await peer.expect("hello")
        await peer.send(op="error", id=hello["id"], code="permission_denied", message="not yours", temporary=False)
        hello = await peer.expect("hello")
        await peer.send(op="ok", id=hello["id"])
        await peer.expect_silence(20)
    assert "not yours" in caplog.text


async def test_credentials_that_have_ended_are_replaced_where_a_function_gives_them(
    fake: FakeGateway, connected: Connected
) -> None:
    given: list[str] = []

    async def token() -> str:
        given.append(f"t{len(given)}")
        fake.refusal = None if len(given) > 1 else EXPIRED
        return given[-1]

    async with connected(token=token, wait_s=60) as (_, peer):
        assert peer.headers[b"authorization"] == b"Bearer t1"


async def test_credentials_that_have_ended_are_the_end_where_they_are_a_text(
    fake: FakeGateway, connected: Connected
) -> None:
    fake.refusal = EXPIRED
    with pytest.raises(client.ConnectionEndedError, match="the token has expired"):
        async with connected(token="t", wait_s=60):
            pass


EXPIRED = (401, b'{"code":"credentials_expired","message":"the token has expired","temporary":true}')


async def test_a_function_that_gives_no_token_in_time_does_not_hold_up_the_end(
    fake: FakeGateway, connected: Connected
) -> None:
    async def token() -> str:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(client.NotConnectedError, match="gave no token in time"):
        async with connected(token=token, timeout_s=5):
            pass


async def test_a_subscription_that_is_written_as_cloudevents_is_read_like_any_other(connected: Connected) -> None:
    sent = encode_event(compose(Message("a.b", data=msgspec.Raw(b'{"n": 1.0}'), key="k"), 7, "e", 99))
    frame = b'{"op":"messages","subscription":"orders","lease_ms":30000,"messages":[%b],"attempts":{"7":2}}' % sent
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.expect_attach)
        async with gateway.subscribe("orders") as messages:
            await peer.ws.send_message(frame.decode())
            message = await anext(messages)
            assert (message.position, message.topic, message.key, message.time_ms) == (7, "a.b", "k", 99)
            assert (message.data, message.raw, message.as_json()) == ({"n": 1}, b'{"n": 1.0}', sent)
            assert message.attempts == 2
            await message.ack()
            assert (await peer.expect("ack"))["ranges"] == [[7, 7]]
            nursery.start_soon(peer.expect_detach)
