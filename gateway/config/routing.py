"""What happens to a message on its way in: filters, pipelines, and sources that the gateway watches."""

from __future__ import annotations

import attrs

from gateway.config.setting import KIB, MIB, required, setting
from gateway.model import check_pattern, check_subscription_name, check_topic, is_topic


@attrs.frozen(kw_only=True)
class Filter:
    """The filters of subscriptions."""

    data_bytes_max: int = setting(
        64 * KIB,
        "Largest payload that filters look into: what CEL does with it grows with it, in time and memory. In a larger "
        "one there is no `data` for them: those that need it count an error, and do not match.",
        KIB,
        2**30,
    )
    inline_bytes_max: int = setting(
        16 * KIB,
        "Largest payload that a filter is asked about on the run loop; beyond it, and where the filter has loops or "
        "patterns, a process of its own asks. Plain equalities are always looked up at once.",
        0,
        MIB,
    )
    timeout_ms: int = setting(
        100,
        "Processor time that process has for one filter and message; past it nothing matches, and the filter rests "
        "for a second, then longer each time.",
        1,
        60_000,
    )
    memory_bytes_max: int = setting(
        1024 * MIB, "Address space of that process; it takes about 200 MiB to start with.", 512 * MIB, 2**40
    )


@attrs.frozen(kw_only=True)
class Pipeline:
    """Stages that messages of some topics pass between `admit` and `route`; a topic's is the first that matches it."""

    name: str = required("Name of the pipeline, in metrics, errors and the trace.")
    topics: tuple[str, ...] = setting((">",), "Patterns of the topics whose messages pass it.")
    stages: tuple[str, ...] = setting(
        (), "Its stages in order: unique_names, schema, projection, or an operator's own, module:callable."
    )
    schema: str = setting("", "File of the JSON Schema that stage `schema` checks payloads against.")
    projection: str = setting("", "JMESPath expression that stage `projection` makes the payload anew with.")
    timeout_ms: int = setting(
        5000, "How long an operator's stage may take for a batch; then the batch fails.", 1, 600_000
    )

    def __attrs_post_init__(self) -> None:
        if not is_topic(self.name):
            raise ValueError(f"name: {self.name!r}: use words of A-Z a-z 0-9 _ - joined by single dots")
        for pattern in self.topics:
            check_pattern(pattern)
        if not self.stages:
            raise ValueError("stages: name at least one: unique_names, schema, projection, or module:callable")
        for key in ("schema", "projection"):
            if (key in self.stages) != bool(getattr(self, key)):
                raise ValueError(f"{key}: goes with the stage {key!r}; give both, or neither")


@attrs.frozen(kw_only=True)
class Source:
    """An upstream that the gateway watches by itself; as many of these tables as there are upstreams."""

    name: str = required("Its name, in the form of a topic; the ids of its messages begin with it.")
    type: str = required(
        "postgres (an outbox table) or ndjson (a file of lines that grows and is rotated).", ("postgres", "ndjson")
    )
    topic: str = setting("", "Topic of everything it publishes; where it is empty each row or line names its own.")
    url: str = setting("", "postgres: connection string of libpq; leave the password to a passfile.")
    table: str = setting("outbox", "postgres: the table, with its schema where it needs one.")
    channel: str = setting("outbox", "postgres: NOTIFY on this channel wakes the source; empty: it only polls.")
    id_column: str = setting("id", "postgres: unique; rows are published in its order, and recognised by it.")
    topic_column: str = setting("topic", "postgres: the message's topic, where `topic` is empty.")
    payload_column: str = setting("payload", "postgres: json, jsonb, text or bytea; what is not JSON goes as base64.")
    key_column: str = setting("key", "postgres: the message's key; empty: there is none.")
    attributes_column: str = setting("attributes", "postgres: a JSON object of texts; empty: there is none.")
    error_column: str = setting("error", "postgres: text; why a row can never be published. It is passed over then.")
    done_column: str = setting("", "postgres: timestamptz, set once a row is published; empty: the row is deleted.")
    poll_s: float = setting(
        30.0, "postgres: looks by itself this often, for notifications are lost while it is away.", 0.05, 86400
    )
    rows_max: int = setting(500, "postgres: rows locked and published at once.", 1, 1000)
    path: str = setting("", "ndjson: the file; rotated ones stand beside it and begin with its name.")
    start: str = setting(
        "start", "ndjson: start or end; where a file that was never read is begun.", choices=("start", "end")
    )
    poll_ms: int = setting(250, "ndjson: the file is looked at this often; a look costs about 0.1 ms.", 10, 60_000)

    def __attrs_post_init__(self) -> None:
        check_subscription_name(self.name)
        if self.topic:
            check_topic(self.topic)
        needed = {"postgres": ("url", "table", "id_column", "payload_column", "error_column"), "ndjson": ("path",)}
        for key in needed[self.type]:
            if not getattr(self, key):
                raise ValueError(f"{key} is missing; a source of the type {self.type} needs it")
        if self.type == "postgres" and not (self.topic or self.topic_column):
            raise ValueError("topic and topic_column are both empty; name a topic, or the column that has it")
