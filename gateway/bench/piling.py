"""Messages that pile up in a subscription, and are taken out of it again to the last one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio

from gateway.bench.layout import Layout
from gateway.bench.link import LinkLostError, WebSocketLink
from gateway.bench.load import Subscriber, WebSocketPublisher
from gateway.bench.pace import now_us
from gateway.bench.plan import Target, one_to_one
from gateway.bench.tally import Tally

WINDOW: Final = 10_000
_STALLED_S: Final = 10.0


async def pile_up(target: Target, topic: str, count: int, size_bytes: int) -> Tally:
    """Publish `count` messages in batches. Raises LinkLostError, also where some are refused."""
    tally = Tally(one_to_one(messages=count, size_bytes=size_bytes, window=5000))
    async with trio.open_nursery() as links:
        link = await WebSocketLink.open(target.data, links)
        try:
            await WebSocketPublisher(link, Layout(topic, size_bytes), tally.plan, tally, stamped=False).run(count, None)
        finally:
            link.abort()
        links.cancel_scope.cancel()
    if tally.refused:
        raise LinkLostError(f"{tally.refused} messages were refused: {tally.refusal}")
    return tally


async def drain(target: Target, name: str, published: Iterable[tuple[int, int]]) -> Tally:
    """Take and ack everything that a subscription holds, until nothing comes any more; `published` is due."""
    tally = Tally(one_to_one(messages=0, window=5000))
    tally.begin([name], now_us())
    for low, high in published:
        tally.note_backlog(low, high)
    async with trio.open_nursery() as links:
        link = await WebSocketLink.open(target.data, links)
        try:
            await _drain(Subscriber(link, name, tally, timed=False), tally)
        finally:
            link.abort()
        links.cancel_scope.cancel()
    return tally


async def _drain(subscriber: Subscriber, tally: Tally) -> None:
    await subscriber.attach(WINDOW)
    async with trio.open_nursery() as work:
        work.start_soon(subscriber.run)
        while not tally.complete.is_set():
            before = tally.received
            with trio.move_on_after(_STALLED_S):
                await tally.complete.wait()
            if tally.received == before:
                break
        else:
            await subscriber.wait_settled()
        work.cancel_scope.cancel()
