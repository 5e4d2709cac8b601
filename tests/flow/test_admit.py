from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Limits
from gateway.config import Ring as RingSettings
from gateway.errors import GatewayError
from gateway.flow.admit import Admit
from gateway.flow.ring import Ring
from gateway.model import JSON_DEPTH_MAX, Batch, Durability, Message
from gateway.principal import Principal, Scope

LIMITS = Limits(payload_bytes_max=2000, attributes_bytes_max=20, id_chars_max=8, delay_ms_max=1000)


def admitter(limits: Limits = LIMITS, **ring: int) -> Admit:
    return Admit(limits, RingSettings(**ring), Ring("route", 100))


def data(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def batch_of(*messages: Message, size: int | None = None) -> Batch:
    if size is None:
        size = sum(len(memoryview(m.data)) if m.data is not msgspec.UNSET else 0 for m in messages)
    return Batch(list(messages), Durability.FSYNCED, size, lambda _: None)


def verdicts(admit: Admit, *messages: Message) -> list[str | None]:
    """The code each message is refused with, None where it is accepted."""
    batch = batch_of(*messages)
    admit.check(batch)
    if batch.results is None:
        return [None] * len(messages)
    assert all(isinstance(result, GatewayError | None) for result in batch.results)
    return [result.code if isinstance(result, GatewayError) else None for result in batch.results]


def message(**more: Any) -> Message:
    return Message(**{"topic": "a.b", "data": data("1"), **more})


TABLE: dict[str, tuple[Message, str | None, str]] = {
    "a plain one": (message(), None, ""),
    "everything at its limit": (
        message(
            data=data('"' + "x" * 1998 + '"'),
            id="i" * 8,
            key="k" * 8,
            attributes={"n" * 10: "v" * 10},
            delay_ms=1000,
            ttl_ms=315_360_000_000,
        ),
        None,
        "",
    ),
    "a topic with an empty word": (message(topic="a..b"), "bad_topic", "empty word"),
    "no topic": (message(topic=""), "bad_topic", "it is empty"),
    "a topic that is a pattern": (message(topic="a.>"), "bad_topic", "a word may hold"),
    "neither kind of payload": (message(data=msgspec.UNSET), "bad_request", "either data (JSON) or data_base64"),
    "both kinds of payload": (message(data_base64="AAAA"), "bad_request", "either data (JSON) or data_base64"),
    "a media type beside JSON": (message(content_type="text/plain"), "bad_request", "goes with data_base64"),
    "base64": (message(data=msgspec.UNSET, data_base64="AAAA", content_type="a/b"), None, ""),
    "empty base64": (message(data=msgspec.UNSET, data_base64=""), None, ""),
    "bad base64": (message(data=msgspec.UNSET, data_base64="AAA"), "bad_request", "is not base64"),
    "a media type that is none": (
        message(data=msgspec.UNSET, data_base64="AAAA", content_type="b"),
        "bad_request",
        "must be a media type, such as text/plain",
    ),
    "a payload too large": (
        message(data=data('"' + "x" * 1999 + '"')),
        "payload_too_large",
        "2001 bytes; at most 2000 are allowed (limits.payload_bytes_max)",
    ),
    "base64 at the limit": (message(data=msgspec.UNSET, data_base64="A" * 2664 + "AAA="), None, ""),
    "base64 too large": (message(data=msgspec.UNSET, data_base64="A" * 2668), "payload_too_large", "2001 bytes"),
    "a payload too deep": (
        message(data=data("[" * (JSON_DEPTH_MAX + 1) + "]" * (JSON_DEPTH_MAX + 1))),
        "bad_request",
        f"deeper than {JSON_DEPTH_MAX} levels",
    ),
    "a payload just deep enough": (message(data=data("[" * JSON_DEPTH_MAX + "]" * JSON_DEPTH_MAX)), None, ""),
    "an id too long": (message(id="i" * 9), "bad_request", "id: 9 characters; at most 8"),
    "an id that is empty": (message(id=""), "bad_request", "id: is empty; leave it out"),
    "a key too long": (message(key="k" * 9), "bad_request", "key: 9 characters; at most 8"),
    "a key that is empty": (message(key=""), None, ""),
    "attributes too large": (
        message(attributes={"n" * 10: "v" * 11}),
        "attributes_too_large",
        "21 bytes; at most 20 are allowed (limits.attributes_bytes_max)",
    ),
    "attributes counted in bytes": (message(attributes={"\u00e4": "\u20ac" * 7}), "attributes_too_large", "23 bytes"),
    "no attributes": (message(attributes={}), None, ""),
    "an attribute without a name": (message(attributes={"": "v"}), "bad_request", "a name is empty"),
    "a negative delay": (message(delay_ms=-1), "bad_request", "delay_ms: -1 is negative"),
    "a negative time to live": (message(ttl_ms=-1), "bad_request", "ttl_ms: -1 is negative"),
    "a delay too long": (message(delay_ms=1001), "bad_request", "delay_ms: 1001 is more than 1000"),
    "a time to live too long": (message(ttl_ms=315_360_000_001), "bad_request", "0 is for ever"),
}


@pytest.mark.parametrize(("one", "code", "words"), TABLE.values(), ids=TABLE)
def test_a_message_is_accepted_or_named(one: Message, code: str | None, words: str) -> None:
    admit = admitter()
    for _ in range(2):  # with the topic unknown, and known
        batch = batch_of(one)
        admit.check(batch)
        if code is None:
            assert batch.results is None
        else:
            assert batch.results is not None
            (error,) = batch.results
            assert isinstance(error, GatewayError)
            assert error.code == code
            assert words in error.message


def test_each_message_of_a_batch_is_answered_for_itself() -> None:
    admit = admitter()
    messages = [one for one, _, _ in TABLE.values()]
    codes = [code for _, code, _ in TABLE.values()]
    assert verdicts(admit, *messages) == codes
    assert admit.ring.statistics().refused == sum(code is not None for code in codes)
    for one, code in zip(messages, codes, strict=True):
        assert verdicts(admit, message(), one, message()) == [None, code, None]


def test_what_was_wrong_before_is_not_looked_at_again() -> None:
    batch = batch_of(message(topic=""), message())
    first = GatewayError("bad_request", "not even a message")
    batch.answer(0, first)
    admitter().check(batch)
    assert batch.results == [first, None]


@pytest.mark.parametrize(
    ("messages", "plain"),
    [
        ([message(), message()], True),
        ([message(), message(topic="c")], True),
        ([message(), message(id="i")], False),
        ([message(), message(key="")], False),
        ([message(), message(attributes={})], False),
        ([message(), message(delay_ms=1)], False),
        ([message(), message(ttl_ms=1)], False),
        ([message(), message(data=msgspec.UNSET, data_base64="")], False),
        ([message(), message(content_type="")], False),
        ([message(), message(topic="..")], False),
        ([message(data=data('"' + "x" * 1850 + '"'))], True),
        ([message(data=data("[" * 900 + "]" * 900 + " " * 100))], True),
        ([message(data=data("[" * 901 + "]" * 901))], False),
    ],
)
def test_only_what_has_a_topic_and_data_and_no_more_is_plain(messages: list[Message], plain: bool) -> None:
    admit = admitter()
    for topic in ("a.b", "c"):
        verdicts(admit, message(topic=topic))
    batch = batch_of(*messages)
    admit.check(batch)
    assert batch.plain is plain
    assert batch.topics == {m.topic for m in messages}


messages_of_all_kinds = st.builds(
    Message,
    topic=st.sampled_from(["a.b", "c", "", "a..b", "x" * 256, "a b"]),
    data=st.sampled_from([data("1"), data('"' + "x" * 3000 + '"'), data("[" * 950 + "]" * 950)])
    | st.just(msgspec.UNSET),
    data_base64=st.sampled_from([None, None, "", "AAAA", "A", "A" * 4000]),
    content_type=st.sampled_from([None, None, "a/b", "b"]),
    id=st.sampled_from([None, None, "i", "", "i" * 9]),
    key=st.sampled_from([None, None, "k", "k" * 9]),
    attributes=st.sampled_from([None, None, {}, {"n": "v"}, {"": ""}, {"n": "v" * 30}]),
    delay_ms=st.sampled_from([0, 0, 5, -1, 10**9]),
    ttl_ms=st.sampled_from([0, 0, 5, -1, 10**12]),
)


@given(st.lists(messages_of_all_kinds, min_size=1, max_size=6))
def test_the_short_way_says_the_same_as_the_long_one(messages: list[Message]) -> None:
    """What is accepted must not depend on the company it comes in."""
    admit = admitter()
    for topic in ("a.b", "c"):
        verdicts(admit, message(topic=topic))
    alone = [verdicts(admit, one)[0] for one in messages]
    assert verdicts(admit, *messages) == alone


# ----------------------------------------------------------------------------------------------------------- door


async def test_what_is_submitted_goes_on_to_the_next_stage(nursery: trio.Nursery) -> None:
    forward: Ring[Batch] = Ring("route", 10)
    admit = Admit(LIMITS, RingSettings(), forward)
    nursery.start_soon(admit.run)
    done: list[Batch] = []
    batch = Batch([message(), message(topic="")], Durability.FSYNCED, 7, done.append)
    await admit.submit(batch)
    assert admit.budget.used == 7
    assert await forward.get() is batch
    assert batch.results is not None
    assert [type(result) for result in batch.results] == [type(None), GatewayError]
    assert done == []
    batch.finish()
    assert (done, admit.budget.used) == ([batch], 0)


async def test_what_the_gateway_made_itself_is_not_asked_for_its_limits(nursery: trio.Nursery) -> None:
    forward: Ring[Batch] = Ring("route", 10)
    admit = Admit(LIMITS, RingSettings(), forward)
    nursery.start_soon(admit.run)
    batch = batch_of(message(attributes={"dead_letter_cause": "x" * 100}))
    batch.trusted = True
    await admit.submit(batch)
    assert (await forward.get()).results is None
    assert batch.topics == {"a.b"}


async def test_a_closed_door_says_why() -> None:
    admit = admitter()
    admit.closed = GatewayError("draining", "going down", 2)
    with pytest.raises(GatewayError, match="going down"):
        await admit.submit(batch_of(message()))
    assert (admit.budget.used, admit.ring.statistics().items) == (0, 0)


async def test_a_full_ring_refuses_after_a_while_and_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    admit = admitter(items_max=2, wait_ms=3000)
    first = [batch_of(message(), size=10) for _ in range(2)]
    for batch in first:
        await admit.submit(batch)
    began = trio.current_time()
    with pytest.raises(GatewayError) as caught:
        await admit.submit(batch_of(message(), size=10))
    assert (caught.value.code, caught.value.retry_after_s) == ("overloaded", 3)
    assert trio.current_time() - began == pytest.approx(3)
    assert admit.budget.used == 20
    assert [admit.ring.get_nowait(), admit.ring.get_nowait(), admit.ring.get_nowait()] == [*first, None]


@pytest.mark.parametrize(("items_max", "bytes_max"), [(1, 8 << 20), (2, 1 << 20)])
async def test_an_offer_without_room_takes_nothing_before_somebody_waits(
    items_max: int, bytes_max: int, nursery: trio.Nursery
) -> None:
    admit = admitter(items_max=items_max, bytes_max=bytes_max, wait_ms=3000)
    size = 1 << 20
    first, second = batch_of(message(), size=size), batch_of(message(), size=size)
    assert admit.offer(first) is None
    wait = admit.offer(second)
    assert wait is not None
    assert (admit.budget.used, admit.ring.statistics().items) == (size, 1)
    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert admit.ring.get_nowait() is first
    first.finish()
    await trio.testing.wait_all_tasks_blocked()
    assert admit.ring.get_nowait() is second
    assert admit.budget.used == size


async def test_bytes_under_way_are_bounded_too(autojump_clock: trio.testing.MockClock) -> None:
    admit = admitter(bytes_max=1 << 20, wait_ms=3000)
    await admit.submit(batch_of(message(), size=1 << 20))
    with pytest.raises(GatewayError) as caught:
        await admit.submit(batch_of(message(), size=1))
    assert caught.value.code == "overloaded"
    assert (admit.budget.used, admit.ring.statistics().items) == (1 << 20, 1)


async def test_a_producer_that_is_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    admit = admitter(items_max=1, wait_ms=600_000)
    await admit.submit(batch_of(message(), size=10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admit.submit, batch_of(message(), size=10))
        await trio.testing.wait_all_tasks_blocked()
        assert admit.budget.used == 20
        nursery.cancel_scope.cancel()
    assert (admit.budget.used, admit.ring.statistics().items) == (10, 1)


async def test_a_topic_that_the_principal_may_not_publish_to_is_refused_for_itself() -> None:
    admit = admitter()
    batch = batch_of(message(topic="shop.paid"), message(topic="bank.paid"), message(topic="bank..paid"))
    batch.principal = Principal(name="shop", publish=Scope(["shop.>"]))
    admit.check(batch)
    assert batch.results is not None
    assert batch.results[0] is None
    denied, malformed = batch.results[1:]
    assert isinstance(denied, GatewayError)
    assert denied.code == "permission_denied"
    assert "principal 'shop' may not publish to bank.paid" in denied.message
    assert isinstance(malformed, GatewayError)
    assert malformed.code == "bad_topic"


async def test_a_batch_that_is_permitted_as_a_whole_goes_the_short_way() -> None:
    admit = admitter()
    for _ in range(2):
        batch = batch_of(message(topic="shop.paid"))
        batch.principal = Principal(name="shop", publish=Scope(["shop.>"]))
        admit.check(batch)
        assert batch.results is None
    assert batch.plain
