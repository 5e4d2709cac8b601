"""The statements of the outbox source, built once from its settings. Names are quoted; values are always parameters."""

from __future__ import annotations

from typing import Final

import attrs
from psycopg import sql

from gateway.config.settings import Source as SourceSettings

BYTEA: Final = 17
JSON_TYPES: Final = (114, 3802)
"""json and jsonb. The numbers of types in the server's catalogue, the same in every database."""
SETTINGS: Final = (b"SET client_encoding TO 'UTF8'", b"SET bytea_output TO 'hex'")
"""What a session needs of the server's ways of writing, whatever its configuration says."""


@attrs.frozen
class Statements:
    """Every statement that is ever sent."""

    listen: bytes | None
    describe: bytes
    fetch: dict[bool, bytes]
    """By whether the payload is bytea. $1: rows at most; $2: bytes of the largest row; $3: bytes at most together."""
    finish: bytes
    """$1: an array of ids."""
    refuse: bytes
    """$1: an id, $2: why."""
    behind: bytes
    """How many rows wait, up to a bound that keeps the question cheap."""


def statements(settings: SourceSettings) -> Statements:
    table = sql.Identifier(*settings.table.split("."))
    row_id, error = sql.Identifier(settings.id_column), sql.Identifier(settings.error_column)
    columns = _columns(settings)
    due: sql.Composed = sql.SQL("{} IS NULL").format(error)
    if settings.done_column:
        due += sql.SQL(" AND {} IS NULL").format(sql.Identifier(settings.done_column))
        update = sql.SQL("UPDATE {} SET {} = now() WHERE {} = ANY($1)")
        finish = update.format(table, sql.Identifier(settings.done_column), row_id)
    else:
        finish = sql.SQL("DELETE FROM {} WHERE {} = ANY($1)").format(table, row_id)
    return Statements(
        listen=_text(sql.SQL("LISTEN {}").format(sql.Identifier(settings.channel))) if settings.channel else None,
        describe=_text(
            sql.SQL("SELECT {payload} FROM {} WHERE {} AND {} IS NOT NULL LIMIT 0").format(
                table, due, row_id, payload=columns["payload"]
            )
        ),
        fetch={is_bytea: _text(_fetch(table, columns, due, is_bytea)) for is_bytea in (False, True)},
        finish=_text(finish),
        refuse=_text(sql.SQL("UPDATE {} SET {} = $2 WHERE {} = $1").format(table, error, row_id)),
        behind=_text(
            sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} WHERE {} LIMIT 100000) AS due").format(table, due)
        ),
    )


def _columns(settings: SourceSettings) -> dict[str, sql.Composable]:
    """What each part of a message is read from; NULL where it has no column."""
    names = {
        "id": settings.id_column,
        "topic": settings.topic_column if not settings.topic else "",
        "key": settings.key_column,
        "attributes": settings.attributes_column,
        "payload": settings.payload_column,
    }
    return {part: sql.Identifier(name) if name else sql.SQL("NULL::text") for part, name in names.items()}


_SIZE = "coalesce(octet_length({}), 0)"


def _fetch(
    table: sql.Identifier, columns: dict[str, sql.Composable], due: sql.Composable, is_bytea: bool
) -> sql.Composed:
    """Lock the first rows that nobody else has, and answer as many of them as fit the bytes.

    The size is asked first and a row beyond it is answered without its contents, so that neither one giant row nor
    many large ones are ever held in memory. Rows that are locked and not answered are free again with the transaction.
    """
    text = {part: sql.SQL("{}::text").format(column) for part, column in columns.items()}
    payload = columns["payload"] if is_bytea else text["payload"]
    sized = [sql.SQL(_SIZE).format(part) for part in (payload, text["key"], text["topic"], text["attributes"])]
    return sql.SQL(
        "WITH locked AS MATERIALIZED (SELECT {id} AS id, {topic} AS topic, {key} AS key, {attributes} AS attributes,"
        " {payload} AS payload, {size} AS size FROM {table} WHERE {due} ORDER BY {id} LIMIT $1::int"
        " FOR UPDATE SKIP LOCKED), summed AS (SELECT *, coalesce(sum(least(size, $2::bigint)) OVER (ORDER BY id ROWS"
        " BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before FROM locked)"
        " SELECT id::text, CASE WHEN size <= $2::bigint THEN topic END, CASE WHEN size <= $2::bigint THEN key END,"
        " CASE WHEN size <= $2::bigint THEN attributes END, CASE WHEN size <= $2::bigint THEN payload END, size"
        " FROM summed WHERE before < $3::bigint ORDER BY summed.id"
    ).format(
        id=columns["id"],
        topic=text["topic"],
        key=text["key"],
        attributes=text["attributes"],
        payload=payload,
        size=sql.SQL(" + ").join(sized),
        table=table,
        due=due,
    )


def _text(statement: sql.Composable) -> bytes:
    return statement.as_bytes(None)


def array(ids: list[bytes]) -> bytes:
    """An array as PostgreSQL reads it from text (its manual, "Array Input and Output Syntax")."""
    quoted = (b'"' + each.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' for each in ids)
    return b"{" + b",".join(quoted) + b"}"
