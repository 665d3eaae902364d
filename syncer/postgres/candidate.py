"""Takes the snapshots that may become watermarks (`freshness/watermark.py`), with the facts that belong to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from syncer.checks import Reader
from syncer.clock import Identity, Snapshot
from syncer.postgres.fingerprint import Fingerprint
from syncer.postgres.head import identity
from syncer.postgres.session import standby

_FLOOR = """
SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_current_wal_insert_lsn() - '0/0' END::bigint"""
_READER: LiteralString = """
SELECT reader.pid, (extract(epoch FROM reader.backend_start) * 1000000)::bigint
  FROM pg_catalog.pg_replication_slots
  JOIN pg_catalog.pg_stat_activity AS reader ON reader.pid = active_pid
 WHERE slot_name = %s AND slot_type = 'logical'"""
# The columns are computed after the statement's snapshot was taken. `statement_timestamp()` is older than it.
_SNAPSHOT = sql.SQL("""
SELECT pg_catalog.pg_current_snapshot()::text,
       (extract(epoch FROM pg_catalog.statement_timestamp()) * 1000)::bigint,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::bigint,
       pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()),
       ARRAY[{}]::text[]""")


class Taken(NamedTuple):
    """A snapshot, and what was read in it."""

    floor_lsn: int
    """The insert LSN before the snapshot was taken, in bytes."""
    snapshot: Snapshot
    taken_ms: int
    """PostgreSQL's time before the snapshot was taken, in milliseconds since the Unix epoch."""
    identity: Identity
    lsn: int
    """The insert LSN after the snapshot was taken, in bytes."""
    reader: Reader | None
    """The reader of the slot, read after the snapshot was taken."""
    tables: dict[str, str]
    """Read model → the fingerprint of its tables in the snapshot."""


def take(connection: psycopg.Connection[Any], slot: str, tables: Mapping[str, Fingerprint]) -> Taken:
    """Takes a snapshot. The connection has to be in autocommit mode.

    slot: name of the connector's slot. tables: read model → the fingerprint of its tables.
    Raises psycopg.Error, and Retry on a standby.
    """
    parts = sql.SQL(", ").join(one.sql for one in tables.values())
    floor: Any = connection.execute(_FLOOR).fetchone()
    if floor[0] is None:
        raise standby("postgres.dsn")
    row: Any = connection.execute(_SNAPSHOT.format(parts)).fetchone()
    snapshot, taken_ms, system, lsn, walfile, prints = row
    reader = read_reader(connection, slot)
    return Taken(
        floor[0],
        Snapshot.parse(snapshot),
        taken_ms,
        identity(system, walfile),
        lsn,
        reader,
        dict(zip(tables, prints, strict=True)),
    )


def read_fingerprint(connection: psycopg.Connection[Any], fingerprint: Fingerprint) -> str:
    """Returns the fingerprint of the tables now. Raises psycopg.Error."""
    row: Any = connection.execute(sql.SQL("SELECT {}").format(fingerprint.sql)).fetchone()
    return str(row[0])


def read_reader(connection: psycopg.Connection[Any], slot: str) -> Reader | None:
    """Returns the process that reads the slot now; None if there is none. Raises psycopg.Error."""
    row = connection.execute(_READER, (slot,)).fetchone()
    return Reader(*row) if row else None
