from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson
import pytest
import trio
import trio.testing

from gateway.config import Limits
from gateway.errors import GatewayError
from gateway.flow.plugin import Plugin
from gateway.flow.ring import Ring
from gateway.flow.stage import MessageView, Stage
from gateway.model import Batch, Durability, Message
from tests.flow import stages


def message(data: Any = None, topic: str = "pay.card", **more: Any) -> Message:
    return Message(topic, data=msgspec.Raw(orjson.dumps(data)), **more)


class Staged:
    """One stage between two rings; `failed` are batches that it answered itself."""

    def __init__(self, nursery: trio.Nursery, name: str, timeout_ms: int = 10_000, **limits: int) -> None:
        self.forward: Ring[Batch] = Ring("route", 100)
        work = Plugin(f"tests.flow.stages:{name}", timeout_ms)
        self.stage = Stage("p.1", work, lambda topic: topic.startswith("pay."), self.forward, 10, Limits(**limits))
        self.failed: list[Batch] = []
        nursery.start_soon(self.stage.run)

    def batch(self, *messages: Message) -> Batch:
        batch = Batch(list(messages), Durability.FSYNCED, 10, self.failed.append)
        batch.topics = {each.topic for each in messages}
        batch.plain = True
        self.stage.ring.put_nowait(batch, len(messages))
        return batch

    async def passed(self, *messages: Message) -> Batch:
        """The batch behind the stage."""
        batch = self.batch(*messages)
        with trio.fail_after(10):
            assert await self.forward.get() is batch
        return batch

    async def error(self, *messages: Message) -> GatewayError:
        """What the whole batch failed with."""
        batch = self.batch(*messages)
        with trio.fail_after(10):
            while not self.failed:
                await trio.lowlevel.checkpoint()
        assert self.failed.pop() is batch
        assert batch.error is not None
        return batch.error


@pytest.fixture
async def release() -> AsyncIterator[None]:
    stages.RELEASE.clear()
    yield
    stages.RELEASE.set()


async def test_the_example_masks_cards_and_refuses_what_it_cannot_look_into(nursery: trio.Nursery) -> None:
    staged = Staged(nursery, "mask_cards")
    batch = await staged.passed(
        message({"card": "1234567812345678", "sum": 5}, attributes={"k": "v"}),
        message({"sum": 5}),
        Message("pay.card", data_base64="AA=="),
        message({"card": 1}, topic="other"),
    )
    masked, plain, _, other = batch.messages
    assert orjson.loads(bytes(masked.data)) == {"card": "************5678", "sum": 5}  # type: ignore[arg-type]
    assert masked.attributes == {"k": "v", "masked": "card"}
    assert (plain.data, other.data) == (msgspec.Raw(b'{"sum":5}'), msgspec.Raw(b'{"card":1}'))
    assert batch.results is not None
    error = batch.results[2]
    assert isinstance(error, GatewayError)
    assert (error.code, error.message, error.kind.status) == ("refused_by_stage", "payments are JSON", 422)
    assert [batch.results[index] for index in (0, 1, 3)] == [None] * 3
    assert not batch.plain  # it has attributes now
    statistics = staged.stage.ring.statistics()
    assert (statistics.messages, statistics.refused, staged.stage.passed) == (4, 1, 2)


async def test_an_instance_with_an_async_call_is_a_stage_too(nursery: trio.Nursery) -> None:
    batch = await Staged(nursery, "tag_eu").passed(message(1))
    assert batch.messages[0].attributes == {"tag": "eu"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raise_error", "it raised LookupError, see the gateway's log"),
        ("raise_async", "it raised LookupError, see the gateway's log"),
        ("leave", "it raised SystemExit"),
        ("leave_async", "it raised SystemExit"),
        ("interrupt", "it raised KeyboardInterrupt"),
        ("too_few", "it returned 0 outcomes for 2 messages"),
        ("nothing", "it returned NoneType, not a list of outcomes"),
        ("text", "it returned str, not a list of outcomes"),
        ("words", "it returned str where None, Refuse or Replace is due"),
        ("last_is_wrong", "it returned int where None, Refuse or Replace is due"),
        ("no_json", "something that is not JSON: Type is not JSON serializable"),
        ("half_json", "something that is not JSON"),
        ("infinite", "something that is not JSON"),
        ("wrong_attributes", "something else than a mapping of text to text"),
        ("half_character", "something else than a mapping of text to text"),
        ("wrong_code", "it refused with code 'nonsense'; use one of refused_by_stage"),
    ],
)
async def test_a_stage_that_misbehaves_fails_its_batch_and_the_next_one_is_tried(
    nursery: trio.Nursery, name: str, said: str
) -> None:
    staged = Staged(nursery, name)
    for _ in range(2):
        batch = (message(1), message(2))
        error = await staged.error(*batch)
        assert error.code == "stage_failed"
        assert error.kind.temporary
        assert said in error.message
        assert "nothing of this batch is stored" in error.message
        assert "secret" not in error.message
        assert [bytes(each.data) for each in batch] == [b"1", b"2"]  # type: ignore[arg-type]  # as they were
    assert staged.stage.ring.statistics().refused == 4
    assert (await staged.passed(message(1, topic="other"))).error is None


async def test_a_stage_that_hangs_fails_its_batch_in_time(nursery: trio.Nursery, release: None) -> None:
    staged = Staged(nursery, "hang", timeout_ms=20)
    for _ in range(4):
        assert "it did not come back within 0.02 s" in (await staged.error(message(1))).message
    assert "4 of its calls never came back" in (await staged.error(message(1))).message
    stages.RELEASE.set()
    with trio.fail_after(10):
        while (await _either(staged)) is not None:
            pass


async def _either(staged: Staged) -> GatewayError | None:
    """What becomes of one batch more."""
    batch = staged.batch(message(1))
    while not staged.failed:
        await trio.lowlevel.checkpoint()
        if staged.forward.get_nowait() is batch:
            return None
    return staged.failed.pop().error


async def test_an_async_stage_that_hangs_fails_its_batch_in_time(nursery: trio.Nursery) -> None:
    staged = Staged(nursery, "hang_async", timeout_ms=20)
    for _ in range(6):
        assert "it did not come back within 0.02 s" in (await staged.error(message(1))).message


async def test_what_a_stage_makes_has_the_limits_of_what_comes_in(nursery: trio.Nursery) -> None:
    staged = Staged(nursery, "mask_cards", payload_bytes_max=40, attributes_bytes_max=20)
    batch = await staged.passed(
        message({"card": "1", "x": "y" * 30}),
        message({"card": "1"}, attributes={"k": "v" * 15}),
        message({"card": "1"}),
    )
    assert batch.results is not None
    codes = [result.code if isinstance(result, GatewayError) else result for result in batch.results]
    assert codes == ["payload_too_large", "attributes_too_large", None]
    assert str(batch.results[0]).startswith("after stage p.1: the payload has")


async def test_what_a_stage_makes_of_a_batch_has_a_limit(nursery: trio.Nursery) -> None:
    staged = Staged(nursery, "mask_cards", batch_bytes_max=60)
    batch = await staged.passed(*(message({"card": "1"}) for _ in range(3)))
    assert batch.results is not None
    assert [getattr(result, "code", None) for result in batch.results] == [None, None, "batch_too_large"]


async def test_a_message_that_is_refused_already_is_not_seen(nursery: trio.Nursery) -> None:
    staged = Staged(nursery, "too_few")
    batch = Batch([message(1)], Durability.FSYNCED, 10, staged.failed.append)
    batch.answer(0, GatewayError("bad_topic", "no"))
    staged.stage.ring.put_nowait(batch)
    assert await staged.forward.get() is batch
    assert staged.stage.passed == 0


def test_a_view_shows_and_does_not_give() -> None:
    view = MessageView(message({"a": [1]}, key="k", id="i", attributes={"x": "y"}))
    assert (view.topic, view.id, view.key, view.data, view.json) == ("pay.card", "i", "k", {"a": [1]}, b'{"a":[1]}')
    view.data["a"].append(2)
    assert view.data == {"a": [1]}
    with pytest.raises(TypeError):
        view.attributes["x"] = "z"  # type: ignore[index]  # that is the point
    with pytest.raises(AttributeError):
        view.topic = "other"  # type: ignore[misc]  # that is the point
    other = MessageView(Message("a", data_base64="AA==", content_type="image/png"))
    assert (other.has_json, other.data_base64, other.content_type, dict(other.attributes)) == (
        False,
        "AA==",
        "image/png",
        {},
    )
    with pytest.raises(ValueError, match="not JSON: image/png"):
        _ = other.data
