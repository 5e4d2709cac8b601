from __future__ import annotations

from gateway.client.attachment import Attachment
from gateway.wire import push_v1


class Link:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told = 0

    def due(self, attachment: Attachment) -> None:
        self.told += 1

    def soon_due(self, attachment: Attachment) -> None:
        self.told += 1

    async def ask(self, operation: dict[str, object]) -> push_v1.Ok | push_v1.Error | None:
        raise NotImplementedError


def frame(*positions: int, lease_ms: int = 1000) -> push_v1.Messages:
    messages = [push_v1.Delivered(position, "id", "t", 0) for position in positions]
    return push_v1.Messages("orders", lease_ms, messages)


def attached() -> Attachment:
    return Attachment("orders", None, Link(), lambda: None)


def test_messages_come_in_the_order_of_their_frames() -> None:
    attachment = attached()
    attachment.receive(frame(5, 6), 0.0)
    attachment.receive(frame(2), 0.0)
    taken = [attachment.take(0.0) for _ in range(4)]
    assert [message and message.position for message in taken] == [5, 6, 2, None]
    assert attachment.handed_out == 3


def test_a_message_whose_lease_ran_out_while_it_waited_is_not_handed_out() -> None:
    attachment = attached()
    attachment.receive(frame(1, 2), 0.0)
    attachment.receive(frame(3), 0.5)
    assert attachment.take(1.0) is not None  # 3
    assert attachment.take(1.0) is None
    attachment.receive(frame(4, 5), 2.0)
    assert attachment.take_many(10, 3.0) == []


def test_a_batch_is_what_waits_of_one_frame() -> None:
    attachment = attached()
    attachment.receive(frame(1, 2, 3), 0.0)
    attachment.receive(frame(4), 0.0)
    assert [[m.position for m in attachment.take_many(2, 0.0)] for _ in range(3)] == [[1, 2], [3], [4]]


def test_a_redelivery_that_waits_is_not_handed_out_once_the_message_is_settled() -> None:
    attachment = attached()
    attachment.receive(frame(1, 2), 0.0)
    first, second = attachment.take(0.0), attachment.take(0.0)
    assert first is not None
    assert second is not None
    again = frame(1, 2, 3)
    again.attempts = {"1": 2, "2": 2}
    attachment.receive(again, 1.1)
    first.ack_nowait()
    assert [message.position for message in attachment.take_many(10, 1.2)] == [2, 3]
    second.nack_nowait()
    assert attachment.take(1.2) is None
    lone = frame(7)
    lone.attempts = {"7": 2}
    attachment.receive(lone, 1.2)
    attachment.settle("ack", 7)
    assert attachment.take(1.2) is None


def test_after_its_end_nothing_is_handed_out_and_nothing_kept() -> None:
    attachment = attached()
    attachment.receive(frame(1, 2), 0.0)
    message = attachment.take(0.0)
    assert message is not None
    attachment.end()
    message.ack_nowait()
    message.extend_nowait(5)
    assert attachment.take(0.0) is None
    assert not attachment.settles


def test_leases_are_extended_at_half_time_and_not_before() -> None:
    attachment = attached()
    attachment.receive(frame(1, 2, 3), 0.0)
    attachment.take(0.0)
    attachment.keep_leases(0.5)
    assert not attachment.settles
    attachment.keep_leases(0.6)
    assert list(attachment.take_settles()) == [
        b'{"op":"extend","subscription":"orders","ranges":[[2,3]],"lease_ms":1000}'
    ]
    assert attachment.take(1.5) is not None


def test_the_leases_of_a_program_that_is_stuck_run_out() -> None:
    attachment = attached()
    attachment.receive(frame(1, 2), 0.0)
    attachment.take(0.0)
    for tick in range(1, 9):
        attachment.keep_leases(tick / 4)
    assert len(list(attachment.take_settles())) == 1
    assert attachment.take(2.0) is None
