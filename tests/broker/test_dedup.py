from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.dedup import RECORD_BYTES, Dedup, digest
from gateway.kit.hashes import id_hash

WINDOW_MS = 1000
MARK = b"12345678"


def dedup(ids_max: int = 1000) -> Dedup:
    return Dedup(WINDOW_MS, ids_max, 0)


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 5)), max_size=60))
def test_an_id_is_known_for_the_window_at_least_and_at_most_twice_as_long(steps: list[tuple[int, int]]) -> None:
    known = dedup()
    remembered: dict[str, tuple[int, int]] = {}  # id -> when, position
    now = 0
    for position, (later_ms, number) in enumerate(steps):
        now += later_ms
        for name, (when, where) in remembered.items():
            found = known.find("topic", name, now)
            if now - when < WINDOW_MS:
                assert found == (where, MARK)
            elif now - when >= 2 * WINDOW_MS:
                assert found is None
            else:
                assert found in (None, (where, MARK))
        name = str(number)
        if known.find("topic", name, now) is None:
            known.remember("topic", name, position, MARK, now)
            remembered[name] = (now, position)


def test_the_same_id_on_another_topic_is_another() -> None:
    known = dedup()
    known.remember("a", "1", 7, MARK, 0)
    assert known.find("a", "1", 1) == (7, MARK)
    assert known.find("b", "1", 1) is None
    assert known.find("a", "2", 1) is None


def test_position_zero_is_a_position() -> None:
    known = dedup()
    known.remember("a", "1", 0, MARK, 0)
    assert known.find("a", "1", 1) == (0, MARK)


@pytest.mark.parametrize("ids_max", [2, 3, 10, 11])
def test_no_more_ids_are_remembered_than_allowed(ids_max: int) -> None:
    known = dedup(ids_max)
    for number in range(50):
        known.remember("a", str(number), number, MARK, 0)
        assert len(known) <= ids_max
    assert known.find("a", "49", 0) == (49, MARK)


def test_the_older_half_goes_first() -> None:
    known = dedup(10)
    for number in range(11):
        known.remember("a", str(number), number, MARK, 0)
    assert [known.find("a", str(number), 0) is None for number in range(11)] == [True] * 5 + [False] * 6


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=80))
def test_keys_that_share_a_chain_are_kept_apart(steps: list[tuple[int, bool]]) -> None:
    """As a dictionary: 62 keys in two chains."""
    known, model = dedup(200), dict[bytes, tuple[int, bytes]]()
    known._younger._mask = 1
    for position, (number, odd) in enumerate(steps):
        key = bytes([odd, 0, 0, 0, 0, 0, 0, 0]) + number.to_bytes(8, "little")
        assert known.find_hashed(key, 0) == model.get(key)
        if key not in model:
            mark = position.to_bytes(8, "big")
            known.remember_hashed(key, position, mark, 0)
            model[key] = (position, mark)
    assert len(known) == len(model)


def test_what_recovery_knows_by_its_hash_is_known_by_its_name() -> None:
    known = dedup()
    known.remember_hashed(id_hash("trade.paid", "order-7"), 7, MARK, 5)
    assert known.find("trade.paid", "order-7", 5) == (7, MARK)


def test_a_hundred_thousand_ids_take_at_most_64_bytes_each_and_give_them_back() -> None:
    known = dedup(400_000)
    count = 100_000
    for number in range(count):
        known.remember("a", str(number), number, MARK, 0)
    tables = known._younger._table
    assert tables.extents * tables.extent_bytes <= count * RECORD_BYTES + tables.extent_bytes
    assert known._younger._heads is not None
    heads = len(known._younger._heads)
    assert (tables.extents * tables.extent_bytes + heads) / count <= 64
    assert known.find("a", str(count - 1), 0) == (count - 1, MARK)
    known.turn(2 * WINDOW_MS)
    assert (tables.extents, len(known)) == (0, 0)


def test_a_long_pause_forgets_everything() -> None:
    known = dedup()
    known.remember("a", "1", 1, MARK, 0)
    known.turn(2 * WINDOW_MS)
    assert len(known) == 0


def test_without_a_window_nothing_is_remembered() -> None:
    known = Dedup(0, 100, 0)
    known.remember("a", "1", 1, MARK, 5)
    assert known.find("a", "1", 5) is None


def test_a_digest_tells_payloads_apart_and_in_which_form_they_came() -> None:
    digests = {digest(b"1", None), digest(b"2", None), digest(b"", None), digest(b"", ""), digest(b"", "MQ==")}
    assert len(digests) == 5
    assert {len(each) for each in digests} == {8}
    assert digest(b"1", None) == digest(b"1", None)


def test_the_space_around_a_payload_is_not_part_of_it() -> None:
    """It is not kept where a store is read back."""
    assert digest(b' {"a": 1}\r\n\t', None) == digest(b'{"a": 1}', None)
    assert digest(b'{"a":1}', None) != digest(b'{"a": 1}', None)
