from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.backoffs import Backoffs
from gateway.broker.slice import Slice

NOW_MS = 1_795_326_701_000
WAITS_MS = st.integers(1, 30 * 24 * 3600 * 1000)


@given(WAITS_MS)
def test_a_wait_is_kept_and_is_longer_by_a_second_or_a_sixty_fourth_at_most(wait_ms: int) -> None:
    backoffs = Backoffs()
    backoffs.note(NOW_MS + wait_ms, [(3, 5)], NOW_MS)
    for known in (backoffs, Backoffs.decode(backoffs.encode())):
        due_ms = known.due_ms(4, NOW_MS)
        assert 0 <= due_ms - NOW_MS - wait_ms <= max(1000, wait_ms / 64)
        assert known.due_ms(6, NOW_MS) == 0
        assert known.due_ms(4, due_ms - 1) == due_ms
        assert known.due_ms(4, due_ms) == 0
        assert [due_ms for _, due_ms in known.parts(Slice(range(3, 6), 3), due_ms)] == [0]
        assert not known


def test_a_slice_is_cut_where_its_wait_changes() -> None:
    backoffs = Backoffs()
    backoffs.note(NOW_MS + 5000, [(3, 4), (7, 7)], NOW_MS)
    backoffs.note(NOW_MS + 9000, [(4, 4)], NOW_MS)
    backoffs.note(NOW_MS, [(1, 1)], NOW_MS)
    parts = [
        (list(part.positions), part.span_low, due_ms and due_ms - NOW_MS)
        for part, due_ms in backoffs.parts(Slice([1, 3, 4, 7, 9, 10], 0), NOW_MS)
    ]
    assert parts == [([1], 0, 0), ([3], 2, 5000), ([4], 4, 9000), ([7], 5, 5000), ([9, 10], 8, 0)]


def test_there_are_few_moments_however_many_waits() -> None:
    backoffs = Backoffs()
    for position in range(1, 10_001):
        backoffs.note(NOW_MS + 7_200_000 * position // 10_000, [(position, position)], NOW_MS)
    assert len(backoffs.encode()) <= 512
