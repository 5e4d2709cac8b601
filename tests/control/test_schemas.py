from __future__ import annotations

import enum
import re
from typing import Any

import attrs
import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.control.schemas import PARAMETERS, PATTERN, SCHEMAS, TOPIC, properties, schema_of
from gateway.edge.connections import ConnectionView
from gateway.errors import TABLE, GatewayError
from gateway.model import SubscriptionSettings, check_pattern, check_subscription_name, check_topic
from gateway.wire.subscription import decode_settings
from tests.control.shapes import check_shape

CHANGE = SCHEMAS["SubscriptionChange"]["properties"]


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen
class Inner:
    n: int


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (int, {"type": "integer"}),
        (bool, {"type": "boolean"}),
        (str, {"type": "string"}),
        (float, {"type": "number"}),
        (int | None, {"type": ["integer", "null"]}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Inner, {"$ref": "#/components/schemas/Inner"}),
        (Inner | None, {"anyOf": [{"$ref": "#/components/schemas/Inner"}, {"type": "null"}]}),
    ],
)
def test_a_type_has_the_schema_of_its_json(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == schema


def test_a_type_that_has_no_schema_is_an_error() -> None:
    with pytest.raises(TypeError, match="has no schema"):
        schema_of(bytes)


def test_every_property_is_explained() -> None:
    unexplained = [
        f"{name}.{key}"
        for name, schema in SCHEMAS.items()
        for key, value in schema["properties"].items()
        if "description" not in value and "$ref" not in value and "enum" not in value
    ]
    assert unexplained == []


def test_everything_that_is_explained_is_there() -> None:
    assert properties(SubscriptionSettings).keys() == CHANGE.keys()
    assert SCHEMAS["Connection"]["required"] == [field.name for field in attrs.fields(ConnectionView)]
    assert SCHEMAS["Error"]["properties"]["code"]["enum"] == sorted(TABLE)


@pytest.mark.parametrize("code", TABLE)
def test_every_error_object_is_as_described(code: str) -> None:
    check_shape("Error", GatewayError(code, "why").as_dict())


def accepted(key: str, value: Any) -> bool:
    try:
        decode_settings({"topics": ["a"], key: value}, None)
    except GatewayError:
        return False
    return True


def described(key: str, value: Any) -> bool:
    return jsonschema_rs.Draft202012Validator(SCHEMAS["SubscriptionChange"]).is_valid({"topics": ["a"], key: value})


BOUNDED = [(key, schema) for key, schema in CHANGE.items() if "minimum" in schema]
BOUNDS: list[tuple[str, Any, bool]] = [
    *(
        (key, schema[bound], True)
        for key, schema in CHANGE.items()
        for bound in ("minimum", "maximum")
        if bound in schema
    ),
    *((key, schema["minimum"] - 1, False) for key, schema in CHANGE.items() if "minimum" in schema),
    *((key, schema["maximum"] + 1, False) for key, schema in CHANGE.items() if "maximum" in schema),
    ("topics", [], False),
    ("topics", ["a"] * CHANGE["topics"]["maxItems"], True),
    ("topics", ["a"] * (CHANGE["topics"]["maxItems"] + 1), False),
    ("topics", ["a" * 255], True),
    ("topics", ["a" * 256], False),
    ("backoff_ms", [], False),
    ("backoff_ms", [0] * CHANGE["backoff_ms"]["maxItems"], True),
    ("backoff_ms", [0] * (CHANGE["backoff_ms"]["maxItems"] + 1), False),
    ("backoff_ms", [CHANGE["backoff_ms"]["items"]["maximum"]], True),
    ("backoff_ms", [CHANGE["backoff_ms"]["items"]["maximum"] + 1], False),
    ("backoff_ms", [-1], False),
    ("dead_letter", None, True),
    ("dead_letter", "", True),
    ("dead_letter", "a" * 255, True),
    ("dead_letter", "a" * 256, False),
    ("dead_letter", "a.*", False),
    ("start", "start", True),
    ("start", "now", False),
    ("start", None, False),
    ("paused", 1, False),
    ("lease_ms", 1000.0, True),
    ("lease_ms", 1000.5, False),
    ("lease_ms", "1000", False),
    ("lease_ms", True, False),
    ("nonsense", 1, False),
]


@pytest.mark.parametrize(("key", "value", "good"), BOUNDS, ids=[f"{key}-{str(value)[:20]}" for key, value, _ in BOUNDS])
def test_what_is_described_is_what_is_accepted(key: str, value: Any, good: bool) -> None:
    assert (accepted(key, value), described(key, value)) == (good, good)


def passes(check: Any, text: str) -> bool:
    try:
        check(text)
    except GatewayError:
        return False
    return True


PIECES = ("a", "B9", "-_", ".", "..", "*", ">", ".>", ".*", " ", "\n", "\u4e2d")


@example("a.>.>")
@example("*.>.a")
@example("a\n")
@example("a.")
@example(">")
@example("")
@given(st.lists(st.sampled_from(PIECES), max_size=5).map("".join))
def test_the_patterns_are_those_of_the_model(text: str) -> None:
    def fits(pattern: str) -> bool:
        return jsonschema_rs.is_valid({"type": "string", "pattern": pattern}, text)

    assert fits(TOPIC) == passes(check_topic, text) == passes(check_subscription_name, text)
    assert fits(PATTERN) == passes(check_pattern, text)


def test_the_length_of_a_name_is_that_of_the_model() -> None:
    longest = PARAMETERS["name"]["schema"]["maxLength"]
    assert passes(check_subscription_name, "a" * longest)
    assert not passes(check_subscription_name, "a" * (longest + 1))


def test_patterns_are_anchored() -> None:
    assert all(pattern.startswith("^") and pattern.endswith("$") for pattern in (TOPIC, PATTERN))
    assert re.search(TOPIC, "a b") is None
