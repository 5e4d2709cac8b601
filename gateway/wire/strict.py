"""JSON that every parser takes: what the first decoding lets pass, and a consumer's own parser may not.

A delivery holds many messages, and a consumer whose parser stumbles over one of them loses all. msgspec, which reads
what producers send, goes over a payload without making its numbers, so `1e999` is left, which Go, Rust and orjson
refuse; and it goes deeper than they do. So a whole text is run through simdjson first, which makes no objects and takes
0.1 us for 260 bytes, a third of what searching them for what may be wrong would; only where it complains is each
message looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec
import orjson
import simdjson

from gateway.errors import GatewayError
from gateway.model import JSON_DEPTH_MAX, Message

_parser = simdjson.Parser()
_AT_ONCE_CHARS_MAX: Final = 1 << 20
"""The parser keeps 14 bytes for each of the longest text it had; the messages of a longer one are looked at singly."""
_ORJSON_DEPTH: Final = 1024  # documented: orjson refuses to go deeper
_PADDING: Final = _ORJSON_DEPTH - JSON_DEPTH_MAX


def is_strict(text: str | bytes) -> bool:
    """Whether a strict parser takes all of `text`; where it says no, look at what is in it."""
    if len(text) > _AT_ONCE_CHARS_MAX:
        return False
    try:
        _parser.parse(text)
    except (ValueError, RuntimeError):  # wrong, or too deep, or an integer of more than 64 bits
        return False
    return True


def refuse_numbers(messages: Sequence[Message], errors: dict[int, GatewayError]) -> None:
    """Add an error for each message with a number that no double holds."""
    for index, message in enumerate(messages):
        if index not in errors:
            try:
                check_numbers(message)
            except GatewayError as error:
                errors[index] = GatewayError(error.code, f"messages[{index}]: {error.message}")


def check_numbers(message: Message) -> None:
    """Refuse data with a number that no double holds, such as 1e999: many parsers cannot take it."""
    if message.data is not msgspec.UNSET:
        try:
            orjson.loads(memoryview(message.data))
        except orjson.JSONDecodeError as error:
            if "infinity" in str(error):
                raise GatewayError("bad_request", f"data: {error}; send it as text") from None


# --------------------------------------------------------------------------------------------------------- depth


def check_depth(data: bytes | msgspec.Raw) -> None:
    """Refuse a payload so deep that a consumer's parser would fail on the whole delivery."""
    if not is_shallow(bytes(data)):
        raise too_deep("data")


def is_shallow(raw: bytes) -> bool:
    """Whether `check_depth` lets `raw` pass.

    A payload of depth d has at least d opening brackets, so counting them clears nearly all without a parse; and a text
    without any is searched at 25 times the speed of counting: 2 us for 64 KiB.
    """
    if raw.find(b"[") < 0 and raw.find(b"{") < 0:
        return True
    if raw.count(b"[") + raw.count(b"{") <= JSON_DEPTH_MAX:
        return True
    try:
        orjson.loads(b"[" * _PADDING + raw + b"]" * _PADDING)
    except orjson.JSONDecodeError as error:
        return "depth" not in str(error)
    return True


def too_deep(what: str) -> GatewayError:
    return GatewayError("bad_request", f"{what} is nested deeper than {JSON_DEPTH_MAX} levels; flatten it")


_MARK: Final = "nested too deep"
_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_TOKENS_MAX: Final = 100_000
"""Brackets and quotes looked at one by one, 10 ms; nobody sends such a text but to do harm."""


def without_deep(text: str, level: int) -> str | None:
    """`text`, which is too deep for its decoder, with a mark in place of each message that makes it so.

    The messages stand `level` deep. None where there is none to replace, or too much to look at.
    """
    if sum(map(text.count, '[]{}"')) > _TOKENS_MAX:
        return None
    kept: list[str] = []
    end = depth = begin = deepest = 0
    for token in _TOKEN.finditer(text):
        match text[token.start()]:
            case "[" | "{":
                if depth == level:
                    begin, deepest = token.start(), depth
                depth += 1
                deepest = max(deepest, depth)
            case "]" | "}":
                depth -= 1
                if depth == level and deepest - level - 1 > JSON_DEPTH_MAX:
                    kept += text[end:begin], f'"{_MARK}"'
                    end = token.end()
    return "".join([*kept, text[end:]]) if kept else None


def is_mark(item: msgspec.Raw | str) -> bool:
    """Whether `item` stands where `without_deep` has taken something away."""
    return isinstance(item, msgspec.Raw) and bytes(item) == b'"%b"' % _MARK.encode()
