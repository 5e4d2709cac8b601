from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given

from gateway.flow.names import UniqueNames
from gateway.flow.stage import Refuse
from gateway.model import Batch, Durability, Message
from tests.wire.json_texts import json_texts


async def asked(*texts: str) -> list[Any]:
    messages = [Message("a", data=msgspec.Raw(text.encode())) for text in texts]
    batch = Batch([*messages, Message("a", data_base64="")], Durability.FSYNCED, 0, lambda _: None)
    *outcomes, of_bytes = await UniqueNames()(batch, range(len(batch.messages)))
    assert of_bytes is None
    return outcomes


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"a":1,"a":1}', "a"),
        ('{"a":1,"b":{"c":[{"d":1,"d":2}]}}', "d"),
        ('{"a": 1, "\\u0061": 2}', "a"),
        ('[1,{"":1,"":2}]', ""),
        ('{"x":{"y":1},"x":{"y":1}}', "x"),
    ],
)
async def test_a_name_twice_in_one_object_is_refused_by_itself(text: str, name: str) -> None:
    before, refused, after = await asked("1", text, '{ "a": 1 }')
    assert (before, after) == (None, None)
    assert refused == Refuse(f"data: the name {name!r} is in one object twice; send it once")


async def test_other_names_pass_however_they_are_written() -> None:
    deep = '{"a":' * 700 + "1" + "}" * 700
    texts = ['{"a":{"a":1},"A":2}', '[{"a":1},{"a":1}]', '{ "a" : 1.00 }', '"a"', "9" * 300, deep]
    assert await asked(*texts) == [None] * len(texts)


async def test_what_no_strict_parser_takes_is_refused() -> None:
    [refused] = await asked("1e999")
    assert isinstance(refused, Refuse)


def _has_twice(value: Any) -> bool:
    if isinstance(value, Pairs):
        return len({name for name, _ in value}) < len(value) or any(_has_twice(each) for _, each in value)
    return isinstance(value, list) and any(map(_has_twice, value))


class Pairs(list[tuple[str, Any]]):
    pass


@given(json_texts)
async def test_it_finds_what_is_there(text: str) -> None:
    [outcome] = await asked(text)
    try:
        twice = _has_twice(json.loads(text, object_pairs_hook=Pairs))
    except ValueError:
        return
    assert (outcome is not None) == twice or "strict parsers" in outcome.why
