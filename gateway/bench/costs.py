"""What filters, conversion and routing cost a message: processor time, without disk and sockets.

`python -m gateway.bench.costs` prints a table: microseconds a message of about 250 bytes, in batches of 200 and alone.
The whole way of a message, from its frame to its ack, costs about 5 us (`gateway bench`): these come on top of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import orjson
import trio

from gateway.broker.body import compose
from gateway.broker.clockwork import Clockwork
from gateway.config import Filter as FilterSettings
from gateway.engine.catalogue import Catalogue
from gateway.engine.longfilters import LongFilters
from gateway.engine.routing import Router
from gateway.flow.convert import Projection, SchemaCheck
from gateway.flow.names import UniqueNames
from gateway.flow.stage import Work
from gateway.model import Batch, Durability, Message, SubscriptionSettings
from gateway.steps import UNTRACED
from gateway.wire.cloudevents import encode_event

BATCH: Final = 200
ROUNDS: Final = 40
SCHEMA: Final = {
    "type": "object",
    "required": ["type", "amount", "order"],
    "properties": {
        "type": {"type": "string", "pattern": "^t[0-9]+$"},
        "amount": {"type": "number", "minimum": 0},
        "order": {"type": "object", "properties": {"id": {"type": "string"}}},
        "items": {"type": "array", "items": {"type": "object", "required": ["sku"]}},
    },
}
PROJECTION: Final = "{type: type, amount: amount, skus: items[].sku}"
Subscriptions = dict[str, SubscriptionSettings]


def payload(number: int) -> bytes:
    items = [{"sku": f"s-{number + n}", "n": n} for n in range(5)]
    more = {"name": "somebody", "note": "leave it at the door, please"}
    return orjson.dumps(
        {"type": f"t{number % 1000}", "amount": number % 20, "order": {"id": f"o-{number}"}, "items": items, **more}
    )


def batch_of(count: int, topics: int = 1) -> Batch:
    chosen = random.Random(1)
    messages = [
        Message(f"trade.t{chosen.randrange(topics)}.paid", data=msgspec.Raw(payload(number))) for number in range(count)
    ]
    batch = Batch(messages, Durability.FSYNCED, 0, lambda _batch: None)
    batch.topics = {message.topic for message in messages}
    return batch


def cost_us(work: Callable[[Batch], object], count: int, topics: int = 1) -> float:
    """Microseconds a message: the best of some rounds, each with a batch that nobody has looked at."""
    best = float("inf")
    for _ in range(ROUNDS):
        batch = batch_of(count, topics)
        began = time.thread_time()
        work(batch)
        best = min(best, time.thread_time() - began)
    return best / count * 1e6


def router_of(subscriptions: Subscriptions) -> Router:
    catalogue = Catalogue(Clockwork(100, 0), 100_000)
    for name, settings in subscriptions.items():
        catalogue.create(name, settings, 1)
    bounds = FilterSettings()
    return Router(catalogue, bounds, LongFilters(bounds, lambda: 0), UNTRACED)


def filtered(*texts: str) -> Subscriptions:
    return {f"s{n}": SubscriptionSettings(topics=("trade.>",), filter=text) for n, text in enumerate(texts)}


def patterns(count: int) -> Subscriptions:
    """A third each: a topic of its own, a wildcard, and everything below a word of one in a hundred."""
    kinds = ("trade.t{n}.paid", "*.t{n}.paid", "trade.t{n}.>")
    return {f"s{n}": SubscriptionSettings(topics=(kinds[n % 3].format(n=n),)) for n in range(count)}


def run_to_its_end(work: Work) -> Callable[[Batch], object]:
    """Built-in work never waits, so that one step of it is all of it."""

    def call(batch: Batch) -> object:
        made: Awaitable[object] = work(batch, range(len(batch.messages)))
        try:
            made.__await__().send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("it waits")

    return call


def cases(directory: Path) -> dict[str, tuple[Callable[[Batch], object], int]]:
    """What is measured: the work, and over how many topics the messages go."""
    file = directory / "schema.json"
    file.write_bytes(orjson.dumps(SCHEMA))
    body = compose(batch_of(1).messages[0], 1, "epoch", 1_795_326_701_000)
    routing = {
        "route: 1 subscription, no filter": filtered(""),
        "route: an equality, looked up": filtered('data.type == "t7"'),
        "route: 1,000 equalities, one each": filtered(*(f'data.type == "t{n}"' for n in range(1000))),
        "route: a comparison": filtered("data.amount > 10"),
        "route: 10 different comparisons": filtered(*(f"data.amount > {n}" for n in range(10))),
        "route: 1,000 with the same comparison": filtered(*(["data.amount > 10"] * 1000)),
        "route: a filter by CEL": filtered("data.amount + 0 > 10"),
        "route: 10 different filters by CEL": filtered(*(f"data.amount + 0 > {n}" for n in range(10))),
    }
    found: dict[str, tuple[Callable[[Batch], object], int]] = {}
    for name, subscriptions in routing.items():
        found[name] = (router_of(subscriptions).route, 1)
    known = router_of(patterns(1000))
    known.route(batch_of(10_000, 1000))  # nearly every topic has been seen
    found["route: 1,000 patterns, 1,000 topics"] = (known.route, 1000)
    found["route: the same, topics not seen before"] = (lambda batch: router_after(known, batch), 1000)
    found["unique names"] = (run_to_its_end(UniqueNames()), 1)
    found["schema"] = (run_to_its_end(SchemaCheck(file, "p")), 1)
    found["projection"] = (run_to_its_end(Projection(PROJECTION, "p")), 1)
    found["delivery as a CloudEvent"] = (lambda batch: [encode_event(body) for _ in batch.messages], 1)
    return found


def router_after(router: Router, batch: Batch) -> None:
    """Route after a change of the subscriptions: no topic is remembered."""
    router._catalogue._forget_routes()
    router.route(batch)


async def main() -> None:
    with TemporaryDirectory() as directory:
        print(f"{'us of processor time a message':44}{'in 200':>8}{'alone':>8}")
        for name, (work, topics) in cases(Path(directory)).items():
            print(f"{name:44}{cost_us(work, BATCH, topics):8.2f}{cost_us(work, 1, topics):8.2f}")


if __name__ == "__main__":
    trio.run(main)  # a lock of the filters wants a run loop
