from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.errors import GatewayError
from gateway.trace.lines import LinesFile, follow
from tests.trace.told import BEGAN_MS, BOTH, PARENT, Told, message, particular, plain


def exported(directory: Path, since_ms: int = 0) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in follow(directory, since_ms, lambda: False)]


def test_every_event_is_a_line_with_words_for_its_fields(tmp_path: Path) -> None:
    told = Told(tmp_path)
    steps = told.steps
    steps.started("0badcafe", 1, 5, BEGAN_MS - 9, "after a clean end")
    told.stored(1, 2, route=BOTH)
    steps.stored([particular(3, [message("a1", traceparent=PARENT)])])
    steps.refused(plain(0, 3), GatewayError("overloaded", ""), "admit")
    told.handed([1])
    steps.settled("orders", [1], 1)
    steps.returned("orders", [2], 1, "nack", "no stock", BEGAN_MS + 5)
    steps.dead_lettered("orders", 2, 9, "dead.orders")
    steps.changed("audit", "paused")
    told.finish()
    lines = exported(tmp_path)
    assert {line.pop("time_ms") for line in lines} == {BEGAN_MS}
    head = {"messages": 1, "positions": [[1, 1]], "subscription": "orders"}
    accepted: dict[str, Any] = {"step": "accepted", "producer": "c-1", "topic": "trade.paid", "durability": "fsynced"}
    accepted |= {"accepted_ms": BEGAN_MS}
    back = {"messages": 1, "positions": [[2, 2]], "subscription": "orders"}
    assert lines == [
        {
            "step": "node_started",
            "messages": 4,
            "positions": [[1, 4]],
            "epoch": "0badcafe",
            "how": "after a clean end",
            "last_seen_ms": BEGAN_MS - 9,
        },
        {**accepted, "messages": 2, "positions": [[1, 2]], "subscriptions": ["orders", "audit"]},
        {**accepted, "messages": 1, "positions": [[3, 3]], "subscriptions": ["orders"]},
        {"step": "traceparent", "messages": 1, "positions": [[3, 3]], "traceparents": [[3, PARENT]]},
        {
            "step": "refused",
            "messages": 3,
            "stage": "admit",
            "producer": "c-1",
            "topic": "trade.paid",
            "code": "overloaded",
        },
        {**head, "step": "delivered", "attempt": 1, "consumer": "c-9", "lease_until_ms": BEGAN_MS + 30_000},
        {**head, "step": "acked"},
        {**back, "step": "returned", "attempt": 1, "cause": "nack", "reason": "no stock", "due_ms": BEGAN_MS + 5},
        {**back, "step": "dead_letter_stored", "topic": "dead.orders", "dead_letter_position": 9},
        {
            "step": "dead_letter_of",
            "messages": 1,
            "positions": [[9, 9]],
            "subscription": "orders",
            "topic": "dead.orders",
            "original_position": 2,
        },
        {"step": "subscription_changed", "positions": [[0, 2**53 - 1]], "subscription": "audit", "change": "paused"},
    ]


def test_only_what_happened_since_is_exported(tmp_path: Path) -> None:
    told = Told(tmp_path, file_bytes=500)
    for position in range(1, 20):
        told.now += 1000
        told.stored(position)
        told.write()
    assert [line["positions"] for line in exported(tmp_path, told.now - 1000)] == [[[18, 18]], [[19, 19]]]


def test_a_follower_reads_what_comes_in_this_file_and_the_next_and_nothing_twice(tmp_path: Path) -> None:
    told = Told(tmp_path, file_bytes=700)
    told.stored(1)
    told.write()
    published = iter(range(2, 40))

    def pause() -> bool:
        """While the follower waits, one more is written; at last none."""
        position = next(published, None)
        if position is not None:
            told.stored(position)
            told.write()
        return position is not None

    positions = [orjson.loads(line)["positions"] for line in follow(tmp_path, 0, pause)]
    assert positions == [[[position, position]] for position in range(1, 40)]
    assert len(told.trace.all) > 5


def test_a_follower_waits_for_the_rest_of_a_record(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.stored(1)
    told.write()
    told.stored(2)
    path = told.trace.all[0].path
    whole = b"".join(told.buffer.take(told.now, 1 << 60).parts)
    parts = [whole[:10], whole[10:40], whole[40:]]

    def pause() -> bool:
        if parts:
            with path.open("ab") as file:
                file.write(parts.pop(0))
            return True
        return False

    assert [orjson.loads(line)["positions"] for line in follow(tmp_path, 0, pause)] == [[[1, 1]], [[2, 2]]]


def test_a_follower_goes_on_with_the_file_of_the_next_process(tmp_path: Path) -> None:
    """The first one was killed: its file has no end that says so."""
    told = Told(tmp_path)
    told.stored(1)
    told.write()
    lives = [told]

    def pause() -> bool:
        if len(lives) == 1:
            told.stored(2)  # written right before the end
            told.write()
            lives.append(Told(tmp_path))
            lives[1].stored(3)
            lives[1].write()
            return True
        return False

    positions = [orjson.loads(line)["positions"] for line in follow(tmp_path, 0, pause)]
    assert positions == [[[1, 1]], [[2, 2]], [[3, 3]]]


def test_what_cannot_be_read_of_an_older_file_is_said(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.stored(1)
    told.write()
    with told.trace.all[0].path.open("ab") as file:
        file.write(b"torn")
    again = Told(tmp_path)
    again.stored(2)
    again.write()
    steps = [(line["step"], line.get("bytes")) for line in exported(tmp_path)]
    assert steps == [("accepted", None), ("damaged", 4), ("accepted", None)]


@pytest.mark.parametrize("files_max", [1, 3])
def test_the_exported_file_is_rotated_by_size(tmp_path: Path, files_max: int) -> None:
    told = Told(tmp_path / "trace")
    out = LinesFile(tmp_path / "out" / "trace.jsonl", 3000, files_max)
    for position in range(1, 101):
        told.stored(position)
        out.write(b"".join(told.buffer.take(told.now, 1 << 60).parts))
    names = sorted(path.name for path in out.path.parent.iterdir())
    assert names == ["trace.jsonl", "trace.jsonl.1", "trace.jsonl.2"][:files_max]
    assert all(path.stat().st_size <= 3000 for path in out.path.parent.iterdir())
    kept = [
        orjson.loads(line)["positions"][0][0]
        for name in reversed(names)
        for line in (out.path.parent / name).read_bytes().splitlines()
    ]
    assert kept == list(range(kept[0], 101))
    assert (tmp_path / "out" / "trace.jsonl").stat().st_mode & 0o077 == 0


def test_an_exported_file_goes_on_where_it_was(tmp_path: Path) -> None:
    for _ in range(2):
        told = Told(tmp_path / "trace")
        told.stored(1)
        LinesFile(tmp_path / "trace.jsonl", 10_000, 2).write(b"".join(told.buffer.take(told.now, 1 << 60).parts))
    assert len((tmp_path / "trace.jsonl").read_bytes().splitlines()) == 2
