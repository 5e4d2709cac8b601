"""Bad credentials by where they come from: an address that sends many of them is not looked at for a while.

Nobody guesses 256 random bits; but a signature costs 0.1 to 0.3 ms to find wrong, and each attempt a line in the audit
log. Credentials that were found good before are taken all the while, without being looked at again.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from typing import Final

from gateway.config import Auth
from gateway.errors import GatewayError
from gateway.kit.bucket import Bucket

_COUNTED: Final = "invalid_token"
_NETWORK_BITS: Final = 64
"""What one customer has of IPv6 (RFC 6177): addresses within it are one."""


class Failures:
    """The buckets of all addresses that have sent bad credentials."""

    def __init__(self, settings: Auth, clock: Callable[[], int]) -> None:
        self.refused = 0
        """Attempts since the start that were not looked at."""
        self._settings = settings
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    def __len__(self) -> int:
        """Addresses remembered."""
        return len(self._buckets)

    def check(self, remote: str) -> None:
        """Raise `too_many_failures` where `remote`, HOST:PORT, has sent too much that was wrong."""
        bucket = self._buckets.get(_network(remote)) if self._buckets else None
        if bucket is None:
            return
        wait_s = bucket.wait_s(self._now())
        if wait_s > 0:
            self.refused += 1
            raise GatewayError(
                "too_many_failures",
                f"too many bad credentials came from your address (auth.failures_per_s); try again in {wait_s:.1f} s, "
                f"with good ones",
                retry_after_s=max(1, math.ceil(wait_s)),
            )

    def note(self, remote: str, error: GatewayError) -> None:
        """`remote` was refused with `error`; what its credentials were not guilty of does not count."""
        per_s = self._settings.failures_per_s
        if error.code != _COUNTED or not per_s or not remote:
            return
        now, network = self._now(), _network(remote)
        bucket = self._buckets.get(network)
        if bucket is None:
            if len(self._buckets) >= self._settings.failures_addresses_max:
                self._forget(now)
            bucket = self._buckets[network] = Bucket(per_s, self._settings.failures_burst / per_s)
        bucket.take(1, now)

    def _forget(self, now: float) -> None:
        """Addresses that have behaved since are as new ones; where there are none, the oldest half."""
        idle = [network for network, bucket in self._buckets.items() if bucket.is_full(now)]
        for network in idle or list(self._buckets)[: len(self._buckets) // 2 + 1]:
            del self._buckets[network]

    def _now(self) -> float:
        return self._clock() / 1000


def _network(remote: str) -> str:
    host = remote.rpartition(":")[0].strip("[]")
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _NETWORK_BITS), strict=False))
