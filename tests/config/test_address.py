from __future__ import annotations

import pytest

from gateway.config.address import is_loopback, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("gateway.example.org:0", ("gateway.example.org", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("8080", "must be HOST:PORT"),
        (":8080", "must be HOST:PORT"),
        ("[]:8080", "must be HOST:PORT"),
        ("::1:8080", "stands in brackets"),
        ("localhost:", "a number from 0 to 65535"),
        ("localhost:65536", "a number from 0 to 65535"),
        ("localhost:-1", "a number from 0 to 65535"),
        ("localhost:٣", "a number from 0 to 65535"),
    ],
)
def test_anything_else_is_refused_with_the_mend(text: str, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("127.example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_what_is_reached_from_this_machine_only(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here
