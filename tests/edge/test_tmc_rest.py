"""The platform's HTTP calls against a real node: by a client that is not ours, and by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from gateway.config.settings import TmcApplication
from gateway.node import Node
from gateway.wire import top
from tests.conftest import Log, StartNode, running
from tests.edge.tmc_client import open_tmc
from tests.edge.topclient import execute

FILE = {"topic": "trade.a", "content": "1", "media_content": "x"}
SHOP = TmcApplication(key="12345678", secret="helloworld", topics=("trade.a", "trade.b"), topic_groups={"trade.b": "b"})
OTHER = TmcApplication(key="87654321", secret="other", topics=("trade.>",), publish=("trade.a",))
FLAGS = {"tmc.enabled": True, "tmc.consume_wait_ms": 300}


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    return await start_node(FLAGS, tmc_application=(SHOP, OTHER))


def url(node: Node) -> str:
    return f"http://{node.address}/router/rest"


class Caller:
    """Signs and calls; `answer` is the content of the response, `error` that of an error."""

    def __init__(self, node: Node, application: TmcApplication = SHOP, sign_method: str = "md5") -> None:
        self.node = node
        self.application = application
        self.sign_method = sign_method

    def signed(self, method: str, parameters: Mapping[str, str]) -> dict[str, str]:
        values = {
            "method": method,
            "app_key": self.application.key,
            "timestamp": top.format_time(self.node.clock()),
            "v": "2.0",
            "format": "json",
            "sign_method": self.sign_method,
            **parameters,
        }
        return values | {"sign": top.sign(values, self.application.secret, self.sign_method)}

    async def post(self, form: Mapping[str, str]) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.post(url(self.node), data=dict(form))
        assert answer.status_code == 200, "the platform answers 200 whatever it has to say"
        assert answer.headers["content-type"].startswith("application/json")
        found: dict[str, Any] = answer.json()
        assert len(found) == 1
        return found

    async def answer(self, method: str, **parameters: str) -> dict[str, Any]:
        found = await self.post(self.signed(method, parameters))
        [(name, content)] = found.items()
        assert name == method.removeprefix("taobao.").replace(".", "_") + "_response", found
        assert content.pop("request_id")
        return dict(content)

    async def error(self, method: str, **parameters: str) -> dict[str, Any]:
        found = await self.post(self.signed(method, parameters))
        return dict(found["error_response"])

    async def consume(self, **parameters: str) -> list[dict[str, Any]]:
        content = await self.answer("taobao.tmc.messages.consume", **parameters)
        messages: list[dict[str, Any]] = content["messages"]["tmc_message"]
        return messages

    async def produce(self, content: str, topic: str = "trade.a", **more: str) -> None:
        answer = await self.answer("taobao.tmc.message.produce", topic=topic, content=content, **more)
        assert answer["is_success"] is True


@pytest.fixture
def shop(node: Node) -> Caller:
    return Caller(node)


def statistics(node: Node, group: str = "default") -> tuple[int, int, int]:
    """(acked, in flight, delayed)"""
    found = node.engine.subscription(f"{SHOP.key}.{group}", node.clock()).statistics
    return found.acked, found.in_flight, found.delayed


# ------------------------------------------------------------------------------------------ a client that is not ours


async def test_the_npm_client_drives_every_call(node: Node) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("taobao.tmc.user.permit", {"session": "买家"}),
        ("taobao.tmc.user.get", {"fields": "topics", "nick": "买家"}),
        ("taobao.tmc.group.add", {"group_name": "vip", "nicks": "买家"}),
        ("taobao.tmc.groups.get", {"group_names": "vip"}),
        ("taobao.tmc.message.produce", {"topic": "trade.a", "content": '{"tid":12345678901234567890}'}),
        ("taobao.tmc.messages.produce", {"messages": [{"topic": "trade.a", "content": '{"买":1}'}], "session": "买家"}),
        ("taobao.tmc.messages.consume", {"quantity": 100}),
        ("taobao.tmc.messages.consume", {"group_name": "vip"}),
        ("taobao.tmc.messages.confirm", {"s_message_ids": "1"}),
        ("taobao.tmc.messages.confirm", {"group_name": "vip", "s_message_ids": "2"}),
        ("taobao.tmc.queue.get", {"group_name": "vip"}),
        ("taobao.tmc.group.delete", {"group_name": "vip"}),
        ("taobao.tmc.user.cancel", {"nick": "买家"}),
        ("taobao.tmc.messages.consume", {"quantity": 201}),
    ]
    answers = await execute(url(node), SHOP.key, SHOP.secret, calls)
    permit, user, added, groups, produced, many, consumed, vip, confirmed, confirmed_vip, queue, gone, cancelled, no = (
        answers
    )
    assert permit["is_success"] is True
    assert user["tmc_user"]["user_nick"] == "买家"
    assert added["group_name"] == "vip"
    assert groups["groups"]["tmc_group"] == [{"name": "vip", "users": {"string": ["买家"]}}]
    assert produced["is_success"] is True
    assert many["is_all_success"] is True
    [message] = consumed["messages"]["tmc_message"]
    assert (message["id"], message["topic"], message["pub_app_key"]) == (1, "trade.a", SHOP.key)
    assert message["content"] == '{"tid":12345678901234567890}', "text: big integers survive"
    [message] = vip["messages"]["tmc_message"]
    assert (message["content"], message["user_nick"]) == ('{"买":1}', "买家")
    assert (
        confirmed["is_success"] is confirmed_vip["is_success"] is gone["is_success"] is cancelled["is_success"] is True
    )
    [info] = queue["datas"]["tmc_queue_info"]
    assert (info["name"], info["get_total"], info["put_total"]) == ("vip", 1, 1)
    assert (no["error"], no["code"], no["sub_code"]) == ("TOPClientError", 41, "isv.invalid-parameter:quantity")
    assert statistics(node) == (1, 0, 0)


async def test_a_client_of_another_time_zone_is_told(node: Node) -> None:
    [answer] = await execute(url(node), SHOP.key, SHOP.secret, [("taobao.tmc.groups.get", {})], zone="UTC")
    assert answer["code"] == 31
    assert "GMT+8" in answer["message"]


# ------------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("method", ["md5", "hmac", "hmac-sha256"])
async def test_each_way_of_signing(node: Node, method: str) -> None:
    assert await Caller(node, sign_method=method).answer("taobao.tmc.groups.get") == {
        "groups": {"tmc_group": []},
        "total_results": 0,
    }


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"method": ""}, 21),
        ({"app_key": ""}, 28),
        ({"timestamp": ""}, 30),
        ({"sign": ""}, 24),
        ({"app_key": "1"}, 29),
        ({"app_key": OTHER.key}, 25),
        ({"timestamp": "2016-01-01 12:00:00"}, 31),
        ({"timestamp": "soon"}, 31),
        ({"sign": "0" * 32}, 25),
        ({"sign": "签名"}, 25),
        ({"added": "1"}, 25),
        ({"sign_method": "none"}, 25),
    ],
)
async def test_a_call_that_is_not_proven_is_refused_with_the_platforms_code(
    shop: Caller, changes: dict[str, str], code: int
) -> None:
    form = shop.signed("taobao.tmc.message.produce", {"topic": "trade.a", "content": "1"}) | changes
    error = (await shop.post({name: value for name, value in form.items() if value}))["error_response"]
    assert error["code"] == code
    assert error["msg"] in {words for _, words in top.ERRORS.values()}
    assert shop.node.engine.statistics().positions_end == 1, "nothing is stored"


@pytest.mark.parametrize(
    ("method", "parameters", "code"),
    [
        ("taobao.item.get", {}, 22),
        ("taobao.tmc.messages.consume", {"v": "1.0"}, 34),
        ("taobao.tmc.messages.consume", {"format": "xml"}, 23),
    ],
)
async def test_a_call_that_is_none_of_these(shop: Caller, method: str, parameters: dict[str, str], code: int) -> None:
    assert (await shop.error(method, **parameters))["code"] == code


async def test_what_is_no_form_is_said(node: Node) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(url(node), json={"method": "x"})
        assert answer.json()["error_response"]["code"] == 23
        assert (await http.get(url(node))).status_code == 405


# -------------------------------------------------------------------------------------------------- consume, confirm


async def test_consume_is_answered_the_moment_there_is_something(node: Node, shop: Caller) -> None:
    found: list[dict[str, Any]] = []

    async def consume() -> None:
        found.extend(await shop.consume())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        with trio.fail_after(5):
            while not node.longpoll.waiting:
                await trio.sleep(0.005)
        await shop.produce('{"a":1}')
    assert [message["content"] for message in found] == ['{"a":1}']


async def test_consume_is_empty_after_a_short_wait(shop: Caller) -> None:
    began = trio.current_time()
    assert await shop.consume() == []
    assert 0.25 < trio.current_time() - began < 5


async def test_messages_of_several_consumes_are_confirmed_by_id(node: Node, shop: Caller) -> None:
    for number in range(25):
        await shop.produce(str(number))
    first, second = await shop.consume(quantity="10"), await shop.consume(quantity="15")
    assert statistics(node) == (0, 25, 0)
    ids = [message["id"] for message in first + second]
    assert ids == list(range(1, 26))
    done, failed = ",".join(map(str, ids[5:])), ",".join(map(str, ids[:5]))
    answer = await shop.answer("taobao.tmc.messages.confirm", s_message_ids=done, f_message_ids=failed)
    assert answer == {"is_success": True}
    assert statistics(node) == (20, 0, 5)
    assert await shop.answer("taobao.tmc.messages.confirm", s_message_ids=done) == answer, "a second time means nothing"
    assert statistics(node) == (20, 0, 5)


async def test_a_message_that_is_not_confirmed_comes_again(node: Node, shop: Caller) -> None:
    view = node.engine.subscription(f"{SHOP.key}.default", node.clock())
    assert view.settings.lease_ms == 60_000
    await shop.produce("1")
    [message] = await shop.consume()
    assert await shop.consume() == []
    await shop.answer("taobao.tmc.messages.confirm", f_message_ids=str(message["id"]))
    assert statistics(node) == (0, 0, 1)


async def test_a_client_that_left_before_its_answer_loses_nothing(node: Node, shop: Caller) -> None:
    with trio.move_on_after(0.1):
        await shop.consume()
    await shop.produce("1")
    assert len(await shop.consume()) == 1


@pytest.mark.parametrize(
    ("method", "parameters", "code", "sub_code"),
    [
        ("messages.consume", {"quantity": "9"}, 41, "isv.invalid-parameter:quantity"),
        ("messages.consume", {"quantity": "201"}, 41, "isv.invalid-parameter:quantity"),
        ("messages.consume", {"quantity": "x"}, 41, "isv.invalid-parameter:quantity"),
        ("messages.consume", {"group_name": "nothing"}, 41, "isv.invalid-parameter:group_name"),
        ("messages.confirm", {}, 40, "isv.missing-parameter:s_message_ids"),
        ("messages.confirm", {"s_message_ids": "1,x"}, 41, "isv.invalid-parameter:s_message_ids"),
        ("messages.confirm", {"s_message_ids": ",".join(["1"] * 201)}, 41, "isv.invalid-parameter:s_message_ids"),
        ("messages.confirm", {"f_message_ids": ",".join(["1"] * 201)}, 41, "isv.invalid-parameter:f_message_ids"),
        ("message.produce", {"content": "1"}, 40, "isv.missing-parameter:topic"),
        ("message.produce", {"topic": "trade.a"}, 40, "isv.missing-parameter:content"),
        ("message.produce", {"topic": "a..b", "content": "1"}, 41, "isv.bad-topic"),
        ("message.produce", {"topic": "others", "content": "1"}, 11, "isv.permission-denied"),
        ("message.produce", FILE, 41, "isv.invalid-parameter:media_content"),
        ("messages.produce", {}, 40, "isv.missing-parameter:messages"),
        ("messages.produce", {"messages": "{"}, 41, "isv.invalid-parameter:messages"),
        ("messages.produce", {"messages": "[]"}, 41, "isv.invalid-parameter:messages"),
        ("messages.produce", {"messages": "[" + ",".join(["{}"] * 51) + "]"}, 41, "isv.invalid-parameter:messages"),
        ("queue.get", {"group_name": "nothing"}, 41, "isv.invalid-parameter:group_name"),
        ("user.get", {}, 40, "isv.missing-parameter:nick"),
        ("user.cancel", {"nick": "stranger"}, 41, "isv.invalid-parameter:nick"),
        ("user.permit", {}, 26, None),
        ("user.permit", {"session": "anna", "topics": "trade.a,others"}, 41, "isv.invalid-parameter:topics"),
        ("group.add", {}, 40, "isv.missing-parameter:group_name"),
        ("group.add", {"group_name": "default2"}, 41, "isv.invalid-parameter:group_name"),
        ("group.add", {"group_name": "组"}, 41, "isv.invalid-parameter:group_name"),
        ("group.add", {"group_name": "x", "nicks": "stranger"}, 41, "isv.invalid-parameter:nicks"),
        ("group.delete", {"group_name": "nothing"}, 41, "isv.invalid-parameter:group_name"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_call_is_said_in_the_platforms_shape(
    shop: Caller, method: str, parameters: dict[str, str], code: int, sub_code: str | None
) -> None:
    error = await shop.error(f"taobao.tmc.{method}", **parameters)
    assert (error["code"], error.get("sub_code")) == (code, sub_code)
    assert error["sub_msg"]


async def test_each_message_of_many_has_its_result(node: Node, shop: Caller) -> None:
    messages = (
        '[{"topic":"trade.a","content":"1"},{"topic":"others","content":"2"},{"topic":"trade.a","content":"<x/>"}]'
    )
    answer = await shop.answer("taobao.tmc.messages.produce", messages=messages)
    first, second, third = answer["results"]["tmc_produce_result"]
    assert answer["is_all_success"] is False
    assert (first["is_success"], second["is_success"], third["is_success"]) == (True, False, True)
    assert second["error_code"] == "isv.permission-denied"
    assert [message["content"] for message in await shop.consume()] == ["1", "<x/>"]


# --------------------------------------------------------------------------------------------------- groups, permits


async def test_a_message_goes_to_one_group_of_each_application(node: Node, shop: Caller) -> None:
    other = Caller(node, OTHER)
    for nick in ("anna", "bert"):
        await shop.answer("taobao.tmc.user.permit", session=nick)
    await shop.answer("taobao.tmc.group.add", group_name="vip", nicks="anna")
    await shop.answer("taobao.tmc.group.add", group_name="b")
    await other.answer("taobao.tmc.user.permit", session="anna")
    sent = {
        "nobody's": ("trade.a", {}),
        "anna's": ("trade.a", {"session": "anna"}),
        "bert's": ("trade.a", {"session": "bert"}),
        "topic's": ("trade.b", {}),
        "target": ("trade.b", {"target_group": "vip", "session": "bert"}),
        "stranger's": ("trade.a", {"session": "stranger"}),
    }
    for content, (topic, parameters) in sent.items():
        await shop.produce(content, topic, **parameters)

    async def contents(caller: Caller, group: str) -> list[str]:
        return [message["content"] for message in await caller.consume(group_name=group)]

    assert await contents(shop, "default") == ["nobody's", "bert's"]
    assert await contents(shop, "vip") == ["anna's", "target"]
    assert await contents(shop, "b") == ["topic's"]
    assert await contents(other, "default") == ["nobody's", "anna's", "topic's"]


async def test_a_permit_shows_what_it_takes_away(shop: Caller) -> None:
    permit = "taobao.tmc.user.permit"
    assert (await shop.answer(permit, session="anna"))["removed_topics"]["string"] == []
    assert (await shop.answer(permit, session="anna", topics="trade.b"))["removed_topics"]["string"] == ["trade.a"]
    user = (await shop.answer("taobao.tmc.user.get", nick="anna"))["tmc_user"]
    assert (user["topics"]["string"], user["group_name"], user["is_valid"]) == (["trade.b"], "default", True)
    await shop.produce("1", "trade.a", session="anna")
    await shop.produce("2", "trade.b", session="anna")
    assert [message["content"] for message in await shop.consume()] == ["2"]
    assert await shop.answer("taobao.tmc.user.get", nick="stranger") == {}


async def test_a_group_that_is_removed_takes_its_backlog_along_and_its_users_go_to_the_default(
    node: Node, shop: Caller
) -> None:
    await shop.answer("taobao.tmc.user.permit", session="anna")
    await shop.answer("taobao.tmc.group.add", group_name="vip", nicks="anna")
    await shop.produce("lost", session="anna")
    await shop.answer("taobao.tmc.group.delete", group_name="vip")
    await shop.produce("kept", session="anna")
    assert [message["content"] for message in await shop.consume()] == ["kept"]
    assert (await shop.error("taobao.tmc.messages.consume", group_name="vip"))["code"] == 41


async def test_groups_are_listed_in_pages(shop: Caller) -> None:
    for name in ("c", "a", "b"):
        await shop.answer("taobao.tmc.group.add", group_name=name)
    page = await shop.answer("taobao.tmc.groups.get", page_no="2", page_size="2")
    assert page == {"groups": {"tmc_group": [{"name": "c"}]}, "total_results": 3}
    queues = (await shop.answer("taobao.tmc.queue.get"))["datas"]["tmc_queue_info"]
    assert [queue["name"] for queue in queues] == ["default", "c", "a", "b"]


async def test_one_application_sees_nothing_of_another(node: Node, shop: Caller) -> None:
    await shop.answer("taobao.tmc.user.permit", session="anna")
    await shop.answer("taobao.tmc.group.add", group_name="vip", nicks="anna")
    other = Caller(node, OTHER)
    assert await other.answer("taobao.tmc.user.get", nick="anna") == {}
    assert (await other.answer("taobao.tmc.groups.get"))["total_results"] == 0
    assert (await other.error("taobao.tmc.messages.consume", group_name="vip"))["code"] == 41


async def test_groups_and_permits_outlive_the_process(tmp_path: Path, log: Log) -> None:
    lists = {"tmc_application": (SHOP,)}
    async with running(tmp_path, FLAGS, **lists) as node:
        shop = Caller(node)
        await shop.answer("taobao.tmc.user.permit", session="anna", topics="trade.a")
        await shop.answer("taobao.tmc.group.add", group_name="vip", nicks="anna")
        await shop.produce("before", session="anna")
    async with running(tmp_path, FLAGS, **lists) as node:
        shop = Caller(node)
        await shop.produce("after", session="anna")
        await shop.produce("never", "trade.b", session="anna")
        contents = [message["content"] for message in await shop.consume(group_name="vip")]
        assert contents == ["before", "after"]
    assert [entry for entry in log if "not ours" in entry["event"]] == []


async def test_topics_of_the_configuration_reach_every_group(tmp_path: Path, log: Log) -> None:
    async with running(tmp_path, FLAGS, tmc_application=(SHOP,)) as node:
        await Caller(node).answer("taobao.tmc.group.add", group_name="vip")
    more = TmcApplication(key=SHOP.key, secret=SHOP.secret, topics=("trade.c",))
    async with running(tmp_path, FLAGS, tmc_application=(more,)) as node:
        for group in ("default", "vip"):
            view = node.engine.subscription(f"{SHOP.key}.{group}", node.clock())
            assert view.settings.topics == ("trade.c",)


async def test_a_save_that_fails_is_said(node: Node, shop: Caller, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.store.small.save", fail)
    error = await shop.error("taobao.tmc.user.permit", session="anna")
    assert (error["code"], error["sub_code"]) == (10, "isp.store-failed")
    log.clear()


async def test_an_address_that_signs_wrongly_again_and_again_is_not_looked_at(start_node: StartNode, log: Log) -> None:
    flags = {**FLAGS, "auth.failures_burst": 3, "auth.failures_per_s": 0.01}
    node = await start_node(flags, tmc_application=(SHOP,))
    caller = Caller(node)
    good = caller.signed("taobao.tmc.groups.get", {})
    codes = [(await caller.post(good | {"sign": "0" * 32}))["error_response"]["code"] for _ in range(4)]
    assert codes == [25] * 4
    refused = (await caller.post(good))["error_response"]
    assert refused["sub_code"] == "isp.too-many-failures"
    async with open_tmc(node.address) as client:
        answer = await client.connect(SHOP.key, SHOP.secret)
        assert answer.status != 0
        assert "too many bad credentials" in answer.phrase
        assert await client.closed() == 3500


async def test_a_subscription_that_an_operator_makes_by_a_group_s_name_is_a_group_at_once(
    node: Node, shop: Caller
) -> None:
    async with httpx.AsyncClient() as http:
        path = f"http://{node.control_address}/v1/subscriptions/{SHOP.key}.late"
        (await http.put(path, json={"topics": ["trade.>"]})).raise_for_status()
    await shop.produce("1")
    await shop.produce("2", target_group="late")
    assert [each["content"] for each in await shop.consume(group_name="late")] == ["2"]
    assert [each["content"] for each in await shop.consume()] == ["1"]
    groups = await shop.answer("taobao.tmc.groups.get")
    assert "late" in [group["name"] for group in groups["groups"]["tmc_group"]]
