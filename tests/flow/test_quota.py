from __future__ import annotations

import attrs
import pytest

from gateway.config import Quota
from gateway.errors import GatewayError
from gateway.flow import quota
from gateway.flow.quota import Quotas
from gateway.model import Batch, Durability, Message
from gateway.principal import NOBODY


def refused(quotas: Quotas, principal: str, messages: int, size: int, now: float) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        quotas.take(principal, messages, size, now)
    assert caught.value.code == "quota_exceeded"
    return caught.value


def test_without_a_setting_there_is_no_quota() -> None:
    assert not Quotas(Quota())
    assert Quotas(Quota(messages_per_s=1))
    assert Quotas(Quota(bytes_per_s=1))


def test_messages_beyond_the_quota_are_told_when_to_come_back() -> None:
    quotas = Quotas(Quota(messages_per_s=100, burst_s=1))
    quotas.take("ann", 100, 10**9, 50.0)
    quotas.take("ann", 250, 1, 50.0)  # nothing is left, and nothing owed yet
    error = refused(quotas, "ann", 1, 1, 50.0)
    assert (error.kind.status, error.kind.temporary, error.retry_after_s) == (429, True, 3)
    assert "'ann'" in error.message
    assert "quota.messages_per_s" in error.message
    quotas.take("ann", 1, 1, 52.6)
    assert quotas.statistics == quota.QuotaStatistics(refused_batches=1, refused_messages=1)


def test_bytes_are_counted_too_and_what_is_refused_takes_nothing() -> None:
    quotas = Quotas(Quota(messages_per_s=10, bytes_per_s=1000, burst_s=1))
    quotas.take("", 1, 3000, 10.0)
    for _ in range(100):
        error = refused(quotas, "", 5, 10, 10.0)
    assert "quota.bytes_per_s" in error.message
    quotas.take("", 5, 10, 12.0)
    assert quotas.statistics.refused_messages == 500


def test_one_principal_takes_nothing_from_another() -> None:
    quotas = Quotas(Quota(messages_per_s=1, burst_s=1))
    quotas.take("ann", 1000, 1, 0.0)
    refused(quotas, "ann", 1, 1, 0.0)
    quotas.take("bob", 1, 1, 0.0)


async def test_principals_whose_credentials_name_a_quota_share_it() -> None:
    """Any number of keys of one application publish together what one of them may."""
    quotas = Quotas(Quota(messages_per_s=1, burst_s=1))

    def batch(name: str, quota: str) -> Batch:
        made = Batch([Message("trade.paid")] * 10, Durability.FSYNCED, 100, lambda _batch: None)
        made.principal = attrs.evolve(NOBODY, name=name, quota=quota)
        return made

    quotas.check(batch("ann", "shop"))
    with pytest.raises(GatewayError):
        quotas.check(batch("bob", "shop"))
    quotas.check(batch("bob", ""))


def test_the_principals_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "_PRINCIPALS_MAX", 10)
    quotas = Quotas(Quota(messages_per_s=1, burst_s=1))
    quotas.take("busy", 1000, 1, 0.0)
    for number in range(100):
        quotas.take(f"p{number}", 1, 1, 10.0 * number)
        assert len(quotas._buckets) <= 10
    refused(quotas, "busy", 1, 1, 998.0)  # only those that are as new were forgotten


def test_where_none_is_idle_the_oldest_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "_PRINCIPALS_MAX", 10)
    quotas = Quotas(Quota(messages_per_s=1, burst_s=1))
    for number in range(100):
        quotas.take(f"p{number}", 1000, 1, 0.0)
        assert len(quotas._buckets) <= 10
