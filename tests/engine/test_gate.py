"""Gates in front of subscriptions: one answer for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.engine.gate import Gate
from gateway.model import Batch, Message, Start
from gateway.steps import Untraced
from tests.engine.driving import Driven, driven


class Chooser:
    """By an attribute; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, topic: str, attributes: Mapping[str, str]) -> str | None:
        self.asked += 1
        return attributes.get("to", "a" if topic.startswith("for.a") else None)


async def publish(d: Driven, *to: str | None, topic: str = "trade.paid") -> None:
    messages = [
        Message(topic, data=msgspec.Raw(b"%d" % number), attributes={} if each is None else {"to": each})
        for number, each in enumerate(to)
    ]
    assert (await d.publish(*messages)).error is None


async def got(d: Driven, name: str) -> list[Any]:
    client = d.attach(name)
    await d.deliver()
    found = client.data
    await d.ack(client)
    d.engine.detach(client.consumer, d.now)
    return found


async def test_a_message_goes_to_those_whose_key_is_chosen_and_to_those_without_a_gate(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        choose = Chooser()
        for name in ("a", "b", "b2"):
            await d.subscribe(name)
            d.engine.set_gate(name, Gate(choose, name[0]))
        await d.subscribe("all")
        await publish(d, "a", "b", None, "nobody", "a")
        assert choose.asked == 5, "once a message, however many gates it has"
        assert await got(d, "a") == [0, 4]
        assert await got(d, "b") == [1]
        assert await got(d, "b2") == [1]
        assert await got(d, "all") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("text", ["data > 1", "data == 4", "[4].exists(n, n == data)"])
async def test_a_gate_stands_behind_a_filter_of_any_kind(tmp_path: Path, text: str) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("a", filter=text)
        d.engine.set_gate("a", Gate(Chooser(), "a"))
        await publish(d, "a", "b", "b", "b", "a")
        assert await got(d, "a") == [4]


async def test_a_gate_may_be_set_before_there_is_a_subscription_and_taken_away(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        d.engine.set_gate("a", Gate(Chooser(), "a"))
        await d.subscribe("a")
        await publish(d, "a", "b")
        assert await got(d, "a") == [0]
        d.engine.set_gate("a", None)
        await publish(d, "a", "b")
        assert await got(d, "a") == [0, 1]


async def test_gates_of_two_choosers_do_not_mix(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("a")
        await d.subscribe("z")
        d.engine.set_gate("a", Gate(Chooser(), "a"))
        d.engine.set_gate("z", Gate(lambda _topic, _attributes: "a", "z"))
        await publish(d, "a", "z")
        assert await got(d, "a") == [0]
        assert await got(d, "z") == []


async def test_what_was_chosen_is_stored_and_a_restart_does_not_ask_again(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("a")
        d.engine.set_gate("a", Gate(Chooser(), "a"))
        await publish(d, "a", "b")
    async with driven(tmp_path) as d:
        assert await got(d, "a") == [0]


async def test_messages_without_attributes_are_asked_about_once_a_topic_until_a_gate_is_set(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        choose = Chooser()
        for name in ("a", "b"):
            await d.subscribe(name, ">")
            d.engine.set_gate(name, Gate(choose, name))
        plain = [Message("for.a", data=msgspec.Raw(b"%d" % number)) for number in range(3)]
        for _ in range(3):
            assert (await d.publish(*plain)).error is None
        assert choose.asked == 1
        assert await got(d, "a") == [0, 1, 2] * 3
        assert await got(d, "b") == []
        d.engine.set_gate("b", Gate(choose, "b"))
        await d.publish(*plain)
        assert choose.asked == 2


async def test_a_subscription_that_comes_or_goes_is_seen_at_once(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("a")
        d.engine.set_gate("a", Gate(Chooser(), "a"))
        await publish(d, "b")
        await d.subscribe("later")
        await publish(d, "b")
        assert await got(d, "later") == [0]
        await d.engine.delete_subscription("later")
        await publish(d, "a")
        assert await got(d, "a") == [0]


async def test_a_gate_set_at_the_creation_holds_from_the_first_message_on(tmp_path: Path) -> None:
    async with driven(tmp_path) as d:
        d.engine.on_created(lambda name: d.engine.set_gate(name, Gate(Chooser(), name)))
        await d.subscribe("a")
        await publish(d, "a", "b")
        assert await got(d, "a") == [0]


@pytest.mark.parametrize("filter_", ["", "data != 0"])
async def test_a_subscription_that_begins_in_the_past_is_given_what_its_gate_lets_through(
    tmp_path: Path, filter_: str
) -> None:
    async with driven(tmp_path) as d:
        await d.subscribe("all")  # or nothing would be kept
        await publish(d, *["a", "b", None, "a"] * 60)
        await publish(d, "b", topic="for.a")
        d.engine.set_gate("a", Gate(Chooser(), "a"))
        await d.subscribe("a", ">", start=Start.START, filter=filter_)
        expected = [number for number in range(240) if number % 4 in (0, 3) and (number or not filter_)]
        assert await got(d, "a") == expected


class Told(Untraced):
    def __init__(self) -> None:
        self.filtered_: list[tuple[str, str, list[int]]] = []

    def filtered(self, batch: Batch, subscription: str, outcome: str, indexes: Sequence[int]) -> None:
        self.filtered_.append((subscription, outcome, list(indexes)))


async def test_what_a_gate_lets_not_through_is_told(tmp_path: Path) -> None:
    told = Told()
    async with driven(tmp_path) as d:
        d.engine._catalogue.steps = told
        await d.subscribe("a", ">")
        await d.subscribe("b", ">")
        for name in ("a", "b"):
            d.engine.set_gate(name, Gate(Chooser(), name))
        await publish(d, "a", "b", None)
        assert told.filtered_ == [("b", "gate", [0, 2]), ("a", "gate", [1, 2])]
        told.filtered_.clear()
        plain = [Message("for.a", data=msgspec.Raw(b"1")) for _ in range(2)]
        await d.publish(*plain)
        assert told.filtered_ == [("b", "gate", [0, 1])]
