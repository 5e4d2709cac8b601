"""Whatever is broken is found, in this process and over several, and said at once."""

from __future__ import annotations

from pathlib import Path

import structlog

from tests.crash.spread import CHUNK, judge_all, judge_some

CASES = list(range(3 * CHUNK + 1))
ODD = {CHUNK - 1, CHUNK + 7, 3 * CHUNK}


async def judge(directory: Path, case: int) -> list[str]:
    """Leaves something behind, and finds some broken."""
    (directory / "found").write_bytes(b"")
    structlog.get_logger("test").error("nobody hears of it", case=case)
    return [f"{case} is odd"] if case in ODD else []


async def judge_and_fail(directory: Path, case: int) -> list[str]:
    assert case not in ODD
    return []


async def test_what_is_broken_is_found_in_this_process(tmp_path: Path) -> None:
    assert await judge_some(judge, CASES, tmp_path) == [f"{case} is odd" for case in sorted(ODD)]


async def test_what_is_broken_is_found_over_processes_and_said() -> None:
    said: list[str] = []
    broken = await judge_all(judge, CASES, said.append, processes=2)
    assert sorted(broken) == sorted(f"{case} is odd" for case in ODD)
    assert {f"BROKEN {each}" for each in broken} <= set(said)
    assert said[-1] == f"{len(CASES)} of {len(CASES)} judged, 3 broken"


async def test_a_case_that_raises_is_broken_and_the_others_go_on() -> None:
    broken = await judge_all(judge_and_fail, CASES, lambda _: None, processes=2)
    assert len(broken) == len(ODD)
    assert all("AssertionError" in each for each in broken)
