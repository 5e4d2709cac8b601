from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from gateway.errors import ConfigError
from gateway.flow.convert import Projection, SchemaCheck, path_of
from gateway.flow.stage import Refuse, Replace
from gateway.model import JSON_DEPTH_MAX, Batch, Durability, Message

ORDER = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "string", "pattern": "^[a-z]+$"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
    },
}


def batch_of(*texts: bytes) -> Batch:
    return Batch([Message("a", data=msgspec.Raw(text)) for text in texts], Durability.FSYNCED, 0, lambda _: None)


def schema(directory: Path, value: Any) -> SchemaCheck:
    file = directory / "schema.json"
    file.write_bytes(value if isinstance(value, bytes) else orjson.dumps(value))
    return SchemaCheck(file, "orders")


async def asked(work: SchemaCheck | Projection, batch: Batch) -> list[Any]:
    return list(await work(batch, range(len(batch.messages))))


async def test_a_payload_that_does_not_fit_is_refused_with_the_path_in_the_data(tmp_path: Path) -> None:
    check = schema(tmp_path, ORDER)
    outcomes = await asked(
        check,
        batch_of(
            b'{"id":"a"}',
            b'{"id":5}',
            b"{}",
            b"7",
            b'{"id":"a","items":[{},{"sku":1}]}',
            b'{"id":"A"}',
        ),
    )
    assert outcomes[0] is None
    assert [outcome.message for outcome in outcomes[1:]] == [
        'data.id: 5 is not of type "string"',
        'data: "id" is a required property',
        'data: 7 is not of type "object"',
        'data.items[1].sku: 1 is not of type "string"',
        'data.id: "A" does not match "^[a-z]+$"',
    ]
    assert {outcome.code for outcome in outcomes[1:]} == {"schema_mismatch"}


async def test_a_payload_that_is_not_json_is_refused(tmp_path: Path) -> None:
    batch = batch_of(b"1e999", b"1")
    batch.messages[1] = Message("a", data_base64="AA==")
    for work in (schema(tmp_path, {}), Projection("@", "orders")):
        outcomes = await asked(work, batch)
        assert [outcome.message for outcome in outcomes] == [
            "the payload is not JSON, and pipeline 'orders' takes nothing else"
        ] * 2


DEEP = b'{"a":' * (JSON_DEPTH_MAX - 1) + b"1" + b"}" * (JSON_DEPTH_MAX - 1)


@pytest.mark.parametrize(
    ("case", "text", "fits"),
    [
        ({"properties": {"a": {"$ref": "#"}}}, DEEP, True),
        ({"properties": {"a": {"$ref": "#"}}, "type": "object"}, DEEP, False),
        ({"$ref": "#"}, b"1", True),
        ({"allOf": [{"$ref": "#"}]}, b"1", True),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, b"1", True),
        ({"pattern": "^(a+)+$"}, b'"' + b"a" * 50_000 + b'b"', False),
        ({"pattern": "^(a|a)*$"}, b'"' + b"a" * 50_000 + b'b"', False),
        ({"uniqueItems": True}, b"[" + b"1," * 5_000 + b"1]", False),
        ({"maxLength": 3}, b'"' + b"x" * 1_000_000 + b'"', False),
        ({"type": "object"}, b'{"a":1,"a":2}', True),
        ({"maximum": 5}, b"123456789012345678901234567890", False),
        (True, b"1", True),
        (False, b"1", False),
    ],
)
async def test_a_schema_and_data_of_any_shape_are_answered(tmp_path: Path, case: Any, text: bytes, fits: bool) -> None:
    [outcome] = await asked(schema(tmp_path, case), batch_of(text))
    assert (outcome is None) is fits
    assert outcome is None or len(outcome.message) < 700


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"$ref": "http://127.0.0.1:9/order.json"}, r"Retrieval is disabled.*put it into the file, under \$defs"),
        ({"$ref": "file:///etc/hostname"}, r"Retrieval is disabled"),
        ({"properties": {"a": {"$ref": "other.json"}}}, r"No base URI.*put it into the file"),
        ({"$ref": "#/$defs/gone"}, "gone"),
        ({"type": "objekt"}, r"\$\.type"),
        ({"pattern": "("}, r"\$\.pattern"),
        ({"pattern": "^(?=a)b"}, r"\$\.pattern"),
        ({"properties": {"a": {"pattern": "(a{1,1000}){1,1000}"}}}, r"\$\.properties\.a\.pattern"),
        ({"minLength": -1}, r"\$\.minLength"),
        ({"$schema": "http://127.0.0.1:9/meta"}, "meta"),
        ([1], "must be an object"),
        (b"{", "is not JSON"),
        (b'"' + b"x" * (4 << 20) + b'"', "at most 4194304 are allowed"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_at_the_start(tmp_path: Path, case: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        schema(tmp_path, case)
    assert str(caught.value).startswith(f"schema {tmp_path}/schema.json: ")
    assert len(str(caught.value)) < 1000


def test_a_schema_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; name a file that exists"):
        SchemaCheck(tmp_path / "gone.json", "orders")


async def test_a_projection_makes_the_payload_anew() -> None:
    work = Projection("{id: order.id, skus: items[].sku}", "orders")
    outcomes = await asked(work, batch_of(b'{"order":{"id":"x"},"items":[{"sku":"a"},{"sku":"b"}],"more":1}'))
    assert outcomes == [Replace(data={"id": "x", "skus": ["a", "b"]})]


async def test_a_projection_that_finds_nothing_or_fails_refuses_the_message() -> None:
    [nothing] = await asked(Projection("a.b", "orders"), batch_of(b"{}"))
    assert nothing == Refuse("the projection of pipeline 'orders' finds nothing in the data")
    [failed] = await asked(Projection("sum(a)", "orders"), batch_of(b'{"a":"x"}'))
    assert failed.message.startswith("the projection of pipeline 'orders' fails: ")
    assert await asked(Projection("a", "orders"), batch_of(b'{"a":false}')) == [Replace(data=False)]


@pytest.mark.parametrize("expression", ["a..b", "", "{a: }", "[?", "foo(", "a | "])
def test_a_wrong_projection_is_told_at_the_start(expression: str) -> None:
    with pytest.raises(ConfigError, match="pipeline 'orders': projection: "):
        Projection(expression, "orders")


def test_the_payload_is_decoded_once_for_all() -> None:
    batch = batch_of(b'{"a":1}')
    assert batch.decode(0) is batch.decode(0)


def test_a_path_is_written_as_people_do() -> None:
    assert path_of([]) == "data"
    assert path_of(["a", 3, "b"]) == "data.a[3].b"
    assert path_of(["x"] * 900) == "data.(...)" + ".x" * 20
