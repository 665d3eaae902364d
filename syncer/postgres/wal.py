"""PostgreSQL's log, seen from beside the batches: what slots keep of it, and a message into it."""

from __future__ import annotations

import time
from typing import Any

import psycopg

_KEPT = """
SELECT slot_name, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::bigint
  FROM pg_catalog.pg_replication_slots
 WHERE database = pg_catalog.current_database() AND restart_lsn IS NOT NULL"""


def kept(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """The bytes of log that each slot of this database holds back. Raises psycopg.Error."""
    return dict(connection.execute(_KEPT).fetchall())


_DROP = """
SELECT pg_catalog.pg_drop_replication_slot(slot_name)
  FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"""


def drop_slot(connection: psycopg.Connection[Any], name: str, timeout: float) -> None:
    """Give up what the slot keeps, if it is there. Waits so many seconds for its reader to end. Raises
    psycopg.Error."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute(_DROP, (name,))
            return
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def emit(connection: psycopg.Connection[Any], prefix: str, content: str) -> None:
    """Commit a message that touches no table. When this returns, it is in the log on this server's disk; no
    standby is waited for. Raises psycopg.Error: then it may be in the log or not. connection: in autocommit.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION READ WRITE")
        connection.execute("SET LOCAL synchronous_commit = local")
        connection.execute("SELECT pg_catalog.pg_logical_emit_message(true, %s, %s)", (prefix, content))
