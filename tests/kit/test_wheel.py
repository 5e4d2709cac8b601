from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.wheel import Wheel

Step = tuple[str, int, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 12), st.integers(-500, 3000)),  # item, deadline from now
        st.tuples(st.just("discard"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("clear"), st.just(0), st.just(0)),
        st.tuples(st.just("advance"), st.just(0), st.integers(0, 900)),  # by how much
        st.tuples(st.just("jump"), st.just(0), st.sampled_from([-100_000, -1, 10_000_000])),
    ),
    max_size=60,
)


class SlowWheel:
    """The model: a dictionary that is scanned. Ticks that have passed are not visited again."""

    def __init__(self, tick_ms: int, now_ms: int) -> None:
        self.tick_ms = tick_ms
        self.passed_ms = now_ms // tick_ms * tick_ms
        self.due_ms: dict[int, int] = {}

    def add(self, item: int, deadline_ms: int) -> None:
        rounded_up = (deadline_ms + self.tick_ms - 1) // self.tick_ms * self.tick_ms
        self.due_ms[item] = max(rounded_up, self.passed_ms + self.tick_ms)

    def advance(self, now_ms: int) -> set[int]:
        due = {item for item, due_ms in self.due_ms.items() if due_ms <= now_ms}
        for item in due:
            del self.due_ms[item]
        self.passed_ms = max(self.passed_ms, now_ms // self.tick_ms * self.tick_ms)
        return due


@given(tick_ms=st.sampled_from([1, 7, 100]), start_ms=st.integers(0, 10_000), steps=steps)
def test_everything_comes_at_the_first_advance_past_its_tick(tick_ms: int, start_ms: int, steps: list[Step]) -> None:
    now_ms = start_ms
    wheel: Wheel[int] = Wheel(tick_ms, now_ms)
    model = SlowWheel(tick_ms, now_ms)
    for verb, item, value in steps:
        if verb == "add":
            wheel.add(item, now_ms + value)
            model.add(item, now_ms + value)
        elif verb == "discard":
            wheel.discard(item)
            model.due_ms.pop(item, None)
        elif verb == "clear":
            assert sorted(wheel.clear()) == sorted(model.due_ms)
            model.due_ms.clear()
        else:
            now_ms = max(0, now_ms + value)
            due = wheel.advance(now_ms)
            assert len(due) == len(set(due))
            assert set(due) == model.advance(now_ms)
        assert len(wheel) == len(model.due_ms)
        assert {item for item in range(13) if item in wheel} == set(model.due_ms)


def test_an_item_is_due_at_the_tick_at_or_after_its_deadline() -> None:
    wheel: Wheel[str] = Wheel(tick_ms=100, now_ms=1000)
    wheel.add("on the tick", 1200)
    wheel.add("after the tick", 1201)
    assert wheel.advance(1199) == []
    assert wheel.advance(1200) == ["on the tick"]
    assert wheel.advance(1299) == []
    assert wheel.advance(1300) == ["after the tick"]


def test_a_deadline_of_the_past_is_due_at_the_next_tick() -> None:
    wheel: Wheel[str] = Wheel(tick_ms=100, now_ms=1000)
    wheel.add("late", 3)
    assert wheel.advance(1099) == []
    assert wheel.advance(1100) == ["late"]


def test_what_is_added_again_is_due_at_its_new_deadline_only() -> None:
    wheel: Wheel[str] = Wheel(tick_ms=100, now_ms=0)
    wheel.add("lease", 200)
    wheel.add("lease", 500)
    assert len(wheel) == 1
    assert wheel.advance(400) == []
    assert wheel.advance(500) == ["lease"]


def test_what_was_discarded_is_never_due() -> None:
    wheel: Wheel[str] = Wheel(tick_ms=100, now_ms=0)
    wheel.add("acked", 200)
    wheel.add("not acked", 200)
    wheel.discard("acked")
    wheel.discard("never there")
    assert wheel.advance(200) == ["not acked"]


def test_what_was_cleared_is_never_due_and_may_be_added_again() -> None:
    wheel: Wheel[str] = Wheel(tick_ms=100, now_ms=0)
    wheel.add("lease", 200)
    assert wheel.clear() == ["lease"]
    assert len(wheel) == 0
    wheel.add("lease", 300)
    assert wheel.advance(200) == []
    assert wheel.advance(300) == ["lease"]


def test_a_jump_of_the_clock_returns_everything_oldest_first() -> None:
    wheel: Wheel[str] = Wheel(tick_ms=1, now_ms=0)
    for name, deadline_ms in [("third", 90_000), ("first", 5), ("second", 70_000), ("beyond", 10**12 + 1)]:
        wheel.add(name, deadline_ms)
    assert wheel.advance(10**12) == ["first", "second", "third"]
    assert "beyond" in wheel


def test_a_clock_that_goes_back_makes_nothing_due_twice_or_early() -> None:
    wheel: Wheel[str] = Wheel(tick_ms=100, now_ms=10_000)
    wheel.add("lease", 10_500)
    assert wheel.advance(2_000) == []
    wheel.add("added meanwhile", 2_500)
    assert wheel.advance(10_099) == []
    assert wheel.advance(10_100) == ["added meanwhile"]
    assert wheel.advance(10_500) == ["lease"]
