from __future__ import annotations

from gateway.kit.ranges import RangeSet
from gateway.store.plan import Measured, Plan, choose, is_candidate
from tests.store.building import in_memory

FULL = 1000


def measured(number: int, due_bytes: int, size: int = FULL) -> Measured:
    """A segment of so many bytes, one in ten of which is a message."""
    segment = in_memory(number, 100 * number)
    segment.size = size
    return Measured(segment, RangeSet(), due_bytes // 10, due_bytes)


def numbers(plan: Plan | None) -> list[int]:
    return [source.segment.number for source in plan.sources] if plan else []


def test_neighbours_in_which_little_is_due_are_merged() -> None:
    plan = choose([measured(1, 50), measured(2, 100), measured(3, 30)], FULL, 0.25)
    assert plan is not None
    assert numbers(plan) == [1, 2, 3]
    assert (plan.due_bytes, plan.bytes, plan.freed_bytes, plan.messages) == (180, 3000, 2820, 18)


def test_a_lone_segment_is_made_smaller_too() -> None:
    assert numbers(choose([None, measured(2, 100), None], FULL, 0.25)) == [2]


def test_what_stands_between_two_segments_keeps_them_apart() -> None:
    assert numbers(choose([measured(1, 50), None, measured(3, 50), measured(4, 50)], FULL, 0.25)) == [3, 4]


def test_no_more_is_moved_than_one_segment_holds() -> None:
    plan = choose([measured(number, 200) for number in range(1, 12)], FULL, 0.25)
    assert numbers(plan) == [1, 2, 3, 4, 5]


def test_a_byte_is_moved_only_where_enough_others_go() -> None:
    full = measured(1, 250, size=250)
    assert choose([full, full], FULL, 0.25) is None
    assert numbers(choose([full, measured(2, 10)], FULL, 0.25)) == [1, 2]
    assert numbers(choose([full, full, full, measured(4, 10)], FULL, 0.25)) == [1, 4]


def test_what_frees_little_waits() -> None:
    assert choose([measured(1, 10, size=130)], FULL, 0.25) is None
    assert numbers(choose([measured(1, 10, size=140)], FULL, 0.25)) == [1]


def test_segments_in_which_nothing_is_due_are_left_to_be_deleted_but_for_those_between() -> None:
    nothing = [measured(number, 0) for number in range(8)]
    assert choose(nothing, FULL, 0.25) is None
    row = [nothing[0], measured(1, 50), nothing[2], measured(3, 50), nothing[4]]
    assert numbers(choose(row, FULL, 0.25)) == [1, 2, 3]


def test_the_merge_that_frees_most_comes_first() -> None:
    row = [measured(1, 50), None, measured(3, 50), measured(4, 50), measured(5, 50), None, measured(7, 50)]
    assert numbers(choose(row, FULL, 0.25)) == [3, 4, 5]


def test_a_share_of_nothing_merges_nothing() -> None:
    assert choose([measured(1, 50), measured(2, 50)], FULL, 0.0) is None
    assert choose([], FULL, 0.25) is None


def test_a_candidate_is_measured_by_a_full_segment() -> None:
    assert is_candidate(250, FULL, 0.25)
    assert not is_candidate(251, FULL, 0.25)
