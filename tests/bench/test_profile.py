from __future__ import annotations

from pathlib import Path

import pytest

from gateway.bench.profile import Profile


def test_the_end_of_a_name_says_its_form() -> None:
    with pytest.raises(ValueError, match=r"end it in \.svg"):
        Profile(Path("out.png"))


def test_each_case_has_a_file_of_its_own() -> None:
    assert Profile(Path("/x/flame.svg")).file("rate-5,000/s") == Path("/x/flame-rate-5-000-s.svg")
    assert Profile(Path("flame.txt")).file("a burst") == Path("flame-a-burst.txt")


def test_without_py_spy_a_gateway_of_our_own_runs_under_the_profiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Profile, "spy", None)
    assert Profile(Path("flame.svg")).command[1:] == ["-m", "cProfile", "-o", str(Path("flame.pstats").absolute())]
