from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import trio

from gateway.model import Delivery
from gateway.node import Node
from tests.conftest import StartNode
from tests.edge.bystander import statistics, subscription, untouched
from tests.edge.raw import Answer, RawHttp, open_http, request_bytes

ONE = "/v1/topics/trade.order.paid/messages"
PULL = "/v1/subscriptions/orders/pull"
SETTLE = "/v1/subscriptions/orders/settle"


async def publish(node: Node, *payloads: object, topic: str = "trade.order.paid") -> list[int]:
    """Publish in one batch over a connection of its own; their positions."""
    async with open_http(node.address) as http:
        batch = orjson.dumps([{"topic": topic, "data": payload} for payload in payloads])
        answer = await http.post("/v1/messages", batch)
        assert answer.status == 200
        return [result["position"] for result in answer.json["results"]]


async def pull(http: RawHttp, target: str = PULL, **body: object) -> Answer:
    answer = await http.post(target, orjson.dumps(body))
    assert answer.status == 200, answer
    assert answer.json.keys() == {"lease", "lease_ms", "messages", "attempts"}
    return answer


def places(answer: Answer) -> list[int]:
    return [message["position"] for message in answer.json["messages"]]


async def settle(http: RawHttp, lease: str, **verbs: object) -> dict[str, int]:
    """The counts that are not zero."""
    answer = await http.post(SETTLE, orjson.dumps({"lease": lease, **verbs}))
    assert answer.status == 200, answer
    assert answer.json.keys() == {"acked", "nacked", "extended", "terminated", "unknown"}
    return {word: count for word, count in answer.json.items() if count}


async def waiting(node: Node, count: int = 1) -> None:
    """Until so many pulls wait."""
    with trio.fail_after(5):
        while node.longpoll.waiting != count:
            await trio.sleep(0.001)


@asynccontextmanager
async def waiting_pull(node: Node, **body: object) -> AsyncIterator[RawHttp]:
    """A connection whose pull waits."""
    before = node.longpoll.waiting
    async with open_http(node.address) as http:
        await http.send(request_bytes("POST", PULL, orjson.dumps({"wait_ms": 60_000, **body})))
        await waiting(node, before + 1)
        yield http


# ---------------------------------------------------------------------------------------------------------- pull


async def test_a_pull_is_answered_with_what_waits(node: Node, http: RawHttp) -> None:
    await subscription(node, lease_ms=5000)
    assert await publish(node, "a", "b") == [1, 2]
    answer = await pull(http)
    assert answer.json["lease"]
    assert (answer.json["lease_ms"], answer.json["attempts"]) == (5000, {})
    assert [(m["position"], m["data"]) for m in answer.json["messages"]] == [(1, "a"), (2, "b")]
    assert statistics(node).in_flight == 2


async def test_a_pull_that_waits_is_answered_the_moment_something_is_published(node: Node) -> None:
    await subscription(node)
    async with waiting_pull(node) as http:
        assert statistics(node).consumers == 1
        began = trio.current_time()
        await publish(node, "now")
        answer = await http.answer()
        assert trio.current_time() - began < 5  # and not 60
        assert [m["data"] for m in answer.json["messages"]] == ["now"]
    assert node.longpoll.waiting == 0


async def test_a_pull_is_empty_once_its_time_is_over(node: Node, http: RawHttp) -> None:
    await subscription(node)
    began = trio.current_time()
    answer = await pull(http, wait_ms=200)
    assert trio.current_time() - began >= 0.2
    assert (answer.json["messages"], answer.json["attempts"]) == ([], {})
    assert (statistics(node).consumers, node.longpoll.waiting, node.longpoll.leases) == (0, 0, 0)


async def test_a_pull_that_does_not_wait_still_gets_what_is_there(node: Node, http: RawHttp) -> None:
    await subscription(node)
    assert places(await pull(http, wait_ms=0)) == []
    await publish(node, 1)
    assert places(await pull(http, wait_ms=0)) == [1]


async def test_a_pull_without_a_body_has_defaults(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await publish(node, *range(101))
    assert places(await pull(http)) == list(range(1, 101))


async def test_a_pull_takes_no_more_than_it_asked_for(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await publish(node, *["x" * 1000] * 6)
    assert places(await pull(http, max=2)) == [1, 2]
    assert places(await pull(http, max=100, max_bytes=2500)) == [3, 4]
    assert places(await pull(http, max=100, max_bytes=1)) == [5]  # one at least, however large
    assert places(await pull(http)) == [6]


async def test_the_configuration_bounds_what_a_pull_may_ask_for(start_node: StartNode) -> None:
    node = await start_node({"pull.messages_max": 2, "pull.wait_ms_max": 100, "pull.bytes_max": 2048})
    await subscription(node)
    await publish(node, *["x" * 1000] * 3, 4, 5, 6)
    async with open_http(node.address) as http:
        assert places(await pull(http, max=1000, max_bytes=10**9)) == [1]
        assert places(await pull(http, max=1000)) == [2]
        assert places(await pull(http, max=1000)) == [3, 4]
        assert places(await pull(http, max=1000)) == [5, 6]
        assert places(await pull(http, wait_ms=3_600_000)) == []


async def test_the_window_of_the_subscription_bounds_a_pull(node: Node, http: RawHttp) -> None:
    await subscription(node, window_max=3)
    await publish(node, *range(10))
    assert places(await pull(http)) == [1, 2, 3]


async def test_a_pull_says_how_often_a_message_was_tried(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await publish(node, 1, 2)
    first = await pull(http)
    assert await settle(http, first.json["lease"], nack=[[2, 2]], nack_delay_ms=0) == {"nacked": 1}
    second = await pull(http)
    assert (places(second), second.json["attempts"]) == ([2], {"2": 2})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"nonsense", "the body is not JSON"),
        (b'{"max":1', "the body is not JSON"),
        (b"\xff", "the body is not UTF-8: byte 0"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"maximum":1}', "unknown field `maximum`; known are max, max_bytes, wait_ms"),
        (b'{"max":0}', "Expected `int` >= 1 - at `max`"),
        (b'{"max":"1"}', "Expected `int`, got `str` - at `max`"),
        (b'{"wait_ms":-1}', "Expected `int` >= 0 - at `wait_ms`"),
        (b'{"max_bytes":0}', "Expected `int` >= 1 - at `max_bytes`"),
        (b'{"wait_ms":99999999999999999999}', "Expected `int` <= 9007199254740991 - at `wait_ms`"),
    ],
)
async def test_a_wrong_pull_is_named_with_its_mend(node: Node, http: RawHttp, body: bytes, words: str) -> None:
    await subscription(node)
    answer = await http.post(PULL, body)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert words in answer.json["message"]
    assert (node.longpoll.waiting, statistics(node).consumers) == (0, 0)


async def test_a_pull_of_a_subscription_that_is_not_there_is_404(http: RawHttp) -> None:
    answer = await http.post("/v1/subscriptions/nobody/pull", b"{}")
    assert (answer.status, answer.code) == (404, "subscription_not_found")
    assert "'nobody'" in answer.json["message"]
    assert "PUT /v1/subscriptions/NAME" in answer.json["message"]


async def test_more_pulls_than_may_wait_are_told_to_come_back(start_node: StartNode) -> None:
    node = await start_node({"pull.waiting_max": 2})
    await subscription(node)
    async with waiting_pull(node), waiting_pull(node), open_http(node.address) as third:
        answer = await third.post(PULL, b"{}")
        assert (answer.status, answer.code, answer.json["temporary"]) == (503, "pull_limit", True)
        assert int(answer.headers["retry-after"]) >= 1
        await publish(node, "one")
        assert node.longpoll.waiting == 1
        assert places(await pull(third, wait_ms=0)) == []  # one was answered: there is room for another


async def test_every_waiting_pull_gets_a_share(node: Node) -> None:
    await subscription(node)
    async with waiting_pull(node, max=1) as first, waiting_pull(node, max=1) as second:
        await publish(node, "a", "b")
        found = [places(await first.answer()), places(await second.answer())]
    assert sorted(found) == [[1], [2]]


async def test_a_waiting_pull_is_looked_at_by_nobody(node: Node) -> None:
    """Thousands of them cost what none costs: the watchdog does not know their connections, no task is theirs."""
    await subscription(node)
    async with waiting_pull(node) as first:
        watched, tasks = len(node.watchdog), trio.lowlevel.current_statistics().tasks_living
        async with waiting_pull(node), waiting_pull(node):
            assert len(node.watchdog) == watched
            assert trio.lowlevel.current_statistics().tasks_living == tasks + 2  # that read from their sockets
        await waiting(node, 1)  # the others have been seen to leave
        async with open_http(node.address) as other:
            assert (await other.post(ONE, b"1")).status == 201
            assert places(await first.answer()) == [1]
            assert len(node.watchdog) == watched + 2, "the one that was answered, and the one that asks"
    with trio.fail_after(5):
        while len(node.watchdog):
            await trio.sleep(0.001)


async def test_a_connection_that_waited_for_its_pull_is_idle_only_from_then_on(start_node: StartNode) -> None:
    node = await start_node({"http.idle_timeout_s": 0.3})
    await subscription(node)
    async with waiting_pull(node, wait_ms=600) as http:
        assert places(await http.answer()) == []
        assert places(await pull(http, wait_ms=0)) == []
        with trio.fail_after(5):
            assert await http.end() == b""


async def test_the_clock_of_pulls_stands_while_none_waits(node: Node) -> None:
    await subscription(node)
    async with waiting_pull(node, wait_ms=100) as http:
        assert places(await http.answer()) == []
    with trio.fail_after(5):
        while node.longpoll._some_wait.is_set():
            await trio.sleep(0.001)
    async with waiting_pull(node, wait_ms=100) as http:
        assert places(await http.answer()) == []


# -------------------------------------------------------------------------------------------------------- settle


async def test_every_verb_is_counted_and_carried_out(node: Node, http: RawHttp) -> None:
    await subscription(node, backoff_ms=(3_600_000,))
    await publish(node, *range(10))
    lease = (await pull(http)).json["lease"]
    counts = await settle(
        http,
        lease,
        ack=[[1, 3], [5, 5]],
        nack=[[4, 4]],
        nack_delay_ms=0,
        extend=[[6, 7]],
        extend_ms=60_000,
        term=[[8, 8]],
        reason="no use",
    )
    assert counts == {"acked": 4, "nacked": 1, "extended": 2, "terminated": 1}
    found = statistics(node)
    assert (found.acked, found.waiting) == (4, 1)
    assert found.in_flight + found.dead_lettered == 5  # 8 is in flight until its dead letter is stored
    assert await settle(http, lease, nack=[[9, 9]]) == {"nacked": 1}
    assert statistics(node).delayed == 1  # without a delay the backoff decides
    again = await pull(http)
    assert (places(again), again.json["attempts"]) == ([4], {"4": 2})
    assert await settle(http, lease, ack=[[6, 7], [10, 10]]) == {"acked": 3}
    with trio.fail_after(5):
        while statistics(node).dead_lettered != 1:
            await trio.sleep(0.01)


async def test_where_ranges_overlap_the_most_final_verb_wins(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await publish(node, *range(4))
    lease = (await pull(http)).json["lease"]
    counts = await settle(http, lease, nack=[[1, 4]], extend=[[1, 3]], term=[[1, 2]], ack=[[1, 1]])
    assert counts == {"acked": 1, "terminated": 1, "extended": 1, "nacked": 2, "unknown": 5}


@pytest.mark.parametrize(
    ("verbs", "unknown"),
    [
        ({"ack": [[1, 2]]}, 0),
        ({"ack": [[1, 5]]}, 3),
        ({"ack": [[1, 1], [1, 2]]}, 0),
        ({"ack": [[100, 199]]}, 100),
        ({"ack": [[0, 9007199254740991]]}, 9007199254740990),
        ({"nack": [[3, 3]]}, 1),
        ({"extend": [[3, 4]]}, 2),
        ({"term": [[3, 5]]}, 3),
        ({}, 0),
    ],
)
async def test_what_is_not_leased_is_counted_as_unknown(
    node: Node, http: RawHttp, verbs: dict[str, Any], unknown: int
) -> None:
    await subscription(node)
    await publish(node, 1, 2)
    lease = (await pull(http)).json["lease"]
    assert (await settle(http, lease, **verbs)).get("unknown", 0) == unknown


async def test_a_message_is_settled_once(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await publish(node, 1)
    lease = (await pull(http)).json["lease"]
    assert await settle(http, lease, ack=[[1, 1]]) == {"acked": 1}
    assert await settle(http, lease, ack=[[1, 1]]) == {"unknown": 1}
    assert await settle(http, lease, nack=[[1, 1]], nack_delay_ms=0) == {"unknown": 1}
    assert places(await pull(http, wait_ms=100)) == []
    assert (statistics(node).acked, node.longpoll.leases) == (1, 0)


async def test_a_lease_of_another_subscription_is_not_leased_here(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await subscription(node, "others", "trade.>")
    await publish(node, 1)
    mine = (await pull(http)).json["lease"]
    theirs = (await pull(http, "/v1/subscriptions/others/pull")).json["lease"]
    assert await settle(http, theirs, ack=[[1, 1]]) == {"unknown": 1}
    assert (statistics(node).acked, statistics(node, "others").in_flight) == (0, 1)
    assert await settle(http, mine, ack=[[1, 1]]) == {"acked": 1}


@pytest.mark.parametrize("lease", ["", "l-0123456789", "nonsense"])
async def test_a_lease_that_nobody_gave_is_unknown(node: Node, http: RawHttp, lease: str) -> None:
    await subscription(node)
    assert await settle(http, lease, ack=[[1, 2]]) == {"unknown": 2}


async def test_a_lease_that_ran_out_is_unknown_and_its_messages_go_to_the_next(node: Node, http: RawHttp) -> None:
    await subscription(node, lease_ms=100)
    await publish(node, 1)
    async with open_http(node.address) as late:
        answer = await pull(late)
        began = trio.current_time()
        again = await pull(http, wait_ms=5000)
        assert (places(again), again.json["attempts"]) == ([1], {"1": 2})
        assert trio.current_time() - began < 2
        assert await settle(late, answer.json["lease"], ack=[[1, 1]]) == {"unknown": 1}
    assert await settle(http, again.json["lease"], ack=[[1, 1]]) == {"acked": 1}


async def test_an_extended_lease_runs_from_now(node: Node, http: RawHttp) -> None:
    await subscription(node, lease_ms=200)
    await publish(node, 1)
    lease = (await pull(http)).json["lease"]
    assert await settle(http, lease, extend=[[1, 1]], extend_ms=60_000) == {"extended": 1}
    assert places(await pull(http, wait_ms=400)) == []
    assert await settle(http, lease, extend=[[1, 1]], extend_ms=1) == {"extended": 1}
    assert places(await pull(http, wait_ms=5000)) == [1]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "missing required field `lease`"),
        (b"{}", "missing required field `lease`"),
        (b'{"lease":5}', "Expected `str`, got `int` - at `lease`"),
        (b'{"lease":"l","acks":[]}', "unknown field `acks`; known are lease, ack, nack"),
        (b'{"lease":"l","ack":[1]}', "ack[0]"),
        (b'{"lease":"l","ack":[[2,1]]}', "[2,1] runs backwards"),
        (b'{"lease":"l","nack":[[2,1]]}', "[2,1] runs backwards"),
        (b'{"lease":"l","ack":[[-1,1]]}', "Expected `int` >= 0"),
        (b'{"lease":"l","extend_ms":0}', "Expected `int` >= 1 - at `extend_ms`"),
        (b'{"lease":"l","nack_delay_ms":-1}', "Expected `int` >= 0 - at `nack_delay_ms`"),
        (b'{"lease":"l","ack":[[1,NaN]]}', "the body is not JSON"),
    ],
)
async def test_a_wrong_settle_is_named_with_its_mend(node: Node, http: RawHttp, body: bytes, words: str) -> None:
    await subscription(node)
    answer = await http.post(SETTLE, body)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert words in answer.json["message"]


async def test_settling_in_a_subscription_that_is_not_there_is_404(http: RawHttp) -> None:
    answer = await http.post("/v1/subscriptions/nobody/settle", b'{"lease":"l"}')
    assert (answer.status, answer.code) == (404, "subscription_not_found")


# -------------------------------------------------------------------------------------------------- the other end


async def test_the_message_of_a_pull_that_was_given_up_goes_to_the_next_at_once(node: Node) -> None:
    await subscription(node)
    async with untouched(node, stored=1):
        async with waiting_pull(node) as gone, waiting_pull(node) as stays:
            await gone.aclose()
            await waiting(node, 1)
            assert statistics(node).consumers == 1
            await publish(node, "for whom?")
            assert places(await stays.answer()) == [2]
        assert statistics(node).in_flight == 1


async def test_an_answer_that_its_client_does_not_take_goes_to_the_next_at_once(start_node: StartNode) -> None:
    """The client leaves while the answer is being written: the kernel had taken a part only."""
    flags = {"deliver.frame_bytes_max": 2**26, "pull.bytes_max": 2**26, "deliver.frame_messages_max": 1000}
    node = await start_node(flags)
    await subscription(node)
    async with untouched(node, stored=48):
        async with waiting_pull(node, max=1000, max_bytes=2**26):
            pass
        for _ in range(12):
            await publish(node, *["x" * 700_000] * 4)
        async with open_http(node.address) as slow:
            await slow.send(request_bytes("POST", PULL, b'{"max":1000,"max_bytes":67108864}'))
            with trio.fail_after(5):
                while statistics(node).in_flight != 48:
                    await trio.sleep(0.005)
        async with open_http(node.address) as http:
            answer = await pull(http, max=1, wait_ms=5000)
            assert (places(answer), answer.json["attempts"]) == ([2], {})  # it never was delivered: no attempt


async def test_a_pull_whose_messages_are_read_for_too_long_is_told_that_there_are_none(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes longer than a frame may wait: the messages go to others, and the pull is not forgotten."""
    node = await start_node({"store.cache_bytes": 0, "deliver.handing_ms": 1000})
    await subscription(node, lease_ms=1000)
    await publish(node, 1)
    load, slow = node.engine.load, trio.Event()

    async def load_slowly(delivery: Delivery) -> None:
        await slow.wait()
        await load(delivery)

    monkeypatch.setattr(node.engine, "load", load_slowly)
    async with open_http(node.address) as http:
        assert places(await pull(http, wait_ms=60_000)) == []
        slow.set()
        again = await pull(http, wait_ms=5000)
        assert (places(again), again.json["attempts"]) == ([1], {})
    assert statistics(node).in_flight == 1


async def test_a_pull_ends_with_its_subscription(node: Node) -> None:
    await subscription(node)
    async with waiting_pull(node) as http:
        await node.engine.delete_subscription("orders")
        answer = await http.answer()
        assert (answer.status, answer.code) == (409, "subscription_deleted")
        assert "'orders'" in answer.json["message"]
        assert (await http.post(ONE, b"1")).status == 201


async def test_a_lease_ends_with_its_subscription(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await publish(node, 1)
    lease = (await pull(http)).json["lease"]
    await node.engine.delete_subscription("orders")
    assert node.longpoll.leases == 0
    await subscription(node)
    assert await settle(http, lease, ack=[[1, 1]]) == {"unknown": 1}


async def test_what_is_leased_to_a_pull_keeps_nothing_of_its_connection(node: Node) -> None:
    await subscription(node)
    await publish(node, "held")
    async with open_http(node.address) as http:
        assert len((await pull(http)).json["messages"]) == 1
        (connection,) = map(weakref.ref, node._http)
    with trio.fail_after(5):
        while node._http:
            await trio.sleep(0.01)
    gc.collect()
    assert connection() is None
    assert node.longpoll.leases == 1
