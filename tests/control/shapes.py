"""What the OpenAPI document says of an answer, held against a real one."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from gateway.control.schemas import SCHEMAS


def check_shape(name: str, value: Any) -> None:
    """Fails where `value` is not what the schema `name` describes."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    jsonschema_rs.Draft202012Validator(schema).validate(value)
