from __future__ import annotations

from array import array
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.order import CHUNK_MAX, Order

keys = st.integers(0, 40) | st.integers(0, 2**64 - 1)
steps = st.lists(st.tuples(st.sampled_from(["add", "add", "remove", "first", "clear"]), keys), max_size=60)


@given(before=st.integers(0, 3 * CHUNK_MAX), spread=st.sampled_from([1, 7]), backwards=st.booleans(), steps=steps)
def test_it_is_a_sorted_dictionary(before: int, spread: int, backwards: bool, steps: list[tuple[str, int]]) -> None:
    order: Order[int] = Order(partial(array, "Q"))
    model: dict[int, int] = {}
    begin = [spread * number for number in range(before)]
    for key in reversed(begin) if backwards else begin:
        order.add(key, key)
        model[key] = key
    for value, (verb, key) in enumerate(steps):
        if verb == "add" and key not in model:
            order.add(key, value)
            model[key] = value
        elif verb == "remove":
            if key in model:
                assert order.remove(key) == model.pop(key)
            else:
                with pytest.raises(KeyError):
                    order.remove(key)
        elif verb == "first" and model:
            assert order.first == min(model)
            assert order.pop_first() == model.pop(min(model))
        elif verb == "clear":
            order.clear()
            model.clear()
    assert list(order) == [model[key] for key in sorted(model)]
    assert len(order) == len(model)
    assert all(order.find(key) == model.get(key) for key in {*begin[::100], *begin[-1:], *(key for _, key in steps)})
    assert all(0 < len(chunk) <= CHUNK_MAX for chunk, _ in order._chunks)
    assert order.some(5) == [model[key] for key in sorted(model)[:5]]


@given(st.sets(st.integers(0, 2000), max_size=1500), st.integers(0, 2000), st.integers(0, 2000))
def test_reaching_is_the_range_and_the_one_before(held: set[int], low: int, high: int) -> None:
    low, high = min(low, high), max(low, high)
    order: Order[str] = Order()
    for key in held:
        order.add(key, str(key))
    inside = [key for key in sorted(held) if low <= key <= high]
    before = [key for key in sorted(held) if key < low][-1:]
    found = [int(value) for value in order.reaching(low, high)]
    assert found in (before + inside, inside)
    if low not in held:
        assert found == before + inside


def test_what_is_added_in_order_fills_its_chunks() -> None:
    order: Order[int] = Order()
    for key in range(10 * CHUNK_MAX):
        order.add(key, key)
    assert len(order._chunks) == 10


def test_nothing_is_in_an_empty_one() -> None:
    order: Order[int] = Order()
    assert not order
    assert order.reaching(0, 10) == []
    with pytest.raises(IndexError):
        _ = order.first
    with pytest.raises(IndexError):
        order.pop_first()
    with pytest.raises(KeyError):
        order.remove(3)


@given(st.sets(st.integers(0, 40)), st.tuples(st.integers(0, 45), st.integers(0, 45)), st.integers(0, 45))
def test_reach_counts_no_further_than_it_is_asked_to(keys: set[int], pair: tuple[int, int], count_max: int) -> None:
    low, high = sorted(pair)
    order: Order[int] = Order()
    for key in keys:
        order.add(key, key)
    inside = sorted(key for key in keys if low <= key <= high)
    behind = inside[count_max] if len(inside) > count_max else None
    assert order.reach(low, high, count_max) == (min(len(inside), count_max), behind)
