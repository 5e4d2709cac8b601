"""One segment read anew: what its index says then, who is told, and what is named where something is damaged."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store import record as records
from gateway.store.index import SORTED, TYPECODES
from gateway.store.reading import Header, Lost
from gateway.store.rebuild import Rebuilder
from gateway.store.record import Columns, Kind
from gateway.store.segment import Segment
from tests.store.building import EPOCH, NOW_MS, SegmentFile, Told, body_of


def rebuilder(
    file: SegmentFile, place: tuple[int, int] = (0, 0), replay: Told | None = None, header_bytes: int | None = None
) -> Rebuilder:
    """For the segment as it stands in `file`; `place` is that of a checkpoint."""
    segment = Segment(file.number, Path("a.log"), file.base, NOW_MS, "")
    segment.size = len(file.data)
    size = len(SegmentFile.begin(file.number, file.base).data) if header_bytes is None else header_bytes
    header = Header(EPOCH, file.number, file.number, "", file.base, None, NOW_MS, size)
    return Rebuilder(segment, header, place, replay)


def rebuilt(file: SegmentFile, data: bytes | None = None, **more: object) -> Rebuilder:
    made = rebuilder(file, **more)  # type: ignore[arg-type]  # the arguments of `rebuilder`
    made.read(bytes(file.data) if data is None else data)
    return made


def lost(made: Rebuilder, end: int | None = None) -> list[tuple[int, int, int, int]]:
    """(offset, size, first, end) of all that is damaged."""
    return [(item.offset, item.size, item.first, item.end) for item in made.finish(end)]


def flipped(file: SegmentFile, at: int) -> bytes:
    data = bytearray(file.data)
    data[at] ^= 0x10
    return bytes(data)


@pytest.fixture
def five() -> SegmentFile:
    """Positions 11 to 15, each a record of its own, behind one route."""
    file = SegmentFile.begin(3, 11)
    file.route(1, "a", [4, 7])
    file.messages(5, each=1)
    return file


# ----------------------------------------------------------------------------------------------------------- sound


def test_where_every_message_stands_is_found(five: SegmentFile) -> None:
    made = rebuilt(five)
    index = made._index
    for ordinal, position in enumerate(range(11, 16)):
        [piece] = index.pieces(ordinal, ordinal)
        assert bytes(five.data[piece.start : piece.stop]) == body_of(position)
    assert (made.end, made.messages, made.records) == (16, 5, 6)
    assert made.torn_at == len(five.data)
    assert lost(made, 16) == []


def test_who_it_is_for_is_found(five: SegmentFile) -> None:
    five.route(2, "b", [7])
    five.record([b"{}", b"{}"], 2)
    made = rebuilt(five)
    assert {number: list(queue) for number, queue in made._index.queues.items()} == {4: [0, 4], 7: [0, 6]}
    assert [made._index.route(ordinal) for ordinal in (0, 4, 5)] == [("a", (4, 7)), ("a", (4, 7)), ("b", (7,))]
    assert made._segment.defined == {("a", (4, 7)): 1, ("b", (7,)): 2}


def test_messages_of_one_record_that_go_different_ways_are_told_apart(five: SegmentFile) -> None:
    five.route(2, "b", [7])
    five.record([b"{}"] * 4, 1, Columns(array("I"), routes=array("I", [1, 1, 2, 1])))
    told = Told()
    made = rebuilt(five, replay=told)
    assert told.found == [(11, 15, (4, 7)), (16, 17, (4, 7)), (18, 18, (7,)), (19, 19, (4, 7))]
    assert list(made._index.queues[4]) == [0, 6, 8, 8]
    assert made.messages == 9


def test_what_only_few_have_is_found(five: SegmentFile) -> None:
    columns = Columns(array("I"), due_ms=array("Q", [0, 9]), expires_ms=array("Q", [0, 0]), keys=array("Q", [5, 0]))
    columns.ids, columns.digests = b"i" * 32, b"d" * 16
    five.record([b"{}", b"{}"], 1, columns)
    made = rebuilt(five)
    index, segment = made._index, made._segment
    assert (index.times_of(6), index.key_of(5), index.key_of(6)) == ((9, 0), 5, 0)
    assert list(index.ids_at) == [5, 6]
    assert (segment.due_ms, segment.expires_ms, segment.ids_ms, segment.last_ms) == (9, 0, NOW_MS, NOW_MS)


def test_only_what_stands_behind_the_checkpoint_is_told(five: SegmentFile) -> None:
    five.add(Kind.SETTLE, b"", number=4)
    told = Told()
    made = rebuilt(five, place=(3, five.offsets[3]), replay=told)
    assert told.found == [(13, 15, (4, 7))]
    assert [record.number for record in told.controls] == [4]
    assert len(made._index) == 5, "and all of it is in the index"


@pytest.mark.parametrize(("place", "count"), [((2, 10**9), 5), ((4, 0), 0)])
def test_a_checkpoint_in_another_segment_knows_all_of_it_or_nothing(
    five: SegmentFile, place: tuple[int, int], count: int
) -> None:
    told = Told()
    rebuilt(five, place=place, replay=told)
    assert len(told.positions) == count


def one_by_one(file: SegmentFile, place: tuple[int, int], replay: Told) -> Rebuilder:
    """The same with an object of every record, as a merge has it read back."""
    made = rebuilder(file, place, replay)
    for record in records.scan(bytes(file.data), 0, made._header.size):
        made.take(record)
    made.torn_at = len(file.data)
    return made


def everything_of(made: Rebuilder) -> list[object]:
    index, segment, damage = made._index, made._segment, lost(made)
    columns = [
        list(getattr(index, name)) for name in TYPECODES if name not in SORTED and getattr(index, name) is not None
    ]
    queues = {number: list(queue) for number, queue in index.queues.items()}
    times = (segment.last_ms, segment.ids_ms, segment.due_ms, segment.expires_ms)
    counts = (made.end, made.messages, made.records)
    return [columns, bytes(index.digests), queues, index.routes, sorted(index._due), times, counts, damage]


@st.composite
def appends(draw: st.DrawFn) -> tuple[int, int, Columns]:
    """(messages, route, columns) of a record; the columns have, by chance, all that a message may have."""
    count = draw(st.sampled_from([1, 1, 1, 2, 3]))

    def perhaps(typecode: str) -> array[int] | None:
        return array(typecode, draw(st.lists(st.sampled_from([0, 7]), min_size=count, max_size=count)))

    columns = Columns(array("I"))
    if draw(st.booleans()):
        columns.due_ms, columns.expires_ms = perhaps("Q"), perhaps("Q")
    if draw(st.booleans()):
        columns.keys = perhaps("Q")
    if draw(st.booleans()):
        columns.ids = b"".join(draw(st.sampled_from([bytes(16), bytes(range(1, 17))])) for _ in range(count))
        columns.digests = b"d" * 8 * count
    if count > 1 and draw(st.booleans()):
        columns.routes = array("I", draw(st.lists(st.sampled_from([1, 2]), min_size=count, max_size=count)))
    return count, draw(st.sampled_from([1, 2])), columns


@given(
    st.lists(st.one_of(appends(), st.sampled_from(["settle", "gap"])), max_size=12),
    st.integers(2, 4),
    st.integers(0, 12),
)
def test_messages_that_are_read_quickly_say_the_same_as_others(
    parts: list[tuple[int, int, Columns] | str], segment: int, place: int
) -> None:
    file = SegmentFile.begin(3, 11)
    file.route(1, "a", [4, 7])
    file.route(2, "b", [7])
    for part in parts:
        if part == "settle":
            file.add(Kind.SETTLE, b"", number=2)
        elif isinstance(part, str):
            file.end += 3
        else:
            count, route, columns = part
            file.record([body_of(file.end + at) for at in range(count)], route, columns)
    at = (segment, [*file.offsets, len(file.data)][min(place, len(file.offsets))])
    quick, slow = Told(), Told()
    assert everything_of(rebuilt(file, place=at, replay=quick)) == everything_of(one_by_one(file, at, slow))
    assert (quick.found, quick.controls) == (slow.found, slow.controls)


# ---------------------------------------------------------------------------------------------------------- damage


def test_a_damaged_record_takes_its_messages_with_it_and_no_others(five: SegmentFile) -> None:
    ends = [*five.offsets[1:], len(five.data)]
    for position, (start, stop) in enumerate(zip(five.offsets[1:-1], ends[1:], strict=False), 11):
        for at in range(start, stop, 7):
            told = Told()
            made = rebuilt(five, flipped(five, at), replay=told)
            assert told.positions == [each for each in range(11, 16) if each != position]
            assert lost(made, 16) == [(start, stop - start, position, position + 1)]
            assert (made.messages, made.is_dense) == (4, False)
            assert [made._index.has(each) for each in range(11, 16)] == [each != position for each in range(11, 16)]


def test_several_damaged_records_in_a_row_are_one_loss(five: SegmentFile) -> None:
    data = bytearray(five.data)
    for offset in five.offsets[2:4]:
        data[offset + 20] ^= 1
    assert lost(rebuilt(five, bytes(data)), 16) == [(five.offsets[2], five.offsets[4] - five.offsets[2], 12, 14)]


def test_what_is_torn_at_the_end_is_left_to_the_caller(five: SegmentFile) -> None:
    for size in range(five.offsets[-1], len(five.data)):
        made = rebuilt(five, bytes(five.data[:size]))
        assert (made.torn_at, made.end, made.messages) == (five.offsets[-1], 15, 4)
        assert lost(made) == []


def test_an_end_that_is_known_to_have_been_there_was_never_torn(five: SegmentFile) -> None:
    last = five.offsets[-1]
    made = rebuilt(five, bytes(five.data[: last + 9]))
    assert lost(made, 16) == [(last, len(five.data) - last, 15, 16)]
    made = rebuilder(five)
    made.read(bytes(five.data[: last + 9]), answered=len(five.data))
    assert lost(made) == [(last, len(five.data) - last, 15, 15)]


def test_a_damaged_header_takes_nothing_with_it(five: SegmentFile) -> None:
    made = rebuilt(five, flipped(five, 30), header_bytes=0)
    assert lost(made, 16) == [(0, five.offsets[0], 11, 11)]
    assert made.messages == 5


def test_messages_of_a_route_that_is_damaged_are_lost_by_record(five: SegmentFile) -> None:
    told = Told()
    made = rebuilt(five, flipped(five, five.offsets[0] + 40), replay=told)
    assert told.positions == []
    assert [item.reason for item in made.finish(16)] == ["a record is damaged", *["a route is damaged"] * 5]


def test_a_record_that_stands_where_it_does_not_belong_is_no_part_of_it(five: SegmentFile) -> None:
    five.record([b"{}"], position=12)
    made = rebuilt(five)
    assert (made.messages, made.end) == (5, 16)
    assert made.finish(16) == [
        Lost(
            "a.log",
            five.offsets[-1],
            len(five.data) - five.offsets[-1],
            12,
            12,
            "a record stands where it does not belong",
        )
    ]


def test_positions_that_are_missing_between_two_records_are_not_there_afterwards(five: SegmentFile) -> None:
    five.record([b"{}"], position=20)
    made = rebuilt(five)
    assert (made.end, made.messages, made.is_dense) == (21, 6, False)
    assert [made._index.has(position) for position in (15, 16, 19, 20)] == [True, False, False, True]
