"""Reads facts about the publication, the slot and the role. Creates and extends the publication. Waits for
transactions that were open when the publication changed.

The publication is the only object that the syncer creates in the user's database, and only `syncer connectors apply`
creates it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

import psycopg

from syncer.checks import Publication, Reader, Slot, SourceFacts, publication_statements, unpublishable
from syncer.errors import Fatal, Retry
from syncer.events import TableName
from syncer.pacing import poll_until
from syncer.postgres.catalog import load
from syncer.postgres.session import fetch_rows

_SERVER: LiteralString = """
SELECT current_setting('server_version_num')::int, current_database(), pg_catalog.pg_is_in_recovery(),
       current_setting('wal_level'), current_setting('effective_wal_level', true),
       current_setting('max_replication_slots')::int,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots)::int,
       current_setting('max_wal_senders')::int,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication)::int,
       current_setting('max_slot_wal_keep_size'),
       current_user,
       (SELECT rolsuper OR rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user),
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
"""

_SERVER_FIELDS = (
    "server_version",
    "database",
    "in_recovery",
    "wal_level",
    "effective_wal_level",
    "max_slots",
    "used_slots",
    "max_senders",
    "used_senders",
    "wal_keep_size",
    "role",
    "role_replicates",
    "sees_sessions",
)

_PUBLICATION: LiteralString = """
SELECT oid, puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
       pg_catalog.to_jsonb(p) ->> 'pubgencols' IS NOT DISTINCT FROM 's'
  FROM pg_catalog.pg_publication p WHERE pubname = %s
"""

_MEMBERS: LiteralString = """
SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = %s
 UNION
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_publication_rel r
  JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE p.pubname = %s AND (pg_catalog.to_jsonb(r) ->> 'prexcept') IS DISTINCT FROM 'true'
"""

# FOR ALL TABLES EXCEPT, from PostgreSQL 19. Earlier servers have no column prexcept; the query then finds no rows.
_EXCEPTED: LiteralString = """
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_publication_rel r
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE r.prpubid = %s AND pg_catalog.to_jsonb(r) ->> 'prexcept' = 'true'
"""

# Tables with stored generated columns, and whether the replica identity of one of their leaves includes such a column.
_WITH_GENERATED: LiteralString = """
SELECT n.nspname, c.relname,
       bool_or(leaf.relreplident = 'f' OR EXISTS (
           SELECT FROM pg_catalog.pg_index i
            WHERE i.indrelid = leaf.oid AND a.attnum = ANY (i.indkey::int2[])
              AND CASE leaf.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END))
  FROM unnest(%s::text[], %s::text[]) AS wanted (nspname, relname)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nspname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relname
 CROSS JOIN LATERAL (
       SELECT c.oid UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(c.oid) t) AS part (oid)
  JOIN pg_catalog.pg_class leaf ON leaf.oid = part.oid AND leaf.relkind <> 'p'
  JOIN pg_catalog.pg_attribute a ON a.attrelid = leaf.oid AND a.attnum > 0 AND a.attgenerated = 's'
 GROUP BY n.nspname, c.relname
"""

# PostgreSQL 15 and later.
_RESTRICTED: LiteralString = """
SELECT n.nspname, c.relname, r.prqual IS NOT NULL, r.prattrs IS NOT NULL
  FROM pg_catalog.pg_publication_rel r
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE r.prpubid = %s AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL)
"""

_SLOT: LiteralString = """
SELECT slot_name, plugin, database, active, wal_status,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN (pg_catalog.pg_current_wal_lsn() - confirmed_flush_lsn)::bigint END,
       two_phase, reader.pid, (extract(epoch FROM reader.backend_start) * 1000000)::bigint
  FROM pg_catalog.pg_replication_slots
  LEFT JOIN pg_catalog.pg_stat_activity AS reader ON reader.pid = active_pid
 WHERE slot_name = %s AND slot_type = 'logical'
"""

_TREES: LiteralString = """
SELECT n.nspname, c.relname, c.relkind = 'p', root_ns.nspname, root.relname
  FROM unnest(%s::text[], %s::text[]) AS wanted (nspname, relname)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nspname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relname
  LEFT JOIN pg_catalog.pg_class root ON c.relispartition AND root.oid = pg_catalog.pg_partition_root(c.oid)
  LEFT JOIN pg_catalog.pg_namespace root_ns ON root_ns.oid = root.relnamespace
"""

# Without the rights of pg_read_all_stats, backend_xid is NULL for sessions of other roles. They then have no name.
_HOLDERS: LiteralString = """
SELECT backend_xid::text::bigint, datname = current_database(), pid, application_name, usename, xact_start, ''
  FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL
 UNION ALL
SELECT transaction::text::bigint, database = current_database(), NULL, '', owner, prepared, gid
  FROM pg_catalog.pg_prepared_xacts
"""


class OpenTransaction(NamedTuple):
    """An open transaction that the syncer waits for."""

    xid: int
    pid: int | None
    """None for a prepared transaction, and for a session that the syncer's role may not see."""
    application_name: str
    role: str
    since: datetime | None
    prepared: str
    """The identifier of a prepared transaction; empty for other transactions."""

    def __str__(self) -> str:
        since = f" since {self.since:%Y-%m-%d %H:%M:%S%z}" if self.since else ""
        if self.prepared:
            return f"prepared transaction {self.prepared!r} of {self.role}{since}"
        if self.pid is None:
            return f"transaction {self.xid}"
        return f"pid {self.pid} ({self.application_name or self.role}){since}"


class OpenTransactions(tuple[OpenTransaction, ...]):
    """The transactions that are still open. `str` formats them for people."""

    __slots__ = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self))


def read_facts(
    conn: psycopg.Connection[Any], tables: Collection[TableName], *, publication: str, slot: str
) -> SourceFacts:
    """Reads the facts that `check_source` judges. Raises psycopg.Error."""
    names = sorted(set(tables))
    server = dict(zip(_SERVER_FIELDS, fetch_rows(conn, _SERVER)[0], strict=True))
    trees = fetch_rows(conn, _TREES, [t.schema for t in names], [t.name for t in names])
    generated = _with_generated(conn, names)
    return SourceFacts(
        **server,
        publication_name=publication,
        publication=read_publication(conn, publication),
        slot=read_slot(conn, slot),
        partitioned=frozenset(TableName(schema, name) for schema, name, is_tree, _, _ in trees if is_tree),
        roots={TableName(s, n): TableName(rs, rn) for s, n, _, rs, rn in trees if rn is not None},
        generated=frozenset(generated),
        generated_identity=frozenset(table for table, of_identity in generated.items() if of_identity),
    )


def _with_generated(conn: psycopg.Connection[Any], tables: Collection[TableName]) -> dict[TableName, bool]:
    """Returns the tables with stored generated columns, and whether their replica identity includes such a column.

    Empty before PostgreSQL 18: there, no publication can send generated columns.
    """
    if conn.info.server_version < 180000:
        return {}
    found = fetch_rows(conn, _WITH_GENERATED, [t.schema for t in tables], [t.name for t in tables])
    return {TableName(schema, name): of_identity for schema, name, of_identity in found}


def read_slot(conn: psycopg.Connection[Any], name: str) -> Slot | None:
    """Reads the logical slot of this name; None if it does not exist. Raises psycopg.Error."""
    found = fetch_rows(conn, _SLOT, name)
    if not found:
        return None
    *facts, pid, since = found[0]
    slot = Slot(*facts)
    return slot if pid is None else replace(slot, reader=Reader(pid, since))


def read_publication(conn: psycopg.Connection[Any], name: str) -> Publication | None:
    """Reads the publication of this name; None if it does not exist. Raises psycopg.Error."""
    found = fetch_rows(conn, _PUBLICATION, name)
    if not found:
        return None
    oid, all_tables, inserts, updates, deletes, truncates, via_root, generated = found[0]
    published = {"insert": inserts, "update": updates, "delete": deletes, "truncate": truncates}
    restricted = fetch_rows(conn, _RESTRICTED, oid) if conn.info.server_version >= 150000 else []
    return Publication(
        name=name,
        all_tables=all_tables,
        operations=frozenset(operation for operation, on in published.items() if on),
        via_root=via_root,
        tables=frozenset(TableName(*row) for row in fetch_rows(conn, _MEMBERS, name, name)),
        excepted=frozenset(TableName(*row) for row in fetch_rows(conn, _EXCEPTED, oid)),
        generated=generated,
        row_filters=frozenset(TableName(s, n) for s, n, filtered, _ in restricted if filtered),
        column_lists=frozenset(TableName(s, n) for s, n, _, listed in restricted if listed),
    )


def ensure_publication(
    conn: psycopg.Connection[Any], name: str, tables: Collection[TableName], *, dry_run: bool = False
) -> list[str]:
    """Creates the publication, or adds the missing tables and options. It never removes any.

    dry_run: only return the statements.
    Returns the SQL statements. All run in one transaction.
    Raises Fatal when a table is missing or cannot be published, or when publishing it would make the application's
    UPDATE and DELETE fail.
    """
    at = f"publication {name}"
    catalog = load(conn, tables)
    if missing := sorted(set(tables) - catalog.tables.keys()):
        raise Fatal("the table does not exist", where=", ".join(map(str, missing)), hint="syncer check")
    if failing := [leaf.name for table in catalog.tables.values() for leaf in unpublishable(table)]:
        raise Fatal(
            "publishing would make the application's own UPDATE and DELETE fail",
            where=at,
            why=f"these tables have no usable replica identity: {', '.join(map(str, failing))}",
            hint="syncer check  (it prints the ALTER TABLE to run)",
        )
    partitioned = [table.name for table in catalog.tables.values() if table.kind == "partitioned"]
    generated = _with_generated(conn, tables)
    statements = publication_statements(name, read_publication(conn, name), tables, partitioned, generated)
    if dry_run:
        return statements
    try:
        with conn.transaction():
            for statement in statements:
                conn.execute(statement.encode())
    except psycopg.Error as error:
        raise Fatal(
            "cannot change the publication",
            where=at,
            why=str(error).strip(),
            hint="run these as the owner of the tables, with CREATE on the database:\n" + "\n".join(statements),
        ) from error
    return statements


def wait_for_open_transactions(
    conn: psycopg.Connection[Any],
    timeout: float = 3600.0,
    progress: Callable[[OpenTransactions], None] = lambda _: None,
    *,
    interval: float = 0.2,
) -> None:
    """Waits until every transaction of this database that is open now, and has changed something, has ended.

    A transaction that was open when a table joined the publication may have changed the table without a change event.
    A backfill that begins after this call sees these changes. Prepared transactions count as open.

    conn: in autocommit mode.
    timeout, interval: seconds.
    progress: called about once a second with the transactions that are still open.
    Raises Retry with these transactions after the timeout.
    """
    if not conn.autocommit:
        raise ValueError("the connection must be in autocommit mode, or the call would wait for its own transaction")
    # A snapshot does not list transactions that began after the latest completed one. So complete a transaction with
    # an id of its own: it is later than all open ones, and the next snapshot lists them.
    conn.execute("SELECT pg_catalog.pg_current_xact_id()")
    waiting = _holders(conn, _open(conn))
    reported = 0.0

    def ended() -> bool:
        nonlocal waiting, reported
        still_open = _open(conn)
        waiting = [holder for holder in waiting if holder.xid in still_open]
        now = time.monotonic()
        if waiting and now - reported >= 1:
            progress(OpenTransactions(waiting))
            reported = now
        return not waiting

    if waiting and not poll_until(ended, timeout=timeout, interval=interval):
        raise Retry(
            "transactions that were open when the publication changed are still open",
            where=f"database {conn.info.dbname}",
            why=str(OpenTransactions(waiting)),
            hint="end them (COMMIT PREPARED …, SELECT pg_terminate_backend(pid)), or try again later",
        )


def _open(conn: psycopg.Connection[Any]) -> set[int]:
    """Returns the 64-bit ids of open transactions in all databases. A transaction without changes has no id."""
    query: LiteralString = "SELECT pg_catalog.pg_snapshot_xip(pg_catalog.pg_current_snapshot())::text::bigint"
    return {xid for (xid,) in fetch_rows(conn, query)}


def _holders(conn: psycopg.Connection[Any], xids: set[int]) -> list[OpenTransaction]:
    """Returns these transactions with their sessions, without those of other databases. Transactions of sessions that
    the role may not see stay in the list without details."""
    known = {row[0]: row[1:] for row in fetch_rows(conn, _HOLDERS)}
    waiting = []
    for xid in sorted(xids):
        here, *who = known.get(xid % (1 << 32), (True, None, "", "", None, ""))
        if here:
            waiting.append(OpenTransaction(xid, *who))
    return waiting
