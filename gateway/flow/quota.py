"""How much each principal, or those of one quota together, may publish: messages and bytes a second (design §6).

With the disk marks this is all that pushes back on a producer for what it does; a slow consumer never does. A quota is
asked at the door, before anything of the batch is looked at, and costs nothing where none is set.
"""

from __future__ import annotations

import math
from typing import Final

import attrs
import trio

from gateway.config import Quota
from gateway.errors import GatewayError
from gateway.kit.bucket import Bucket
from gateway.model import Batch

_PRINCIPALS_MAX: Final = 100_000
"""Principals remembered; beyond it those whose buckets are full, which are as new ones, are forgotten."""


@attrs.define
class QuotaStatistics:
    """Counters since the start."""

    refused_batches: int = 0
    refused_messages: int = 0


class Quotas:
    """The buckets of all principals; a new one has its burst."""

    def __init__(self, settings: Quota) -> None:
        self.statistics = QuotaStatistics()
        self.settings = settings
        self._buckets: dict[str, tuple[tuple[Bucket, str, str], ...]] = {}

    def __bool__(self) -> bool:
        """Whether there is any quota."""
        return bool(self.settings.messages_per_s or self.settings.bytes_per_s)

    def check(self, batch: Batch) -> None:
        """A door of `admit`. Principals whose credentials name the same quota share it."""
        self.take(batch.principal.quota or batch.principal.name, len(batch.messages), batch.size, trio.current_time())

    def take(self, principal: str, messages: int, size: int, now: float) -> None:
        """Take a batch from the principal's quota. Raises GatewayError `quota_exceeded`, and then takes nothing."""
        buckets = self._buckets.get(principal)
        if buckets is None:
            buckets = self._add(principal, now)
        for bucket, what, setting in buckets:
            wait_s = bucket.wait_s(now)
            if wait_s > 0:
                self.statistics.refused_batches += 1
                self.statistics.refused_messages += messages
                who = f"{principal!r} publishes" if principal else "more is published"
                raise GatewayError(
                    "quota_exceeded",
                    f"{who} than {bucket.per_s:,.0f} {what} a second ({setting}); go on in {wait_s:.1f} s",
                    retry_after_s=max(1, math.ceil(wait_s)),
                )
        for bucket, what, _ in buckets:
            bucket.take(messages if what == "messages" else size, now)

    def _add(self, principal: str, now: float) -> tuple[tuple[Bucket, str, str], ...]:
        if len(self._buckets) >= _PRINCIPALS_MAX:
            self._forget(now)
        settings, buckets = self.settings, []
        if settings.messages_per_s:
            buckets.append((Bucket(settings.messages_per_s, settings.burst_s), "messages", "quota.messages_per_s"))
        if settings.bytes_per_s:
            buckets.append((Bucket(settings.bytes_per_s, settings.burst_s), "bytes", "quota.bytes_per_s"))
        self._buckets[principal] = tuple(buckets)
        return self._buckets[principal]

    def _forget(self, now: float) -> None:
        idle = [name for name, buckets in self._buckets.items() if all(bucket.is_full(now) for bucket, _, _ in buckets)]
        for name in idle or list(self._buckets)[: _PRINCIPALS_MAX // 2]:  # none is idle: the oldest begin anew
            del self._buckets[name]
