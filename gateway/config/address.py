"""HOST:PORT, as settings and flags write it."""

from __future__ import annotations

import ipaddress


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` -> (host, port); an IPv6 host stands in brackets. Raises ValueError with the mend."""
    host, colon, port = text.rpartition(":")
    if not colon or host in ("", "[]"):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets, such as [::1]:8080")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("the port must be a number from 0 to 65535")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # no other name: 127.example.org resolves to wherever its owner likes
