from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit import hashes
from gateway.kit.hashes import half_id_hash, id_hash, key_hash


def test_the_bytes_are_those_that_older_logs_hold() -> None:
    assert id_hash("trade.paid", "order/4711").hex() == "558cf172b9ba102a" + "18a88764600f0088"
    assert key_hash("k") == 7193521810918036140


@given(st.text(), st.text())
def test_the_first_half_is_of_the_id_alone(topic: str, message_id: str) -> None:
    assert int.from_bytes(id_hash(topic, message_id)[:8], "little") == half_id_hash(message_id)
    assert id_hash(topic, message_id)[8:] != id_hash(topic + "x", message_id)[8:]


def test_topic_and_id_do_not_run_into_each_other() -> None:
    assert id_hash("ab", "c") != id_hash("a", "bc")


class Nothing:
    """A hash of zeros, which no text is known to have."""

    def __init__(self, _: bytes, *, digest_size: int) -> None:
        self._size = digest_size

    def digest(self) -> bytes:
        return bytes(self._size)


def test_zero_means_none_and_is_no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "blake2b", Nothing)
    assert (half_id_hash("id"), key_hash("key")) == (1, 1)
    assert id_hash("topic", "id")[:8] == b"\1" + bytes(7)
