"""Measures the WAL that slots retain, drops slots, and writes logical messages into WAL."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import psycopg

from syncer.pacing import poll_until

# `safe_wal_size` is NULL if there is no limit, and if the slot is lost.
_RETAINED = """
SELECT slot_name, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::bigint, safe_wal_size,
       (SELECT nullif(setting, '-1')::bigint * 1048576
          FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size')
  FROM pg_catalog.pg_replication_slots
 WHERE database = pg_catalog.current_database() AND restart_lsn IS NOT NULL"""


class RetainedWal(NamedTuple):
    """The WAL that PostgreSQL retains for one slot."""

    retained: int
    """Bytes."""
    remaining: int | None
    """Bytes that can still be written until the slot may be lost. None if there is no limit, or the slot is lost."""
    limit: int | None
    """`max_slot_wal_keep_size` in bytes; None if there is no limit."""


def retained_wal(connection: psycopg.Connection[Any]) -> dict[str, RetainedWal]:
    """Returns the WAL that each slot of this database retains, by slot name. Raises psycopg.Error."""
    return {name: RetainedWal(*sizes) for name, *sizes in connection.execute(_RETAINED).fetchall()}


_DROP = """
SELECT pg_catalog.pg_drop_replication_slot(slot_name)
  FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"""


def drop_slot(connection: psycopg.Connection[Any], name: str, timeout: float) -> None:
    """Drops the slot, if it exists, and releases the WAL that it retains.

    timeout: seconds to wait for the slot's reader to end.
    Raises psycopg.Error; ObjectInUse after the timeout.
    """

    def dropped() -> bool:
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            connection.execute(_DROP, (name,))
            return True
        return False

    if not poll_until(dropped, timeout=timeout, interval=0.1):
        connection.execute(_DROP, (name,))  # raises ObjectInUse, unless the reader has ended just now


def emit(connection: psycopg.Connection[Any], prefix: str, content: str) -> None:
    """Commits a logical message that touches no table. On return, WAL is flushed to this server's disk. It does not
    wait for standbys.

    connection: in autocommit mode.
    Raises psycopg.Error; the message may be in WAL or not.
    """
    with connection.transaction():
        connection.execute("SET TRANSACTION READ WRITE")
        connection.execute("SET LOCAL synchronous_commit = local")
        connection.execute("SELECT pg_catalog.pg_logical_emit_message(true, %s, %s)", (prefix, content))
