from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from gateway import client
from tests.client.conftest import Connected
from tests.client.fake import FakeGateway, Peer


class Reader:
    """A task that reads a subscription in the plain form, and what it was handed."""

    def __init__(self, subscription: client.Subscription, nursery: trio.Nursery) -> None:
        self.positions: list[int] = []
        self.messages: list[client.ReceivedMessage] = []
        self.error: Exception | None = None
        nursery.start_soon(self._read, subscription)

    async def _read(self, subscription: client.Subscription) -> None:
        try:
            async for message in subscription:
                self.positions.append(message.position)
                self.messages.append(message)
        except (client.ClientError, client.GatewayError, trio.ClosedResourceError) as error:
            self.error = error


async def test_asking_for_the_next_message_acks_the_one_before(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        reader = Reader(gateway.subscribe("orders", window=200), nursery)
        assert (await peer.expect_attach())["window"] == 200
        await peer.deliver(1, 2, 3)
        delivered_s = trio.current_time()
        assert (await peer.expect("ack"))["ranges"] == [[1, 3]]
        assert trio.current_time() == delivered_s  # nothing waits any more, so the acks do not wait either
        assert reader.positions == [1, 2, 3]
        nursery.cancel_scope.cancel()


async def test_no_window_is_asked_where_none_is_given(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        Reader(gateway.subscribe("orders"), nursery)
        assert "window" not in await peer.expect_attach()
        nursery.cancel_scope.cancel()


async def test_a_subscription_that_is_not_there_is_an_error_at_the_first_step(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        reader = Reader(gateway.subscribe("nowhere"), nursery)
        frame = await peer.expect("subscribe")
        await peer.send(op="error", id=frame["id"], code="subscription_not_found", message="none", temporary=False)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(reader.error, client.GatewayError)
        assert reader.error.code == "subscription_not_found"
        again = Reader(gateway.subscribe("nowhere"), nursery)  # the name is free again
        await peer.expect_attach("nowhere")
        assert again.error is None
        nursery.cancel_scope.cancel()


async def test_entering_the_context_attaches(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(peer.expect_attach)
        async with gateway.subscribe("orders"):
            nursery.start_soon(peer.expect_detach)


async def test_one_name_is_read_once_over_a_connection(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(peer.expect_attach)
        async with gateway.subscribe("orders"):
            with pytest.raises(client.GatewayError) as caught:
                await gateway.subscribe("orders").__anext__()
            assert caught.value.code == "already_subscribed"
            nursery.start_soon(peer.expect_detach)
        nursery.start_soon(peer.expect_attach)
        async with gateway.subscribe("orders"):
            nursery.start_soon(peer.expect_detach)


async def attach_and_deliver(peer: Peer, *positions: int) -> None:
    await peer.expect_attach()
    await peer.deliver(*positions)


async def farewell(peer: Peer, said: list[dict[str, Any]]) -> None:
    """Collect what is said until the subscription is left."""
    while True:
        frame = await peer.receive()
        said.append({key: value for key, value in frame.items() if key not in ("id", "subscription")})
        if frame["op"] == "unsubscribe":
            await peer.send(op="ok", id=frame["id"])
            return


async def test_leaving_by_break_acks_the_message_in_hand(connected: Connected, nursery: trio.Nursery) -> None:
    said: list[dict[str, Any]] = []
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)
        async with gateway.subscribe("orders") as messages:
            async for message in messages:
                if message.position == 2:
                    break
            nursery.start_soon(farewell, peer, said)
        assert said == [{"op": "ack", "ranges": [[1, 2]]}, {"op": "unsubscribe"}]


async def test_leaving_by_an_exception_nacks_the_message_in_hand(connected: Connected, nursery: trio.Nursery) -> None:
    said: list[dict[str, Any]] = []
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)

        async def read() -> None:
            async with gateway.subscribe("orders") as messages:
                async for message in messages:
                    if message.position == 2:
                        nursery.start_soon(farewell, peer, said)
                        _ = 1 / 0

        with pytest.raises(ZeroDivisionError):
            await read()
        assert said == [
            {"op": "nack", "ranges": [[2, 2]], "reason": "ZeroDivisionError"},
            {"op": "ack", "ranges": [[1, 1]]},
            {"op": "unsubscribe"},
        ]


async def test_leaving_by_cancellation_neither_acks_nor_nacks(connected: Connected, nursery: trio.Nursery) -> None:
    said: list[dict[str, Any]] = []
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)
        with trio.move_on_after(1):
            async with gateway.subscribe("orders") as messages:
                async for message in messages:
                    if message.position == 2:
                        nursery.start_soon(farewell, peer, said)
                        await trio.sleep_forever()
        assert said == [{"op": "ack", "ranges": [[1, 1]]}, {"op": "unsubscribe"}]


@pytest.mark.parametrize("error", [None, ValueError("mine")])
async def test_without_a_context_leaving_connect_settles_the_message_in_hand(
    connected: Connected, nursery: trio.Nursery, error: Exception | None
) -> None:
    said: list[dict[str, Any]] = []

    async def listen(peer: Peer) -> None:
        await attach_and_deliver(peer, 1, 2, 3)
        said.append(await peer.receive())
        if error is not None:
            said.append(await peer.receive())
        await peer.expect_close()

    try:
        async with connected() as (gateway, peer):
            nursery.start_soon(listen, peer)
            async for message in gateway.subscribe("orders"):
                if message.position == 2:
                    break
            if error is not None:
                raise error
    except ValueError as caught:
        assert caught is error  # noqa: PT017
    if error is None:
        assert [(frame["op"], frame["ranges"]) for frame in said] == [("ack", [[1, 2]])]
    else:
        assert [(frame["op"], frame["ranges"]) for frame in said] == [("nack", [[2, 2]]), ("ack", [[1, 1]])]


async def test_an_explicit_word_is_not_overruled(connected: Connected, nursery: trio.Nursery) -> None:
    said: list[dict[str, Any]] = []
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)
        async with gateway.subscribe("orders") as messages:
            async for message in messages:
                if message.position == 1:
                    await message.nack(delay_ms=5000, reason="later")
                elif message.position == 2:
                    await message.term("broken")
                else:
                    await message.extend(90_000)
                    break
            nursery.start_soon(farewell, peer, said)
        operations = {frame["op"]: frame for frame in said}
        assert operations["nack"] == {"op": "nack", "ranges": [[1, 1]], "delay_ms": 5000, "reason": "later"}
        assert operations["term"] == {"op": "term", "ranges": [[2, 2]], "reason": "broken"}
        assert operations["extend"] == {"op": "extend", "ranges": [[3, 3]], "lease_ms": 90_000}
        assert operations["ack"] == {"op": "ack", "ranges": [[3, 3]]}


async def test_acks_are_sent_although_the_next_body_takes_long(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)
        said: list[tuple[float, Any]] = []

        async def listen() -> None:
            frame = await peer.expect("ack")
            said.append((trio.current_time(), frame))

        async with gateway.subscribe("orders") as messages:
            async for message in messages:
                if message.position == 3:
                    nursery.start_soon(listen)
                    started_s = trio.current_time()
                    await trio.sleep(5)
                    break
            nursery.start_soon(farewell, peer, [])
        assert said[0][1]["ranges"] == [[1, 2]]
        assert said[0][0] - started_s < 0.05


async def test_many_acks_are_sent_before_the_buffer_runs_empty(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:

        async def read() -> None:
            async for _ in gateway.subscribe("orders", window=40):
                await trio.lowlevel.checkpoint()

        nursery.start_soon(read)
        await peer.expect_attach()
        await peer.deliver(*range(1, 41))
        ranges = [(await peer.expect("ack"))["ranges"][0]]
        while ranges[-1][1] < 40:
            ranges.append((await peer.expect("ack"))["ranges"][0])
        assert len(ranges) > 2
        assert ranges[0][0] == 1
        assert all(later[0] == earlier[1] + 1 for earlier, later in pairwise(ranges))
        nursery.cancel_scope.cancel()


async def test_one_frame_of_acks_serves_a_thousand_messages(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        reader = Reader(gateway.subscribe("orders"), nursery)
        await peer.expect_attach()
        acks = 0
        for start in range(0, 1000, 250):
            await peer.deliver(*range(start, start + 250))
            last = -1
            while last < start + 249:
                acks, last = acks + 1, (await peer.expect("ack"))["ranges"][-1][1]
        assert len(reader.positions) == 1000
        assert acks <= 8
        nursery.cancel_scope.cancel()


async def test_a_lost_connection_resumes_and_its_acks_are_forgotten(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        subscription = gateway.subscribe("orders")
        nursery.start_soon(attach_and_deliver, peer, 1, 2)
        first = await subscription.__anext__()
        await peer.cut()
        peer = await fake.welcomed_peer()
        nursery.start_soon(attach_and_deliver, peer, 7, 8)
        assert (await subscription.__anext__()).position == 7  # 2 waited, and went with its connection
        await first.nack()  # passed over
        assert (await subscription.__anext__()).position == 8
        nursery.start_soon(subscription.__anext__)
        assert (await peer.expect("ack"))["ranges"] == [[7, 8]]
        nursery.cancel_scope.cancel()


async def test_a_resumed_subscription_is_tried_again_while_the_error_is_temporary(
    fake: FakeGateway, connected: Connected
) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        reader = Reader(gateway.subscribe("orders"), nursery)
        await peer.expect_attach()
        await peer.cut()
        peer = await fake.welcomed_peer()
        for _ in range(3):
            frame = await peer.expect("subscribe")
            await peer.send(op="error", id=frame["id"], code="overloaded", message="wait", temporary=True)
        await peer.expect_attach()
        await peer.deliver(5)
        await peer.expect("ack")
        assert reader.positions == [5]
        nursery.cancel_scope.cancel()


async def test_a_subscription_that_is_gone_after_a_loss_is_an_error(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        reader = Reader(gateway.subscribe("orders"), nursery)
        await peer.expect_attach()
        await peer.cut()
        peer = await fake.welcomed_peer()
        frame = await peer.expect("subscribe")
        await peer.send(op="error", id=frame["id"], code="subscription_not_found", message="none", temporary=False)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(reader.error, client.GatewayError)
        again = Reader(gateway.subscribe("orders"), nursery)  # created anew, it can be read anew
        await peer.expect_attach()
        assert again.error is None
        nursery.cancel_scope.cancel()


async def test_a_drain_waits_for_the_message_in_hand_and_drops_what_waits(
    fake: FakeGateway, connected: Connected
) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        subscription = gateway.subscribe("orders")
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)
        await subscription.__anext__()
        await peer.send(op="drain", reconnect_ms=[10, 20])
        await peer.deliver(4)  # was on its way
        await peer.expect_silence(2)
        positions: list[int] = []

        async def ask() -> None:
            positions.append((await subscription.__anext__()).position)

        nursery.start_soon(ask)
        assert (await peer.expect("ack"))["ranges"] == [[1, 1]]
        acked_s = trio.current_time()
        await peer.expect_close()
        assert trio.current_time() == acked_s  # nothing else was in hand
        await attach_and_deliver(await fake.welcomed_peer(), 2, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert positions == [2]


async def test_leases_of_waiting_messages_are_kept_while_the_program_goes_on(
    connected: Connected, nursery: trio.Nursery
) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3, 4, 5)
        said: list[dict[str, Any]] = []
        positions = []
        async with gateway.subscribe("orders") as messages:
            nursery.start_soon(farewell, peer, said)
            async for message in messages:
                positions.append(message.position)
                await trio.sleep(20)
                await peer.ws.ping()
                if message.position == 5:
                    break
        extended = [frame["ranges"] for frame in said if frame["op"] == "extend"]
        assert positions == [1, 2, 3, 4, 5]
        assert extended[0] == [[2, 5]]
        assert extended[-1] == [[5, 5]]


async def test_a_program_that_is_stuck_loses_its_leases_and_is_not_handed_what_expired(
    connected: Connected, nursery: trio.Nursery
) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)
        said: list[dict[str, Any]] = []
        async with gateway.subscribe("orders") as messages:
            nursery.start_soon(farewell, peer, said)
            assert (await messages.__anext__()).position == 1
            for _ in range(10):
                await trio.sleep(20)
                await peer.ws.ping()
            await peer.deliver(2, attempts={"2": 2})
            message = await messages.__anext__()
            assert (message.position, message.attempts) == (2, 2)
        extensions = [frame for frame in said if frame["op"] == "extend"]
        assert 1 <= len(extensions) <= 2


async def test_a_confirmed_ack_waits_for_the_answer(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2)
        subscription = gateway.subscribe("orders", auto_ack=False)

        async def answer(acked: int) -> None:
            frame = await peer.expect("ack")
            await peer.send(op="ok", id=frame["id"], acked=acked, unknown=1 - acked)

        first, second = await subscription.__anext__(), await subscription.__anext__()
        nursery.start_soon(answer, 1)
        await first.ack(confirm=True)
        nursery.start_soon(answer, 0)
        with pytest.raises(client.LeaseLostError, match="message 2"):
            await second.ack(confirm=True)


async def test_a_confirmed_ack_over_a_lost_connection_is_a_lost_lease(
    connected: Connected, nursery: trio.Nursery
) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2)
        subscription = gateway.subscribe("orders", auto_ack=False)
        first, second = await subscription.__anext__(), await subscription.__anext__()

        async def cut() -> None:
            await peer.expect("ack")
            await peer.cut()

        nursery.start_soon(cut)
        with pytest.raises(client.LeaseLostError, match="message 1"):
            await first.ack(confirm=True)
        with pytest.raises(client.LeaseLostError, match="message 2"):
            await second.ack(confirm=True)


async def test_a_drain_waits_for_the_answer_to_a_confirmed_ack(fake: FakeGateway, connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        nursery.start_soon(attach_and_deliver, peer, 1)
        message = await gateway.subscribe("orders").__anext__()
        nursery.start_soon(partial(message.ack, confirm=True))
        frame = await peer.expect("ack")
        await peer.send(op="drain", reconnect_ms=[10, 20])
        await peer.expect_silence(2)
        await peer.send(op="ok", id=frame["id"], acked=1)
        await peer.expect_close()


async def test_with_auto_ack_off_only_words_settle(connected: Connected, nursery: trio.Nursery) -> None:
    said: list[dict[str, Any]] = []
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)
        async with gateway.subscribe("orders", auto_ack=False) as messages:
            handed = [await messages.__anext__() for _ in range(3)]
            await handed[1].ack()
            nursery.start_soon(farewell, peer, said)
        assert said == [{"op": "ack", "ranges": [[2, 2]]}, {"op": "unsubscribe"}]


async def test_tasks_share_a_subscription_with_auto_ack_off(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        subscription = gateway.subscribe("orders", auto_ack=False)
        readers = [Reader(subscription, nursery) for _ in range(3)]
        await peer.expect_attach()
        await peer.deliver(*range(300))
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(position for reader in readers for position in reader.positions) == list(range(300))
        nursery.cancel_scope.cancel()


async def test_tasks_do_not_share_a_subscription_that_acks_by_itself(connected: Connected) -> None:
    async with connected() as (gateway, peer), trio.open_nursery() as nursery:
        subscription = gateway.subscribe("orders")
        Reader(subscription, nursery)
        await peer.expect_attach()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await subscription.__anext__()
        nursery.cancel_scope.cancel()


async def test_a_subscription_that_was_left_is_closed(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(peer.expect_attach)
        async with gateway.subscribe("orders") as messages:
            nursery.start_soon(peer.expect_detach)
        with pytest.raises(trio.ClosedResourceError):
            await messages.__anext__()


async def test_batches_are_acked_by_asking_for_the_next(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, *range(1, 11))
        said: list[dict[str, Any]] = []
        sizes = []
        async with gateway.subscribe_batches("orders", batch_max=4) as batches:
            async for batch in batches:
                sizes.append(len(batch))
                if len(sizes) == 3:
                    break
            nursery.start_soon(farewell, peer, said)
        assert sizes == [4, 4, 2]
        assert said == [{"op": "ack", "ranges": [[1, 10]]}, {"op": "unsubscribe"}]


async def test_a_batch_left_by_an_exception_is_nacked_but_for_what_is_settled(
    connected: Connected, nursery: trio.Nursery
) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, 1, 2, 3)
        said: list[dict[str, Any]] = []

        async def read() -> None:
            async with gateway.subscribe_batches("orders") as batches:
                async for batch in batches:
                    await batch[0].ack()
                    nursery.start_soon(farewell, peer, said)
                    raise KeyError

        with pytest.raises(KeyError):
            await read()
        assert said == [
            {"op": "nack", "ranges": [[2, 3]], "reason": "KeyError"},
            {"op": "ack", "ranges": [[1, 1]]},
            {"op": "unsubscribe"},
        ]


async def test_a_body_may_publish_while_messages_wait(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (gateway, peer):
        nursery.start_soon(attach_and_deliver, peer, *range(100))
        async with gateway.subscribe("orders") as messages:
            async for _ in messages:
                nursery.start_soon(peer.publish_answered, 1000)
                assert (await gateway.publish("t", 1)).position == 1000
                break
            nursery.start_soon(farewell, peer, [])


async def test_a_message_of_a_frame_with_attempts_knows_its_own(connected: Connected, nursery: trio.Nursery) -> None:
    async with connected() as (gateway, peer):

        async def deliver() -> None:
            await peer.expect_attach()
            await peer.deliver(1, 2, attempts={"2": 5})

        nursery.start_soon(deliver)
        subscription = gateway.subscribe("orders", auto_ack=False)
        assert [(await subscription.__anext__()).attempts for _ in range(2)] == [1, 5]
