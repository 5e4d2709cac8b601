"""Subscription settings as plain data: what the control plane takes and shows, and what the log keeps."""

from __future__ import annotations

import difflib
import enum
from typing import Any, Final

import attrs
import cattrs

from gateway.errors import GatewayError
from gateway.model import POSITION_MAX, Format, SeekTo, Start, SubscriptionSettings, SubscriptionView

_KNOWN: Final = tuple(field.name for field in attrs.fields(SubscriptionSettings))
_converter = cattrs.Converter(detailed_validation=False)


def _strict_int(value: Any, _type: type) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON has one kind of number: 1.0 is a whole one (JSON Schema 2020-12 §6.1.1)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be a whole number")
    return value


def _strict_bool(value: Any, _type: type) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _strict_str(value: Any, _type: type) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


_converter.register_structure_hook(int, _strict_int)
_converter.register_structure_hook(bool, _strict_bool)
_converter.register_structure_hook(str, _strict_str)
_converter.register_structure_hook(Start, lambda value, _type: Start(value))  # a str too, but not any
_converter.register_structure_hook(Format, lambda value, _type: Format(value))


def decode_settings(change: Any, before: SubscriptionSettings | None) -> SubscriptionSettings:
    """`before` (or the defaults) with the settings in `change`; `bad_request` names what is wrong and the mend."""
    if not isinstance(change, dict):
        raise GatewayError("bad_request", 'the body must be a JSON object of settings, such as {"topics":["trade.>"]}')
    for key in change:
        if key not in _KNOWN:
            close = difflib.get_close_matches(key, _KNOWN, n=1)
            mend = f"did you mean {close[0]}?" if close else f"known are {', '.join(_KNOWN)}"
            raise GatewayError("bad_request", f"{key}: unknown setting; {mend}")
    if before is None and "topics" not in change:
        raise GatewayError("bad_request", 'topics: is required, such as "topics":["trade.>"]')
    values = attrs.asdict(before, recurse=False) if before else {}
    for key, value in change.items():
        values[key] = _decode_field(key, value)
    return SubscriptionSettings(**values)


_TYPES: Final[dict[str, Any]] = {
    "topics": tuple[str, ...],
    "filter": str,
    "format": Format,
    "lease_ms": int,
    "attempts_max": int,
    "backoff_ms": tuple[int, ...],
    "dead_letter": str | None,
    "ordered": bool,
    "retention_s": int,
    "window_max": int,
    "start": Start,
    "paused": bool,
}


def _decode_field(key: str, value: Any) -> Any:
    if key in ("topics", "backoff_ms") and not isinstance(value, list):
        raise GatewayError("bad_request", f"{key}: must be a list")
    if key == "dead_letter" and value is None:
        return None
    try:
        return _converter.structure(value, str if key == "dead_letter" else _TYPES[key])
    except (ValueError, TypeError) as error:
        if isinstance(choices := _TYPES[key], type) and issubclass(choices, enum.Enum):
            words = " or ".join(f'"{choice.value}"' for choice in choices)
            raise GatewayError("bad_request", f"{key}: must be {words}") from None
        raise GatewayError("bad_request", f"{key}: {error}") from None


_SEEK_MEND: Final = (
    'to: write one of {"to":"start"}, {"to":"end"}, {"to":{"position":4711}}, {"to":{"time_ms":1795326701000}}'
)


def decode_seek(body: Any) -> SeekTo:
    """Where to seek (protocol.md §5); `bad_request` names what is wrong and the mend."""
    if not isinstance(body, dict) or body.keys() != {"to"}:
        raise GatewayError("bad_request", _SEEK_MEND)
    to = body["to"]
    if isinstance(to, dict) and len(to) == 1:
        [(what, value)] = to.items()
        if what in ("start", "end") and value is True:
            return SeekTo(edge=Start(what))
        if what in ("position", "time_ms"):
            try:
                place = _strict_int(value, int)
            except ValueError as error:
                raise GatewayError("bad_request", f"to.{what}: {error}") from None
            if not 0 <= place <= POSITION_MAX:
                raise GatewayError("bad_request", f"to.{what}: {place} is not between 0 and {POSITION_MAX}")
            return SeekTo(position=place) if what == "position" else SeekTo(time_ms=place)
    if isinstance(to, str) and to in ("start", "end"):
        return SeekTo(edge=Start(to))
    raise GatewayError("bad_request", _SEEK_MEND)


def encode_settings(settings: SubscriptionSettings) -> dict[str, Any]:
    """Plain data that `decode_settings` takes back."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in attrs.asdict(settings, recurse=False).items()}


def encode_view(view: SubscriptionView) -> dict[str, Any]:
    """A subscription as the control plane shows it (protocol.md §5)."""
    settings = encode_settings(view.settings)
    settings["dead_letter"] = view.settings.dead_letter_topic(view.name) or ""
    return {"name": view.name, **settings, "statistics": attrs.asdict(view.statistics)}
