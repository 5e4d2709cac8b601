from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from gateway.broker.filter import Activation, Filter, FilterError
from gateway.config import Filter as Settings
from gateway.engine.longfilters import LongFilters, Question

SLOW = "data.all(a, data == data)"
LONG = list(range(9000))


def question(text: str, data: Any) -> Question:
    return Question(Filter(text), Activation({"topic": "a", "key": "", "attributes": {}, "data": data}))


class Asked:
    def __init__(self) -> None:
        self.now = 0
        self.long = LongFilters(Settings(timeout_ms=50), lambda: self.now)

    async def __call__(self, *questions: Question) -> list[bool | str]:
        with trio.fail_after(60):
            await self.long.ask(questions)
        return [str(each.answer) if isinstance(each.answer, FilterError) else each.answer for each in questions]


@pytest.fixture
async def ask() -> AsyncIterator[Asked]:
    asked = Asked()
    yield asked
    await asked.long.aclose()


async def test_questions_are_answered_in_order(ask: Asked) -> None:
    text = "data.exists(a, a > 1)"
    assert await ask(question(text, [1]), question(text, [2]), question(text, ["x"])) == [
        False,
        True,
        "No matching overloads found : _>_(string, int64)",
    ]
    assert await ask() == []
    assert await ask(*(question(text, [n % 3]) for n in range(500))) == [n % 3 == 2 for n in range(500)]


async def test_filters_of_the_same_message_are_asked_together(ask: Asked) -> None:
    first = question("data.exists(a, a > 1)", [2])
    second = Question(Filter("data.all(a, a > 2)"), first.variables)
    assert await ask(first, second) == [True, False]


async def test_what_takes_too_long_is_ended_and_the_rest_is_answered(ask: Asked) -> None:
    slow = question(SLOW, LONG)
    again = Question(slow.filter, question(SLOW, [1]).variables)
    answers = await ask(question("data.all(a, true)", [1]), slow, again, question("data.all(a, true)", [1]))
    assert answers == [True, "the filter took too long", "the filter was too slow of late, and rests", True]
    ask.now += 1000
    assert await ask(Question(slow.filter, again.variables)) == [True]


async def test_a_filter_that_takes_too_much_memory_is_ended() -> None:
    long = LongFilters(Settings(timeout_ms=60_000, memory_bytes_max=512 * 1024 * 1024), lambda: 0)
    greedy = question("data.l.all(a, (data.s + data.s + data.s + data.s) != '')", {"l": [1] * 9999, "s": "x" * 50_000})
    with trio.fail_after(120):
        await long.ask([greedy, question("data.all(a, true)", [1])])
    assert isinstance(greedy.answer, FilterError)
    assert str(greedy.answer) in ("std::bad_alloc", "the filter took too much, or its process failed")
    await long.aclose()


async def test_too_many_slow_filters_in_a_minute_and_none_is_asked(ask: Asked) -> None:
    for number in range(10):
        ask.long._ends.append(number)
    assert await ask(question("data.all(a, true)", [1])) == [
        "too many filters were too slow of late: none that may be is asked"
    ]
    ask.now = 60_000
    assert await ask(question("data.all(a, true)", [1])) == [True]


async def test_two_may_ask_at_once(ask: Asked) -> None:
    answers: list[list[bool | str]] = []

    async def one(data: list[int]) -> None:
        answers.append(await ask(*(question("data.exists(a, a > 1)", data) for _ in range(100))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, [1])
        nursery.start_soon(one, [2])
    assert sorted(answers) == [[False] * 100, [True] * 100]


async def test_who_stops_waiting_leaves_nothing_behind(ask: Asked) -> None:
    with trio.move_on_after(0.01):
        await ask(question("data.exists(a, a > 1)", [1]), question(SLOW, LONG))
    assert ask.long._process is None
    assert await ask(question("data.exists(a, a > 1)", [2])) == [True]


async def test_there_is_a_process_while_it_is_needed(ask: Asked) -> None:
    def is_there() -> bool:
        return ask.long._process is not None

    assert not is_there()
    await ask(question("data.exists(a, a > 1)", [1]))
    assert is_there()
    await ask.long.aclose()
    assert not is_there()
