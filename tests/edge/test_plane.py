from __future__ import annotations

import httpx
import pytest

from gateway.node import Node
from tests.edge.bystander import positions, subscription
from tests.edge.raw import HANDSHAKE, RawHttp, open_http, request_bytes

CALLS = {
    "/v1/topics/a.b/messages": "POST, OPTIONS",
    "/v1/messages": "POST, OPTIONS",
    "/v1/subscriptions/orders/pull": "POST, OPTIONS",
    "/v1/subscriptions/orders/settle": "POST, OPTIONS",
    "/v1/connect": "GET, OPTIONS",
}


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1",
        "/v1/messages/",
        "/v2/messages",
        "/v1/Messages",
        "/v1//messages",
        "/v1/topics/a/b/messages",
        "/v1/topics/a.b",
        "/v1/subscriptions/orders",
        "/v1/subscriptions/orders/pull/now",
        "/livez",
        "/../v1/messages",
        "/%00",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_no_call_is_404(http: RawHttp, method: str, target: str) -> None:
    answer = await http.request(method, target)
    assert (answer.status, answer.code) == (404, "not_found")
    assert target in answer.json["message"]
    assert (await http.post("/v1/topics/a.b/messages", b"1")).status == 201


@pytest.mark.parametrize(("target", "allow"), CALLS.items())
async def test_another_method_is_405_and_says_which_are_allowed(http: RawHttp, target: str, allow: str) -> None:
    for method in {"GET", "HEAD", "PUT", "DELETE", "PATCH", "POST", "TRACE"} - set(allow.split(", ")) - {"HEAD"}:
        answer = await http.request(method, target)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.headers["allow"] == allow
        assert method in answer.json["message"]
    answer = await http.request("OPTIONS", target)
    assert (answer.status, answer.headers["allow"], answer.body) == (204, allow, b"")
    assert "content-length" not in answer.headers


@pytest.mark.parametrize(("target", "status"), [*((target, 405) for target in list(CALLS)[:4]), ("/v1/connect", 426)])
async def test_a_head_is_answered_as_a_get_without_its_body(http: RawHttp, target: str, status: int) -> None:
    get = await http.request("GET", target)
    head = await http.request("HEAD", target)
    assert (get.status, head.status) == (status, status)
    assert head.headers.keys() == get.headers.keys()
    assert head.body == b""
    assert int(head.headers["content-length"]) > 0
    assert (await http.post("/v1/topics/a.b/messages", b"1")).status == 201  # and nothing of it was sent


async def test_the_server_says_what_it_can_in_general(http: RawHttp) -> None:
    answer = await http.request("OPTIONS", "*")
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize(
    "changed",
    [{"Upgrade": "h2c"}, {"Connection": "keep-alive"}, {"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Version": "0"}],
)
async def test_the_connect_path_without_its_upgrade_is_426(http: RawHttp, changed: dict[str, str]) -> None:
    answer = await http.request("GET", "/v1/connect", headers=HANDSHAKE | changed)
    assert (answer.status, answer.code) == (426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["sec-websocket-version"] == "13"
    assert "upgrade" in answer.headers["connection"]


@pytest.mark.parametrize(
    ("target", "changed", "status", "code", "words"),
    [
        ("/", {}, 404, "not_found", "/v1/connect"),
        ("/v1/messages", {}, 404, "not_found", "/v1/connect"),
        ("/v1/connect", {"Sec-WebSocket-Protocol": "mqtt"}, 400, "bad_request", "subprotocol push.v1.json"),
        ("/v1/connect", {"Sec-WebSocket-Protocol": "push.v1"}, 400, "bad_request", "subprotocol push.v1.json"),
        ("/v1/connect", {"Sec-WebSocket-Key": "short"}, 400, "bad_request", "Sec-WebSocket-Key: 16 bytes"),
        ("/v1/connect", {"Sec-WebSocket-Key": ""}, 400, "bad_request", "Sec-WebSocket-Key: 16 bytes"),
    ],
)
async def test_an_upgrade_that_cannot_become_a_session_is_refused_in_http(
    node: Node, http: RawHttp, target: str, changed: dict[str, str], status: int, code: str, words: str
) -> None:
    answer = await http.request("GET", target, headers=HANDSHAKE | changed)
    assert (answer.status, answer.code) == (status, code)
    assert words in answer.json["message"]
    assert answer.headers["connection"] == "close"
    assert await http.end() == b""
    assert node.connections.opened == 0


@pytest.mark.parametrize("missing", ["Sec-WebSocket-Protocol", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
async def test_an_upgrade_that_leaves_something_out_is_refused(node: Node, http: RawHttp, missing: str) -> None:
    answer = await http.request("GET", "/v1/connect", headers={k: v for k, v in HANDSHAKE.items() if k != missing})
    assert answer.status in (400, 426)
    assert missing in answer.json["message"] or "subprotocol" in answer.json["message"]
    assert node.connections.opened == 0


async def test_an_upgrade_may_offer_other_subprotocols_too(http: RawHttp) -> None:
    answer = await http.request("GET", "/v1/connect", headers=HANDSHAKE | {"Sec-WebSocket-Protocol": "a, push.v1.json"})
    assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "push.v1.json")


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_an_upgrade_with_another_method_is_not_taken(http: RawHttp, method: str) -> None:
    answer = await http.request(method, "/v1/connect", b"body", HANDSHAKE)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, OPTIONS")
    answer = await http.post("/v1/topics/a.b/messages", b'"published all the same"', HANDSHAKE)
    assert answer.status == 201


async def test_an_upgrade_in_http_1_0_is_not_taken(http: RawHttp) -> None:
    lines = request_bytes("GET", "/v1/connect", headers=HANDSHAKE).replace(b"HTTP/1.1", b"HTTP/1.0")
    await http.send(lines)
    answer = await http.answer()
    assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")


async def test_a_publish_of_a_client_that_would_rather_speak_http_2_is_stored_whole(node: Node, http: RawHttp) -> None:
    """Java's HttpClient asks for h2c with every request unless it is told not to."""
    await subscription(node, "orders", "a.b")
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABk"}
    for n in (1, 2):
        answer = await http.post("/v1/topics/a.b/messages", b'{"n":%d}' % n, headers)
        assert (answer.status, answer.json["position"]) == (201, n)
    pull = await http.post("/v1/subscriptions/orders/pull", b"{}", headers)
    assert [message["data"] for message in pull.json["messages"]] == [{"n": 1}, {"n": 2}]


async def test_the_control_plane_takes_no_upgrade_and_answers(node: Node) -> None:
    async with open_http(node.control_address) as http:
        answer = await http.request("GET", "/livez", headers=HANDSHAKE)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"


async def test_a_client_that_is_not_ours_publishes_and_pulls(node: Node) -> None:
    await subscription(node)
    async with httpx.AsyncClient(base_url=f"http://{node.address}", timeout=5) as client:
        published = await client.post("/v1/topics/trade.a/messages", json={"n": 1}, headers={"Push-Key": "k"})
        assert (published.status_code, published.json()["position"]) == (201, 1)
        pulled = (await client.post("/v1/subscriptions/orders/pull", json={"wait_ms": 1000})).json()
        assert [(m["data"], m["key"]) for m in pulled["messages"]] == [({"n": 1}, "k")]
        settled = await client.post("/v1/subscriptions/orders/settle", json={"lease": pulled["lease"], "ack": [[1, 1]]})
        assert settled.json() == {"acked": 1, "nacked": 0, "extended": 0, "terminated": 0, "unknown": 0}
    assert positions(node) == 2
