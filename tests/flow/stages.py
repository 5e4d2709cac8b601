"""Stages as an operator writes them: one to learn from, and those that misbehave."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import trio

from gateway.flow.stage import MessageView, Outcome, Refuse, Replace

# ------------------------------------------------------------------------------------------------ the example


def mask_cards(messages: Sequence[MessageView]) -> list[Outcome]:
    """Payments without their card numbers. An operator names it `tests.flow.stages:mask_cards`.

    It refuses what it cannot look into, changes what has a card number, and leaves the rest as it is.
    """
    return [_mask(message) for message in messages]


def _mask(message: MessageView) -> Outcome:
    if not message.has_json:
        return Refuse("payments are JSON")
    data = message.data
    if not isinstance(data, dict) or "card" not in data:
        return None
    masked = {**data, "card": "*" * 12 + str(data["card"])[-4:]}
    return Replace(data=masked, attributes={**message.attributes, "masked": "card"})


class Tagger:
    """A stage with settings of its own: an instance is a callable too. This one is async."""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    async def __call__(self, messages: Sequence[MessageView]) -> list[Outcome]:
        await trio.lowlevel.checkpoint()  # here it would ask a service
        return [Replace(attributes={**message.attributes, "tag": self.tag}) for message in messages]


tag_eu = Tagger("eu")


# ------------------------------------------------------------------------------------------- those that misbehave

RELEASE = threading.Event()
"""Lets the threads of `hang` go at last."""


def hang(messages: Sequence[MessageView]) -> list[Outcome]:
    RELEASE.wait()
    return [None] * len(messages)


async def hang_async(messages: Sequence[MessageView]) -> list[Outcome]:
    await trio.Event().wait()
    return [None] * len(messages)


def raise_error(messages: Sequence[MessageView]) -> list[Outcome]:
    raise LookupError("a secret of the payload")


async def raise_async(messages: Sequence[MessageView]) -> list[Outcome]:
    raise LookupError("a secret of the payload")


def leave(messages: Sequence[MessageView]) -> list[Outcome]:
    raise SystemExit(3)


async def leave_async(messages: Sequence[MessageView]) -> list[Outcome]:
    raise SystemExit(3)


def interrupt(messages: Sequence[MessageView]) -> list[Outcome]:
    raise KeyboardInterrupt


def too_few(messages: Sequence[MessageView]) -> list[Outcome]:
    return []


def nothing(messages: Sequence[MessageView]) -> None:
    return None


def text(messages: Sequence[MessageView]) -> str:
    return "k" * len(messages)


def words(messages: Sequence[MessageView]) -> list[object]:
    return ["keep"] * len(messages)


def no_json(messages: Sequence[MessageView]) -> list[Outcome]:
    return [Replace(data=object())] * len(messages)


def half_json(messages: Sequence[MessageView]) -> list[Outcome]:
    return [Replace(data=b'{"a":')] * len(messages)


def infinite(messages: Sequence[MessageView]) -> list[Outcome]:
    return [Replace(data=b"1e999")] * len(messages)


def wrong_attributes(messages: Sequence[MessageView]) -> list[Outcome]:
    return [Replace(attributes={"a": 5})] * len(messages)  # type: ignore[dict-item]  # that is the point


def half_character(messages: Sequence[MessageView]) -> list[Outcome]:
    return [Replace(attributes={"a": "\ud800"})] * len(messages)


def wrong_code(messages: Sequence[MessageView]) -> list[Outcome]:
    return [Refuse("no", code="nonsense")] * len(messages)


def last_is_wrong(messages: Sequence[MessageView]) -> list[object]:
    return [*[Replace(data=0)] * (len(messages) - 1), 7]


NOT_CALLABLE = 5
