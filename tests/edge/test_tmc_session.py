"""TMC over WebSocket against a real node, by a client that was written from the page alone."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from gateway.auth import apikey
from gateway.config.settings import TmcApplication
from gateway.errors import GatewayError
from gateway.node import Node
from gateway.wire import top
from tests.conftest import Log, StartNode
from tests.edge.tmc_client import (
    CONFIRM,
    CONNECT,
    CONNECTACK,
    DATA,
    FAILED,
    SEND,
    SENDACK,
    ClosedError,
    TmcClient,
    Wide,
    connect_customs,
    frame,
    open_tmc,
)

SHOP = TmcApplication(
    key="12345678",
    secret="helloworld",
    topics=("taobao_trade_TradeCreate", "taobao_trade_TradeBuyerPay"),
    topic_groups={"taobao_trade_TradeBuyerPay": "pay"},
)
FLAGS = {"tmc.enabled": True}
CREATE = "taobao_trade_TradeCreate"


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    return await start_node(FLAGS, tmc_application=(SHOP,))


@pytest.fixture
async def client(node: Node) -> AsyncIterator[TmcClient]:
    """Connected, and attached."""
    async with open_tmc(node.address) as client:
        assert (await client.connect(SHOP.key, SHOP.secret)).status == 0
        await client.pull()
        yield client


async def publish(node: Node, data: bytes, topic: str = CREATE, **attributes: str) -> dict[str, Any]:
    headers = {f"push-attr-{name}": value for name, value in attributes.items()}
    async with httpx.AsyncClient() as http:
        url = f"http://{node.address}/v1/topics/{topic}/messages"
        answer = await http.post(url, content=data, headers=headers | {"content-type": "application/json"})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def numbers(node: Node, group: str = "default") -> dict[str, int | None]:
    statistics = node.engine.subscription(f"{SHOP.key}.{group}", node.clock()).statistics
    return {"acked": statistics.acked, "in_flight": statistics.in_flight, "delayed": statistics.delayed}


async def until(node: Node, group: str = "default", **expected: int) -> None:
    with trio.fail_after(10):
        while {name: numbers(node, group)[name] for name in expected} != expected:
            await trio.sleep(0.005)


UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def upgraded(address: str, path: str) -> bytes:
    """The head of the answer to a handshake."""
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(UPGRADE % path.encode())
        return await stream.receive_some()


# ------------------------------------------------------------------------------------------------------- CONNECT


@pytest.mark.parametrize("path", ["/", "/anything/else?x=1"])
async def test_a_connect_is_answered_with_a_token_and_its_flag(node: Node, path: str) -> None:
    async with open_tmc(node.address, path) as client:
        answer = await client.connect(SHOP.key, SHOP.secret)
        assert (answer.type, answer.status, answer.flag) == (CONNECTACK, 0, 1)
        assert answer.token


@pytest.mark.parametrize("group", [None, "default", ""])
async def test_the_default_group_is_there_for_every_application(node: Node, group: str | None) -> None:
    async with open_tmc(node.address) as client:
        assert (await client.connect(SHOP.key, SHOP.secret, group)).status == 0


def signed(**changes: object) -> dict[str, object]:
    return connect_customs(SHOP.key, SHOP.secret, "default") | changes


def stamped(timestamp: object) -> dict[str, object]:
    return connect_customs(SHOP.key, SHOP.secret, "default", str(timestamp))


def unsigned(name: str) -> dict[str, object]:
    customs = signed()
    del customs[name]
    return customs


NOW_MS = int(time.time() * 1000)


@pytest.mark.parametrize(
    ("customs", "status", "words"),
    [
        (unsigned("app_key"), 28, "Missing App Key"),
        (unsigned("sign"), 24, "Missing Signature"),
        (unsigned("timestamp"), 30, "Missing Timestamp"),
        (connect_customs("87654321", SHOP.secret, "default"), 29, "Invalid App Key"),
        (connect_customs(SHOP.key, "guessed", "default"), 25, "Invalid Signature"),
        (signed(sign="0" * 32), 25, "Invalid Signature"),
        (signed(sign="签"), 25, "Invalid Signature"),
        (signed(group_name="other"), 25, "Invalid Signature"),
        (stamped(NOW_MS - 3_600_000), 31, "Invalid Timestamp"),
        (stamped(NOW_MS + 3_600_000), 31, "Invalid Timestamp"),
        (stamped("yesterday"), 31, "Invalid Timestamp"),
        (connect_customs(SHOP.key, SHOP.secret, "nothing"), 41, "there is no group 'nothing'"),
        (connect_customs(SHOP.key, SHOP.secret, "组"), 41, "there is no group"),
    ],
)
async def test_each_refusal_has_its_code_and_phrase(
    node: Node, customs: dict[str, object], status: int, words: str
) -> None:
    async with open_tmc(node.address) as client:
        await client.send(frame(CONNECT, customs, flag=7))
        answer = await client.receive()
        assert (answer.type, answer.status, answer.flag, answer.token) == (CONNECTACK, status, 7, None)
        assert words in answer.phrase
        assert await client.closed() == 3500


async def test_ticks_of_the_net_client_in_any_time_zone_are_taken(node: Node) -> None:
    for hours in (-8, 0, 8):
        ticks = (int(time.time() * 1000) + hours * 3_600_000 + 62_135_596_800_000) * 10_000
        async with open_tmc(node.address) as client:
            await client.send(frame(CONNECT, stamped(ticks), flag=1))
            assert (await client.receive()).status == 0


async def test_a_connect_with_numbers_where_texts_are_meant(node: Node) -> None:
    customs = signed(app_key=int(SHOP.key))
    customs["timestamp"] = int(str(customs["timestamp"]))
    async with open_tmc(node.address) as client:
        await client.send(frame(CONNECT, customs))
        answer = await client.receive()
        assert (answer.status, answer.flag) == (0, None)


async def test_a_connect_split_over_frames(node: Node) -> None:
    """Fragments of one WebSocket message, one byte each, with a ping between."""
    data = frame(CONNECT, signed(sdk="名" * 20), flag=3)
    host, _, port = node.address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(UPGRADE % b"/")
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        assert received.startswith(b"HTTP/1.1 101")
        assert b"Sec-WebSocket-Protocol" not in received.title()
        for index in range(len(data)):
            first, last = index == 0, index == len(data) - 1
            opcode = (0x02 if first else 0x00) | (0x80 if last else 0)
            await stream.send_all(bytes([opcode, 0x81, 0, 0, 0, 0, data[index]]))
            if index == 50:
                await stream.send_all(bytes([0x89, 0x80, 0, 0, 0, 0]))
        answer = received.partition(b"\r\n\r\n")[2]
        with trio.fail_after(5):
            while b"\x02\x01" not in answer:
                answer += await stream.receive_some()


async def test_a_client_that_never_connects_is_let_go(start_node: StartNode) -> None:
    node = await start_node(FLAGS | {"websocket.handshake_timeout_s": 0.1}, tmc_application=(SHOP,))
    async with open_tmc(node.address) as client:
        assert await client.closed() == 3502


async def test_nothing_is_done_before_a_connect(node: Node) -> None:
    async with open_tmc(node.address) as client:
        await client.pull()
        answer = await client.receive()
        assert (answer.type, answer.status) == (SENDACK, 41)
        assert await client.closed() == 3502


async def test_a_second_connect_is_refused(client: TmcClient) -> None:
    await client.send(frame(CONNECT, signed(), flag=2))
    answer = await client.receive()
    assert (answer.type, answer.status) == (CONNECTACK, 41)
    assert await client.closed() == 3500


async def test_without_being_enabled_there_is_no_such_thing(start_node: StartNode) -> None:
    node = await start_node(tmc_application=(SHOP,))
    async with httpx.AsyncClient() as http:
        assert (await http.post(f"http://{node.address}/router/rest")).status_code == 404
    assert (await upgraded(node.address, "/")).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("path", ["/v1/subscriptions/x/pull", "/router/rest"])
async def test_paths_that_are_taken_are_not_for_it(node: Node, path: str) -> None:
    assert (await upgraded(node.address, path)).startswith(b"HTTP/1.1 404")


# -------------------------------------------------------------------------------------------------------- pushing


async def test_a_message_is_pushed_with_all_that_is_known_of_it(node: Node, client: TmcClient) -> None:
    content = '{"tid":12345678901234567890,  "buyer_nick":"买家", "payment":1.50}'
    before = int(time.time() * 1000)
    stored = await publish(node, content.encode(), tmc_publisher="999", tmc_user_id="2074082786")
    pushed = await client.pushed()
    customs = pushed.customs
    assert customs["content"] == content, "byte for byte: big integers, spaces and zeros"
    assert (customs["id"], customs["topic"]) == (stored["position"], CREATE)
    assert (customs["publisher"], customs["userid"]) == ("999", 2074082786)
    assert before - 1000 <= customs["time"] <= before + 10_000
    assert pushed.flag is None, "a flag would be taken for the answer to a call"
    # clients cast: to a long, to a date, to a string
    assert {name: pushed.formats[name] for name in ("id", "time", "content", "userid")} == {
        "id": 5,
        "time": 6,
        "content": 1,
        "userid": 5,
    }


async def test_a_subscription_that_asks_for_cloudevents_is_written_in_words_of_tmc_here(node: Node) -> None:
    async with httpx.AsyncClient() as http:
        url = f"http://{node.control_address}/v1/subscriptions/{SHOP.key}.default"
        (await http.put(url, json={"format": "cloudevents"})).raise_for_status()
    async with open_tmc(node.address) as client:
        await client.connect(SHOP.key, SHOP.secret)
        await client.pull()
        await publish(node, b'{"tid": 1.0}', tmc_publisher="4711")
        pushed = await client.pushed()
        assert (pushed.customs["content"], pushed.customs["topic"]) == ('{"tid": 1.0}', CREATE)
        assert pushed.customs["publisher"] == "4711"
        await client.confirm(pushed.customs["id"])
        await until(node, acked=1)


async def test_nothing_is_pushed_before_the_first_pull_request(node: Node) -> None:
    await publish(node, b"1")
    async with open_tmc(node.address) as client:
        await client.connect(SHOP.key, SHOP.secret)
        assert node.engine.subscription(f"{SHOP.key}.default", node.clock()).statistics.consumers == 0
        await client.pull()
        assert (await client.pushed()).customs["content"] == "1"


@pytest.mark.parametrize("width", [2, 3, 4, 5])
async def test_a_kind_of_any_width(node: Node, client: TmcClient, width: int) -> None:
    await publish(node, b"1")
    id_ = (await client.pushed()).customs["id"]
    await client.say(Wide(width, CONFIRM), {"id": Wide(5, id_)})
    await until(node, acked=1)


async def test_headers_in_another_order_and_ids_of_other_widths(node: Node, client: TmcClient) -> None:
    writings: list[Callable[[int], object]] = [lambda id_: id_, str, lambda id_: Wide(4, id_)]
    for number, written in enumerate(writings, 1):
        await publish(node, b"1")
        id_ = (await client.pushed()).customs["id"]
        await client.send(frame(SEND, {"id": written(id_), "__kind": CONFIRM}, token=client.token, token_last=True))
        await until(node, acked=number)


async def test_a_confirmed_message_is_settled(node: Node, client: TmcClient) -> None:
    for number in range(1, 4):
        await publish(node, b"%d" % number)
        await client.confirm((await client.pushed()).customs["id"])
    await until(node, acked=3, in_flight=0)


@pytest.mark.parametrize(("type_", "with_token"), [(SENDACK, True), (SEND, True), (SEND, False)])
async def test_a_failed_message_comes_again_after_the_backoff(
    node: Node, client: TmcClient, type_: int, with_token: bool
) -> None:
    """The page says SENDACK; public clients send SEND, and one of them without the token."""
    await publish(node, b"1")
    id_ = (await client.pushed()).customs["id"]
    token = client.token if with_token else None
    await client.send(frame(type_, {"__kind": FAILED, "id": id_, "msg": "数据库"}, token=token))
    await until(node, in_flight=0, delayed=1)


async def test_what_a_lost_connection_held_comes_to_the_next(node: Node) -> None:
    await publish(node, b"1")
    for _ in range(2):
        async with open_tmc(node.address) as client:
            await client.connect(SHOP.key, SHOP.secret)
            await client.pull()
            assert (await client.pushed()).customs["content"] == "1"


async def test_a_group_that_is_deleted_ends_its_connections(node: Node, client: TmcClient) -> None:
    await publish(node, b"1")
    await client.pushed()
    await node.engine.delete_subscription(f"{SHOP.key}.default")
    assert await client.closed() == 3507


# ------------------------------------------------------------------------------------------------------ publishing


async def test_a_client_publishes_and_is_answered(node: Node, client: TmcClient) -> None:
    content = '{"tid":12345678901234567890,"nick":"城"}'
    await client.say(DATA, {"topic": CREATE, "content": content}, flag=9)
    frames = [await client.receive(), await client.receive()]
    [answer] = [found for found in frames if found.type == SENDACK]
    [pushed] = [found for found in frames if found.type == SEND]
    assert (answer.flag, answer.status, answer.token) == (9, 0, client.token)
    assert (pushed.customs["content"], pushed.customs["publisher"]) == (content, SHOP.key)


async def test_what_is_not_json_goes_as_text_and_comes_back_as_it_was(client: TmcClient) -> None:
    await client.say(DATA, {"topic": CREATE, "content": "<trade>买家</trade>"})
    assert (await client.pushed()).customs["content"] == "<trade>买家</trade>"


async def test_content_that_a_client_has_zipped(client: TmcClient) -> None:
    await client.say(DATA, {"topic": CREATE, "content": gzip.compress('{"a":"买"}'.encode())})
    assert (await client.pushed()).customs["content"] == '{"a":"买"}'


@pytest.mark.parametrize(
    ("customs", "status", "words"),
    [
        ({"topic": "", "content": "1"}, 40, "topic is required"),
        ({"topic": CREATE}, 40, "content is required"),
        ({"topic": "a..b", "content": "1"}, 41, "empty word"),
        ({"topic": "others.topic", "content": "1"}, 11, "may not publish"),
        ({"topic": CREATE, "content": b"not gzip"}, 41, "neither text nor gzip"),
        ({"topic": CREATE, "content": gzip.compress(b"9" * (1024 * 1024 + 1))}, 41, "more than 1048576 bytes"),
        ({"topic": CREATE, "content": "9" * (1024 * 1024 + 1)}, 41, "at most 1048576 are allowed"),
    ],
)
async def test_what_cannot_be_published_is_answered_with_its_reason(
    node: Node, client: TmcClient, customs: dict[str, object], status: int, words: str
) -> None:
    await client.say(DATA, customs, flag=4)
    answer = await client.receive()
    assert (answer.type, answer.flag, answer.status) == (SENDACK, 4, status)
    assert words in answer.phrase
    assert node.engine.statistics().positions_end == 1, "nothing is stored"


async def test_a_gateway_that_drains_says_so(node: Node, client: TmcClient) -> None:
    node.admit.closed = GatewayError("draining", "the gateway is going down")
    await client.say(DATA, {"topic": CREATE, "content": "1"}, flag=4)
    assert (await client.receive()).status == 10
    node.admit.closed = None


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("data", [b"", b"\x02", b"\x01\x00\x00\x00", b"\x02\x02\x01\x00", bytes(300)])
async def test_bytes_that_are_no_message_end_the_connection_only(node: Node, client: TmcClient, data: bytes) -> None:
    await client.send(data)
    answer = await client.receive()
    assert (answer.type, answer.status) == (SENDACK, 41)
    assert "TMC wire protocol 2" in answer.phrase
    assert await client.closed() == 3501
    async with open_tmc(node.address) as other:
        assert (await other.connect(SHOP.key, SHOP.secret)).status == 0


async def test_a_token_of_another_ends_the_connection(client: TmcClient) -> None:
    client.token = "guessed"
    await client.pull()
    answer = await client.receive()
    assert (answer.type, answer.status) == (SENDACK, 27)
    with pytest.raises(ClosedError):
        await client.receive()


@pytest.mark.parametrize(
    ("kind", "customs", "words"),
    [
        (99, {}, "the kind 99 is unknown"),
        (CONFIRM, {}, "must be the id of a message"),
        (CONFIRM, {"id": "x"}, "is not an integer"),
        (CONFIRM, {"id": Wide(5, -1)}, "must be the id of a message"),
        (CONFIRM, {"id": Wide(5, 2**60)}, "must be the id of a message"),
        ("x", {}, "is not an integer"),
    ],
)
async def test_a_wrong_message_is_answered_and_the_connection_lives(
    node: Node, client: TmcClient, kind: object, customs: dict[str, object], words: str
) -> None:
    await client.say(kind, customs, flag=5)
    answer = await client.receive()
    assert (answer.type, answer.flag) == (SENDACK, 5)
    assert words in answer.phrase
    await publish(node, b"1")
    assert (await client.pushed()).customs["content"] == "1"


async def test_an_answer_to_an_answer_means_nothing(node: Node, client: TmcClient) -> None:
    await client.send(frame(SENDACK, {}, token=client.token))
    await client.confirm(4711)
    await publish(node, b"1")
    assert (await client.pushed()).customs["content"] == "1"


# ------------------------------------------------------------------------------------------------- windows and life


async def test_no_more_is_in_flight_than_the_window(node: Node, client: TmcClient) -> None:
    view = node.engine.subscription(f"{SHOP.key}.default", node.clock())
    window = view.settings.window_max
    body = b"[" + b",".join([b'{"topic":"%b","data":1}' % CREATE.encode()] * 600) + b"]"
    async with httpx.AsyncClient() as http:
        for _ in range(2):
            (await http.post(f"http://{node.address}/v1/messages", content=body)).raise_for_status()
    ids = [(await client.pushed()).customs["id"] for _ in range(window)]
    assert numbers(node)["in_flight"] == window
    for id_ in ids[:200]:
        await client.confirm(id_)
    more = [(await client.pushed()).customs["id"] for _ in range(200)]
    assert sorted(ids + more) == list(range(1, 1201))


async def test_a_client_that_says_nothing_is_let_go_and_one_that_pulls_is_not(start_node: StartNode) -> None:
    node = await start_node(FLAGS | {"tmc.idle_timeout_s": 0.5, "websocket.heartbeat_s": 60.0}, tmc_application=(SHOP,))
    async with open_tmc(node.address) as silent, open_tmc(node.address) as alive:
        await silent.connect(SHOP.key, SHOP.secret)
        await alive.connect(SHOP.key, SHOP.secret)
        for _ in range(8):
            await alive.pull()
            await trio.sleep(0.15)
        assert await silent.closed() == 3012
        await publish(node, b"1")
        assert (await alive.pushed()).customs["content"] == "1"


async def test_a_connection_is_shown_with_its_protocol_application_and_client(node: Node, client: TmcClient) -> None:
    await publish(node, b"1")
    await client.pushed()
    [view] = [connection.view() for connection in node.connections]
    assert (view.protocol, view.principal, view.client) == ("tmc.v2", f"tmc.{SHOP.key}", "test")
    assert (view.subscriptions, view.in_flight) == ([f"{SHOP.key}.default"], 1)


async def test_a_drain_lets_a_client_confirm_what_it_has(node: Node, client: TmcClient) -> None:
    await publish(node, b"1")
    id_ = (await client.pushed()).customs["id"]
    for connection in node.connections:
        connection.drain()
    await publish(node, b"2")
    await client.confirm(id_)
    assert await client.closed() == 3013
    await until(node, acked=1, in_flight=0)


# ------------------------------------------------------------------------------------------------------ credentials


async def test_where_credentials_are_configured_its_clients_need_none_of_them(
    start_node: StartNode, tmp_path: Path, log: Log
) -> None:
    """They prove who they are by signature; everybody else is asked for a key."""
    keys = tmp_path / "keys.json"
    with apikey.changing(keys):
        pass
    node = await start_node(
        FLAGS | {"auth.keys_file": str(keys), "auth.hello_timeout_s": 0.05}, tmc_application=(SHOP,)
    )
    async with open_tmc(node.address) as client:
        assert (await client.connect(SHOP.key, SHOP.secret)).status == 0
        await client.pull()
        await trio.sleep(0.3)  # well beyond the time that others have to say hello
        await client.say(DATA, {"topic": CREATE, "content": "1"})
        assert (await client.pushed()).customs["content"] == "1"
    async with httpx.AsyncClient() as http:
        form = {"method": "taobao.tmc.groups.get", "app_key": SHOP.key, "timestamp": top.format_time(node.clock())}
        signed_form = form | {"sign": top.sign(form, SHOP.secret)}
        answer = await http.post(f"http://{node.address}/router/rest", data=signed_form)
        assert answer.json()["tmc_groups_get_response"]["total_results"] == 0
        assert (await http.post(f"http://{node.address}/v1/messages", json=[])).status_code == 401


async def test_who_is_refused_stands_in_the_audit_log(node: Node) -> None:
    async with open_tmc(node.address) as client:
        await client.connect(SHOP.key, "guessed")
    async with httpx.AsyncClient() as http:
        await http.post(
            f"http://{node.address}/router/rest", data={"method": "x", "app_key": "1", "timestamp": "1", "sign": "x"}
        )
    assert node.audit.refusals == {"invalid_token": 2}
