"""Pause, resume, seek, redrive and why, as the control plane answers them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

ORDERS = "/v1/subscriptions/orders"
PULL = {"max": 10, "wait_ms": 2000}


@pytest.fixture
async def orders(control: httpx.AsyncClient, data: httpx.AsyncClient) -> str:
    """A subscription with three messages, at positions 1 to 3."""
    await control.put(ORDERS, json={"topics": ["trade.>"]})
    for number in range(3):
        answer = await data.post("/v1/topics/trade.paid/messages", json={"number": number})
        assert answer.json()["position"] == number + 1
    return ORDERS


async def pull(data: httpx.AsyncClient, **settle: list[list[int]]) -> list[int]:
    answer = (await data.post(f"{ORDERS}/pull", json=PULL)).json()
    if settle:
        await data.post(f"{ORDERS}/settle", json={"lease": answer["lease"], **settle})
    return [message["position"] for message in answer["messages"]]


async def test_a_paused_subscription_delivers_nothing_until_it_is_resumed(
    control: httpx.AsyncClient, data: httpx.AsyncClient, orders: str
) -> None:
    answer = await control.post(f"{orders}/pause")
    assert (answer.status_code, answer.json()["paused"]) == (200, True)
    assert (await control.get(f"{orders}/why?position=1")).json()["reason"] == "paused"
    async with trio.open_nursery() as nursery:
        found: list[int] = []

        async def wait_for_messages() -> None:
            found.extend(await pull(data))

        nursery.start_soon(wait_for_messages)
        while (await control.get(orders)).json()["statistics"]["consumers"] == 0:
            await trio.lowlevel.checkpoint()
        assert found == []
        assert (await control.post(f"{orders}/resume")).json()["paused"] is False
    assert found == [1, 2, 3]


@pytest.mark.parametrize(
    ("to", "position", "left"),
    [
        ("start", 1, [1, 2, 3]),
        ({"start": True}, 1, [1, 2, 3]),
        ({"position": 2}, 2, [2, 3]),
        ({"position": 3.0}, 3, [3]),
        ({"time_ms": 0}, 1, [1, 2, 3]),
        ({"time_ms": 2**53 - 1}, 4, []),
        ({"end": True}, 4, []),
        ("end", 4, []),
    ],
)
async def test_a_seek_says_where_it_led(
    control: httpx.AsyncClient, data: httpx.AsyncClient, orders: str, to: Any, position: int, left: list[int]
) -> None:
    answer = await control.post(f"{orders}/seek", json={"to": to})
    assert answer.status_code == 200
    assert answer.json() == {"position": position, "again": 0, "skipped": position - 1}
    if left:
        assert await pull(data) == left
    shown = (await control.get(orders)).json()["statistics"]
    assert (shown["expired"], shown["skipped"]) == (position - 1, position - 1)


@pytest.mark.parametrize(
    "body",
    [
        *({}, [], {"to": None}, {"to": "middle"}, {"to": {}}, {"to": {"start": False}}, {"to": {"position": -1}}),
        *({"to": {"position": "1"}}, {"to": {"position": 1, "end": True}}, {"to": {"time_ms": 2**53}}),
        *({"to": {"position": True}}, {"to": "start", "more": 1}, {"to": {"time_ms": 0.5}}),
    ],
)
async def test_a_seek_to_nowhere_is_refused_with_the_mend(control: httpx.AsyncClient, orders: str, body: Any) -> None:
    answer = await control.post(f"{orders}/seek", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "to" in answer.json()["message"]


async def test_a_redrive_says_how_many_came_back(
    control: httpx.AsyncClient, data: httpx.AsyncClient, orders: str
) -> None:
    assert await pull(data, ack=[[1, 1]], term=[[2, 3]]) == [1, 2, 3]
    with trio.fail_after(5):
        while (await control.get(orders)).json()["statistics"]["dead_lettered"] < 2:
            await trio.lowlevel.checkpoint()
    assert (await control.get(f"{orders}/why?position=2")).json()["reason"] == "dead_lettered"
    assert (await control.post(f"{orders}/redrive")).json() == {"redriven": 2}
    assert await pull(data, ack=[[2, 3]]) == [2, 3]
    assert (await control.get(orders)).json()["statistics"]["acked"] == 3


async def test_why_answers_with_everything_that_applies(
    control: httpx.AsyncClient, data: httpx.AsyncClient, orders: str
) -> None:
    assert await pull(data) == [1, 2, 3]
    answer = (await control.get(f"{orders}/why?position=2")).json()
    assert answer.keys() == {"position", "reason", "detail", "consumer", "until_ms", "attempts", "behind"}
    assert (answer["position"], answer["reason"], answer["attempts"], answer["behind"]) == (2, "leased", 1, None)
    assert answer["consumer"].startswith("pull 127.0.0.1:")
    missing = await control.get(f"{orders}/why?position=900")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("query", ["", "?position=", "?position=-1", "?position=1&position=2", "?position=x", "?p=1"])
async def test_why_needs_one_position(control: httpx.AsyncClient, orders: str, query: str) -> None:
    answer = await control.get(f"{orders}/why{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "pause"), ("POST", "resume"), ("POST", "seek"), ("POST", "redrive"), ("GET", "why?position=1")],
)
async def test_a_subscription_that_is_not_there_is_not_found(
    control: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await control.request(method, f"{ORDERS}/{path}", json={"to": "end"} if path == "seek" else None)
    assert (answer.status_code, answer.json()["code"]) == (404, "subscription_not_found")
