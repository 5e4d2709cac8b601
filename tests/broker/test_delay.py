"""The cursor over what is delayed, against a plain list of what is due when."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker import delay
from gateway.broker.clockwork import Clockwork
from gateway.broker.delay import Delays, wake
from gateway.broker.subscription import Subscription
from gateway.model import POSITION_MAX, SubscriptionSettings
from gateway.store.index import NEVER_DUE, Index
from gateway.store.segment import Segment
from tests.store.building import in_memory, note

BEGAN_MS = 1_000_000


def sealed(segment: Segment) -> Segment:
    """The same with the columns that a hint file has."""
    growing = segment.growing
    index = Index(segment.base)
    for name in ("starts", "timed_at", "due_ms", "expires_ms", "route_at", "route_of", "routes", "queues"):
        setattr(index, name, getattr(growing, name))
    timed = sorted((due, at) for due, at in zip(index.due_ms, index.timed_at, strict=True) if due)
    index.due_sorted = array("Q", [due for due, _ in timed])
    index.due_sorted_at = array("I", [at for _, at in timed])
    segment.seal(lambda _segment: index)
    segment.let_go()
    return segment


def segments_of(*delays: list[int]) -> list[Segment]:
    """One segment for each list; a message for each delay in ms, none for 0. All but the last are sealed."""
    made: list[Segment] = []
    base = 1
    for number, its in enumerate(delays, 1):
        segment = in_memory(number, base)
        for delay_ms in its:
            position = note(segment, due_ms=BEGAN_MS + delay_ms if delay_ms else 0)
            segment.growing.route_to(1, position, position)
        base = segment.end
        made.append(sealed(segment) if number < len(delays) else segment)
    return made


def came(delays: Delays, segments: list[Segment], now: int) -> list[list[int]]:
    """The positions that come due by `now`, step by step."""
    steps: list[list[int]] = []
    behind = True
    while behind:
        steps.append([p for due in delays.advance(segments, now) for p in range(due.first, due.last + 1)])
        behind = delays.behind
    return steps


def test_a_message_comes_due_once_and_not_before_its_time() -> None:
    segments, delays = segments_of([5, 0, 3], [5, 9]), Delays(BEGAN_MS)
    assert came(delays, segments, BEGAN_MS + 2) == [[]]
    assert came(delays, segments, BEGAN_MS + 3) == [[3]]
    assert came(delays, segments, BEGAN_MS + 8) == [[1, 4]]
    assert came(delays, segments, BEGAN_MS + 8) == [[]]
    assert came(delays, segments, BEGAN_MS + 10_000) == [[5]]
    assert [delays.is_due(p, BEGAN_MS + d) for p, d in ((1, 5), (5, 9), (6, 10_001))] == [True, True, False]


@given(
    delays_ms=st.lists(st.lists(st.integers(0, 6), max_size=8), min_size=1, max_size=3),
    ticks=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    step=st.integers(1, 3),
)
def test_steps_of_any_size_meet_every_message_in_the_order_of_its_time(
    delays_ms: list[list[int]], ticks: list[int], step: int
) -> None:
    """Also those of one millisecond: the cursor stands between them, and all agree on which side a message is."""
    segments, delays, now = segments_of(*delays_ms), Delays(BEGAN_MS), BEGAN_MS
    due = {p: ms for p, ms in enumerate((ms for its in delays_ms for ms in its), 1) if ms}
    before, delay.STEP = delay.STEP, step  # type: ignore[misc]
    try:
        for tick in ticks:
            now += tick
            expected = sorted(p for p, ms in due.items() if now - tick < BEGAN_MS + ms <= now)
            met: list[int] = []
            latest, behind = 0, True
            while behind:
                here = [p for each in delays.advance(segments, now) for p in range(each.first, each.last + 1)]
                assert len(here) <= step
                assert all(due[p] >= latest for p in here)
                latest = max((due[p] for p in here), default=latest)
                met += here
                passed = {p for p, ms in due.items() if delays.is_due(p, BEGAN_MS + ms)}
                assert passed == {p for p, ms in due.items() if BEGAN_MS + ms <= now - tick} | set(met)
                behind = delays.behind
            assert sorted(met) == expected
    finally:
        delay.STEP = before  # type: ignore[misc]


def test_a_segment_is_not_looked_at_before_its_next_one_is_due() -> None:
    [first, _], delays = segments_of([50, 90], [0]), Delays(BEGAN_MS)
    index = first.index
    first.let_go()
    looked: list[Segment] = []

    def look(segment: Segment) -> Index:
        looked.append(segment)
        return index

    first.seal(look, end=3, count=2)
    first.let_go()
    came(delays, [first], BEGAN_MS + 1)
    first.let_go()
    assert came(delays, [first], BEGAN_MS + 49) == [[]]
    assert looked == [first]
    assert came(delays, [first], BEGAN_MS + 50) == [[1]]
    assert first.next_due_ms == -1


def test_an_index_in_memory_and_one_that_is_mapped_say_the_same() -> None:
    [mapped, _], [growing] = segments_of([7, 7, 0, 3, 7], []), segments_of([7, 7, 0, 3, 7])
    for after in ((0, 0), (BEGAN_MS + 3, 4), (BEGAN_MS + 7, 1), (BEGAN_MS + 7, 2), (BEGAN_MS + 7, POSITION_MAX)):
        for until_ms in (BEGAN_MS + 3, BEGAN_MS + 7):
            for count_max in (1, 9):
                expected = mapped.index.due_between(after, until_ms, count_max)
                [fresh] = segments_of([7, 7, 0, 3, 7])
                assert fresh.index.due_between(after, until_ms, count_max) == expected
        assert growing.index.next_due(after) == mapped.index.next_due(after)
    assert growing.index.next_due((BEGAN_MS + 7, POSITION_MAX)) == NEVER_DUE


def test_what_comes_due_is_told_to_those_it_was_routed_to_and_counted() -> None:
    segments = segments_of([5, 5, 0, 5], [5])
    works = Clockwork(100, BEGAN_MS)
    one, deaf = (
        Subscription(number, f"s{number}", SubscriptionSettings(topics=("own.>",)), 1, works) for number in (1, 7)
    )
    one.routed = 5
    delay.count_delayed(segments, works.delays.passed, (one, deaf))
    assert (one.not_due, deaf.not_due) == (4, 0)
    one.front = 5
    assert list(wake(works.delays.advance(segments, BEGAN_MS + 5), {1: one, 7: deaf}, ())) == [one]
    assert (one.not_due, list(one.revisit), list(deaf.revisit)) == (0, [(1, 2), (4, 4)], [])


def test_a_step_tells_few_messages_where_each_goes_to_many() -> None:
    segments = segments_of([5] * 100)
    segments[0].growing.routes[0] = ("own.x", tuple(range(1, 1001)))
    steps = came(Delays(BEGAN_MS), segments, BEGAN_MS + 5)
    assert max(map(len, steps)) == 1
    assert sum(map(len, steps)) == 100
