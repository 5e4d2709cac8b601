from __future__ import annotations

from pathlib import Path

import pytest
import trio

from gateway.engine.holds import Holds
from gateway.store.segment import Segment
from gateway.testing.faulty import FaultyFiles
from tests.engine.driving import Driven, driven


def segment(base: int, end: int) -> Segment:
    made = Segment(1, Path("a.log"), base, 0, "")
    made.seal(lambda segment: segment.growing, end=end, count=end - base)
    return made


def test_nobody_keeps_a_segment_by_default() -> None:
    assert not Holds().keeps(segment(1, 10))


@pytest.mark.parametrize(
    ("ranges", "kept"),
    [
        ([(9, 9)], False),
        ([(10, 10)], True),
        ([(19, 19)], True),
        ([(20, 25)], False),
        ([(1, 100)], True),
        ([(1, 9), (20, 30)], False),
        ([(1, 9), (12, 13)], True),
    ],
)
def test_a_segment_is_kept_by_those_who_read_of_it_alone(ranges: list[tuple[int, int]], kept: bool) -> None:
    holds = Holds()
    holds.take("somebody", ranges)
    holds.take("another", [(500, 600)])
    assert holds.keeps(segment(10, 20)) is kept
    holds.give_back("somebody")
    assert not holds.keeps(segment(10, 20))


def test_who_needs_everything_keeps_every_segment() -> None:
    holds = Holds()
    with holds.all(), holds.all():
        assert holds.keeps(segment(10, 20))
    assert not holds.keeps(segment(10, 20))
    with holds.at(19):
        assert [holds.keeps(each) for each in (segment(1, 10), segment(10, 20))] == [False, True]
    assert not holds.keeps(segment(10, 20))


async def in_three_segments(gateway: Driven) -> None:
    """Positions 1 to 3, each in a segment of its own; the last is active."""
    await gateway.subscribe("slow")
    await gateway.subscribe("quick")
    for _ in range(3):
        await gateway.publish_many(1, size=2000)


async def test_a_body_that_is_being_read_keeps_its_own_segment_and_no_other(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, segment_bytes=1000, cache_bytes=0, limits_dedup_window_s=0) as gateway:
        await in_three_segments(gateway)
        await gateway.engine.delete_subscription("quick")
        client = gateway.attach("slow", window=1)
        await gateway.deliver()
        await gateway.ack(client, (1, 1))
        held = disk.hold("read", "0000000002.log")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.deliver)
            await trio.to_thread.run_sync(held.reached.wait, 5)
            gateway.engine.detach(client.consumer, gateway.now)
            await gateway.engine.delete_subscription("slow")
            for _ in range(3):
                await gateway.engine._log.checkpoint()
            left = [segment.base for segment in gateway.engine._log.segments[:-1]]
            held.release()
        assert (left, held.reached.is_set()) == ([2], True)
        await gateway.engine._log.checkpoint()
        assert len(gateway.engine._log.segments) == 1


async def test_a_message_that_is_asked_for_keeps_its_segment(tmp_path: Path) -> None:
    disk = FaultyFiles()
    async with driven(tmp_path, disk, segment_bytes=1000, cache_bytes=0, limits_dedup_window_s=0) as gateway:
        await in_three_segments(gateway)
        held = disk.hold("read", "0000000002.log")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.engine.read, 2)
            await trio.to_thread.run_sync(held.reached.wait, 5)
            for name in ("slow", "quick"):
                await gateway.engine.delete_subscription(name)
            await gateway.engine._log.checkpoint()
            left = [segment.base for segment in gateway.engine._log.segments[:-1]]
            held.release()
        assert (left, held.reached.is_set()) == ([2], True)
