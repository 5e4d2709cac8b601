from __future__ import annotations

from typing import Any

import pytest
import trio

from gateway import client
from gateway.client.publishing import Limits
from tests.client.conftest import Connected
from tests.client.fake import FakeGateway


class Outcomes:
    """Publishes from tasks of their own, and what became of them."""

    def __init__(self, gateway: client.Gateway, nursery: trio.Nursery) -> None:
        self._gateway = gateway
        self._nursery = nursery
        self.by_data: dict[object, client.Stored | Exception] = {}

    def start(self, data: object, **more: Any) -> None:
        async def publish() -> None:
            try:
                self.by_data[data] = await self._gateway.publish("t", data, **more)
            except (client.ClientError, client.GatewayError) as error:
                self.by_data[data] = error

        self._nursery.start_soon(publish)


async def test_a_publish_waits_until_it_is_stored(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start({"amount": 12}.__len__(), id="a1", key="tid-9", attributes={"k": "v"}, durability="written")
        frame = await peer.expect("publish")
        assert frame["durability"] == "written"
        assert frame["messages"] == [{"topic": "t", "id": "a1", "key": "tid-9", "attributes": {"k": "v"}, "data": 1}]
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes.by_data == {}
        await peer.send(op="published", id=frame["id"], durability="written", positions=[42, 42])
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes.by_data[1] == client.Stored(42, "a1", False, "written")


async def test_a_repeat_is_said_to_be_one(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1, id="a1")
        frame = await peer.expect("publish")
        results = [{"id": "a1", "position": 7, "duplicate": True}]
        await peer.send(op="published", id=frame["id"], durability="fsynced", results=results)
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes.by_data[1] == client.Stored(7, "a1", True, "fsynced")


async def test_an_error_of_the_gateway_is_raised_with_its_code(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1)
        frame = await peer.expect("publish")
        await peer.send(op="error", id=frame["id"], code="overloaded", message="too much", temporary=True)
        await trio.testing.wait_all_tasks_blocked()
        error = outcomes.by_data[1]
        assert isinstance(error, client.GatewayError)
        assert (error.code, error.kind.temporary) == ("overloaded", True)


async def test_an_error_that_this_version_does_not_know_keeps_what_it_says(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1)
        frame = await peer.expect("publish")
        await peer.send(op="error", id=frame["id"], code="new_moon", message="wait a month", temporary=True)
        await trio.testing.wait_all_tasks_blocked()
        error = outcomes.by_data[1]
        assert isinstance(error, client.GatewayError)
        assert error.as_dict() == {"code": "new_moon", "message": "wait a month", "temporary": True}


async def test_publishes_that_wait_together_travel_together(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        for number in range(100):
            outcomes.start(number)
        frame = await peer.publish_answered(1000)
        data = [message["data"] for message in frame["messages"]]
        assert sorted(data) == list(range(100))
        await trio.testing.wait_all_tasks_blocked()
        assert [outcomes.by_data[each].position for each in data] == list(range(1000, 1100))  # type: ignore[union-attr]


async def test_only_what_asks_for_the_same_durability_travels_together(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1, durability="fsynced")
        await trio.testing.wait_all_tasks_blocked()
        frames = [await peer.expect("publish")]
        outcomes.start(2, durability="written")
        outcomes.start(3, durability="fsynced")
        frames += [await peer.expect("publish"), await peer.expect("publish")]
        for frame in frames:
            assert len(frame["messages"]) == 1
            await peer.send(op="published", id=frame["id"], durability=frame["durability"], positions=[1, 1])


async def test_several_publishes_are_on_their_way_at_once(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        frames = []
        for number in range(3):
            outcomes.start(number)
            frames.append(await peer.expect("publish"))
        for frame in reversed(frames):
            position = frame["messages"][0]["data"]
            await peer.send(op="published", id=frame["id"], durability="fsynced", positions=[position, position])
        await trio.testing.wait_all_tasks_blocked()
        assert {data: stored.position for data, stored in outcomes.by_data.items()} == {0: 0, 1: 1, 2: 2}  # type: ignore[union-attr]


async def test_a_batch_has_a_result_for_each_message(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            frame = await peer.expect("publish")
            bad = {"code": "bad_topic", "message": "topic: it is empty", "temporary": False}
            results = [{"id": "a", "position": 4}, {"error": bad}, {"id": "c", "position": 5}]
            await peer.send(op="published", id=frame["id"], durability="fsynced", results=results)

        nursery.start_soon(answer)
        first, second, third = await gateway.publish_batch(
            [client.Message(topic="t", data=1), client.Message(topic="", data=2), client.Message(topic="t", data=3)]
        )
        assert (first, third) == (client.Stored(4, "a"), client.Stored(5, "c"))
        assert isinstance(second, client.GatewayError)
        assert second.code == "bad_topic"


async def test_a_batch_beyond_the_limits_is_sent_in_several(connected: Connected) -> None:
    async with connected(limits={"batch_messages_max": 4}) as (gateway, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            for first in (100, 200, 300):
                await peer.publish_answered(first)

        nursery.start_soon(answer)
        results = await gateway.publish_batch([client.Message(topic="t", data=n) for n in range(10)])
        positions = [result.position for result in results if isinstance(result, client.Stored)]
        assert positions == [100, 101, 102, 103, 200, 201, 202, 203, 300, 301]


async def test_a_batch_is_split_by_its_bytes_too(connected: Connected) -> None:
    async with connected(limits={"batch_bytes_max": 1000}) as (gateway, peer), trio.open_nursery() as nursery:

        async def answer() -> None:
            for count in (2, 2, 1):
                assert len((await peer.publish_answered(1))["messages"]) == count

        nursery.start_soon(answer)
        await gateway.publish_batch([client.Message(topic="t", data="x" * 400) for _ in range(5)])


async def test_a_message_that_no_frame_can_hold_is_refused_here(connected: Connected) -> None:
    async with connected(limits={"batch_bytes_max": 1000}) as (gateway, _):
        with pytest.raises(client.GatewayError, match="1523 bytes") as caught:
            await gateway.publish("t", "x" * 1500)
        assert caught.value.code == "payload_too_large"


async def test_a_message_that_cannot_be_sent_does_not_hold_back_the_others(connected: Connected) -> None:
    async with connected(limits={"batch_bytes_max": 1000}) as (gateway, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.publish_answered, 8)
        first, second, third = await gateway.publish_batch(
            [
                client.Message(topic="t", data="x" * 1500),
                client.Message(topic="t", data=1),
                client.Message(topic="t", data=b"{", content_type="application/json"),
            ]
        )
        assert second == client.Stored(8)
        assert isinstance(first, client.GatewayError)
        assert isinstance(third, client.GatewayError)
        assert (first.code, third.code) == ("payload_too_large", "bad_request")


async def test_ids_are_not_relied_on_where_the_gateway_keeps_none(fake: FakeGateway, connected: Connected) -> None:
    async with connected(limits={"dedup_window_s": 0}) as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1, id="a1")
        await peer.expect("publish")
        await trio.sleep(0.1)
        await peer.cut()
        await (await fake.welcomed_peer(dedup_window_s=0)).expect_silence(1)
        assert isinstance(outcomes.by_data[1], client.OutcomeUnknownError)


async def test_an_empty_batch_is_no_frame(connected: Connected) -> None:
    async with connected() as (gateway, peer):
        assert await gateway.publish_batch([]) == []
        await peer.expect_silence(1)


async def test_a_publish_without_an_id_is_in_doubt_after_a_loss(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1)
        await peer.expect("publish")
        await peer.cut()
        peer = await fake.welcomed_peer()
        assert isinstance(outcomes.by_data[1], client.OutcomeUnknownError)
        await peer.expect_silence(5)


async def test_a_publish_with_an_id_is_sent_again_after_a_loss(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1, id="a1")
        sent = await peer.expect("publish")
        await peer.cut()
        peer = await fake.welcomed_peer()
        again = await peer.publish_answered(9)
        assert again["messages"] == sent["messages"]
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes.by_data[1] == client.Stored(9, "a1")


async def test_a_batch_is_in_doubt_message_by_message(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        results: list[client.Result] = []

        async def publish() -> None:
            ids = (None, "b", None, "d")
            results.extend(await gateway.publish_batch([client.Message(topic="t", data=0, id=id_) for id_ in ids]))

        nursery.start_soon(publish)
        await peer.expect("publish")
        await peer.cut()
        again = await (await fake.welcomed_peer()).publish_answered(20)
        assert [message["id"] for message in again["messages"]] == ["b", "d"]
        await trio.testing.wait_all_tasks_blocked()
        assert [type(result) for result in results[::2]] == [client.OutcomeUnknownError] * 2
        assert results[1::2] == [client.Stored(20, "b"), client.Stored(21, "d")]


async def test_an_id_that_the_gateway_may_have_forgotten_is_not_sent_again(
    fake: FakeGateway, connected: Connected
) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1, id="a1")
        await peer.expect("publish")
        fake.unreachable = 10**6
        await peer.cut()
        await trio.sleep(Limits().resend_s + 1)
        fake.unreachable = 0
        peer = await fake.welcomed_peer()
        await peer.expect_silence(1)
        assert isinstance(outcomes.by_data[1], client.OutcomeUnknownError)


async def test_a_publish_without_a_connection_waits_for_the_next(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        fake.unreachable = 3
        await peer.cut()
        await trio.testing.wait_all_tasks_blocked()
        assert not gateway.connected
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1)
        await (await fake.welcomed_peer()).publish_answered(3)
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes.by_data[1] == client.Stored(3)


async def test_what_a_draining_gateway_refused_is_sent_to_the_next(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1)
        frame = await peer.expect("publish")
        await peer.send(op="drain", reconnect_ms=[0, 1])
        await peer.send(op="error", id=frame["id"], code="draining", message="elsewhere", temporary=True)
        await peer.expect_close()
        await (await fake.welcomed_peer()).publish_answered(3)
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes.by_data[1] == client.Stored(3)


async def test_a_cancelled_publish_is_not_sent_later(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer):
        await peer.cut()
        with trio.move_on_after(0.001):
            await gateway.publish("t", 1, id="a")
        peer = await fake.welcomed_peer()
        await peer.expect_silence(1)


async def test_a_cancelled_publish_on_its_way_is_not_sent_again(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer):
        with trio.move_on_after(0.001):
            await gateway.publish("t", 1, id="a")
        await peer.expect("publish")
        await peer.cut()
        await (await fake.welcomed_peer()).expect_silence(1)


async def test_a_publish_left_behind_is_told_so(connected: Connected) -> None:
    async with trio.open_nursery() as nursery, connected() as (gateway, peer):
        outcomes = Outcomes(gateway, nursery)
        outcomes.start(1)
        await peer.expect("publish")
        nursery.start_soon(peer.expect_close)
    assert isinstance(outcomes.by_data[1], client.OutcomeUnknownError)
    with pytest.raises(client.ConnectionEndedError) as caught:
        await gateway.publish("t", 1)
    assert caught.value.code == 1000


async def test_an_answer_that_does_not_fit_its_question_is_an_error(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        outcomes = Outcomes(gateway, nursery)
        answers: list[dict[str, Any]] = [{"positions": [1, 3]}, {"results": []}, {"results": [{"id": "a"}]}]
        for data, answer in enumerate(answers):
            outcomes.start(data)
            frame = await peer.expect("publish")
            await peer.send(op="published", id=frame["id"], durability="fsynced", **answer)
        await trio.testing.wait_all_tasks_blocked()
        assert [getattr(outcomes.by_data[data], "code", None) for data in range(3)] == ["internal"] * 3


async def test_a_payload_that_cannot_be_encoded_sends_nothing(connected: Connected) -> None:
    async with connected() as (gateway, peer):
        with pytest.raises(TypeError):
            await gateway.publish_batch([client.Message(topic="t", data=1), client.Message(topic="t", data=object())])
        await peer.expect_silence(1)
