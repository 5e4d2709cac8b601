"""Consumers of a store that was filled: the first message, a backlog as fast as it goes, and live messages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import attrs
import orjson
import trio

from gateway.bench import vitals
from gateway.bench.layout import DELIVERY, read_delivery
from gateway.bench.link import HttpLink, LinkLostError, WebSocketLink
from gateway.bench.load import raise_if_ending, subscribe
from gateway.bench.plan import Target, one_to_one
from gateway.bench.run import CONSUMER_WINDOW, Run
from gateway.bench.tally import Tally

_STALLED_S: Final = 20.0


@attrs.frozen(kw_only=True)
class Rate:
    """Messages that came to one connection, each acknowledged."""

    messages: int
    seconds: float
    per_s: float
    cpu_us_per_message: float
    """Of the gateway."""
    frame_bytes: int
    """All delivery frames together."""


async def first_message_s(target: Target, name: str) -> float:
    """From a new consumer's subscribe to its first message; the connection stands before."""
    async with trio.open_nursery() as nursery:
        link = await WebSocketLink.open(target.data, nursery)
        began = time.monotonic()
        link.offer(subscribe(name, CONSUMER_WINDOW))
        with trio.fail_after(_STALLED_S):
            while not any(text.startswith(DELIVERY) for text in await link.receive()):
                pass
        passed = time.monotonic() - began
        await link.aclose()
        nursery.cancel_scope.cancel()
    return passed


async def first_pull_s(target: Target, name: str) -> float:
    """From a pull's request to its answer, on a connection that stands."""
    body = orjson.dumps({"max": 100, "wait_ms": 10_000})
    async with trio.open_nursery() as nursery:
        link = await HttpLink.open(target.data, nursery)
        began = time.monotonic()
        status, answer = await link.call("POST", f"/v1/subscriptions/{name}/pull", body)
        passed = time.monotonic() - began
        link.abort()
        nursery.cancel_scope.cancel()
    if status != 200 or not orjson.loads(answer)["messages"]:
        raise LinkLostError(f"{name}: a pull was answered {status} {answer[:200]!r}")
    return passed


async def drain(target: Target, names: Sequence[str], count: int) -> Rate:
    """Consume at least `count` messages of all those subscriptions together, over one connection."""
    async with trio.open_nursery() as nursery:
        link = await WebSocketLink.open(target.data, nursery)
        assert target.pid is not None
        cpu_s, began = vitals.cpu_s(target.pid), time.monotonic()
        for name in names:
            link.offer(subscribe(name, CONSUMER_WINDOW))
        done = size = 0
        while done < count:
            with trio.fail_after(_STALLED_S):
                texts = await link.receive()
            for text in texts:
                if text.startswith(DELIVERY):
                    done += _acknowledge(link, text)
                    size += len(text)
                else:
                    raise_if_ending(orjson.loads(text))
            if link.unsent_bytes:
                await link.wait_sent()
        passed, cpu_s = time.monotonic() - began, vitals.cpu_s(target.pid) - cpu_s
        await link.aclose()
        nursery.cancel_scope.cancel()
    return Rate(
        messages=done, seconds=passed, per_s=done / passed, cpu_us_per_message=1e6 * cpu_s / done, frame_bytes=size
    )


def _acknowledge(link: WebSocketLink, frame: bytes) -> int:
    """Ack all that is in a frame; how many."""
    seen = read_delivery(frame)
    name = frame[frame.index(b'"subscription":') : frame.index(b",", len(DELIVERY))]
    link.offer(b'{"op":"ack",%b,"ranges":%b}' % (name, orjson.dumps(seen.ranges)))
    return seen.count


async def live(target: Target, messages: int) -> float:
    """Messages a second from one publisher to one consumer, as `gateway bench` measures them."""
    plan = one_to_one(messages=messages)
    figures = await Run(plan, target, Tally(plan)).measure()
    if not figures.complete:
        raise LinkLostError(f"live: {figures.lost} of {messages} messages were lost")
    return figures.received_per_s


async def seek_to_start(target: Target, name: str) -> None:
    """Everything that is kept comes once more."""
    async with trio.open_nursery() as nursery:
        link = await HttpLink.open(target.control, nursery)
        status, answer = await link.call(
            "POST", f"/v1/subscriptions/{name}/seek", orjson.dumps({"to": {"position": 1}})
        )
        link.abort()
        nursery.cancel_scope.cancel()
    if status != 200:
        raise LinkLostError(f"{name}: a seek was answered {status} {answer[:200]!r}")
