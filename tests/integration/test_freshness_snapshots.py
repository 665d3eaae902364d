"""Tokens on a real PostgreSQL: running, committed and aborted transactions, subtransactions and WAL positions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from syncer.clock import Snapshot
from syncer.freshness.refused import Later, Refused
from syncer.freshness.snapshots import await_snapshot, observe, satisfies
from syncer.freshness.tokens import parse
from syncer.postgres.session import connect
from tests.harness import Database

Connection = psycopg.Connection[Any]


@pytest.fixture
def reader(database: Database) -> Iterator[Connection]:
    with connect({"conninfo": database.dsn}) as connection:
        yield connection


@pytest.fixture
def writer(database: Database) -> Iterator[Connection]:
    database.execute("CREATE TABLE t (id int)")
    with database.connect() as connection:
        yield connection


def value(connection: Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_transaction_is_awaited_until_it_is_committed(reader: Connection, writer: Connection) -> None:
    writer.execute("BEGIN")
    token = parse(f"x:{value(writer, 'SELECT pg_current_xact_id()')}")
    assert not satisfies(token, observe(reader, token))
    with pytest.raises(Later, match="has not been committed within") as caught:
        await_snapshot(reader, token, 0.1)
    assert caught.value.status == 504 and "in progress" in caught.value.why
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(await_snapshot(reader, token, 20)))
    thread.start()
    before = Snapshot.parse(value(writer, "SELECT pg_current_snapshot()::text"))
    writer.execute("COMMIT")
    thread.join()
    assert found[0].snapshot.sees(token.value)
    assert found[0].snapshot.clock > before.clock


def test_a_subtransaction_is_awaited_until_its_parent_is_committed(reader: Connection, writer: Connection) -> None:
    writer.execute("BEGIN")
    writer.execute("INSERT INTO t VALUES (1)")
    writer.execute("SAVEPOINT s")
    writer.execute("INSERT INTO t VALUES (2)")
    # The row's xmin is the id of the subtransaction, as 32 bits.
    token = parse(f"x:{value(writer, 'SELECT xmin::text::bigint FROM t WHERE id = 2')}")
    writer.execute("RELEASE s")
    value(writer, "SELECT txid_current()")
    with psycopg.connect(reader.info.dsn, password=reader.info.password, autocommit=True) as later:
        value(later, "SELECT pg_current_xact_id()")  # moves xmax of the next snapshots past the subtransaction
    seen = observe(reader, token)
    assert seen.snapshot.sees(token.value), "the snapshot alone would be mistaken"
    assert not satisfies(token, seen)
    writer.execute("COMMIT")
    assert await_snapshot(reader, token, 20).snapshot.sees(token.value)


def test_a_rolled_back_transaction_is_refused(reader: Connection, writer: Connection) -> None:
    writer.execute("BEGIN")
    token = parse(f"x:{value(writer, 'SELECT pg_current_xact_id()')}")
    writer.execute("ROLLBACK")
    with pytest.raises(Refused, match="rolled back"):
        await_snapshot(reader, token, 20)


def test_a_future_transaction_and_a_future_position_are_refused(reader: Connection) -> None:
    now = observe(reader, parse("now"))
    for text in (f"x:{now.snapshot.xmax + 1000}", f"l:{(now.insert_lsn >> 32) + 1:X}/0"):
        with pytest.raises(Refused, match="has not reached"):
            await_snapshot(reader, parse(text), 20)


def test_a_position_after_the_commit_is_satisfied_at_once(reader: Connection, writer: Connection) -> None:
    writer.execute("INSERT INTO t VALUES (1)")
    xid = value(writer, "SELECT xmin::text::bigint FROM t")
    token = parse(f"l:{value(writer, 'SELECT pg_current_wal_insert_lsn()')}")
    assert await_snapshot(reader, token, 0).snapshot.sees(xid)


def test_a_very_old_transaction_is_satisfied(reader: Connection) -> None:
    """The status of the first transactions of a cluster is never kept: `pg_xact_status` is NULL or `committed`."""
    assert await_snapshot(reader, parse("x:3"), 0).snapshot.sees(3)


def test_the_suffix_is_compared_with_the_server(reader: Connection) -> None:
    identity = observe(reader, parse("now")).identity
    assert await_snapshot(reader, parse(f"x:3@{identity.system}/{identity.timeline}"), 0)
    for suffix in (f"{identity.system}/{identity.timeline + 1}", f"{identity.system - 1}/{identity.timeline}"):
        with pytest.raises(Refused, match="another PostgreSQL server or timeline"):
            await_snapshot(reader, parse(f"x:3@{suffix}"), 20)


def test_a_prepared_transaction_is_awaited(reader: Connection, writer: Connection) -> None:
    writer.execute("BEGIN")
    token = parse(f"x:{value(writer, 'SELECT pg_current_xact_id()')}")
    writer.execute("PREPARE TRANSACTION 'p'")
    try:
        assert not satisfies(token, observe(reader, token))
    finally:
        writer.execute("COMMIT PREPARED 'p'")
    assert await_snapshot(reader, token, 0).snapshot.sees(token.value)
