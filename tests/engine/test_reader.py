from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import Store
from gateway.engine.holds import Holds
from gateway.engine.reader import LostMessagesError, Reader
from gateway.store.log import Log
from tests.store.building import NOW_MS, Told, body_of, segments


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Positions 1 to 9 in three segments, two records in each; those of 8 and 9 are in memory too."""
    segments(tmp_path, 4, 3, 2)
    log = Log(Store(directory=str(tmp_path)))
    log.open(Told(), NOW_MS)
    log.recent.add(8, joined(8, 9))
    yield Reader(log, Holds())
    log.close()


def joined(*positions: int) -> bytes:
    return b",".join(map(body_of, positions))


async def test_bodies_are_read_wherever_they_are_and_in_the_order_asked_for(reader: Reader) -> None:
    pieces = await reader.read([range(2, 4), [5, 7], [1], range(4, 6)])
    assert b",".join(pieces) == joined(2, 3, 5, 7, 1, 4, 5)


async def test_a_run_within_a_record_is_one_slice_of_the_map(reader: Reader) -> None:
    await reader.read([range(1, 5)])
    pieces = reader.cached(range(1, 5))
    assert pieces is not None
    assert [bytes(piece) for piece in pieces] == [joined(1, 2), joined(3, 4)]
    assert all(isinstance(piece, memoryview) for piece in pieces)
    assert [bytes(piece) for piece in reader.cached([2, 4]) or ()] == [body_of(2), body_of(4)]


async def test_nothing_of_a_sealed_segment_is_served_before_it_was_checked(reader: Reader) -> None:
    assert reader.cached([1]) is None
    await reader.read([[1]])
    assert reader.cached([1]) is not None
    assert reader.cached([3]) is not None, "what follows is read along with it"


async def test_what_is_in_memory_is_not_read(reader: Reader) -> None:
    assert reader.cached(range(8, 10)) == [joined(8, 9)]
    assert reader.cached([9]) == [body_of(9)]
    reader._log.segments[-1].path.write_bytes(b"")
    assert await reader.one(9) == body_of(9)


async def test_who_asks_for_the_same_is_given_the_same_and_no_map_is_kept_for_that(reader: Reader) -> None:
    first = reader.cached(range(8, 9))
    assert first is not None
    assert reader.cached(range(8, 9)) is first
    assert reader.cached(range(8, 10)) == [joined(8, 9)]
    await reader.read([[1]])
    assert reader.cached([1]) is not reader.cached([1])
    hits, misses = reader._log.recent.hits, reader._log.recent.misses
    reader.cached(range(8, 10))
    reader.cached(range(8, 10))
    assert (reader._log.recent.hits, reader._log.recent.misses) == (hits + 4, misses)


async def test_a_single_body_is_found_on_the_disk_too(reader: Reader) -> None:
    assert await reader.one(6) == body_of(6)
    reader._log.recent.clear()
    assert await reader.one(9) == body_of(9)


async def test_damage_is_named_and_never_served(reader: Reader, tmp_path: Path) -> None:
    segment = reader._log.segments[0]
    data = bytearray(segment.path.read_bytes())
    data[segment.index.starts[2] + 1] ^= 1
    segment.path.write_bytes(data)
    assert b",".join(await reader.read([[1, 2]])) == joined(1, 2)
    with pytest.raises(LostMessagesError, match=r"0000000001\.log: the record at byte \d+ is damaged") as raised:
        await reader.read([range(1, 5), [5]])
    assert raised.value.positions == [3, 4]


async def test_what_is_not_there_any_more_is_named(reader: Reader) -> None:
    with pytest.raises(LostMessagesError, match="position 99 is not in the store") as raised:
        await reader.read([[99]])
    assert raised.value.positions == [99]
