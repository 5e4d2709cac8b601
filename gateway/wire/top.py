"""The HTTP calls of the platform that TMC comes from (TOP), as `POST /router/rest` has them: form in, JSON out.

Every call is a form of parameters; `method` names it, `app_key` who calls, and `sign` is made of all the others and the
application's secret. An answer is `{"<method>_response": {...}}`; an error is `{"error_response": {"code", "msg",
"sub_code", "sub_msg"}}`, and comes with the HTTP status 200 like everything else there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

ZONE: Final = timezone(timedelta(hours=8))
"""All times of the platform are Beijing's, in both directions."""
_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S"
_PARAMETERS_MAX: Final = 100
_TICKS_MIN: Final = 10**17
_TICKS_EPOCH_MS: Final = 62_135_596_800_000
_ZONES_MS: Final = 14 * 3600 * 1000

ERRORS: Final = {
    "service_unavailable": (10, "Service Currently Unavailable"),
    "insufficient_permissions": (11, "Insufficient ISV Permissions"),
    "remote_error": (15, "Remote service error"),
    "missing_method": (21, "Missing Method"),
    "invalid_method": (22, "Invalid Method"),
    "invalid_format": (23, "Invalid Format"),
    "missing_signature": (24, "Missing Signature"),
    "invalid_signature": (25, "Invalid Signature"),
    "missing_session": (26, "Missing Session"),
    "invalid_token": (27, "Invalid Session"),
    "missing_app_key": (28, "Missing App Key"),
    "invalid_app_key": (29, "Invalid App Key"),
    "missing_timestamp": (30, "Missing Timestamp"),
    "invalid_timestamp": (31, "Invalid Timestamp"),
    "unsupported_version": (34, "Unsupported Version"),
    "missing_argument": (40, "Missing Required Arguments"),
    "invalid_argument": (41, "Invalid Arguments"),
}
"""The platform's error codes and what it calls them."""


PERMISSION: Final = (11,)
UNPROVEN: Final = (24, 25, 26, 27, 28, 29, 30, 31)
"""Codes that say who calls may not, or has not proven who it is."""


class TopError(Exception):
    """An error as the platform answers it. `sub_code` and `sub_msg` say what exactly."""

    def __init__(self, name: str, sub_msg: str = "", sub_code: str = "") -> None:
        self.code, self.msg = ERRORS[name]
        self.sub_code = sub_code
        self.sub_msg = sub_msg
        super().__init__(f"{self.msg}: {sub_msg}" if sub_msg else self.msg)


def missing(name: str) -> TopError:
    return TopError("missing_argument", f"{name} is required", f"isv.missing-parameter:{name}")


def invalid(name: str, why: str) -> TopError:
    return TopError("invalid_argument", f"{name}: {why}", f"isv.invalid-parameter:{name}")


def parse_form(body: bytes) -> dict[str, str]:
    """The parameters of a form in UTF-8. Raises TopError; one that comes twice counts as it came last."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), encoding="utf-8", errors="strict",
            max_num_fields=_PARAMETERS_MAX,
        )  # fmt: skip
    except ValueError:
        raise TopError(
            "invalid_format", f"send application/x-www-form-urlencoded in UTF-8, at most {_PARAMETERS_MAX} parameters"
        ) from None
    return dict(pairs)


# ------------------------------------------------------------------------------------------------------ signatures

_Digest = Callable[[bytes, bytes], str]


def _md5(secret: bytes, text: bytes) -> str:
    return hashlib.md5(secret + text + secret, usedforsecurity=False).hexdigest()


def _hmac_md5(secret: bytes, text: bytes) -> str:
    return hmac.new(secret, text, hashlib.md5).hexdigest()


def _hmac_sha256(secret: bytes, text: bytes) -> str:
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


_METHODS: Final[dict[str, _Digest]] = {"md5": _md5, "hmac": _hmac_md5, "hmac-sha256": _hmac_sha256}


def sign(parameters: Mapping[str, str], secret: str, method: str = "md5") -> str:
    """The signature of the parameters, but for `sign`: sorted by name, name and value joined, in upper-case hex."""
    text = "".join(f"{name}{parameters[name]}" for name in sorted(parameters) if name != "sign")
    return _METHODS[method](secret.encode(), text.encode()).upper()


def is_signed(parameters: Mapping[str, str], secret: str, method: str = "md5") -> bool:
    """Whether `parameters["sign"]` is right, compared in constant time.

    Some SDKs leave empty parameters out of what they sign and some do not, so either is taken.
    """
    if method not in _METHODS:
        raise TopError("invalid_signature", f"sign_method: use {', '.join(_METHODS)}")
    given = parameters.get("sign", "").upper().encode("ascii", "replace")
    filled = {name: value for name, value in parameters.items() if value}
    right = hmac.compare_digest(given, sign(parameters, secret, method).encode())
    return right | hmac.compare_digest(given, sign(filled, secret, method).encode())


def parse_time(text: str) -> int | None:
    """A timestamp of a call in milliseconds since the epoch: `yyyy-MM-dd HH:mm:ss` in Beijing, or milliseconds."""
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text, re.ASCII) is None:
        return None
    try:
        return int(datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=ZONE).timestamp() * 1000)
    except ValueError:
        return None


def is_current(text: str, now: int, window_ms: int) -> bool:
    """Whether a timestamp is no further from `now` than the window. False where it is none.

    The .NET client of TMC sends ticks of 100 ns since the year 1 in its own time zone, which nobody else knows: those
    are taken from any zone.
    """
    time = parse_time(text)
    if time is None:
        return False
    if time >= _TICKS_MIN:
        return abs(time // 10_000 - _TICKS_EPOCH_MS - now) <= window_ms + _ZONES_MS
    return abs(time - now) <= window_ms


def format_time(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, ZONE).strftime(_TIME_FORMAT)


# --------------------------------------------------------------------------------------------------------- answers


def encode_answer(method: str, content: Mapping[str, Any], request_id: str) -> bytes:
    """`taobao.tmc.user.get` is answered as `tmc_user_get_response`."""
    name = method.removeprefix("taobao.").replace(".", "_") + "_response"
    return orjson.dumps({name: {**content, "request_id": request_id}})


def encode_error(error: TopError, request_id: str) -> bytes:
    content: dict[str, object] = {"code": error.code, "msg": error.msg, "request_id": request_id}
    if error.sub_code:
        content["sub_code"] = error.sub_code
    if error.sub_msg:
        content["sub_msg"] = error.sub_msg
    return orjson.dumps({"error_response": content})


# ------------------------------------------------------------------------------------------------------ parameters


class Parameters:
    """The parameters of one call, taken by name; TopError names the one that is missing or wrong."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """Empty where there is none."""
        return self._values.get(name, "")

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise missing(name)
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.text(name)
        if not value:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 19 and low <= int(value) <= high):
            raise invalid(name, f"must be a whole number from {low} to {high}")
        return int(value)

    def names(self, name: str, most: int) -> list[str]:
        """A list joined by commas; empty where there is none."""
        found = [word.strip() for word in self.text(name).split(",") if word.strip()]
        if len(found) > most:
            raise invalid(name, f"{len(found)} are too many; at most {most} are taken")
        return found

    def ids(self, name: str, most: int) -> list[int]:
        """Message ids joined by commas."""
        found = self.names(name, most)
        for word in found:
            if not (word.isascii() and word.isdigit() and len(word) < 19):
                raise invalid(name, f"{word[:40]!r} is not a message id")
        return [int(word) for word in found]
