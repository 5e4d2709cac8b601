"""The outbox against a real PostgreSQL server."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from gateway.config import Limits
from gateway.errors import GatewayError
from gateway.source.base import State
from gateway.source.postgres import PostgresSource, decode_attributes
from tests.conftest import Log
from tests.source.conftest import KeepWatch, Taker, outbox_settings, until
from tests.source.server import PostgresServer


def insert(server: PostgresServer, number: int, begin: int = 0) -> None:
    server.execute(
        "INSERT INTO outbox (topic, payload) SELECT 'trade.paid', json_build_object('n', n)"
        f" FROM generate_series({begin}, {begin + number - 1}) AS n"
    )


def waiting(server: PostgresServer) -> int:
    return int(server.execute("SELECT count(*) FROM outbox WHERE error IS NULL")[0][0])


def make_source(server: PostgresServer, **more: Any) -> PostgresSource:
    return PostgresSource(outbox_settings(server, **more), Limits())


async def test_rows_are_published_in_order_and_deleted(database: PostgresServer, keep_watch: KeepWatch) -> None:
    insert(database, 1200)
    taker = Taker()
    source = make_source(database)
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 1200)
    assert [orjson.loads(data)["n"] for data in taker.data()] == list(range(1200))
    assert list(taker.messages) == [f"db-{number}" for number in range(1, 1201)]
    assert waiting(database) == 0


async def test_a_notification_wakes_it(database: PostgresServer, keep_watch: KeepWatch) -> None:
    taker = Taker()
    source = make_source(database, poll_s=3600.0)
    await keep_watch(source, taker)
    await until(lambda: source.statistics.state is State.RUNNING)
    for number in range(3):
        insert(database, 1, number)
        await until(lambda number=number: len(taker.messages) == number + 1)  # type: ignore[misc]


async def test_a_row_that_nobody_notified_of_is_found_by_the_poll(
    database: PostgresServer, keep_watch: KeepWatch
) -> None:
    taker = Taker()
    source = make_source(database, channel="", poll_s=0.05)
    await keep_watch(source, taker)
    await until(lambda: source.statistics.state is State.RUNNING)
    insert(database, 1)
    await until(lambda: len(taker.messages) == 1)


async def test_every_part_of_a_row_is_carried(database: PostgresServer, keep_watch: KeepWatch) -> None:
    database.execute(
        "INSERT INTO outbox (topic, key, attributes, payload) VALUES (%s, %s, %s, %s)",
        ("trade.paid", "买家 7", '{"region":"北京","retry":2}', '{"amount": 12.50,  "big": 12345678901234567890}'),
    )
    taker = Taker()
    await keep_watch(make_source(database), taker)
    await until(lambda: bool(taker.messages))
    [message] = taker.messages.values()
    assert (message.topic, message.key, message.attributes) == (
        "trade.paid",
        "买家 7",
        {"region": "北京", "retry": "2"},
    )
    assert taker.data() == [b'{"amount": 12.50,  "big": 12345678901234567890}'], "as it was written, byte for byte"


@pytest.mark.parametrize(
    ("kind", "value", "data", "content_type"),
    [
        ("jsonb", "'[1,  2]'", b"[1, 2]", None),
        ("text", "'{\"a\":1}'", b'{"a":1}', None),
        ("text", "'not JSON'", b"not JSON", "text/plain; charset=utf-8"),
        ("bytea", "'\\x00ff10'", b"\x00\xff\x10", "application/octet-stream"),
        ("bytea", "'{\"a\":1}'::bytea", b'{"a":1}', None),
    ],
)
async def test_a_payload_column_of_any_type(
    database: PostgresServer, keep_watch: KeepWatch, kind: str, value: str, data: bytes, content_type: str | None
) -> None:
    database.execute("ALTER TABLE outbox DROP payload")
    database.execute(f"ALTER TABLE outbox ADD payload {kind}")
    database.execute(f"INSERT INTO outbox (topic, payload) VALUES ('a.b', {value})")
    taker = Taker()
    await keep_watch(make_source(database), taker)
    await until(lambda: bool(taker.messages))
    [message] = taker.messages.values()
    assert message.content_type == content_type
    if content_type is None:
        assert taker.data() == [data]
    else:
        assert base64.b64decode(message.data_base64 or "") == data


async def test_columns_of_other_names_a_fixed_topic_and_ids_of_text(
    database: PostgresServer, keep_watch: KeepWatch
) -> None:
    database.execute('CREATE SCHEMA "My"')
    database.execute('CREATE TABLE "My"."Events" ("Id" text PRIMARY KEY, body text, why text, sent timestamptz)')
    odd = 'a"b\\c,{d} 三'
    database.execute('INSERT INTO "My"."Events" ("Id", body) VALUES (%s, %s), (%s, %s)', (odd, "1", "x" * 200, "2"))
    settings = {
        "table": "My.Events",
        "topic": "all.of.it",
        "id_column": "Id",
        "payload_column": "body",
        "key_column": "",
        "attributes_column": "",
        "error_column": "why",
        "done_column": "sent",
    }
    taker = Taker()
    source = make_source(database, **settings)
    try:
        await keep_watch(source, taker)
        await until(lambda: source.statistics.published == 2)
        assert [(m.topic, bytes(m.data)) for m in taker.messages.values()] == [("all.of.it", b"1"), ("all.of.it", b"2")]  # type: ignore[arg-type]
        assert f"db-{odd}" in taker.messages
        assert all(len(name) <= 128 for name in taker.messages)
        assert database.execute('SELECT count(*) FROM "My"."Events" WHERE sent IS NOT NULL') == [(2,)]
    finally:
        database.execute('DROP SCHEMA "My" CASCADE')


async def test_a_row_that_can_never_be_published_says_why_and_holds_up_nobody(
    database: PostgresServer, keep_watch: KeepWatch, log: Log
) -> None:
    database.execute("ALTER TABLE outbox ALTER payload TYPE text, ALTER attributes TYPE text")
    rows = [
        ("trade..paid", "{}", None),
        (None, "{}", None),
        ("a.b", None, None),
        ("a.b", "9" * (1024 * 1024 + 1), None),
        ("a.b", "9" * (3 * 1024 * 1024), None),
        ("a.b", "{}", "[1]"),
        ("a.b", "{}", '{"x":{}}'),
        ("a.b", "{}", "{"),
        ("a.b", "{}", None),
    ]
    for row in rows:
        database.execute("INSERT INTO outbox (topic, payload, attributes) VALUES (%s, %s, %s)", row)
    taker = Taker(strict=True)
    source = make_source(database)
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 1)
    assert source.statistics.refused == 8
    found = dict(database.execute("SELECT id, error FROM outbox ORDER BY id"))
    for row_id, words in {
        1: "bad_topic",
        2: "bad_topic",
        3: "is NULL",
        4: "payload_too_large",
        5: "payload_too_large: the row has",
        6: "must be a JSON object",
        7: "'x' must be a text",
        8: "not JSON",
    }.items():
        assert words in found.pop(row_id)
    assert found == {}, "the good one is gone"
    assert sum(entry["event"] == "a row cannot be published" for entry in log) == 8


async def test_many_large_rows_are_never_held_at_once(database: PostgresServer, keep_watch: KeepWatch) -> None:
    database.execute(
        "INSERT INTO outbox (topic, payload) SELECT 'a.b', to_json(repeat('x', 1000000)) FROM generate_series(1, 20)"
    )
    taker = Taker()
    source = make_source(database)
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 20)
    assert taker.largest <= 4
    assert taker.calls >= 5


async def test_a_gateway_that_takes_nothing_leaves_the_rows_where_they_are(
    database: PostgresServer, keep_watch: KeepWatch, log: Log
) -> None:
    insert(database, 10)
    taker = Taker()
    taker.errors = [GatewayError("overloaded", "no room"), GatewayError("draining", "going down")]
    source = make_source(database)
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 10)
    assert source.statistics.failures == 2
    assert source.statistics.refused == 0
    assert any("takes nothing from it for now: no room" in entry.get("error", "") for entry in log)


async def test_a_message_that_may_be_taken_later_is_neither_done_nor_refused(
    database: PostgresServer, keep_watch: KeepWatch, log: Log
) -> None:
    insert(database, 5)
    taker = Taker()
    taker.refuse_once["db-3"] = GatewayError("quota_exceeded", "later")
    source = make_source(database)
    await keep_watch(source, taker)
    await until(lambda: source.statistics.published == 5)
    assert waiting(database) == 0
    assert source.statistics.refused == 0
    assert sorted(taker.messages) == [f"db-{number}" for number in range(1, 6)]


async def test_a_database_that_is_killed_in_mid_batch_loses_and_invents_nothing(
    database: PostgresServer, keep_watch: KeepWatch, log: Log
) -> None:
    """Answered, and not yet marked: the rows come back with the database, and are not published a second time."""
    insert(database, 100)
    taker = Taker()
    taker.hold = trio.Event()
    source = make_source(database)
    await keep_watch(source, taker)
    await until(lambda: taker.calls == 1)
    database.kill()
    taker.hold.set()
    await until(lambda: source.statistics.failures >= 1)
    assert source.statistics.published == 0
    await until(lambda: source.statistics.state is State.WAITING)
    assert "PostgreSQL" in source.statistics.error
    database.start()
    assert waiting(database) == 100
    await until(lambda: source.statistics.published == 100)
    assert taker.calls == 1
    assert waiting(database) == 0


async def test_a_database_that_is_killed_again_and_again(
    database: PostgresServer, keep_watch: KeepWatch, log: Log
) -> None:
    insert(database, 4000)
    taker = Taker()
    source = make_source(database, rows_max=50)
    await keep_watch(source, taker)
    for part in range(1, 4):
        await until(lambda part=part: source.statistics.published >= part * 1000)  # type: ignore[misc]
        database.kill()
        await until(lambda: source.statistics.state is State.WAITING)
        database.start()
    await until(lambda: waiting(database) == 0, 60)
    assert [orjson.loads(data)["n"] for data in taker.data()] == list(range(4000))
    assert taker.published == 4000, "each one once"


async def test_a_row_of_a_transaction_that_was_rolled_back_is_never_published(
    database: PostgresServer, keep_watch: KeepWatch
) -> None:
    taker = Taker()
    source = make_source(database, poll_s=0.05)
    await keep_watch(source, taker)
    database.execute(
        "DO $$ BEGIN BEGIN INSERT INTO outbox (topic, payload) VALUES ('a.b', '1');"
        " RAISE 'no'; EXCEPTION WHEN others THEN NULL; END; END $$"
    )
    insert(database, 1, 7)
    await until(lambda: bool(taker.messages))
    assert taker.data() == [b'{"n" : 7}']


async def test_two_sources_share_an_outbox(database: PostgresServer, keep_watch: KeepWatch) -> None:
    insert(database, 3000)
    taker = Taker()
    sources = [make_source(database, rows_max=20) for _ in range(2)]
    for source in sources:
        await keep_watch(source, taker)
    await until(lambda: sum(source.statistics.published for source in sources) == 3000)
    assert taker.published == len(taker.messages) == 3000
    assert all(source.statistics.published for source in sources)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"table": "nothing"}, 'relation "nothing" does not exist'),
        ({"error_column": "why"}, 'column "why"'),
        ({"id_column": "number"}, 'column "number"'),
        ({"topic_column": "what"}, 'column "what"'),
        ({"done_column": "when"}, 'column "when"'),
        ({"url": "host=/nowhere user=x"}, "/nowhere"),
        ({"url": "host=nothing.invalid"}, "host 'nothing.invalid' is not found"),
        ({"url": "no connection string"}, "PostgreSQL"),
    ],
)
async def test_what_is_wrong_with_the_database_is_said(
    database: PostgresServer, keep_watch: KeepWatch, log: Log, change: dict[str, str], words: str
) -> None:
    source = make_source(database, **change)
    taker = Taker()
    await keep_watch(source, taker)
    await until(lambda: source.statistics.state is State.WAITING)
    assert words in source.statistics.error
    assert taker.calls == 0


async def test_a_source_that_may_not_mark_publishes_nothing(
    database: PostgresServer, keep_watch: KeepWatch, log: Log
) -> None:
    """It would publish the same rows again and again."""
    insert(database, 1)
    database.execute("DROP ROLE IF EXISTS reader")
    database.execute("CREATE ROLE reader LOGIN")
    database.execute("GRANT SELECT, UPDATE ON outbox TO reader")
    source = make_source(database, url=database.url.replace("user=gateway", "user=reader"))
    taker = Taker()
    await keep_watch(source, taker)
    await until(lambda: source.statistics.state is State.WAITING)
    assert "permission denied" in source.statistics.error
    assert taker.calls == 0


async def test_a_host_name_is_looked_up_and_each_of_its_addresses_tried(
    database: PostgresServer, keep_watch: KeepWatch
) -> None:
    insert(database, 1)
    taker = Taker()
    await keep_watch(make_source(database, url=database.tcp_url), taker)
    await until(lambda: bool(taker.messages))


async def test_how_many_rows_wait_is_counted(database: PostgresServer, keep_watch: KeepWatch) -> None:
    insert(database, 30)
    taker = Taker()
    taker.hold = trio.Event()
    source = make_source(database, rows_max=10)
    await keep_watch(source, taker)
    await until(lambda: taker.calls == 1)
    taker.hold.set()
    seen: list[int] = []
    with trio.fail_after(20):
        while not (seen and seen[-1] == 0 and 20 in seen):  # at every pass: the 20 may be passed by in a moment
            seen.append(source.statistics.behind)
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("text", "found"),
    [(b"null", None), (b"{}", None), (b'{"a":1.5,"b":true,"c":"x"}', {"a": "1.5", "b": "true", "c": "x"})],
)
def test_attributes_are_texts(text: bytes, found: dict[str, str] | None) -> None:
    assert decode_attributes(text) == found


async def test_the_table_of_the_readme_is_an_outbox(server: PostgresServer, keep_watch: KeepWatch) -> None:
    readme = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")
    [statements] = re.findall(r"^```sql\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    server.execute("DROP TABLE IF EXISTS outbox")
    server.execute("DROP FUNCTION IF EXISTS outbox_notify")
    server.execute(statements)
    server.execute("""INSERT INTO outbox (topic, payload) VALUES ('shop.sold', '{"n": 1}')""")
    taker = Taker()
    await keep_watch(make_source(server), taker)
    await until(lambda: bool(taker.messages))
    assert taker.data() == [b'{"n": 1}']
