"""Tests the encoding of each key type in change events, and the content of the events of each operation.

`pipeline/resolve.py` converts these encodings to PostgreSQL's text. `checks/` refuses types whose values would not
survive.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from devstack import Stack
from syncer.checks import check_connector, check_source
from syncer.connect.client import Connect
from syncer.events import TableName
from syncer.pipeline.resolve import text
from syncer.postgres.publication import ensure_publication, read_facts
from tests.harness import Database, Names
from tests.harness.connector import definition, events, streaming


@pytest.fixture
def connect(stack: Stack) -> Iterator[Connect]:
    client = Connect(stack.connect)
    yield client
    client.close()


ENCODINGS: list[tuple[str, str, Any]] = [
    # type, PostgreSQL's text (UTC, ISO), value in the key and images of the event
    ("smallint", "-32768", -32768),
    ("integer", "42", 42),
    ("bigint", "9223372036854775807", 9223372036854775807),
    ("oid", "4294967295", 4294967295),
    ("boolean", "true", True),
    ("numeric", "1.50", "1.50"),
    ("numeric", "123456789012345678901234567890.0000000001", "123456789012345678901234567890.0000000001"),
    ("numeric", "0.0000000001", "0.0000000001"),
    ("numeric", "100000000000000000000", "100000000000000000000"),
    ("numeric", "NaN", "NAN"),
    ("numeric", "Infinity", "POSITIVE_INFINITY"),
    ("numeric", "-Infinity", "NEGATIVE_INFINITY"),
    ("numeric(10,2)", "1.50", "1.50"),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("text", 'a"\\ é\n|', 'a"\\ é\n|'),
    ("varchar(10)", "x ", "x "),
    ("char(5)", "ab", "ab   "),
    ("name", "nm", "nm"),
    ('"char"', "q", "q"),
    ("citext", "AbC", "AbC"),
    ("mood", "so so", "so so"),
    ("mood", "great", "great"),  # a label that is added later
    ("temper", "so so", "so so"),
    ("posint", "7", 7),
    ("date", "2024-02-29", "2024-02-29Z"),
    ("date", "0001-01-01", "0001-01-01Z"),
    ("date", "0044-03-15 BC", "-0043-03-15Z"),
    ("date", "0001-12-31 BC", "0000-12-31Z"),
    ("date", "20240-01-01", "+20240-01-01Z"),
    ("date", "infinity", "+5877611-06-21Z"),
    ("date", "-infinity", "-5877611-06-22Z"),
    ("timestamp", "2024-02-29 12:34:56.123456", "2024-02-29T12:34:56.123456Z"),
    ("timestamp", "2024-02-29 12:34:00", "2024-02-29T12:34:00Z"),
    ("timestamp", "1500-01-01 00:00:00.1", "1500-01-01T00:00:00.1Z"),
    ("timestamp", "0044-03-15 01:02:03 BC", "-0043-03-15T01:02:03Z"),
    ("timestamp", "0001-01-01 00:00:00 BC", "0000-01-01T00:00:00Z"),
    ("timestamp", "20240-01-01 00:00:00", "+20240-01-01T00:00:00Z"),
    ("timestamp", "infinity", "+292278994-08-16T23:00:00Z"),
    ("timestamp", "-infinity", "-292275055-05-16T23:00:00Z"),
    ("timestamptz", "2024-02-29 10:34:56.123456+00", "2024-02-29T10:34:56.123456Z"),
    ("timestamptz", "2024-02-29 12:34:00+00", "2024-02-29T12:34:00.000000Z"),
    ("timestamptz", "0044-03-15 01:02:03+00 BC", "-0043-03-15T01:02:03.000000Z"),
    ("timestamptz", "0001-01-01 00:00:00+00 BC", "0000-01-01T00:00:00.000000Z"),
    ("timestamptz", "20240-01-01 00:00:00+00", "+20240-01-01T00:00:00.000000Z"),
    ("timestamptz", "infinity", "infinity"),
    ("timestamptz", "-infinity", "-infinity"),
    ("bytea", "\\x00ffab", "00ffab"),
    ("bytea", "\\x", ""),
    ("inet", "10.0.0.1/32", "10.0.0.1"),
    ("inet", "10.0.0.0/8", "10.0.0.0/8"),
    ("inet", "::1/128", "::1"),
    ("cidr", "10.0.0.0/8", "10.0.0.0/8"),
    ("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:03"),
    ("macaddr8", "08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:05"),
    ("ltree", "a.b", "a.b"),
]
BASES = {
    "posint": "integer",
    "temper": "mood",
    "numeric(10,2)": "numeric",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}
REFUSED: list[tuple[str, str, Any]] = [  # not allowed as keys and links; the values show why
    ("time", "24:00:00", "00:00:00Z"),
    ("timetz", "12:00:00+05:30", "06:30:00Z"),
    ("real", "1.1", 1.1),
    ("bit(3)", "101", "BQ=="),
    ("money", "$1.50", "1.50"),
    ("pair", "(1,x)", "28312c7829"),
    ("interval", "1 year 2 days 03:04:05.6", "P1Y0M2DT3H4M5.6S"),
]


def test_the_encoding_of_each_key_type_in_an_event(
    stack: Stack, database: Database, names: Names, connect: Connect
) -> None:
    every = ENCODINGS + REFUSED
    database.execute(
        "CREATE EXTENSION citext",
        "CREATE EXTENSION ltree",
        "CREATE TYPE mood AS ENUM ('so so')",
        "CREATE DOMAIN temper AS mood",
        "CREATE TYPE no_label AS ENUM ()",
        "CREATE DOMAIN posint AS int CHECK (value > 0)",
        "CREATE TYPE pair AS (a int, b text)",
        *(f"CREATE TABLE t{i} (k {kind} PRIMARY KEY)" for i, (kind, _, _) in enumerate(every)),
        "CREATE PUBLICATION pub FOR ALL TABLES",
    )
    with streaming(stack, connect, definition(database, names), database):
        with database.connect() as conn:
            conn.execute("ALTER TYPE mood ADD VALUE 'great'")
            for i, (kind, stored, _) in enumerate(every):
                conn.execute(f"INSERT INTO t{i} VALUES (CAST(CAST(%s AS text) AS {kind}))".encode(), [stored])
                assert conn.execute(f"SELECT k::text FROM t{i}".encode()).fetchone() == (stored,), kind
        found = events(stack, names, len(every))
    actual = [(kind, stored, found[f"t{i}"][0][0]["k"]) for i, (kind, stored, _) in enumerate(every)]
    assert actual == every
    for kind, stored, value in ENCODINGS:
        query = f"SELECT CAST(CAST(%s AS text) AS {kind})::text"
        assert database.query(query, [text(value, BASES.get(kind, kind))]) == [(stored,)], kind
    assert [event["after"]["k"] for i in range(len(every)) for _, event in found[f"t{i}"]] == [
        value for _, _, value in every
    ]


TABLES = [
    "CREATE TABLE plain (id int PRIMARY KEY, n int NOT NULL DEFAULT 5, m int DEFAULT 6, big text)",
    "CREATE TABLE whole (id int PRIMARY KEY, m int DEFAULT 6, big text)",
    "ALTER TABLE whole ADD g int GENERATED ALWAYS AS (id * 2) STORED",
    "CREATE TABLE part (id int, k int, t text, PRIMARY KEY (id, k)) PARTITION BY LIST (k)",
    "CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1)",
    "CREATE TABLE part2 PARTITION OF part FOR VALUES IN (2)",
    "CREATE TABLE indexed (id int PRIMARY KEY, u int NOT NULL)",
    "CREATE UNIQUE INDEX indexed_u ON indexed (u)",
    "ALTER TABLE plain ALTER big SET STORAGE EXTERNAL",
    "ALTER TABLE whole ALTER big SET STORAGE EXTERNAL",
    "ALTER TABLE whole REPLICA IDENTITY FULL",
    "ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_u",
]


def test_the_content_of_events_for_each_operation(
    stack: Stack, database: Database, names: Names, connect: Connect
) -> None:
    database.execute(*TABLES)
    tables = [TableName("public", name) for name in ("plain", "whole", "part", "indexed")]
    with database.connect() as conn:
        ensure_publication(conn, "pub", tables)
        wanted = definition(database, names)
        facts = read_facts(conn, tables, publication="pub", slot=names.prefix)
        assert [f for f in check_source(facts, tables) if f.severity == "error"] == []
        assert check_connector(wanted.config, tables, topic_prefix=names.prefix, publication="pub") == []
        with streaming(stack, connect, wanted, database):
            for statement in (
                "INSERT INTO plain VALUES (1, 1, NULL, repeat('x', 9000))",
                "UPDATE plain SET n = 2",
                "UPDATE plain SET id = 2",
                "DELETE FROM plain",
                "INSERT INTO whole (id, m, big) VALUES (1, NULL, repeat('x', 9000))",
                "UPDATE whole SET m = 7",
                "INSERT INTO part VALUES (1, 1, 'a')",
                "UPDATE part SET k = 2",
                "TRUNCATE part1",
                "TRUNCATE part, whole",
                "INSERT INTO indexed VALUES (1, 1)",
                "DELETE FROM indexed",
            ):
                conn.execute(statement.encode())
            row = conn.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
            found = events(stack, names, 14)

    def images(table: str) -> list[tuple[str, Any, Any, Any]]:
        return [(e["op"], key, e["before"], e["after"]) for key, e in found[table]]

    big, kept = "x" * 9000, "__debezium_unavailable_value"
    assert images("plain") == [
        ("c", {"id": 1}, None, {"id": 1, "n": 1, "m": None, "big": big}),
        # identity DEFAULT: no before-image, and a large unchanged value is not sent
        ("u", {"id": 1}, None, {"id": 1, "n": 2, "m": None, "big": kept}),
        # a changed key is a delete and a create; columns outside the identity get a default if they are NOT NULL
        ("d", {"id": 1}, {"id": 1, "n": 5, "m": None, "big": None}, None),
        ("c", {"id": 2}, None, {"id": 2, "n": 2, "m": None, "big": kept}),
        ("d", {"id": 2}, {"id": 2, "n": 5, "m": None, "big": None}, None),
    ]
    assert images("whole") == [
        # generated columns are absent; NULL stays NULL and does not become the default
        ("c", {"id": 1}, None, {"id": 1, "m": None, "big": big}),
        ("u", {"id": 1}, {"id": 1, "m": None, "big": big}, {"id": 1, "m": 7, "big": big}),
        ("t", None, None, None),
    ]
    assert images("part") == [  # all events have the name of the root; truncating a partition sends nothing
        ("c", {"id": 1, "k": 1}, None, {"id": 1, "k": 1, "t": "a"}),
        ("d", {"id": 1, "k": 1}, {"id": 1, "k": 1, "t": None}, None),
        ("c", {"id": 1, "k": 2}, None, {"id": 1, "k": 2, "t": "a"}),
        ("t", None, None, None),
    ]
    assert images("indexed") == [  # an identity without the primary key: the key contains a default value
        ("c", {"id": 1}, None, {"id": 1, "u": 1}),
        ("d", {"id": 0}, {"id": 0, "u": 1}, None),
    ]
    source = found["plain"][0][1]["source"]
    assert row and 0 < row[0] - source["txId"] < 100_000
    assert (source["db"], source["schema"]) == (database.name, "public")
    assert source["snapshot"] is None, "its default is false, and defaults are not filled in"
    assert abs(source["ts_ms"] / 1000 - time.time()) < 120 and source["ts_us"] // 1000 == source["ts_ms"]
