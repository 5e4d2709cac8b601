"""The authorization matrix: every route of both planes and every operation, for every role.

The rows are held to the tables that the routes are made from: a new route or operation without a row here fails.
Nothing is simulated: each cell is a call over a real socket to a real node.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import orjson
import pytest

from gateway.auth import apikey
from gateway.auth.grant import Grant
from gateway.control.app import ControlPlane
from gateway.edge.guard import Guard
from gateway.edge.plane import DataPlane
from gateway.errors import TABLE
from gateway.node import Node
from gateway.wire import push_v1
from tests.conftest import Log, StartNode
from tests.edge.raw import HANDSHAKE, RawWebSocket, open_http

ROLES: Final[dict[str, Grant]] = {
    "publisher": Grant(publish=("shop.>",)),
    "consumer": Grant(subscribe=("shop.>",)),
    "viewer": Grant(view=(">",)),
    "viewer of shop": Grant(view=("shop.>",)),
    "admin of shop": Grant(admin=("shop.>",), read=("shop.>",)),
    "operator": Grant(admin=(">",)),
    "stranger": Grant(
        publish=("bank.>",), subscribe=("bank.>",), view=("bank.>",), admin=("bank.>",), read=("bank.>",)
    ),
    "known": Grant(),
}
EVERY: Final = frozenset(ROLES)
OPEN: Final = None
"""A row of what needs no credentials at all."""
WITHOUT: Final = ("no credentials", "a wrong key")

CONTROL: Final[dict[str, frozenset[str] | None]] = {
    "getLive": OPEN,
    "getReady": OPEN,
    "getHealth": OPEN,
    "getOpenApi": OPEN,
    "getMetrics": frozenset({"viewer", "operator"}),
    "listSubscriptions": EVERY,  # each sees its own; see below
    "getSubscription": frozenset({"viewer", "viewer of shop", "admin of shop", "operator"}),
    "putSubscription": frozenset({"admin of shop", "operator"}),
    "deleteSubscription": frozenset({"admin of shop", "operator"}),
    "getWhy": frozenset({"viewer", "viewer of shop", "admin of shop", "operator"}),
    "pauseSubscription": frozenset({"admin of shop", "operator"}),
    "resumeSubscription": frozenset({"admin of shop", "operator"}),
    "seekSubscription": frozenset({"admin of shop", "operator"}),
    "redriveSubscription": frozenset({"admin of shop", "operator"}),
    "listConnections": frozenset({"viewer", "operator"}),
    "closeConnection": frozenset({"operator"}),
    # who may read anything is told that there is no such message; see below
    "getMessage": frozenset({"admin of shop", "stranger", "operator"}),
    "getMessageTrace": frozenset({"viewer", "admin of shop", "stranger", "operator"}),
}
DATA: Final[dict[str, frozenset[str]]] = {
    "publish": frozenset({"publisher"}),
    "publishMany": frozenset({"publisher"}),
    "pull": frozenset({"consumer"}),
    "settle": frozenset({"consumer"}),
}
OPERATIONS: Final[dict[str, frozenset[str]]] = {
    "hello": EVERY,
    "publish": frozenset({"publisher"}),
    "subscribe": frozenset({"consumer"}),
    # of what it is subscribed to; of anything else they find nothing
    "unsubscribe": EVERY,
    "ack": EVERY,
    "nack": EVERY,
    "extend": EVERY,
    "term": EVERY,
}
PATHS: Final = {"publish": "/v1/topics/shop.paid/messages", "publishMany": "/v1/messages"}
BODIES: Final = {
    "publishMany": b'[{"topic":"shop.paid","data":1}]',
    "pull": b'{"wait_ms":0}',
    "settle": b'{"lease":"l-0"}',
}


class Matrix:
    """A node, and a key for each role."""

    def __init__(self, node: Node, keys: dict[str, str]) -> None:
        self.node = node
        self.keys = keys

    def headers(self, role: str) -> dict[str, str]:
        if role == "no credentials":
            return {}
        return {"Authorization": f"Bearer {self.keys.get(role, 'pgk_' + '0' * 12 + '_' + 'a' * 43)}"}

    async def status(self, address: str, role: str, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        """The status, and the code of the error where there is one; of many messages, of the first."""
        async with open_http(address) as http:
            answer = await http.request(method, path, body, self.headers(role))
        content = orjson.loads(answer.body) if answer.body[:1] == b"{" else {}
        error = content["results"][0].get("error", {}) if "results" in content else content
        code = error.get("code", "") if answer.status >= 400 or "results" in content else ""
        return TABLE[code].status if code else answer.status, code


@pytest.fixture
async def matrix(start_node: StartNode, tmp_path: Path) -> Matrix:
    file = tmp_path / "keys.json"
    keys: dict[str, str] = {}
    with apikey.changing(file) as records:
        for number, (role, grant) in enumerate(ROLES.items()):
            keys[role], record = apikey.make(f"p{number}", grant, 0)
            records[record.id] = record
    return Matrix(await start_node({"auth.keys_file": str(file)}), keys)


def check(expected: frozenset[str] | None, role: str, status: int, code: str) -> None:
    if expected is OPEN or role in (expected or ()):
        assert status not in (401, 403), (role, code)
    elif role in WITHOUT:
        assert (status, code) == (401, "no_credentials" if role == "no credentials" else "invalid_token"), role
    else:
        assert (status, code) == (403, "permission_denied"), role


async def test_every_route_of_the_control_plane_has_a_row(node: Node) -> None:
    guard = Guard(node.access, node.audit, node.control_address)
    assert CONTROL.keys() == {call.name for call in ControlPlane(node._sources(guard)).calls}


async def test_every_route_of_the_data_plane_has_a_row() -> None:
    nothing: Any = None
    publisher: Any = SimpleNamespace(publish_one=None)
    assert DATA.keys() == {call.name for call in DataPlane(nothing, nothing, publisher, nothing).calls}


def test_every_operation_has_a_row() -> None:
    assert OPERATIONS.keys() == push_v1._BY_NAME.keys()


@pytest.mark.parametrize("name", CONTROL)
async def test_control_plane(matrix: Matrix, name: str, log: Log) -> None:
    node = matrix.node
    guard = Guard(node.access, node.audit, node.control_address)
    [call] = [call for call in ControlPlane(node._sources(guard)).calls if call.name == name]
    path = call.path.replace("{name}", "shop.orders").replace("{connection}", "c-0").replace("{id}", "a")
    for role in (*WITHOUT, *ROLES):
        status, code = await matrix.status(node.control_address, role, call.method, path, b"{}" if call.body else b"")
        check(CONTROL[name], role, status, code)


@pytest.mark.parametrize("name", DATA)
async def test_data_plane(matrix: Matrix, name: str, log: Log) -> None:
    path = PATHS.get(name, f"/v1/subscriptions/shop.orders/{name}")
    for role in (*WITHOUT, *ROLES):
        status, code = await matrix.status(matrix.node.address, role, "POST", path, BODIES.get(name, b"1"))
        check(DATA[name], role, status, code)


def operation(name: str) -> dict[str, Any]:
    made: dict[str, Any] = {"op": name, "id": 1}
    if name == "publish":
        made["messages"] = [{"topic": "shop.paid", "data": 1}]
    elif name != "hello":
        made["subscription"] = "shop.orders"
        if name not in ("subscribe", "unsubscribe"):
            made["ranges"] = [[1, 1]]
    return made


@pytest.mark.parametrize("name", OPERATIONS)
async def test_websocket(matrix: Matrix, name: str, log: Log) -> None:
    for role in (*WITHOUT, *ROLES):
        async with open_http(matrix.node.address) as http:
            answer = await http.request("GET", "/v1/connect", headers={**HANDSHAKE, **matrix.headers(role)})
            if role == "a wrong key":
                assert (answer.status, answer.code) == (401, "invalid_token")
                continue
            websocket = RawWebSocket(http)
            assert (await websocket.receive())["op"] == "welcome"
            await websocket.send(operation(name))
            said = await websocket.receive()
            error = said["results"][0].get("error", {}) if "results" in said else said
            code = error.get("code", "")
            check(OPERATIONS[name], role, TABLE[code].status if code else 200, code)


async def test_each_sees_the_subscriptions_that_it_may_look_at(matrix: Matrix, log: Log) -> None:
    for name in ("shop.orders", "bank.orders"):
        body = orjson.dumps({"topics": ["x"]})
        path = f"/v1/subscriptions/{name}"
        assert await matrix.status(matrix.node.control_address, "operator", "PUT", path, body) == (201, "")
    seen = {}
    for role in ROLES:
        async with open_http(matrix.node.control_address) as http:
            answer = await http.request("GET", "/v1/subscriptions", headers=matrix.headers(role))
        seen[role] = [each["name"] for each in answer.json]
    both, shop, bank = ["bank.orders", "shop.orders"], ["shop.orders"], ["bank.orders"]
    assert seen == {
        "publisher": [],
        "consumer": [],
        "viewer": both,
        "viewer of shop": shop,
        "admin of shop": shop,
        "operator": both,
        "stranger": bank,
        "known": [],
    }


async def test_a_message_is_shown_to_who_may_read_its_topic_and_is_not_there_for_others(
    matrix: Matrix, log: Log
) -> None:
    address = matrix.node.address
    assert await matrix.status(address, "publisher", "POST", "/v1/topics/shop.paid/messages", b"1") == (201, "")
    message_id = f"{matrix.node.engine.epoch}-1"
    path = f"/v1/messages/{message_id}"
    found = {}
    for role in ROLES:
        asked = [
            await matrix.status(matrix.node.control_address, role, "GET", f"{path}{way}") for way in ("", "/trace")
        ]
        found[role] = [status for status, _ in asked]
    assert found == {
        "publisher": [403, 403],
        "consumer": [403, 403],
        "viewer": [403, 200],
        "viewer of shop": [403, 403],
        "admin of shop": [200, 200],
        "operator": [200, 200],
        "stranger": [404, 404],
        "known": [403, 403],
    }


async def test_a_trace_shows_its_reader_only_the_subscriptions_that_it_may_look_at(matrix: Matrix, log: Log) -> None:
    for name in ("shop.orders", "bank.orders"):
        path, body = f"/v1/subscriptions/{name}", b'{"topics":["shop.>"]}'
        assert await matrix.status(matrix.node.control_address, "operator", "PUT", path, body) == (201, "")
    await matrix.status(matrix.node.address, "publisher", "POST", "/v1/topics/shop.paid/messages", b"1")
    path = f"/v1/messages/{matrix.node.engine.epoch}-1/trace"
    traces = {}
    for role in ("operator", "admin of shop"):
        async with open_http(matrix.node.control_address) as http:
            [traces[role]] = (await http.request("GET", path, headers=matrix.headers(role))).json["messages"]
    whole, seen = traces["operator"], traces["admin of shop"]
    assert {each["subscription"] for each in whole["standing"]} == {"shop.orders", "bank.orders"}
    assert [each["subscription"] for each in seen["standing"]] == ["shop.orders"]
    assert {step["subscription"] for step in seen["steps"]} == {None, "shop.orders"}
    assert [step["who"] for step in seen["steps"] if step["step"] == "accepted"] == [None]
    assert [step["who"] for step in whole["steps"] if step["step"] == "accepted"] != [None]


@pytest.mark.parametrize(
    ("settings", "permitted"),
    [
        ({"topics": ["shop.>"]}, True),
        ({"topics": ["shop.*.paid", "shop.a"]}, True),
        ({"topics": [">"]}, False),
        ({"topics": ["*.paid"]}, False),
        ({"topics": ["shop.a", "bank.a"]}, False),
        ({"topics": ["shop.a"], "dead_letter": "bank.paid"}, False),
        ({"topics": ["shop.a"], "dead_letter": "dead.shop.orders"}, True),
        ({"topics": ["shop.a"], "dead_letter": ""}, True),
    ],
)
async def test_who_administers_a_subscription_reads_and_writes_no_topics_through_it_that_it_may_not(
    matrix: Matrix, settings: dict[str, Any], permitted: bool, log: Log
) -> None:
    path, body = "/v1/subscriptions/shop.orders", orjson.dumps(settings)
    status, code = await matrix.status(matrix.node.control_address, "admin of shop", "PUT", path, body)
    assert (status, code) == ((201, "") if permitted else (403, "permission_denied"))


async def test_changes_and_refusals_stand_in_the_audit_log(matrix: Matrix, log: Log) -> None:
    path = "/v1/subscriptions/shop.orders"
    async with open_http(matrix.node.control_address) as http:  # a name that would be a path, were it believed
        headers = {**matrix.headers("admin of shop"), "Host": "evil/v2"}
        assert (await http.request("PUT", path, b'{"topics":["shop.a"]}', headers)).status == 201
    await matrix.status(matrix.node.control_address, "consumer", "DELETE", path)
    await matrix.status(matrix.node.address, "consumer", "POST", "/v1/topics/shop.a/messages", b"1")
    audited = [entry for entry in log if entry["event"] in ("changed", "refused")]
    changed, refused, denied = audited
    assert (changed["principal"], changed["call"], changed["target"], changed["status"]) == (
        "p4",
        "putSubscription",
        path,
        201,
    )
    assert (refused["principal"], refused["code"], refused["target"]) == ("p1", "permission_denied", path)
    assert (denied["principal"], denied["what"]) == ("p1", "publish")
    assert "publish to shop.a" in denied["reason"]
    assert all(key not in str(log) for key in matrix.keys.values())


async def test_metrics_may_be_opened(start_node: StartNode, tmp_path: Path, log: Log) -> None:
    file = tmp_path / "keys.json"
    with apikey.changing(file):
        pass
    node = await start_node({"auth.keys_file": str(file), "auth.open_metrics": True})
    async with open_http(node.control_address) as http:
        assert (await http.request("GET", "/metrics")).status == 200
