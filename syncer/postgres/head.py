"""Reads which transactions a snapshot sees, which server took it, and how transactions ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from syncer.clock import Identity, Snapshot
from syncer.ports import Head
from syncer.postgres.session import standby

IN_PROGRESS, COMMITTED, ABORTED, FUTURE, FORGOTTEN = (
    "in progress",
    "committed",
    "aborted",
    "in the future",
    "too old to tell",
)
"""The status of a transaction: the texts of `pg_xact_status`, its error for an id that is not assigned, and NULL."""

COLUMNS: LiteralString = """pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_current_snapshot()::text,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_current_wal_insert_lsn() - '0/0' END::bigint,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END"""
"""The columns of a statement that returns the head of its snapshot. They are computed after the snapshot was taken."""

_STATUS = "SELECT pg_catalog.pg_xact_status(%s::text::xid8)"


def read_head(row: Sequence[Any], where: str) -> Head:
    """Returns the head in the values of `COLUMNS`. Raises Retry on a standby. where: for its error."""
    in_recovery, snapshot, system, insert_lsn, walfile = row
    if in_recovery:
        raise standby(where)
    return Head(Snapshot.parse(snapshot), identity(system, walfile), insert_lsn)


def identity(system: int, walfile: str) -> Identity:
    """Returns the server's history. walfile: the name of a WAL file, which begins with the timeline."""
    return Identity(system, int(walfile[:8], 16))


def status_of(connection: psycopg.Connection[Any], xid: int) -> str:
    """Returns the status of a transaction. xid: 64 bits. Raises psycopg.Error."""
    try:
        row = connection.execute(_STATUS, (str(xid),)).fetchone()
    except psycopg.errors.InvalidParameterValue:  # "transaction ID … is in the future"
        return FUTURE
    return (row and row[0]) or FORGOTTEN
