"""Reads roots and renders documents in one PostgreSQL snapshot. Implements `ports.Rows`.

Each view is one REPEATABLE READ READ ONLY transaction. It begins in this order:

1. Lock the tables (ACCESS SHARE), so that no ALTER TABLE or TRUNCATE runs while the view is open.
2. Take the snapshot. The same statement reads the snapshot's transaction ids, the server's identity, the insert LSN
   and the fingerprint of the tables.
3. Compare the fingerprint with the one that the read model was compiled from. If they differ, roll back, read the
   catalog again and start over.

All look-ups and renders of the view then run in this snapshot, so they show one state of the database. Large results
arrive in chunks (`chunked_results.py`), so a batch that exceeds its byte limit is cancelled early.

After the view, the caller waits until WAL is flushed up to the snapshot's insert LSN (`SnapshotReader.flushed`). Until
then, a crash can undo asynchronous commits that the snapshot shows.

`declaration/compile.py` builds the statements. `session.py` pins the settings that they run under.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from syncer.declaration.compile import Compiled, Lookup, TableUse
from syncer.document import Row
from syncer.errors import Reject, Retry
from syncer.events import Key, TableName, Values
from syncer.ports import Head, Overflow, Pages
from syncer.postgres import head, recent_rows
from syncer.postgres.chunked_results import ChunkedQuery
from syncer.postgres.fingerprint import Fingerprint, Tables, altered
from syncer.postgres.session import classify_error, connect, lock_timeout

_PAGE = 8192
"""Bytes in a page of WAL."""
_PAGE_HEADERS = (24, 40)
"""Sizes of the two kinds of WAL page header, in bytes. A segment's first page has the long one."""
_STREAMED_ROWS = 1000
_READ_PAGES = 8192
"""Pages of 8 KiB in a range that `SnapshotView.written_since` should read: 64 MiB."""
_QUERY_CANCELED = "57014"
"""SQLSTATE of a statement that exceeded `statement_timeout`."""
_NEVER = 1 << 30
"""Executions after which psycopg prepares a statement by itself."""
_MAX_ALTERATIONS = 5
"""Attempts to begin one view while tables keep changing."""
_HEAD = sql.SQL("SELECT " + head.COLUMNS + ", {}")
_LOCK_TABLES = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE")
"""Runs before the snapshot is taken; LOCK TABLE itself takes none. Every reader holds this lock; only the order
matters. A table that ALTER TABLE rewrites, or that TRUNCATE empties, is empty in every older snapshot. So the
snapshot must be taken when neither command can run any more.
https://www.postgresql.org/docs/current/mvcc-caveats.html"""
_LOCK_ATTEMPT, _LOCK_PAUSE = 0.1, 0.1
"""Seconds. A reader that holds some tables and waits for another can deadlock with a migration. After
`deadlock_timeout` (1 s) PostgreSQL would cancel the migration, not the reader. So the reader releases all locks long
before that, and tries again."""
_SET_LOCK_TIMEOUT = sql.SQL("SET LOCAL lock_timeout = {}")  # milliseconds
_TREES: LiteralString = """
SELECT n.nspname, c.relname, top_ns.nspname, top.relname
  FROM unnest(%s::text[], %s::text[]) AS wanted (nspname, relname)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nspname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relname
  JOIN pg_catalog.pg_class top ON top.oid = coalesce(pg_catalog.pg_partition_root(c.oid), c.oid)
  JOIN pg_catalog.pg_namespace top_ns ON top_ns.oid = top.relnamespace
 WHERE c.relkind IN ('r', 'p')
"""
_FLUSH = (
    "BEGIN READ WRITE; SET LOCAL synchronous_commit = local;"
    "SELECT pg_catalog.pg_logical_emit_message(true, 'syncer.flush', ''); COMMIT"
)
_FLUSHED = "SELECT (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::bigint"


class SnapshotReader:
    """Implements `ports.Rows` for one read model on one connection. One thread uses it at a time.

    arguments: of `psycopg.connect`.
    tables: the fingerprint that each view must have; None turns this check off.
    statement_timeout: seconds.
    """

    def __init__(
        self,
        arguments: Mapping[str, Any],
        compiled: Compiled,
        *,
        tables: Tables | None = None,
        statement_timeout: float = 60.0,
    ) -> None:
        self.compiled = compiled
        self._arguments = dict(arguments)
        self._statement_timeout = statement_timeout
        self._tables = tables or Tables(compiled.name, Fingerprint(sql.SQL("''"), ""))
        self._head = self._tables.fingerprint, _HEAD.format(self._tables.fingerprint.sql)
        self._lock_all = _lock_tables({compiled.root, *(use.table for use in compiled.table_uses)})
        self._lock_root = _lock_tables({compiled.root})
        self._short_lock_timeout = _SET_LOCK_TIMEOUT.format(round(_LOCK_ATTEMPT * 1000))
        self._long_lock_timeout = _SET_LOCK_TIMEOUT.format(round(lock_timeout(statement_timeout) * 1000))
        self._connection: psycopg.Connection[Any] | None = None
        self._streamed: ChunkedQuery | None = None
        self._prepared: sql.Composed | None = None
        """The statement of the snapshot that is prepared on this connection."""
        self._lock = threading.Lock()

    @contextmanager
    def view(self, *, root_only: bool = False, wait: Callable[[float], None] = time.sleep) -> Iterator[SnapshotView]:
        """See `ports.Rows.view`."""
        with self._lock:
            try:
                connection = self._open()
                lock = self._lock_root if root_only else self._lock_all
                taken = self._begin(connection, lock, wait)
                yield SnapshotView(self._streamed or ChunkedQuery(connection), self.compiled, taken)
                connection.execute("COMMIT")
            except psycopg.Error as error:
                self._drop()
                raise classify_error(error, "cannot read from PostgreSQL", where=self.compiled.name) from error
            except BaseException:
                self._drop()
                raise

    def flushed(self, lsn: int) -> bool:
        """See `ports.Rows.flushed`."""
        with self._lock:
            if self._connection is None or self._connection.closed:
                # A new connection may reach a server that crashed and lost what the view saw.
                raise Retry("the connection was lost before WAL was flushed", where=self.compiled.name)
            try:
                row = self._connection.execute(_FLUSHED, prepare=True).fetchone()
            except psycopg.Error as error:
                self._drop()
                raise classify_error(error, "cannot read from PostgreSQL", where=self.compiled.name) from error
        return reached(row[0] if row else 0, lsn)

    def flush(self) -> None:
        """See `ports.Rows.flush`. Commits a logical message that changes no table and that nobody reads. The commit
        flushes WAL within milliseconds. Without any commits, PostgreSQL flushes WAL five times a second."""
        with self._lock, contextlib.suppress(psycopg.Error):
            if self._connection is not None:
                self._connection.execute(_FLUSH)

    def statuses(self, xids: Collection[int]) -> dict[int, str]:
        """See `ports.Rows.statuses`. Opens a connection of its own, because the gate calls this while it waits."""
        result = {}
        with connect(self._arguments) as connection:
            for xid in xids:
                try:
                    result[xid] = head.status_of(connection, xid)
                except psycopg.Error as error:
                    raise classify_error(error, "cannot read a transaction's status") from error
        return result

    def close(self) -> None:
        """Closes the connection. The next view opens a new one."""
        self._drop()

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._arguments, statement_timeout=self._statement_timeout)
            # If a lock times out in a pipeline, PostgreSQL skips the statements after it, but psycopg takes them for
            # prepared. So psycopg prepares none by itself. `_begin` prepares the snapshot's one before the pipeline.
            self._connection.prepare_threshold = _NEVER
            self._streamed = ChunkedQuery(self._connection)
            self._prepared = None
        return self._connection

    def _begin(self, connection: psycopg.Connection[Any], lock: sql.Composed, wait: Callable[[float], None]) -> Head:
        """Begins a transaction whose snapshot shows tables that the read model fits."""
        for _ in range(_MAX_ALTERATIONS):
            wanted = self._tables.fingerprint
            if wanted is not self._head[0]:
                self._head = wanted, _HEAD.format(wanted.sql)
            if self._prepared is not self._head[1]:
                connection.execute(self._head[1], prepare=True)
                self._prepared = self._head[1]
            row = self._lock_and_take_snapshot(connection, lock, wait)
            *columns, found = row
            taken = head.read_head(columns, self.compiled.name)
            if found == wanted.value:
                return taken
            self._roll_back()
            self._tables.revalidate(wanted)
        raise altered(self.compiled.name)

    def _lock_and_take_snapshot(
        self, connection: psycopg.Connection[Any], lock: sql.Composed, wait: Callable[[float], None]
    ) -> Any:
        """Returns the row of `_HEAD`. Waits while another transaction locks a table, up to the lock timeout."""
        deadline = time.monotonic() + lock_timeout(self._statement_timeout)
        while True:
            try:
                with connection.pipeline():
                    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    connection.execute(self._short_lock_timeout)
                    connection.execute(lock)
                    connection.execute(self._long_lock_timeout)
                    cursor = connection.execute(self._head[1], prepare=True)
                    connection.execute("SAVEPOINT render")
                return cursor.fetchone()
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() > deadline:
                    raise
                self._roll_back()
                wait(_LOCK_PAUSE)

    def _roll_back(self) -> None:
        if self._streamed is not None:
            self._streamed.run(b"ROLLBACK")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SnapshotView:
    """Implements `ports.View`, which documents its methods. Valid only inside `SnapshotReader.view`."""

    def __init__(self, streamed: ChunkedQuery, compiled: Compiled, taken: Head) -> None:
        self.head = taken
        self._connection = streamed.connection
        self._streamed = streamed
        self._compiled = compiled

    def look_up(self, lookup: Lookup, values: Collection[Values]) -> Iterator[Key]:
        if lookup.sql is None:
            yield from cast(Collection[Key], values)  # a key has no NULL
        elif values:
            yield from self._stream(lookup.sql, _transpose(values))

    def render(self, keys: Sequence[Key], max_bytes: int = 0) -> list[Row]:
        return self._rows(self._compiled.render, _transpose(keys), max_bytes, prepare=True, several=len(keys) - 1)

    def render_range(self, low: Key | None, high: Key, max_bytes: int = 0) -> list[Row]:
        if low is None:
            return self._rows(self._compiled.render_upto, list(high), max_bytes, prepare=False, several=1)
        return self._rows(self._compiled.render_between, [*low, *high], max_bytes, prepare=False, several=1)

    def keys_in_range(self, low: Key | None, high: Key) -> list[Key]:
        if low is None:
            return list(self._stream(self._compiled.keys_upto, high))
        return list(self._stream(self._compiled.keys_between, [*low, *high]))

    def first_keys(self, limit: int) -> list[Key]:
        return list(self._stream(self._compiled.first_keys, [limit]))

    def boundaries(self, size: int) -> Iterator[Key]:
        self._connection.execute("SET LOCAL statement_timeout = 0")  # it scans a whole index, which may be large
        yield from self._stream(self._compiled.boundaries, [size])

    def pages(self, table: TableName) -> Pages:
        row: Any = self._connection.execute(recent_rows.PAGES, table).fetchone()
        files, partitions, count = row
        return Pages(files, count, max(1, _READ_PAGES // max(1, partitions)))

    def written_since(self, use: TableUse, xid: int, first: int, end: int) -> Collection[Values]:
        statement = recent_rows.statement(use.table, use.lookup or self._compiled.root_lookup)
        pages = (f"({page},0)" for page in (first, end))
        return dict.fromkeys(self._stream(statement, [recent_rows.xid_text(xid), *pages]))

    def trees(self, tables: Collection[TableName]) -> dict[TableName, TableName]:
        found = self._connection.execute(_TREES, [[t.schema for t in tables], [t.name for t in tables]])
        return {TableName(*row[:2]): TableName(*row[2:]) for row in found.fetchall()}

    def _stream(self, statement: str, parameters: Sequence[Any]) -> Iterator[Key]:
        query: Any = statement
        with self._connection.cursor() as cursor:
            yield from map(tuple, cursor.stream(query, parameters, size=_STREAMED_ROWS))

    def _rows(
        self, statement: str, parameters: Sequence[Any], max_bytes: int, *, prepare: bool, several: int
    ) -> list[Row]:
        """Runs a render statement.

        max_bytes: limit in bytes; 0 for none.
        several: how many roots the caller may try next after a time-out; 0 if it asked for a single root.
        Raises Overflow when there are too many bytes, or when several roots time out. Raises Reject when a single root
        times out or fails. After both, the savepoint from the view's begin keeps the view usable.
        """
        rows: list[Row] = []
        size, overflow = 0, None
        try:
            with closing(self._streamed(statement, parameters, prepare=prepare)) as chunks:
                for chunk in chunks:
                    value: Any = chunk.get_value
                    for i in range(chunk.ntuples):
                        asked, found, body = value(i, 0), value(i, 1), value(i, 2)
                        rows.append(Row(asked.decode(), None if found is None else found.decode(), body))
                    if max_bytes:
                        size += sum(len(row.body) for row in rows[-chunk.ntuples :] if row.body)
                        if size > max_bytes and len(rows) > 1:
                            overflow = Overflow(len(rows), size)
                            break
        except psycopg.Error as error:
            kind = classify_error(error, "cannot render documents", where=self._compiled.name)
            timed_out = error.sqlstate == _QUERY_CANCELED
            if timed_out or isinstance(kind, Reject):
                self._streamed.run(b"ROLLBACK TO SAVEPOINT render")
            if timed_out and several:
                raise Overflow(several, 0) from error
            raise (Reject(kind.what, where=kind.where, why=kind.why, hint=kind.hint) if timed_out else kind) from error
        if overflow:
            self._streamed.run(b"ROLLBACK TO SAVEPOINT render")
            raise overflow
        return rows


def reached(flushed: int, inserted: int) -> bool:
    """Returns whether WAL is flushed up to the insert LSN. Both LSNs are in bytes.

    At a page boundary, PostgreSQL reports the insert LSN after the next page's header (24 or 40 bytes) and the flush
    LSN before it. On an idle server the flush LSN would never reach it (xlog.c, `GetXLogInsertRecPtr`).
    """
    into_page = inserted % _PAGE
    return flushed >= (inserted - into_page if into_page in _PAGE_HEADERS else inserted)


def _lock_tables(tables: Collection[TableName]) -> sql.Composed:
    return _LOCK_TABLES.format(sql.SQL(", ").join(sql.Identifier(*name) for name in sorted(tables)))


def _transpose(keys: Collection[Values]) -> list[list[str | None]]:
    """Turns rows of texts into one array for each column."""
    return [list(column) for column in zip(*keys, strict=True)]
