from __future__ import annotations

import base64
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.publish import parse_durability
from gateway.errors import GatewayError
from gateway.model import JSON_DEPTH_MAX, Durability, Format, SubscriptionSettings
from gateway.node import Node
from tests.conftest import StartNode, running
from tests.edge.bystander import positions, statistics, subscription
from tests.edge.raw import TEXT, Answer, RawHttp, masked_frame, open_http, open_raw_websocket
from tests.wire.json_texts import json_texts

ONE = "/v1/topics/trade.order.paid/messages"
MANY = "/v1/messages"
NDJSON = {"Content-Type": "application/x-ndjson"}


async def pulled(http: RawHttp, name: str = "orders") -> list[dict[str, Any]]:
    """All that waits, as it is delivered."""
    answer = await http.post(f"/v1/subscriptions/{name}/pull", b'{"max":1000,"wait_ms":50}')
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.json["messages"]
    return found


def results(answer: Answer) -> list[Any]:
    """Codes of errors and positions of the others, in input order."""
    assert answer.status == 200
    assert answer.json.keys() == {"results", "durability"}
    found = []
    for result in answer.json["results"]:
        if "error" in result:
            assert result.keys() == {"error"}
            assert result["error"].keys() == {"code", "message", "temporary"}
            found.append(result["error"]["code"])
        else:
            assert result.keys() - {"duplicate"} == {"id", "position"}
            found.append(result["position"])
    return found


# -------------------------------------------------------------------------------------------------- one message


async def test_the_body_is_the_payload(node: Node, http: RawHttp) -> None:
    await subscription(node)
    answer = await http.post(ONE, b'{"amount": 1.0}')
    assert answer.status == 201
    assert answer.json == {"id": f"{node.engine.epoch}-1", "position": 1, "durability": "fsynced"}
    (message,) = await pulled(http)
    assert message.pop("time_ms") == pytest.approx(node.clock(), abs=10_000)
    assert message == {
        "position": 1,
        "id": f"{node.engine.epoch}-1",
        "topic": "trade.order.paid",
        "data": {"amount": 1.0},
    }


async def test_every_header_has_its_place_in_the_message(node: Node, http: RawHttp) -> None:
    await subscription(node)
    answer = await http.post(
        ONE,
        b"<order/>",
        {
            "Content-Type": "application/xml; charset=utf-8",
            "Push-Id": "a1",
            "Push-Key": "tid-9",
            "Push-Delay-Ms": "0",
            "Push-Ttl-Ms": "60000",
            "Push-Durability": "written",
            "Push-Attr-Region": "hangzhou",
            "PUSH-ATTR-Note": "\u00e4 = 1, 2",
        },
    )
    assert (answer.status, answer.json) == (201, {"id": "a1", "position": 1, "durability": "written"})
    (message,) = await pulled(http)
    del message["time_ms"]
    assert message == {
        "position": 1,
        "id": "a1",
        "topic": "trade.order.paid",
        "key": "tid-9",
        "attributes": {"region": "hangzhou", "note": "\u00e4 = 1, 2"},
        "content_type": "application/xml; charset=utf-8",
        "data_base64": base64.b64encode(b"<order/>").decode(),
    }


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "carried"),
    [
        (TRACEPARENT, {"attributes": {"traceparent": TRACEPARENT}}),
        (TRACEPARENT.upper(), {}),
        ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", {}),
        ("rubbish", {}),
    ],
)
async def test_the_trace_context_of_the_call_goes_on_with_the_message(
    node: Node, http: RawHttp, sent: str, carried: dict[str, Any]
) -> None:
    await subscription(node)
    assert (await http.post(ONE, b"1", {"traceparent": sent})).status == 201
    (message,) = await pulled(http)
    assert {name: message[name] for name in ("attributes",) if name in message} == carried


@pytest.mark.parametrize(
    ("body", "media_type", "delivered"),
    [
        (b'{"a":1}', "application/json", {"data": {"a": 1}}),
        (b'{"a":1}', "Application/JSON; charset=utf-8", {"data": {"a": 1}}),
        (b'{"a":1}', "application/vnd.order+json", {"data": {"a": 1}}),
        (b' \n"text"\t ', "text/json", {"data": "text"}),
        (b"null", None, {"data": None}),
        (b"7", None, {"data": 7}),
        (b"text", None, {"content_type": "application/octet-stream", "data_base64": "dGV4dA=="}),
        (b"\xff\x00", None, {"content_type": "application/octet-stream", "data_base64": "/wA="}),
        (b"", None, {"content_type": "application/octet-stream", "data_base64": ""}),
        (b'{"a":1}', "text/plain", {"content_type": "text/plain", "data_base64": "eyJhIjoxfQ=="}),
        (b"", "text/plain", {"content_type": "text/plain", "data_base64": ""}),
    ],
)
async def test_json_is_embedded_and_anything_else_is_base64(
    node: Node, http: RawHttp, body: bytes, media_type: str | None, delivered: dict[str, Any]
) -> None:
    await subscription(node)
    answer = await http.post(ONE, body, {"Content-Type": media_type} if media_type else {})
    assert answer.status == 201
    (message,) = await pulled(http)
    assert {name: message[name] for name in ("data", "data_base64", "content_type") if name in message} == delivered


async def test_a_delayed_message_waits_until_it_is_due(node: Node, http: RawHttp) -> None:
    await subscription(node)
    began = trio.current_time()
    assert (await http.post(ONE, b"1", {"Push-Delay-Ms": "250"})).status == 201
    assert statistics(node).delayed == 1
    answer = await http.post("/v1/subscriptions/orders/pull", b'{"wait_ms":5000}')
    assert [message["data"] for message in answer.json["messages"]] == [1]
    assert trio.current_time() - began >= 0.25


async def test_a_message_whose_time_to_live_is_over_is_not_delivered(node: Node, http: RawHttp) -> None:
    await subscription(node)
    assert (await http.post(ONE, b"1", {"Push-Ttl-Ms": "1"})).status == 201
    assert (await http.post(ONE, b"2", {"Push-Ttl-Ms": "60000"})).status == 201
    await trio.sleep(0.01)
    assert [message["data"] for message in await pulled(http)] == [2]
    assert (statistics(node).expired, statistics(node).in_flight) == (1, 1)


BAD_HEADERS: dict[str, tuple[dict[str, str | bytes], str]] = {
    "an unknown header": ({"Push-Ttl": "5"}, "push-ttl is unknown; known are Push-Id, Push-Key"),
    "an attribute without a name": ({"Push-Attr-": "5"}, "push-attr- is unknown"),
    "a delay that is no number": ({"Push-Delay-Ms": "soon"}, "push-delay-ms: 'soon' is not a whole number >= 0"),
    "a delay with a fraction": ({"Push-Delay-Ms": "1.5"}, "is not a whole number"),
    "a negative delay": ({"Push-Delay-Ms": "-1"}, "is not a whole number"),
    "digits of another script": ({"Push-Ttl-Ms": "\u0665"}, "is not a whole number"),
    "a delay beyond 30 days": ({"Push-Delay-Ms": "2592000001"}, "delay_ms: 2592000001 is more than 2592000000"),
    "a time to live beyond ten years": ({"Push-Ttl-Ms": "315360000001"}, "ttl_ms: 315360000001 is more than"),
    "a durability there is not": ({"Push-Durability": "replicated"}, "'replicated': use fsynced or written"),
    "an id that is empty": ({"Push-Id": ""}, "id: is empty; leave it out"),
    "an id too long": ({"Push-Id": "i" * 129}, "id: 129 characters; at most 128"),
    "a key too long": ({"Push-Key": "k" * 129}, "key: 129 characters; at most 128"),
    "a header that is not UTF-8": ({"Push-Key": b"\xe4"}, "header push-key: is not UTF-8"),
    "no media type": ({"Content-Type": "plain"}, "content_type: must be a media type, such as text/plain"),
}


@pytest.mark.parametrize(("headers", "words"), BAD_HEADERS.values(), ids=BAD_HEADERS)
async def test_a_wrong_header_is_named_and_nothing_is_stored(
    node: Node, http: RawHttp, headers: dict[str, str | bytes], words: str
) -> None:
    lines = [b"POST /v1/topics/trade.x/messages HTTP/1.1", b"Host: localhost", b"Content-Length: 1"]
    lines += [f"{n}: ".encode() + (v if isinstance(v, bytes) else v.encode()) for n, v in headers.items()]
    await http.send(b"\r\n".join(lines) + b"\r\n\r\n7")
    answer = await http.answer()
    assert (answer.status, answer.code) == (400, "bad_request")
    assert words in answer.json["message"]
    assert positions(node) == 1
    assert (await http.post(ONE, b"7")).status == 201  # over the same connection


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/v1/topics/a..b/messages", 400, "bad_topic"),
        ("/v1/topics//messages", 400, "bad_topic"),
        ("/v1/topics/a%20b/messages", 400, "bad_topic"),
        ("/v1/topics/%ff/messages", 400, "bad_topic"),
        ("/v1/topics/a.*/messages", 400, "bad_topic"),
        (f"/v1/topics/{'a' * 256}/messages", 400, "bad_topic"),
        (f"/v1/topics/{'a' * 255}/messages", 201, None),
        ("/v1/topics/a%2Eb/messages?x=y", 201, None),
    ],
)
async def test_the_topic_stands_in_the_path(http: RawHttp, target: str, status: int, code: str | None) -> None:
    answer = await http.post(target, b"1")
    assert answer.status == status
    if code:
        assert answer.code == code


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is not JSON"),
        (b"", "the body is not JSON"),
        (b"NaN", "the body is not JSON"),
        (b'"\\ud800"', "the body is not JSON"),
        (b'"\xff"', "the body is not JSON"),
        (b"[" * (JSON_DEPTH_MAX + 1) + b"]" * (JSON_DEPTH_MAX + 1), f"deeper than {JSON_DEPTH_MAX} levels"),
        (b"[" * 50_000 + b"]" * 50_000, f"deeper than {JSON_DEPTH_MAX} levels"),
    ],
    ids=["cut", "empty", "NaN", "lone surrogate", "not UTF-8", "deep", "very deep"],
)
async def test_what_is_called_json_must_be_json(node: Node, http: RawHttp, body: bytes, words: str) -> None:
    answer = await http.post(ONE, body, {"Content-Type": "application/json"})
    assert (answer.status, answer.code) == (400, "bad_request")
    assert words in answer.json["message"]
    assert positions(node) == 1


async def test_the_deepest_payload_is_delivered(node: Node, http: RawHttp) -> None:
    await subscription(node)
    body = b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX
    assert (await http.post(ONE, body, {"Content-Type": "application/json"})).status == 201
    answer = await http.post("/v1/subscriptions/orders/pull", b"{}")
    assert body in answer.body
    orjson.loads(answer.body)


async def test_a_head_that_was_seen_before_lets_nothing_pass_that_is_nested_too_deep(node: Node, http: RawHttp) -> None:
    deep = b"[" * (JSON_DEPTH_MAX + 1) + b" " * 20_000 + b"]" * (JSON_DEPTH_MAX + 1)  # too large to be joined
    flat = b'"' + b"x" * (len(deep) - 2) + b'"'
    headers = {"Content-Type": "application/json"}
    assert [(await http.post(ONE, flat, headers)).status for _ in range(2)] == [201, 201]
    answer = await http.post(ONE, deep, headers)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert f"deeper than {JSON_DEPTH_MAX} levels" in answer.json["message"]
    assert positions(node) == 3


@settings(max_examples=8)
@given(texts=st.lists(json_texts, min_size=1, max_size=30))
def test_the_bytes_of_a_payload_go_through_the_gateway_as_they_came(texts: list[str]) -> None:
    async def publish_and_pull() -> None:
        with TemporaryDirectory() as directory:
            async with (
                running(Path(directory)) as node,
                open_http(node.address) as http,
                open_raw_websocket(node.address) as websocket,
            ):
                await subscription(node)
                for text in texts:
                    answer = await http.post(ONE, text.encode(), {"Content-Type": "application/json"})
                    assert answer.status == 201
                items = [f'{{"topic":"trade.x","data":{text},"id":"{n}"}}' for n, text in enumerate(texts)]
                await http.post(MANY, f"[{','.join(items)}]".encode())
                items = [f'{{"data":{text} , "topic":"trade.x"}}' for text in texts]
                operation = f'{{"op":"publish","id":1,"messages":[{",".join(items)}]}}'
                await websocket.send_bytes(masked_frame(TEXT, operation.encode()))
                assert (await websocket.receive())["op"] == "published"
                answer = await http.post("/v1/subscriptions/orders/pull", b"{}")
                found = re.split(r'"time_ms":[0-9]+,"data":', answer.body.decode())[1:]
                assert len(found) == 3 * len(texts)
                for text, rest in zip(texts * 3, found, strict=True):
                    assert rest.startswith((text + "},", text + "}],"))

    trio.run(publish_and_pull)


# ------------------------------------------------------------------------------------------------ deduplication


async def test_a_repeat_is_answered_with_the_first_one_s_place(node: Node, http: RawHttp) -> None:
    await subscription(node)
    headers = {"Push-Id": "a1"}
    first = await http.post(ONE, b'{"n":1}', headers)
    again = await http.post(ONE, b'{"n":1}', headers)
    assert (first.status, first.json) == (201, {"id": "a1", "position": 1, "durability": "fsynced"})
    assert again.status == 200
    assert again.json == {"id": "a1", "position": 1, "durability": "fsynced", "duplicate": True}
    other_topic = await http.post("/v1/topics/trade.order.refunded/messages", b'{"n":1}', headers)
    assert (other_topic.status, other_topic.json["position"]) == (201, 2)
    assert [message["position"] for message in await pulled(http)] == [1, 2]
    assert (node.notify.statistics.accepted, node.notify.statistics.duplicates) == (2, 1)


async def test_the_same_id_with_another_payload_is_a_conflict(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await http.post(ONE, b'{"n":1}', {"Push-Id": "a1"})
    answer = await http.post(ONE, b'{"n":2}', {"Push-Id": "a1"})
    assert (answer.status, answer.code, answer.json["temporary"]) == (409, "id_conflict", False)
    assert "at position 1" in answer.json["message"]
    assert [message["data"] for message in await pulled(http)] == [{"n": 1}]


# -------------------------------------------------------------------------------------------------------- many


async def test_a_batch_is_answered_in_input_order(node: Node, http: RawHttp) -> None:
    await subscription(node)
    answer = await http.post(MANY, b'[{"topic":"trade.a","data":1},{"topic":"trade.b","data":2,"id":"b"}]')
    assert answer.status == 200
    assert answer.json == {
        "results": [{"id": f"{node.engine.epoch}-1", "position": 1}, {"id": "b", "position": 2}],
        "durability": "fsynced",
    }
    plain = await http.post(MANY, b'[{"topic":"trade.a","data":3},{"topic":"trade.a","data":4}]')
    assert plain.json["results"] == [{"id": f"{node.engine.epoch}-{p}", "position": p} for p in (3, 4)]
    assert [(m["position"], m["data"]) for m in await pulled(http)] == [(1, 1), (2, 2), (3, 3), (4, 4)]


MIXED: list[tuple[str, Any]] = [
    ('{"topic":"trade.a","data":{"x" : 1.0}}', 1),
    ('{"topic":"trade..a","data":1}', "bad_topic"),
    ('{"topic":"trade.a"}', "bad_request"),
    ('{"topic":"trade.a","data":1,"data_base64":"AAAA"}', "bad_request"),
    ('{"topic":"trade.a","data":1,"content_type":"text/plain"}', "bad_request"),
    ('{"topic":"trade.a","data_base64":"AAA","content_type":"text/plain"}', "bad_request"),
    ('{"topic":"trade.a","data_base64":"AAA=","content_type":"plain"}', "bad_request"),
    ('{"topic":"trade.a","data_base64":"AAA="}', 2),
    ('{"topik":"trade.a","data":1}', "bad_request"),
    ("5", "bad_request"),
    ('{"topic":"trade.a","data":1,"id":""}', "bad_request"),
    ('{"topic":"trade.a","data":1,"delay_ms":-1}', "bad_request"),
    ('{"topic":"trade.a","data":1,"ttl_ms":99999999999999999999}', "bad_request"),
    ('{"topic":"trade.a","data":1,"attributes":{"":"v"}}', "bad_request"),
    ('{"topic":"trade.a","data":1,"id":"same"}', 3),
    ('{"topic":"trade.a","data":1,"id":"same"}', 3),
    ('{"topic":"trade.a","data":2,"id":"same"}', "id_conflict"),
    ('{"topic":"trade.a","data":"%s"}' % ("x" * 1024), "payload_too_large"),
    ('{"topic":"trade.a","data":1,"attributes":{"n":"%s"}}' % ("x" * 64), "attributes_too_large"),
    ('{"topic":"trade.a","data":%s}' % ("[" * (JSON_DEPTH_MAX + 1) + "]" * (JSON_DEPTH_MAX + 1)), "bad_request"),
    ('{"topic":"trade.b","data":1,"key":"k","attributes":{"n":"v"},"delay_ms":0,"ttl_ms":0}', 4),
]  # fmt: skip
LIMITS = {"limits.payload_bytes_max": 1024, "limits.attributes_bytes_max": 64}


@pytest.mark.parametrize("lines", [False, True], ids=["array", "ndjson"])
async def test_a_batch_may_have_mixed_results(start_node: StartNode, lines: bool) -> None:
    node = await start_node(LIMITS)
    await subscription(node)
    texts = [text for text, _ in MIXED]
    async with open_http(node.address) as http:
        if lines:
            answer = await http.post(MANY, "\r\n\n".join(texts).encode(), NDJSON)
        else:
            answer = await http.post(MANY, f"[{','.join(texts)}]".encode())
        assert results(answer) == [expected for _, expected in MIXED]
        assert [result.get("duplicate") for result in answer.json["results"]].count(True) == 1
        assert [message["position"] for message in await pulled(http)] == [1, 2, 3, 4]
    statistics = node.notify.statistics
    refused = sum(isinstance(expected, str) for _, expected in MIXED)
    assert (statistics.accepted, statistics.duplicates, statistics.refused) == (4, 1, refused)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"[]", {}, 400, "bad_request"),
        (b"", NDJSON, 400, "bad_request"),
        (b"{}", {}, 400, "bad_request"),
        (b'[{"topic":"a","data":1}', {}, 400, "bad_request"),
        (b'[5,{"topic":"a","data":NaN}]', {}, 400, "bad_request"),
        (b'[{"topic":"a","data":"\xff"}]', {}, 400, "bad_request"),
        (b"[" * 100_000 + b"]" * 100_000, {}, 400, "bad_request"),
        (b"<a/>", {"Content-Type": "text/xml"}, 415, "unsupported_media_type"),
        (b"[]", {"Content-Type": "application/cloudevents-batch+json"}, 400, "bad_request"),
        (b"{}", {"Content-Type": "application/cloudevents-batch+json"}, 400, "bad_request"),
        (b"[{}", {"Content-Type": "application/cloudevents-batch+json"}, 400, "bad_request"),
        (b"{}", {"Content-Type": "application/cloudevents+json"}, 415, "unsupported_media_type"),
        (b'[{"topic":"a","data":1}]', {"Push-Durability": "maybe"}, 400, "bad_request"),
    ],
)
async def test_what_is_no_batch_is_refused_whole(
    node: Node, http: RawHttp, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await http.post(MANY, body, headers)
    assert (answer.status, answer.code) == (status, code)
    assert positions(node) == 1
    assert (await http.post(ONE, b"7")).status == 201


async def test_a_batch_says_how_durable_it_is_wanted(http: RawHttp) -> None:
    answer = await http.post(MANY, b'{"topic":"a","data":1}', {**NDJSON, "Push-Durability": "written"})
    assert (answer.status, answer.json["durability"]) == (200, "written")


async def test_a_batch_has_a_limit_in_messages_and_one_in_bytes(start_node: StartNode) -> None:
    node = await start_node({"limits.batch_messages_max": 3, "limits.batch_bytes_max": 2048, **LIMITS})
    async with open_http(node.address) as http:
        line = b'{"topic":"a.b","data":"%b"}\n'
        assert results(await http.post(MANY, line % b"x" * 3, NDJSON)) == [1, 2, 3]
        answer = await http.post(MANY, line % b"x" * 4, NDJSON)
        assert (answer.status, answer.code) == (413, "batch_too_large")
        assert "4 messages; at most 3" in answer.json["message"]
        assert results(await http.post(MANY, line % (b"x" * 680) * 3, NDJSON)) == [4, 5, 6]  # 2046 bytes of payload
        answer = await http.post(MANY, line % (b"x" * 681) * 3, NDJSON)
        assert (answer.status, answer.code) == (413, "batch_too_large")
        assert "2049 bytes together; at most 2048" in answer.json["message"]
    assert positions(node) == 7


@pytest.mark.parametrize("size", [1024, 1025])
@pytest.mark.parametrize("media_type", ["application/json", "text/plain"])
async def test_a_payload_has_a_limit_in_bytes(start_node: StartNode, size: int, media_type: str) -> None:
    node = await start_node(LIMITS)
    async with open_http(node.address) as http:
        answer = await http.post(ONE, b'"' + b"x" * (size - 2) + b'"', {"Content-Type": media_type})
        assert answer.status == (201 if size == 1024 else 413)


CE = {"ce-specversion": "1.0", "ce-id": "e1", "ce-source": "/shop", "ce-type": "com.shop.paid"}
STRUCTURED = {"Content-Type": "application/cloudevents+json; charset=utf-8"}


async def test_a_cloudevent_in_binary_mode_becomes_a_message(node: Node, http: RawHttp) -> None:
    await subscription(node)
    headers = {**CE, "ce-partitionkey": "k%20%C3%A9", "ce-time": "2026-01-02T03:04:05Z", "Push-Attr-own": "x"}
    answer = await http.post(ONE, b'{"a": 1.0}', {**headers, "Content-Type": "application/json"})
    assert (answer.status, answer.json["id"]) == (201, "e1")
    assert (await http.post(ONE, b"\x00", {**CE, "ce-id": "e2", "Content-Type": "image/png"})).status == 201
    assert (await http.post(ONE, b"", {**CE, "ce-id": "e3"})).status == 201
    first, second, third = await pulled(http)
    rest = {"ce_specversion": "1.0", "ce_source": "/shop", "ce_type": "com.shop.paid"}
    assert (first["topic"], first["key"], first["data"]) == ("trade.order.paid", "k é", {"a": 1.0})
    json = {"ce_time": "2026-01-02T03:04:05Z", "ce_datacontenttype": "application/json", "own": "x"}
    assert first["attributes"] == {**rest, **json}
    assert (second["data_base64"], second["content_type"]) == ("AA==", "image/png")
    assert (third["data_base64"], third["attributes"]) == ("", rest)


async def test_a_structured_cloudevent_becomes_a_message(node: Node, http: RawHttp) -> None:
    await subscription(node)
    event = b'{"specversion":"1.0","id":"e1","source":"/s","type":"t.x","n":7,"partitionkey":"k","data":{"a": 1.0 }}'
    assert (await http.post(ONE, event, {**STRUCTURED, "Push-Ttl-Ms": "60000"})).status == 201
    text = (await http.post("/v1/subscriptions/orders/pull", b"{}")).body
    assert b'"data":{"a": 1.0 }' in text
    [message] = orjson.loads(text)["messages"]
    assert (message["id"], message["key"], message["topic"]) == ("e1", "k", "trade.order.paid")
    assert message["attributes"] == {"ce_specversion": "1.0", "ce_source": "/s", "ce_type": "t.x", "ce_n": "7"}


async def test_a_structured_cloudevent_whose_head_came_before_is_one_too(node: Node, http: RawHttp) -> None:
    await subscription(node)
    for number in (1, 2, 3):
        event = b'{"specversion":"1.0","id":"e%d","source":"/s","type":"t.x","data":%d}' % (number, number)
        answer = await http.post(ONE, event, STRUCTURED)
        assert (answer.status, answer.json["id"]) == (201, f"e{number}")
    assert [(message["id"], message["data"]) for message in await pulled(http)] == [("e1", 1), ("e2", 2), ("e3", 3)]


async def test_a_batch_of_cloudevents_goes_to_the_topics_of_their_types(node: Node, http: RawHttp) -> None:
    await subscription(node)
    body = orjson.dumps(
        [
            {"specversion": "1.0", "id": "1", "source": "/s", "type": "trade.paid", "data": 1},
            {"specversion": "1.0", "id": "2", "source": "/s", "type": "com/x", "data": 1},
            {"specversion": "1.0", "id": "3", "source": "/s", "data": 1},
            5,
            {"specversion": "1.0", "id": "4", "source": "/s", "type": "trade.sent", "data_base64": "AA=="},
        ]
    )
    answer = await http.post(MANY, body, {"Content-Type": "application/cloudevents-batch+json"})
    assert results(answer) == [1, "bad_topic", "bad_request", "bad_request", 2]
    assert answer.json["results"][2]["error"]["message"] == "events[2]: CloudEvent: type is missing; it is required"
    assert [message["topic"] for message in await pulled(http)] == ["trade.paid", "trade.sent"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"1", {"ce-id": "1"}, 400, "specversion is missing"),
        (b"1", {**CE, "ce-specversion": "0.3"}, 400, "send 1.0"),
        (b"1", {**CE, "ce-source": ""}, 400, "source is missing"),
        (b"1", {**CE, "ce-a_b": "1"}, 400, "a name is lower-case letters and digits"),
        (b"1", {**CE, "ce-x": "%ff"}, 400, "is not percent-encoded UTF-8"),
        (b"{", {**CE, "Content-Type": "application/json"}, 400, "the body is not JSON"),
        (b"{", STRUCTURED, 400, "the CloudEvent is not JSON"),
        (b"[]", STRUCTURED, 400, "must be a JSON object"),
        (b"{}", STRUCTURED, 400, "specversion is missing"),
        (b"\xff", STRUCTURED, 400, "not UTF-8"),
        (b"[]", {"Content-Type": "application/cloudevents-batch+json"}, 415, "POST /v1/messages"),
        (b"<a/>", {"Content-Type": "application/cloudevents+xml"}, 415, "send one CloudEvent as"),
    ],
)
async def test_a_wrong_cloudevent_is_named_and_nothing_is_stored(
    node: Node, http: RawHttp, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    answer = await http.post(ONE, body, headers)
    assert answer.status == status
    assert said in answer.json["message"]
    assert positions(node) == 1


async def test_a_subscription_may_have_its_messages_as_cloudevents(node: Node, http: RawHttp) -> None:
    await subscription(node)
    await node.engine.put_subscription(
        "events", SubscriptionSettings(topics=("trade.>",), format=Format.CLOUDEVENTS), 0
    )
    assert (await http.post(ONE, b'{"a": 1.0}', {"Push-Attr-k": "v", "Push-Key": "p"})).status == 201
    [event] = await pulled(http, "events")
    assert event.keys() >= {"specversion", "id", "source", "type", "time", "topic", "position", "datacontenttype"}
    assert (event["type"], event["position"], event["partitionkey"], event["k"]) == ("trade.order.paid", "1", "p", "v")
    assert event["data"] == {"a": 1.0}
    [native] = await pulled(http)
    assert native["position"] == 1
    async with open_raw_websocket(node.address) as ws:
        await http.post(ONE, b'{"b": 2.0}')
        await ws.send({"op": "subscribe", "subscription": "events"})
        frame = await ws.receive()
        assert [each["data"] for each in frame["messages"]] == [{"b": 2.0}]
        assert frame["messages"][0]["specversion"] == "1.0"


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/json", b'[{"topic":"a","data":1},{"topic":"a","data":[1e999]}]'),
        ("application/x-ndjson", b'{"topic":"a","data":1}\n{"topic":"a","data":[1e999]}'),
        (
            "application/cloudevents-batch+json",
            b'[{"specversion":"1.0","id":"1","source":"s","type":"a","data":1},'
            b'{"specversion":"1.0","id":"2","source":"s","type":"a","data":[1e999]}]',
        ),
    ],
)
async def test_a_number_that_no_double_holds_is_refused_by_itself(
    node: Node, http: RawHttp, media_type: str, body: bytes
) -> None:
    answer = await http.post(MANY, body, {"Content-Type": media_type})
    assert results(answer) == [1, "bad_request"]
    assert "number is infinity" in answer.json["results"][1]["error"]["message"]
    event = b'{"specversion":"1.0","id":"3","source":"s","type":"a","data":[1e999]}'
    assert (await http.post(ONE, event, STRUCTURED)).code == "bad_request"
    assert positions(node) == 2


def test_a_durability_is_one_of_two_words() -> None:
    assert [parse_durability(text) for text in ("fsynced", " written ")] == [Durability.FSYNCED, Durability.WRITTEN]
    with pytest.raises(GatewayError, match="use fsynced or written"):
        parse_durability("FSYNCED")
