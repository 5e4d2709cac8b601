from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.store.files import Files
from gateway.trace import search, timeline
from tests.trace.told import Told, message, particular


class Counting(Files):
    """Counts the bytes that are read."""

    def __init__(self) -> None:
        self.bytes = 0

    def read(self, file: int, offset: int, size: int) -> bytes:
        self.bytes += size
        return super().read(file, offset, size)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """20,000 messages published and, far behind, consumed; in files of 256 KiB."""
    told = Told(tmp_path_factory.mktemp("long"), file_bytes=256 * 1024)
    for position in range(1, 20_001):
        told.stored(position)
        if position > 10_000:
            told.handed([position - 10_000])
            told.steps.settled("orders", [position - 10_000], 1)
        if position % 100 == 0:
            told.write()
    return told


def test_a_search_reads_the_blocks_about_its_position_alone(long: Told) -> None:
    files = Counting()
    assert sum(file.written for file in long.trace.all) > 2_500_000
    list(search.about(files, long.trace.all, 5))  # the indexes are read once
    for position in (1, 5_000, 9_999):
        files.bytes = 0
        steps = [event.step.name for event, _ in search.about(files, long.trace.all, position)]
        assert steps == ["ACCEPTED", "HANDED", "ACKED"]
        assert files.bytes < 300_000


def test_every_message_is_found(long: Told) -> None:
    for position in random.Random(1).sample(range(1, 20_001), 300):
        assert len(long.about(position)) == (3 if position <= 10_000 else 1)


def test_events_are_found_by_the_id_of_their_message(tmp_path: Path) -> None:
    told = Told(tmp_path, file_bytes=1000)
    for position in range(1, 1000, 2):
        told.steps.stored([particular(position, [message(f"a{position}"), message(f"a{position % 10}")])])
        told.write()
    assert len(told.trace.all) > 10
    for message_id, expected in (("a777", [777]), ("nobody", []), ("a3", [3, *range(4, 1001, 10)])):
        positions, refused = timeline.by_id(told.trace.files, told.trace.all, message_id)
        assert (positions, refused) == (expected, [])


def test_losses_count_where_their_time_overlaps(tmp_path: Path) -> None:
    told = Told(tmp_path, buffer_bytes=300)
    began = told.now
    for _ in range(10):
        told.now += 100
        told.stored(1)
    told.write()
    lost = told.buffer.lost
    assert lost > 5

    def losses(low: int, high: int) -> int:
        return search.losses(told.trace.files, told.trace.all, began + low, began + high)

    assert losses(0, 2000) == lost
    assert losses(0, 100) == 0
    assert losses(1001, 2000) == 0
    assert losses(900, 910) == lost
