"""When a token has to be replaced by a fresh one: read from the token itself, which the SDK does not verify."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Final

import orjson

LEFT_S: Final = 30.0
"""A fresh token is brought this long before the old one ends; a short-lived one when half of its time is over."""
LEFT_SHARE: Final = 0.1
AGAIN_S: Final = 1.0
"""A source that gives tokens that have ended already is asked no more often than this."""


def expires_s(token: str) -> float | None:
    """`exp` of a JSON Web Token, in seconds since the epoch; None where it is none, such as an API key."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = orjson.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, TypeError, KeyError):
        return None


def delay_s(token: str, now_s: float) -> float | None:
    """How long to wait, at `now_s` since the epoch, before the token is replaced; None where it does not end."""
    end_s = expires_s(token)
    if end_s is None:
        return None
    left_s = end_s - now_s
    return max(AGAIN_S, left_s - max(LEFT_S, left_s * LEFT_SHARE), left_s / 2)
