from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from gateway.broker.body import compose
from gateway.client.received import ReceivedBatch, ReceivedMessage
from gateway.client.settling import Extra
from gateway.model import Message
from gateway.wire import push_v1


class Ledger:
    """A lessor that writes down what is said."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def settle(self, operation: str, position: int, extra: Extra = ()) -> None:
        self.said.append((operation, position, *extra))

    def extend(self, position: int, extra: Extra) -> None:
        self.said.append(("extend", position, *extra))

    async def confirm_ack(self, position: int) -> None:
        self.said.append(("confirmed", position))


def received(members: str, ledger: Ledger | None = None) -> ReceivedMessage:
    frame = push_v1.decode_server('{"op":"messages","subscription":"s","lease_ms":1,"messages":[' + members + "]}")
    assert isinstance(frame, push_v1.Messages)
    return ReceivedMessage(frame.messages[0], 1, ledger or Ledger())


HEAD = '"position":7,"id":"a","topic":"t.u","time_ms":99'


def test_a_message_shows_every_member_of_its_delivery() -> None:
    message = received("{" + HEAD + ',"key":"k","attributes":{"x":"y"},"data":{"n":1}}')
    assert (message.position, message.id, message.topic, message.time_ms) == (7, "a", "t.u", 99)
    assert (message.key, message.attributes, message.attempts) == ("k", {"x": "y"}, 1)
    assert (message.data, message.raw, message.content_type) == ({"n": 1}, b'{"n":1}', "application/json")


def test_members_that_are_absent_are_empty() -> None:
    message = received("{" + HEAD + ',"data":null}')
    assert (message.key, message.attributes, message.data) == (None, {}, None)


def test_raw_is_what_was_published_byte_for_byte() -> None:
    assert received("{" + HEAD + ',"data":{ "n" : 1.00, "u":"\\u00e4" } }').raw == b'{ "n" : 1.00, "u":"\\u00e4" }'


def test_a_binary_payload_is_its_bytes() -> None:
    message = received("{" + HEAD + ',"content_type":"image/png","data_base64":"AP8="}')
    assert (message.raw, message.data, message.content_type) == (b"\x00\xff", b"\x00\xff", "image/png")


def test_a_payload_that_the_parser_refuses_fails_its_own_data_only() -> None:
    message = received("{" + HEAD + ',"data":1e999}')
    with pytest.raises(ValueError, match="out of range"):
        _ = message.data
    assert message.raw == b"1e999"


def test_an_integer_of_any_size_is_exact() -> None:
    assert received("{" + HEAD + ',"data":123456789012345678901234567890}').data == 123456789012345678901234567890


def test_the_deepest_payload_is_parsed_from_a_deep_stack() -> None:
    message = received("{" + HEAD + ',"data":' + "[" * 900 + "]" * 900 + "}")

    def descend(levels: int) -> Any:
        return descend(levels - 1) if levels else message.data

    assert len(descend(sys.getrecursionlimit() // 2)) == 1


@pytest.mark.parametrize(
    "message",
    [
        Message(topic="t", data=msgspec.Raw(b'{"a": 1}')),
        Message(topic="t", data=msgspec.Raw(b"1"), id="ü", key="k", attributes={"a": "b"}),
        Message(topic="t", data_base64="AP8=", content_type="image/png", key="k"),
    ],
)
def test_as_json_is_the_delivery_as_the_gateway_composed_it(message: Message) -> None:
    body = compose(message, 5, "epoch", 1234)
    assert received(body.decode()).as_json() == bytes(body)


async def test_the_first_word_settles_and_what_follows_is_passed_over() -> None:
    ledger = Ledger()
    message = received("{" + HEAD + ',"data":1}', ledger)
    await message.nack(delay_ms=5, reason="later")
    assert message.settled
    await message.ack()
    await message.ack(confirm=True)
    await message.term("no")
    await message.extend(1000)
    assert ledger.said == [("nack", 7, ("delay_ms", 5), ("reason", "later"))]


async def test_each_verb_says_what_it_was_given() -> None:
    ledger = Ledger()
    await received("{" + HEAD + ',"data":1}', ledger).extend(1000)
    await received("{" + HEAD + ',"data":1}', ledger).term("broken")
    await received("{" + HEAD + ',"data":1}', ledger).ack()
    await received("{" + HEAD + ',"data":1}', ledger).ack(confirm=True)
    await received("{" + HEAD + ',"data":1}', ledger).nack()
    assert ledger.said == [
        ("extend", 7, ("lease_ms", 1000)),
        ("term", 7, ("reason", "broken")),
        ("ack", 7),
        ("confirmed", 7),
        ("nack", 7),
    ]


async def test_a_verb_on_a_batch_means_what_is_not_settled_of_it() -> None:
    ledger = Ledger()
    members = [HEAD.replace("7", str(position)) for position in (1, 2, 3)]
    batch = ReceivedBatch([received("{" + each + ',"data":0}', ledger) for each in members])
    assert [message.position for message in batch] == [1, 2, 3]
    assert (len(batch), batch[0].position, [each.position for each in batch[1:]]) == (3, 1, [2, 3])
    await batch[1].nack()
    assert [each.settled for each in batch] == [False, True, False]
    await batch.extend(50)
    await batch.ack()
    assert batch.settled
    await batch.nack()
    assert ledger.said == [("nack", 2), *(("extend", n, ("lease_ms", 50)) for n in (1, 3)), ("ack", 1), ("ack", 3)]
