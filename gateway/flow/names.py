"""Built-in work of a stage: refuse payloads in which an object has a name twice (RFC 7493 §2.3).

Parsers differ in which of the two counts, so a schema, a filter and a consumer may each see another value; and some
consumers' parsers refuse the whole delivery. What orjson writes as it was read has no name twice, and most producers
write so: that costs 0.5 us. What is written otherwise is read once more, slowly, at some 10 us for 250 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson

from gateway.flow.stage import Outcome, Refuse
from gateway.model import Batch

_SHOWN_MAX: Final = 60


class UniqueNames:
    """See `stage.Work`. A payload that is not JSON has no names, and passes."""

    async def __call__(self, batch: Batch, indexes: Sequence[int]) -> list[Outcome]:
        return [self._look(batch, index) for index in indexes]

    def _look(self, batch: Batch, index: int) -> Outcome:
        data = batch.messages[index].data
        if data is msgspec.UNSET:
            return None
        raw = bytes(data)
        try:
            if not _is_as_read(batch.decode(index), raw):
                json.loads(raw, object_pairs_hook=_refuse_twice, parse_int=len, parse_float=len)
        except LookupError:
            return Refuse("the payload is JSON that strict parsers do not take")
        except RecursionError:
            return Refuse("the payload is nested too deep to look for names in it")
        except _TwiceError as error:
            return Refuse(f"data: the name {error.name[:_SHOWN_MAX]!r} is in one object twice; send it once")
        return None


def _is_as_read(value: object, raw: bytes) -> bool:
    """Whether a payload is written as orjson would write it."""
    try:
        return orjson.dumps(value) == raw
    except orjson.JSONEncodeError:  # deeper than it writes, or an integer of more than 64 bits
        return False


class _TwiceError(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _refuse_twice(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _TwiceError(name)
        seen.add(name)
