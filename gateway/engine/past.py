"""What a filter and a gate say of messages that are stored already: for a subscription that begins in the past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import orjson
import trio

from gateway.broker.filter import Activation, Filter, FilterError, matches
from gateway.config import Filter as Settings
from gateway.engine.gate import Gate
from gateway.engine.longfilters import LongFilters, Question
from gateway.engine.reader import Reader
from gateway.wire.payload import split_bodies

_CHUNK: Final = 100
"""Messages read and asked about before others run: a millisecond or two."""


async def sift_past(
    reader: Reader, long: LongFilters, settings: Settings, filter_: Filter, ranges: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int]], int]:
    """Closed ranges of the positions in `ranges` that match, and of how many it could not be said.

    Every position must be in the log, and stay there meanwhile.
    """
    found: list[tuple[int, int]] = []
    errors = 0
    for positions in _chunks(ranges):
        bodies = split_bodies(await reader.read([positions]))
        questions = [Question(filter_, Activation(_variables(body, settings))) for body in bodies]
        if filter_.is_quick(max(map(len, bodies)), settings.inline_bytes_max):
            for question in questions:
                question.answer = _answer(question)
            await trio.lowlevel.checkpoint()
        else:
            await long.ask(questions)
        for position, question in zip(positions, questions, strict=True):
            if question.answer is True:
                _add(found, position)
            elif isinstance(question.answer, FilterError):
                errors += 1
    return found, errors


class _Asked(msgspec.Struct):
    """What a gate sees of a delivery JSON."""

    topic: str
    attributes: dict[str, str] = {}


_asked = msgspec.json.Decoder(_Asked).decode


async def let_past(reader: Reader, gate: Gate, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Closed ranges of the positions in `ranges` that the gate lets through; as for `sift_past`."""
    found: list[tuple[int, int]] = []
    for positions in _chunks(ranges):
        bodies = split_bodies(await reader.read([positions]))
        for position, asked in zip(positions, map(_asked, bodies), strict=True):
            if gate.choose(asked.topic, asked.attributes) == gate.key:
                _add(found, position)
        await trio.lowlevel.checkpoint()
    return found


def _add(ranges: list[tuple[int, int]], position: int) -> None:
    if ranges and ranges[-1][1] == position - 1:
        ranges[-1] = (ranges[-1][0], position)
    else:
        ranges.append((position, position))


def _chunks(ranges: Sequence[tuple[int, int]]) -> Iterator[range]:
    for low, high in ranges:
        for start in range(low, high + 1, _CHUNK):
            yield range(start, min(start + _CHUNK, high + 1))


def _answer(question: Question) -> bool | FilterError:
    try:
        return matches(question.filter, question.variables)
    except FilterError as error:
        return error


def _variables(body: bytes, settings: Settings) -> dict[str, object]:
    """What the filter would have seen at publish, of a delivery JSON."""
    try:
        stored = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    variables = {"topic": stored["topic"], "key": stored.get("key", ""), "attributes": stored.get("attributes", {})}
    if "data" in stored and len(body) <= settings.data_bytes_max:
        variables["data"] = stored["data"]
    return variables
