"""A lease storm: so many messages in flight whose leases end together. `python -m tests.engine.storm 1000000 1`.

A real engine on a real store, its clock a number; the flusher and the deliver stage run as in a node. An observer
runs at every turn of the run loop and notes how much of the processor went by since its last one: what the machine
gave to others meanwhile is no pause of ours.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec
import trio

from gateway.broker.lease import Consumer
from gateway.flow.deliver import Deliver
from gateway.model import Delivery, Message
from gateway.node import tune_interpreter
from tests.engine.driving import Client, Driven, driven

LEASE_MS: Final = 30_000
_BATCH: Final = 1000


@attrs.define
class Storm:
    """What was seen."""

    in_flight: int = 0
    redelivered: int = 0
    ageing_pause_ms: float = 0.0
    longest_pause_ms: float = 0.0
    cpu_s: float = 0.0
    records: dict[str, int] = attrs.field(factory=dict)
    resident_mib: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.in_flight} in flight, moved out of the heap with a longest pause of {self.ageing_pause_ms:.1f} ms; "
            f"{self.redelivered} redelivered, longest pause {self.longest_pause_ms:.1f} ms, "
            f"{self.cpu_s * 1e6 / max(self.in_flight, 1):.1f} us each; "
            f"records before {self.records}, resident {self.resident_mib:.0f} MiB"
        )


class Observer:
    """The longest time of the processor between two turns of the run loop."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()
        before = time.thread_time()
        while True:
            await trio.lowlevel.checkpoint()
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - before)
            before = now


async def fill(gateway: Driven, messages: int, frame: int) -> list[Client]:
    """Publish, and have everything handed over in frames of `frame`, to four consumers that settle nothing."""
    await gateway.subscribe(lease_ms=LEASE_MS, window_max=1_000_000)
    for _ in range(messages // _BATCH):
        await gateway.publish(*[Message("trade.paid", data=msgspec.Raw(b"1"))] * _BATCH)
    clients = [gateway.attach() for _ in range(4)]
    for client in clients:
        client.consumer.send = lambda delivery: gateway.engine.handed(delivery, gateway.now)
    while gateway.statistics().in_flight < messages:
        for _ in range(1000):
            taken = gateway.engine.take(gateway.now)
            if taken is None:
                break
            await hand(gateway, *taken)
        await trio.lowlevel.checkpoint()
    return clients


async def hand(gateway: Driven, consumer: Consumer, delivery: Delivery) -> None:
    if not gateway.engine.is_loaded(delivery):
        await gateway.engine.load(delivery)
    gateway.engine.send(consumer, delivery, gateway.now)


async def storm(directory: Path, messages: int, frame: int, **settings: Any) -> Storm:
    """Everything in flight in slices of `frame` messages; then all leases end. `settings`: of section `deliver`."""
    seen, observer = Storm(), Observer()
    settings = {f"deliver_{name}": value for name, value in settings.items()}
    async with driven(directory, deliver_frame_messages_max=frame, **settings) as gateway:
        await fill(gateway, messages, frame)
        while gateway.engine.tick(gateway.now):
            await trio.lowlevel.checkpoint()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(observer.run)
            gateway.now += LEASE_MS // 2 + 1000  # old enough for the direct tier
            while gateway.engine.tick(gateway.now):
                await trio.lowlevel.checkpoint()
            seen.ageing_pause_ms, observer.longest_s = observer.longest_s * 1000, 0.0
            seen.records = gateway.engine.statistics().inflight_records
            seen.in_flight = gateway.statistics().in_flight
            seen.resident_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            gateway.now += LEASE_MS
            began = time.thread_time()
            engine = gateway.engine
            again = attrs.evolve(engine.config.deliver, frame_messages_max=500)
            engine.config = attrs.evolve(engine.config, deliver=again)
            deliver = Deliver(engine, lambda: gateway.now)
            nursery.start_soon(deliver.run)
            while gateway.engine.tick(gateway.now):
                await trio.lowlevel.checkpoint()
            with trio.fail_after(300):
                while deliver.statistics.redelivered < messages:
                    await trio.lowlevel.checkpoint()
            seen.cpu_s = time.thread_time() - began
            seen.redelivered = deliver.statistics.redelivered
            seen.longest_pause_ms = observer.longest_s * 1000
            nursery.cancel_scope.cancel()
        shown = gateway.statistics()
        assert (shown.in_flight, shown.routed) == (messages, messages)
    return seen


def main() -> None:
    messages, frame = int(sys.argv[1]), int(sys.argv[2])
    tune_interpreter()
    with tempfile.TemporaryDirectory() as directory:
        print(trio.run(storm, Path(directory), messages, frame))


if __name__ == "__main__":
    main()
