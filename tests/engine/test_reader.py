from __future__ import annotations

from pathlib import Path

import pytest

from gateway.broker.bodies import Bodies
from gateway.config import Store
from gateway.engine.reader import Reader
from gateway.errors import StoreError
from gateway.store.log import Log
from tests.store.building import NOW_MS, Told, body_of, segments


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Positions 1 to 9 in three segments; 8 and 9 are in memory too."""
    segments(tmp_path, 4, 3, 2)
    log = Log(Store(directory=str(tmp_path)))
    log.open(Told(), NOW_MS)
    bodies = Bodies(10_000, 8)
    bodies.append([body_of(8), body_of(9)])
    return Reader(log, bodies)


async def test_bodies_are_read_wherever_they_are_and_in_the_order_asked_for(reader: Reader) -> None:
    pieces = [range(2, 4), [5, 7], [1], range(4, 6)]
    assert await reader.read(pieces) == [body_of(p) for p in (2, 3, 5, 7, 1, 4, 5)]


async def test_what_is_in_memory_is_not_read(reader: Reader) -> None:
    assert reader.cached(range(8, 10)) == [body_of(8), body_of(9)]
    assert reader.cached([7, 8]) is None
    reader._log.segments.clear()
    assert await reader.one(9) == body_of(9)
    assert reader.one_now(8) == body_of(8)


async def test_a_single_body_is_found_on_the_disk_too(reader: Reader) -> None:
    assert await reader.one(6) == body_of(6)
    assert reader.one_now(6) == body_of(6)


async def test_damage_is_never_served(reader: Reader, tmp_path: Path) -> None:
    segment = reader._log.segments[0]
    data = bytearray(segment.path.read_bytes())
    data[segment.offsets[2] + 35] ^= 1
    segment.path.write_bytes(data)
    assert await reader.read([[1, 2]]) == [body_of(1), body_of(2)]
    with pytest.raises(StoreError, match="the record of position 3 at byte"):
        await reader.read([range(1, 5)])
