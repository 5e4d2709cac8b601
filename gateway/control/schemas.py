"""The shapes of what the control plane takes and answers, as JSON Schema (draft 2020-12).

Properties and their types come from the classes that are served, so the two cannot drift; what a type cannot say,
bounds and meaning, stands in `_MORE`, and a test holds the bounds to what the classes accept.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import attrs

from gateway.control.call import Schema, array, ref
from gateway.control.health import Check, Health, Probe
from gateway.edge.connections import ConnectionView
from gateway.errors import TABLE
from gateway.model import (
    FILTER_CHARS_MAX,
    LEASE_MS_MAX,
    NAME_BYTES_MAX,
    POSITION_MAX,
    RETENTION_S_MAX,
    TOPIC_BYTES_MAX,
    Redriven,
    Sought,
    SubscriptionSettings,
    SubscriptionStatistics,
    Why,
)
from gateway.trace.timeline import STATES, TracedMessage, TraceStanding, TraceStep, TraceView

_WORD: Final = "[A-Za-z0-9_-]+"
TOPIC: Final = rf"^{_WORD}(\.{_WORD})*$"
PATTERN: Final = rf"^(>|({_WORD}|\*)(\.({_WORD}|\*))*(\.>)?)$"

_COUNT: Final[Schema] = {"minimum": 0}
_TOPIC_TEXT: Final[Schema] = {"type": "string", "pattern": TOPIC, "maxLength": TOPIC_BYTES_MAX}

_MORE: Final[dict[str, dict[str, Schema]]] = {
    "SubscriptionSettings": {
        "topics": {
            "description": "Patterns of the topics it reads: `*` stands for one word, a final `>` for one or more.",
            "items": {"type": "string", "pattern": PATTERN, "maxLength": TOPIC_BYTES_MAX},
            "minItems": 1,
            "maxItems": 1000,
        },
        "filter": {
            "description": "CEL over topic, key, attributes and data; what it is not true of is left out.",
            "maxLength": FILTER_CHARS_MAX,
        },
        "format": {"description": "How its messages are written: as the protocol has it, or as CloudEvents in JSON."},
        "lease_ms": {
            "description": "How long a consumer may take over a message before it is delivered again.",
            "minimum": 100,
            "maximum": LEASE_MS_MAX,
        },
        "attempts_max": {
            "description": "Deliveries of one message; then it goes to the dead letters.",
            "minimum": 1,
            "maximum": 1_000_000,
        },
        "backoff_ms": {
            "description": "Pause before the second delivery, the third, and so on; the last is for all that follow.",
            "items": {"type": "integer", "minimum": 0, "maximum": 30 * 24 * 3600 * 1000},
            "minItems": 1,
            "maxItems": 100,
        },
        "dead_letter": {
            "description": "Topic of its dead letters; null is `dead.<name>`, an empty text is none.",
            "anyOf": [{"type": "null"}, {"const": ""}, _TOPIC_TEXT],
        },
        "ordered": {
            "description": (
                "Whether a message waits until the one before it of the same key is settled. A change takes back what "
                "is in flight."
            ),
        },
        "retention_s": {
            "description": (
                "How long a message waits for a consumer, from when it was stored, or was due; then it expires. What "
                "was given up may be redriven as long."
            ),
            "minimum": 1,
            "maximum": RETENTION_S_MAX,
        },
        "window_max": {
            "description": "Most messages in flight at one consumer.",
            "minimum": 1,
            "maximum": 1_000_000,
        },
        "start": {"description": "Where a new subscription begins to read; counts at creation only."},
        "paused": {"description": "Whether delivery rests. Messages are kept all the same."},
    },
    "SubscriptionStatistics": {
        "waiting": {"description": "Due, and waiting for a consumer.", **_COUNT},
        "in_flight": {"description": "Leased, or on the way to the dead letters.", **_COUNT},
        "delayed": {"description": "Not due yet: a delay of its own, or backoff.", **_COUNT},
        "routed": {
            "description": "All it ever was due: waiting + in flight + delayed + acked + expired + dead-lettered.",
            **_COUNT,
        },
        "acked": {"description": "Settled by a consumer.", **_COUNT},
        "expired": {"description": "Their time was over before they were settled.", **_COUNT},
        "dead_lettered": {"description": "Given up.", **_COUNT},
        "oldest_ms": {"description": "Publish time of the oldest unsettled message; null where all is settled."},
        "consumers": {"description": "Connections and pulls attached now.", **_COUNT},
        "skipped": {"description": "Of the expired, those that a seek went past.", **_COUNT},
    },
    "Sought": {
        "position": {"description": "It reads on from here: the nearest there is to what was asked for.", **_COUNT},
        "again": {"description": "Settled messages that are due once more; counted as routed again.", **_COUNT},
        "skipped": {"description": "Unsettled messages that are due no more; counted as expired.", **_COUNT},
    },
    "Redriven": {
        "redriven": {"description": "Messages that are due once more; counted as routed again.", **_COUNT},
    },
    "Why": {
        "position": {"description": "Which message.", **_COUNT},
        "reason": {"description": "For programs."},
        "detail": {"description": "For people, with the mend where there is one."},
        "consumer": {"description": "Who holds it."},
        "until_ms": {"description": "When that ends."},
        "attempts": {"description": "Deliveries so far."},
        "behind": {"description": "The message of the same key that it waits for."},
    },
    "ConnectionView": {
        "connection": {"description": "Its name."},
        "protocol": {"description": "The subprotocol it speaks."},
        "remote": {"description": "HOST:PORT of the client."},
        "principal": {"description": "Who it is; empty where nobody had to say."},
        "client": {"description": "What the client calls itself."},
        "subscriptions": {"description": "What it is attached to."},
        "window": {"description": "Most messages in flight now, over all its subscriptions.", **_COUNT},
        "in_flight": {"description": "Messages leased to it.", **_COUNT},
        "acked_per_s": {"description": "Messages it settles.", **_COUNT},
        "ack_latency_ms": {"description": "From delivery to ack; null before it is known."},
        "unsent_bytes": {"description": "What its socket has not taken yet.", **_COUNT},
        "state": {"description": "How it keeps up.", "enum": ["healthy", "throttled", "paused"]},
        "reason": {"description": "Of the last change of its state or window."},
        "since_ms": {"description": "Since when it has been in this state.", **_COUNT},
    },
    "Health": {
        "status": {"description": "As the worst of the checks."},
        "version": {"description": "Of the program."},
        "node": {"description": "Name of this gateway."},
        "epoch": {"description": "Identity of this store's life."},
        "checks": {"description": "Each part by its name."},
    },
    "TraceView": {
        "id": {"description": "As it was asked for."},
        "positions": {"description": "Where messages with this id are, or were."},
        "messages": {"description": "The message, then its dead letters, or what it is the dead letter of."},
        "refused": {"description": "What was refused under this id."},
        "lost": {"description": "Events of that time that found no room; steps may be missing.", **_COUNT},
        "since_ms": {"description": "How far the trace reaches back; null where it has nothing yet."},
    },
    "TracedMessage": {
        "position": {"description": "Its place in the log.", **_COUNT},
        "relation": {
            "description": "What it is to the message that led here; empty for the one that was asked for.",
            "enum": ["", "dead_letter", "original"],
        },
        "topic": {"description": "Its topic; null where that is not known any more."},
        "traceparent": {"description": "Its producer's W3C trace context."},
        "standing": {"description": "Where it stands now with each subscription it is routed to."},
        "steps": {"description": "What happened, the oldest first."},
    },
    "TraceStanding": {
        "subscription": {"description": "Its name."},
        "state": {
            "description": (
                "`skipped`: a seek went past it. `settled`: it is over, and how is not in the trace. `deleted`: the "
                "subscription is."
            ),
            "enum": sorted(STATES),
        },
        "since_ms": {"description": "Since when; null where that is not known."},
    },
    "TraceStep": {
        "time_ms": {"description": "When, by the gateway's clock.", **_COUNT},
        "step": {"description": "What happened."},
        "subscription": {"description": "To which subscription's delivery."},
        "who": {"description": "Who did it: a producer, a consumer, a stage."},
        "why": {"description": "Topic, cause, reason or outcome."},
        "attempt": {"description": "Which delivery it was, from 1."},
        "until_ms": {"description": "How long that holds: the end of a lease, or of a pause."},
        "other": {"description": "Position of the message it became, or came from."},
    },
    "Check": {"detail": {"description": "Why it is not ok, and the mend; empty where it is."}},
}

PARAMETERS: Final[dict[str, Schema]] = {
    "name": {
        "description": "Name of the subscription: words joined by dots.",
        "schema": {"type": "string", "pattern": TOPIC, "maxLength": NAME_BYTES_MAX},
        "example": "orders",
    },
    "position": {
        "description": "Which message.",
        "schema": {"type": "integer", "minimum": 0, "maximum": POSITION_MAX},
        "example": 1,
    },
    "connection": {"description": "Name of the connection, as the list shows it.", "schema": {"type": "string"}},
    "id": {"description": "Id of the message: its producer's own, or the gateway's.", "schema": {"type": "string"}},
}
"""What stands in paths and queries, by its name there."""


def properties(cls: type) -> dict[str, Schema]:
    """The schema of each field of an attrs class."""
    hints, more = get_type_hints(cls), _MORE.get(cls.__name__, {})
    return {f.name: schema_of(hints[f.name]) | more.get(f.name, {}) for f in attrs.fields(cls)}


def schema_of(hint: Any) -> Schema:
    """The schema of a type hint, as orjson writes its values."""
    plain = {int: "integer", bool: "boolean", str: "string", float: "number", types.NoneType: "null"}
    if hint in plain:
        return {"type": plain[hint]}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return _union([schema_of(argument) for argument in arguments])
    if origin in (list, tuple):
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return {"type": "string", "enum": [member.value for member in hint]}
    if isinstance(hint, type) and attrs.has(hint):
        return ref(hint.__name__)
    raise TypeError(f"{hint!r} has no schema here")


def _union(choices: list[Schema]) -> Schema:
    if all(choice.keys() == {"type"} for choice in choices):
        return {"type": [choice["type"] for choice in choices]}
    return {"anyOf": choices}


def _object(fields: dict[str, Schema], description: str, *, required: bool = True) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": fields,
        "required": list(fields) if required else [],
        "additionalProperties": False,
    }


def _served(*classes: type) -> Iterator[tuple[str, Schema]]:
    """Classes that are answered as they are."""
    for cls in classes:
        name = cls.__name__.removesuffix("View")
        yield name, _object(properties(cls), (cls.__doc__ or "").partition("\n")[0])


def _one(name: str, schema: Schema) -> Schema:
    """An object of one member."""
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


_SEEK_TO: Final[list[Schema]] = [
    {"type": "string", "enum": ["start", "end"]},
    *(_one(name, {"const": True}) for name in ("start", "end")),
    *(_one(name, {"type": "integer", "minimum": 0, "maximum": POSITION_MAX}) for name in ("position", "time_ms")),
]


def _schemas() -> dict[str, Schema]:
    settings = properties(SubscriptionSettings)
    dead_letter = {
        "type": "string",
        "description": "Topic of its dead letters; an empty text is none.",
        "anyOf": [{"const": ""}, _TOPIC_TEXT],
    }
    name = {"type": "string", "description": "Its name."}
    return {
        "SubscriptionChange": {
            **_object(settings, "Settings of a subscription; `topics` at least to create one.", required=False),
            "examples": [{"topics": ["trade.>"], "lease_ms": 60_000}],
        },
        "Subscription": _object(
            {"name": name, **settings, "dead_letter": dead_letter, "statistics": ref("SubscriptionStatistics")},
            "A durable named reader, and where it stands.",
        ),
        "Seek": _object({"to": {"description": "Where to read on.", "oneOf": _SEEK_TO}}, "A place in the log."),
        **dict(_served(SubscriptionStatistics, Sought, Redriven, Why, ConnectionView, Probe, Health, Check)),
        **dict(_served(TraceView, TracedMessage, TraceStanding, TraceStep)),
        "StoredMessage": _object(
            {
                "id": {"type": "string", "description": "As it was asked for."},
                "position": {"type": "integer", "description": "Its place in the log.", **_COUNT},
                "positions": {**array({"type": "integer"}), "description": "Where messages with this id are, or were."},
                "message": {"type": "object", "description": "The message as it is delivered."},
            },
            "A message in the store.",
        ),
        "Error": _object(
            {
                "code": {"type": "string", "description": "For programs.", "enum": sorted(TABLE)},
                "message": {"type": "string", "description": "For people: names the thing and the mend."},
                "temporary": {"type": "boolean", "description": "Whether the same call may succeed later."},
            },
            "What every error is, on every interface.",
        ),
    }


SCHEMAS: Final = _schemas()
