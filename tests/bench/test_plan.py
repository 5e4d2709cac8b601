from typing import Any

import pytest

from gateway.bench.plan import BATCH_BYTES_MAX, Address, Plan, make_plan, parse_address


def plan(**changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "messages": 1000,
        "size_bytes": 256,
        "publishers": None,
        "subscribers": 1,
        "shared": False,
        "window": 2000,
        "batch": None,
        "rate_per_s": None,
        "http": False,
        "idle": 0,
    }
    return make_plan(**(settings | changes))


def test_what_is_left_open_fits_the_rest() -> None:
    assert (plan().publishers, plan().batch) == (1, 200)
    assert plan(window=50).batch == 50
    assert plan(size_bytes=1 << 20).batch == BATCH_BYTES_MAX >> 20
    assert (plan(http=True).publishers, plan(http=True).batch) == (64, 1)
    assert plan(http=True, messages=3).publishers == 3


def test_every_message_is_published_once() -> None:
    for publishers in (1, 3, 7, 1000):
        made = plan(publishers=publishers)
        shares = [made.share(number) for number in range(made.publishers)]
        assert sum(shares) == 1000
        assert max(shares) - min(shares) <= 1


def test_deliveries_are_a_message_for_each_subscription() -> None:
    assert plan(subscribers=5).deliveries == 5000
    assert plan(subscribers=5, shared=True).deliveries == 1000
    assert plan(subscribers=5, own_topics=True).deliveries == 1000
    assert plan(subscribers=5, backlog=500).deliveries == 7500
    assert plan(subscribers=0).deliveries == plan(subscribers=0, shared=True).deliveries == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"batch": 300, "window": 200}, "larger than --window"),
        ({"batch": 1000, "size_bytes": 100_000}, "lower either"),
        ({"batch": 10, "http": True}, "--http publishes single messages"),
        ({"size_bytes": 10}, "the least is 18"),
        ({"subscribers": 3, "slow_readers": 2, "no_ack": 2}, "are 4 of --subscribers 3"),
        ({"subscribers": 3, "late_ack": 1, "shared": True}, "a subscription of its own"),
        ({"subscribers": 3, "own_topics": True, "shared": True}, "--own-topics goes with neither"),
    ],
)
def test_a_load_that_contradicts_itself_is_refused_with_the_mend(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        plan(**changes)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("ws://localhost:9/v1/connect", Address("localhost", 9)),
        ("http://[::1]:8080", Address("::1", 8080)),
        ("http://example.org", Address("example.org", 80)),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize("url", ["https://example.org", "wss://example.org", "example.org:80", "http://", "ftp://x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"name the gateway itself|write ws://host:port"):
        parse_address(url)
