"""The PostgreSQL outbox: a table whose rows are messages, written by the transaction that made them true.

One turn: lock the first rows that nobody else has (FOR UPDATE SKIP LOCKED), publish them, and only when they are
answered as fsynced delete or mark them and commit. A crash of either side between the two leaves the rows as they were;
they are published again under the same ids, which are made of the source's name and the row's id, so the gateway knows
them for as long as its dedup window lasts. A database that went away longer than that, while this gateway lived, is
remembered for: what was answered and could not be marked is not published a second time.

A row that can never be published (a bad topic, too large) gets the reason into its error column and holds up nobody.

Notifications wake it. A slow poll goes beside them, for a NOTIFY reaches only who listens at that moment: one that was
sent while the connection was down, or that a writer forgot, would otherwise leave its row until the next one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import attrs
import orjson
import structlog
import trio
from psycopg import pq

from gateway.config import Limits
from gateway.config.settings import Source as SourceSettings
from gateway.errors import GatewayError
from gateway.model import Message, Result
from gateway.source.base import Publish, SourceError, SourceStatistics, State
from gateway.source.libpq import Connection
from gateway.source.outbox_sql import BYTEA, JSON_TYPES, SETTINGS, array, statements
from gateway.source.payloads import set_payload

_log = structlog.get_logger("gateway.source")
_CONNECT_S: Final = 10.0
_LOOK_S: Final = 10.0
"""How often the rows that wait are counted, at most."""
_ERROR_CHARS_MAX: Final = 1000
_NAME_BYTES_MAX: Final = 1024
"""Topic and key together, in the size of a row that is still read; `admit` has the exact limits."""
_LOGGED_MAX: Final = 10
"""Refused rows that a turn logs one by one; the error column names all of them."""


@attrs.frozen
class Row:
    """One row as the database wrote it, all of it text; `size` only where it was too large to be read."""

    id: bytes
    topic: bytes | None
    key: bytes | None
    attributes: bytes | None
    payload: bytes | None
    size: int


class PostgresSource:
    """See the module and `base.Source`."""

    unit = "rows"

    def __init__(self, settings: SourceSettings, limits: Limits) -> None:
        self.name = settings.name
        self.statistics = SourceStatistics()
        self._settings = settings
        self._limits = limits
        self._row_bytes_max = limits.payload_bytes_max + limits.attributes_bytes_max + _NAME_BYTES_MAX
        self._statements = statements(settings)
        self._type = 0  # of the payload column, by its number in the server's catalogue
        self._answered: dict[bytes, Message] = {}  # stored, and not known to be marked; at most one turn's rows
        self._looked_at = -math.inf

    async def run(self, publish: Publish) -> None:
        connection = await Connection.open(self._settings.url, _CONNECT_S)
        try:
            await self._prepare(connection)
            self.statistics.state, self.statistics.error = State.RUNNING, ""
            while True:
                rows = await self._turn(connection, publish)
                await self._look(connection, idle=rows == 0)
                if rows == 0:
                    await connection.wait_notified(self._settings.poll_s)
        finally:
            connection.close()

    async def _prepare(self, connection: Connection) -> None:
        """Listen, and try every statement without a row: what is wrong with the table is said before anything is read.

        A source that could publish and not mark would publish again and again.
        """
        sent = self._statements
        for statement in (*SETTINGS, sent.listen):
            if statement is not None:
                await connection.execute(statement)
        described = await connection.execute(sent.describe)
        self._type = described.ftype(0)
        await connection.execute(b"BEGIN")
        await self._fetch(connection, rows_max=0)
        await connection.execute(sent.finish, [array([])])
        await connection.execute(sent.refuse, [None, b""])
        await connection.execute(b"ROLLBACK")

    async def _turn(self, connection: Connection, publish: Publish) -> int:
        """One transaction; the number of rows that it was about. Raises where the database or the gateway cannot."""
        await connection.execute(b"BEGIN")
        rows = await self._fetch(connection, self._settings.rows_max)
        self.statistics.read += len(rows)
        outcomes = await self._publish(rows, publish)
        done = [row.id for row, outcome in zip(rows, outcomes, strict=True) if not isinstance(outcome, GatewayError)]
        if done:
            await connection.execute(self._statements.finish, [array(done)])
        refused = await self._refuse(connection, rows, outcomes)
        await connection.execute(b"COMMIT")
        self._answered.clear()
        self.statistics.published += len(done)
        self.statistics.refused += refused
        for outcome in outcomes:
            if isinstance(outcome, GatewayError) and outcome.kind.temporary:
                raise outcome  # the others are done; this one waits for its backoff
        return len(rows)

    async def _fetch(self, connection: Connection, rows_max: int) -> list[Row]:
        limits = (rows_max, self._row_bytes_max, self._limits.batch_bytes_max - self._row_bytes_max)
        values = [b"%d" % max(number, 0) for number in limits]
        if values[2] == b"0":
            values[2] = b"1"  # one row at a time
        return _rows(await connection.execute(self._statements.fetch[self._type == BYTEA], values))

    async def _publish(self, rows: Sequence[Row], publish: Publish) -> list[Result | None]:
        """What became of each row; None for one that was stored in a turn before."""
        outcomes: list[Result | None] = [None] * len(rows)
        new: dict[int, Message] = {}
        for index, row in enumerate(rows):
            try:
                message = self._message(row)
            except GatewayError as error:
                outcomes[index] = error
                continue
            if self._answered.get(row.id) != message:
                new[index] = message
        if new:
            for index, outcome in zip(new, await publish(list(new.values())), strict=True):
                outcomes[index] = outcome
                if not isinstance(outcome, GatewayError):
                    self._answered[rows[index].id] = new[index]
        return outcomes

    async def _refuse(self, connection: Connection, rows: Sequence[Row], outcomes: Sequence[Result | None]) -> int:
        """Write into each row why it can never be published."""
        refused = 0
        for row, outcome in zip(rows, outcomes, strict=True):
            if not isinstance(outcome, GatewayError) or outcome.kind.temporary:
                continue
            refused += 1
            reason = f"{outcome.code}: {outcome.message}".replace("\0", "")[:_ERROR_CHARS_MAX]
            await connection.execute(self._statements.refuse, [row.id, reason.encode(errors="replace")])
            if refused <= _LOGGED_MAX:
                _log.warning(
                    "a row cannot be published", source=self.name, row=row.id.decode(errors="replace"), error=reason
                )
        if refused > _LOGGED_MAX:
            _log.warning("more rows cannot be published", source=self.name, more=refused - _LOGGED_MAX)
        return refused

    async def _look(self, connection: Connection, *, idle: bool) -> None:
        """How many rows wait. Others may hold some of them."""
        now = trio.current_time()
        if idle and self.statistics.behind == 0 and now - self._looked_at < self._settings.poll_s:
            return
        if now - self._looked_at >= _LOOK_S or idle:
            result = await connection.execute(self._statements.behind)
            self.statistics.behind = int(result.get_value(0, 0) or b"0")
            self._looked_at = now

    # ------------------------------------------------------------------------------------------------- one row

    def _message(self, row: Row) -> Message:
        """A row as a message; GatewayError where it can be none."""
        if row.size > self._row_bytes_max:
            raise GatewayError(
                "payload_too_large",
                f"the row has {row.size} bytes; at most {self._row_bytes_max} are read "
                f"(limits.payload_bytes_max and limits.attributes_bytes_max)",
            )
        topic = self._settings.topic or _text(self._settings.topic_column, row.topic or b"")
        message = Message(topic=topic, id=self._message_id(row.id))
        if row.key is not None:
            message.key = _text(self._settings.key_column, row.key)
        if row.attributes is not None:
            message.attributes = decode_attributes(row.attributes)
        if row.payload is None:
            raise GatewayError("bad_request", f"{self._settings.payload_column}: is NULL; a message needs a payload")
        if self._type == BYTEA:
            set_payload(message, bytes.fromhex(row.payload[2:].decode("ascii")), "application/octet-stream")
        elif self._type in JSON_TYPES:
            set_payload(message, row.payload, None)
        else:
            set_payload(message, row.payload, "text/plain; charset=utf-8")
        return message

    def _message_id(self, row_id: bytes) -> str:
        """Made of the source's name and the row's id, so that a row is recognised however often it is read."""
        name = f"{self.name}-{row_id.decode(errors='backslashreplace')}"
        if len(name) <= self._limits.id_chars_max:
            return name
        return hashlib.sha256(name.encode()).hexdigest()[: self._limits.id_chars_max]


def _text(column: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise GatewayError("bad_request", f"{column}: is not UTF-8") from None


def decode_attributes(text: bytes) -> dict[str, str] | None:
    """A JSON object as attributes; numbers and truth values become their JSON text. None where there are none."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise GatewayError("bad_request", f"attributes: not JSON: {error}") from None
    if found is None:
        return None
    if not isinstance(found, dict):
        raise GatewayError("bad_request", "attributes: must be a JSON object of texts")
    for name, value in found.items():
        if isinstance(value, dict | list) or value is None:
            raise GatewayError("bad_request", f"attributes: {name!r} must be a text")
        if not isinstance(value, str):
            found[name] = orjson.dumps(value).decode()
    return found or None


def _rows(result: pq.abc.PGresult) -> list[Row]:
    rows = []
    for index in range(result.ntuples):
        row_id, topic, key, attributes, payload, size = (result.get_value(index, column) for column in range(6))
        if row_id is None or size is None:
            raise SourceError("PostgreSQL: a row has no id (id_column); make the column NOT NULL")
        rows.append(Row(row_id, topic, key, attributes, payload, int(size)))
    return rows
