from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.recent import Recent


def test_a_record_is_found_by_its_first_position() -> None:
    recent = Recent(10_000)
    recent.add(1, b"{},{}")
    recent.add(3, b"{}")
    assert (recent.get(1), recent.get(2), recent.get(3)) == (b"{},{}", None, b"{}")
    recent.clear()
    assert (recent.get(1), recent.size) == (None, 0)


@given(st.lists(st.integers(0, 500), max_size=50), st.integers(0, 3000))
def test_the_cap_holds_after_every_record_and_the_oldest_go_first(sizes: list[int], bytes_max: int) -> None:
    recent = Recent(bytes_max)
    for first, size in enumerate(sizes):
        recent.add(first, bytes(size))
        assert recent.size <= bytes_max
        kept = [each for each in range(first + 1) if recent.get(each) is not None]
        assert kept == list(range(first + 1 - len(kept), first + 1))
