from __future__ import annotations

import pytest

from gateway.auth.failures import Failures
from gateway.config import Auth
from gateway.errors import GatewayError

WRONG = GatewayError("invalid_token", "")


class House:
    def __init__(self, per_s: float = 2.0, burst: int = 4, addresses_max: int = 10) -> None:
        self.now_ms = 1_800_000_000_000
        settings = Auth(failures_per_s=per_s, failures_burst=burst, failures_addresses_max=addresses_max)
        self.failures = Failures(settings, lambda: self.now_ms)

    def fail(self, remote: str, times: int = 1, error: GatewayError = WRONG) -> None:
        for _ in range(times):
            self.failures.note(remote, error)

    def is_refused(self, remote: str) -> bool:
        try:
            self.failures.check(remote)
        except GatewayError as error:
            return (error.code, error.retry_after_s) >= ("too_many_failures", 1)
        return False


def test_an_address_has_a_burst_and_then_so_many_a_second() -> None:
    house = House()
    house.fail("192.0.2.1:1", 4)
    assert not house.is_refused("192.0.2.1:2")
    house.fail("192.0.2.1:3")
    assert house.is_refused("192.0.2.1:4")
    assert not house.is_refused("192.0.2.2:4")
    house.now_ms += 499
    assert house.is_refused("192.0.2.1:5")
    house.now_ms += 2
    assert not house.is_refused("192.0.2.1:6")
    assert house.failures.refused == 2


def test_what_credentials_are_not_guilty_of_does_not_count() -> None:
    house = House()
    for code in ("credentials_expired", "keys_unavailable", "permission_denied", "too_many_failures"):
        house.fail("192.0.2.1:1", 100, GatewayError(code, ""))
    assert len(house.failures) == 0


def test_a_network_of_ipv6_is_one_address_and_a_mapped_one_is_ipv4() -> None:
    house = House()
    house.fail("[2001:db8::1]:1", 3)
    house.fail("[2001:db8::ffff:1]:1", 3)
    assert house.is_refused("[2001:db8:0:0:1::]:9")
    assert not house.is_refused("[2001:db8:0:1::1]:9")
    house.fail("[::ffff:192.0.2.1]:1", 5)
    assert house.is_refused("192.0.2.1:1")


def test_no_limit_and_no_address_are_not_counted() -> None:
    house = House(per_s=0)
    house.fail("192.0.2.1:1", 1000)
    assert not house.is_refused("192.0.2.1:1")
    house = House()
    house.fail("", 1000)
    assert not house.is_refused("")


def test_addresses_are_bounded_and_those_that_behave_are_forgotten_first() -> None:
    house = House(addresses_max=10)
    for number in range(5):
        house.fail(f"192.0.2.{number}:1", 5)
    house.now_ms += 10_000
    for number in range(5, 10):
        house.fail(f"192.0.2.{number}:1", 5)
    house.fail("192.0.2.10:1", 5)
    assert len(house.failures) == 6
    assert house.is_refused("192.0.2.5:1")
    for number in range(11, 200):
        house.fail(f"192.0.2.{number}:1", 5)
        assert len(house.failures) <= 10
    assert house.is_refused("192.0.2.199:1")


@pytest.mark.parametrize("remote", ["[fe80::1%eth0]:1", "[nonsense:]:1", "unix", ":1"])
def test_any_address_can_be_counted(remote: str) -> None:
    house = House()
    house.fail(remote, 6)
    house.is_refused(remote)
