"""Publishing as a source does it, through the first stage of a real node."""

from __future__ import annotations

import msgspec
import pytest
import trio

from gateway.errors import GatewayError
from gateway.model import Message, Stored
from gateway.node import Node
from gateway.source.intake import Intake


def message(number: int, topic: str = "a.b") -> Message:
    return Message(topic=topic, data=msgspec.Raw(b"%d" % number), id=f"s-{number}")


async def test_each_message_has_its_own_outcome(node: Node) -> None:
    intake = Intake(node.admit.submit, "s")
    with trio.fail_after(10):
        first = await intake.publish([message(1), message(2)])
        second = await intake.publish([message(2), message(3, "a..b"), message(4)])
    assert first == [Stored("s-1", 1), Stored("s-2", 2)]
    repeated, wrong, new = second
    assert repeated == Stored("s-2", 2, duplicate=True)
    assert isinstance(wrong, GatewayError)
    assert wrong.code == "bad_topic"
    assert isinstance(new, Stored)
    assert not new.duplicate


async def test_a_gateway_that_drains_takes_nothing(node: Node) -> None:
    node.admit.closed = GatewayError("draining", "going down")
    with pytest.raises(GatewayError, match="going down"):
        await Intake(node.admit.submit, "s").publish([message(1)])
