from __future__ import annotations

from base64 import b64encode

import msgspec
import pytest

from gateway.config import Limits
from gateway.errors import GatewayError
from gateway.model import JSON_DEPTH_MAX, Message
from gateway.wire.limits import PLAIN_BYTES_MAX, check_attributes, check_payload

LIMITS = Limits(payload_bytes_max=4000, attributes_bytes_max=1024)


def refused(message: Message) -> str:
    """The code of the error, and what it says."""
    for check in (check_payload, check_attributes):
        try:
            check(message, LIMITS)
        except GatewayError as error:
            return f"{error.code}: {error.message}"
    pytest.fail("it passes")


def json(text: str) -> Message:
    return Message("a", data=msgspec.Raw(text.encode()))


@pytest.mark.parametrize(
    "message",
    [
        json("1"),
        json('"' + "x" * 3998 + '"'),
        Message("a", data_base64=b64encode(b"x" * 4000).decode(), content_type="image/png"),
        Message("a", data_base64=""),
        Message("a", data=msgspec.Raw(b"1"), attributes={"a": "b"}),
        Message("a", data=msgspec.Raw(b"1"), attributes={"a" * 512: "b" * 512}),
    ],
    ids=["small", "the largest JSON", "the largest of anything else", "nothing", "an attribute", "the largest of them"],
)
def test_what_is_within_the_limits_passes(message: Message) -> None:
    check_payload(message, LIMITS)
    check_attributes(message, LIMITS)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Message("a"), "bad_request: a message carries either data"),
        (Message("a", data=msgspec.Raw(b"1"), data_base64=""), "bad_request: a message carries either data"),
        (json('"' + "x" * 3999 + '"'), "payload_too_large: the payload has 4001 bytes; at most 4000 are allowed"),
        (
            Message("a", data_base64=b64encode(b"x" * 4001).decode()),
            "payload_too_large: the payload has 4001 bytes; at most 4000 are allowed (limits.payload_bytes_max)",
        ),
        (Message("a", data=msgspec.Raw(b"1"), content_type="text/plain"), "bad_request: content_type: goes with data_"),
        (Message("a", data_base64="", content_type="picture"), "bad_request: content_type: must be a media type"),
        (Message("a", data_base64="?"), "bad_request: data_base64"),
        (
            Message("a", data=msgspec.Raw(b"1"), attributes={"a" * 512: "b" * 513}),
            "attributes_too_large: the attributes have 1025 bytes; at most 1024 are allowed",
        ),
        (Message("a", data=msgspec.Raw(b"1"), attributes={"": "b"}), "bad_request: attributes: a name is empty"),
    ],
)
def test_what_is_not_is_refused_with_the_limit(message: Message, why: str) -> None:
    assert refused(message).startswith(why)


def test_attributes_count_in_bytes_and_not_in_characters() -> None:
    assert "1026 bytes" in refused(Message("a", data=msgspec.Raw(b"1"), attributes={"ä": "é" * 512}))


@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX, JSON_DEPTH_MAX + 1])
def test_a_payload_that_is_too_short_to_be_too_deep_need_not_be_looked_at(depth: int) -> None:
    deep = json("[" * depth + "]" * depth)
    assert (2 * depth > PLAIN_BYTES_MAX) == (depth > JSON_DEPTH_MAX)
    if depth > JSON_DEPTH_MAX:
        assert "nested deeper than" in refused(deep)
    else:
        check_payload(deep, LIMITS)
