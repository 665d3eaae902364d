"""PostgreSQL as `Rows`: one connection, one REPEATABLE READ READ ONLY transaction per view.

The statements come ready from `compile.py`; here they are run, in a session of `session.py`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from syncer.clock import Identity, Snapshot
from syncer.declaration.compile import Compiled, Lookup
from syncer.document import Row
from syncer.errors import Reject, Retry
from syncer.events import Key, TableName
from syncer.ports import Head, Overflow
from syncer.postgres.chunked_results import Streamed
from syncer.postgres.fingerprint import Fingerprint, Tables, altered
from syncer.postgres.session import classify_error, connect, lock_timeout, standby

_PAGE = 8192
_LONG_PAGE_HEADER = 40
_STREAM = 1000
_TIMED_OUT = "57014"
_ALTERATIONS = 5  # of the tables, while one view begins
_HEAD = sql.SQL("""
SELECT pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_current_snapshot()::text,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_current_wal_insert_lsn() - '0/0' END::bigint,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END,
       {}""")
_LOCKED = sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE")
"""Takes no snapshot, and every reader holds this lock; only the order matters. A table that is rewritten by
ALTER TABLE, or truncated, is empty to each snapshot from before; so it is taken once nobody can do either.
https://www.postgresql.org/docs/current/mvcc-caveats.html"""
_LOCK_TRY, _LOCK_PAUSE = 0.1, 0.1
"""Seconds. Who waits for one table while holding others can be in the way of a migration that wants those:
after `deadlock_timeout` (1 s) that would be ended, not we. So all are let go long before that."""
_LOCK_TIMEOUT = sql.SQL("SET LOCAL lock_timeout = {}")  # milliseconds
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
    """`Rows` for one read model, on one connection: for one thread at a time.

    tables: what a view has to show for the read model to fit it (None: that is not looked at).
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
        self._locked = _locked({compiled.root, *(place.table for place in compiled.occurrences)})
        self._root_locked = _locked({compiled.root})
        self._lock_quickly = _LOCK_TIMEOUT.format(round(_LOCK_TRY * 1000))
        self._lock_patiently = _LOCK_TIMEOUT.format(round(lock_timeout(statement_timeout) * 1000))
        self._connection: psycopg.Connection[Any] | None = None
        self._streamed: Streamed | None = None
        self._lock = threading.Lock()

    @contextmanager
    def view(self, *, root_only: bool = False, wait: Callable[[float], None] = time.sleep) -> Iterator[SnapshotView]:
        """See `ports.Rows.view`."""
        with self._lock:
            try:
                connection = self._open()
                locked = self._root_locked if root_only else self._locked
                head = self._begin(connection, locked, wait)
                yield SnapshotView(self._streamed or Streamed(connection), self.compiled, head)
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
                # Another one may be to a server that has begun again without what the view saw.
                raise Retry("the connection of a snapshot was lost before its end", where=self.compiled.name)
            try:
                row = self._connection.execute(_FLUSHED, prepare=True).fetchone()
            except psycopg.Error as error:
                self._drop()
                raise classify_error(error, "cannot read from PostgreSQL", where=self.compiled.name) from error
        return reached(row[0] if row else 0, lsn)

    def flush(self) -> None:
        """Without commits of others the log goes to disk five times a second: a commit of our own, of a
        message that changes no table and that nobody reads, takes milliseconds. See `ports.Rows.flush`."""
        with self._lock, contextlib.suppress(psycopg.Error):
            if self._connection is not None:
                self._connection.execute(_FLUSH)

    def statuses(self, xids: Collection[int]) -> dict[int, str]:
        """See `ports.Rows.statuses`. On a connection of its own: it is asked while waiting."""
        result = {}
        with connect(self._arguments) as connection:
            for xid in xids:
                try:
                    row = connection.execute("SELECT pg_catalog.pg_xact_status(%s::text::xid8)", (str(xid),))
                    status = row.fetchone()
                    result[xid] = (status and status[0]) or "too old to tell"
                except psycopg.errors.InvalidParameterValue:
                    result[xid] = "in the future"
                except psycopg.Error as error:
                    raise classify_error(error, "cannot ask for a transaction's status") from error
        return result

    def close(self) -> None:
        self._drop()

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._arguments, statement_timeout=self._statement_timeout)
            self._streamed = Streamed(self._connection)
        return self._connection

    def _begin(self, connection: psycopg.Connection[Any], locked: sql.Composed, wait: Callable[[float], None]) -> Head:
        """A snapshot of tables that the read model fits."""
        for _ in range(_ALTERATIONS):
            wanted = self._tables.fingerprint
            if wanted is not self._head[0]:
                self._head = wanted, _HEAD.format(wanted.sql)
            row = self._try_to_begin(connection, locked, wait)
            in_recovery, snapshot, system, insert_lsn, walfile, found = row
            if in_recovery:
                raise standby(self.compiled.name)
            if found == wanted.value:
                return Head(Snapshot.parse(snapshot), Identity(system, int(walfile[:8], 16)), insert_lsn)
            self._roll_back()
            self._tables.revalidate(wanted)
        raise altered(self.compiled.name)

    def _try_to_begin(
        self, connection: psycopg.Connection[Any], locked: sql.Composed, wait: Callable[[float], None]
    ) -> Any:
        """The first row of a view, once its tables are free."""
        deadline = time.monotonic() + lock_timeout(self._statement_timeout)
        while True:
            try:
                with connection.pipeline():
                    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    connection.execute(self._lock_quickly)
                    connection.execute(locked)
                    connection.execute(self._lock_patiently)
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
    """See `ports.View`. Only valid inside `SnapshotReader.view`."""

    def __init__(self, streamed: Streamed, compiled: Compiled, head: Head) -> None:
        self.head = head
        self._connection = streamed.connection
        self._streamed = streamed
        self._compiled = compiled

    def look_up(self, lookup: Lookup, values: Collection[Key]) -> Iterator[Key]:
        if lookup.sql is None:
            yield from values
        elif values:
            yield from self._stream(lookup.sql, _columns(values))

    def render(self, keys: Sequence[Key], most: int = 0) -> list[Row]:
        return self._rows(self._compiled.render, _columns(keys), most, prepare=True, several=len(keys) - 1)

    def render_range(self, low: Key | None, high: Key, most: int = 0) -> list[Row]:
        if low is None:
            return self._rows(self._compiled.render_upto, list(high), most, prepare=False, several=1)
        return self._rows(self._compiled.render_between, [*low, *high], most, prepare=False, several=1)

    def keys_in_range(self, low: Key | None, high: Key) -> list[Key]:
        if low is None:
            return self._keys("{key} <= {bound}", high)
        return self._keys("{key} > {bound} AND {key} <= {bound}", [*low, *high])

    def first_keys(self, limit: int) -> list[Key]:
        return self._keys("TRUE", [], limit)

    def _keys(self, condition: LiteralString, parameters: Sequence[Any], limit: int | None = None) -> list[Key]:
        columns = [sql.Identifier("t", _escaped(column)) for column in self._compiled.key]
        key = sql.SQL("({})").format(sql.SQL(", ").join(columns))
        # wider than the column may be, as keys are that come from before it was narrowed
        wide = [sql.SQL("%s::int8" if type == "bigint" else "%s") for type in self._compiled.key_types]
        bound = sql.SQL("({})").format(sql.SQL(", ").join(wide))
        statement = sql.SQL("SELECT {} FROM {} t WHERE {} ORDER BY {} LIMIT {}").format(
            sql.SQL(", ").join(sql.SQL("{}::text").format(column) for column in columns),
            sql.Identifier(*map(_escaped, self._compiled.root)),
            sql.SQL(condition).format(key=key, bound=bound),
            sql.SQL(", ").join(columns),  # with the alias: the plain name would mean the text above
            sql.Literal(limit),
        )
        return list(self._stream(statement, parameters))

    def boundaries(self, size: int) -> Iterator[Key]:
        self._connection.execute("SET LOCAL statement_timeout = 0")  # a walk over all of a large index
        yield from self._stream(self._compiled.boundaries, [size])

    def trees(self, tables: Collection[TableName]) -> dict[TableName, TableName]:
        found = self._connection.execute(_TREES, [[t.schema for t in tables], [t.name for t in tables]])
        return {TableName(*row[:2]): TableName(*row[2:]) for row in found.fetchall()}

    def _stream(self, statement: str | sql.Composed, parameters: Sequence[Any]) -> Iterator[Key]:
        query: Any = statement
        with self._connection.cursor() as cursor:
            yield from map(tuple, cursor.stream(query, parameters, size=_STREAM))

    def _rows(self, statement: str, parameters: Sequence[Any], most: int, *, prepare: bool, several: int) -> list[Row]:
        """Run a render statement; the savepoint at the view's begin keeps it usable if it fails."""
        rows: list[Row] = []
        size, over = 0, None
        try:
            with closing(self._streamed(statement, parameters, prepare=prepare)) as parts:
                for part in parts:
                    value: Any = part.get_value
                    for i in range(part.ntuples):
                        asked, found, body = value(i, 0), value(i, 1), value(i, 2)
                        rows.append(Row(asked.decode(), None if found is None else found.decode(), body))
                    if most:
                        size += sum(len(row.body) for row in rows[-part.ntuples :] if row.body)
                        if size > most and len(rows) > 1:
                            over = Overflow(len(rows), size)
                            break
        except psycopg.Error as error:
            kind = classify_error(error, "cannot render documents", where=self._compiled.name)
            late = error.sqlstate == _TIMED_OUT
            if late or isinstance(kind, Reject):
                self._streamed.run(b"ROLLBACK TO SAVEPOINT render")
            if late and several:
                raise Overflow(several, 0) from error
            raise (Reject(kind.what, where=kind.where, why=kind.why, hint=kind.hint) if late else kind) from error
        if over:
            self._streamed.run(b"ROLLBACK TO SAVEPOINT render")
            raise over
        return rows


def reached(flushed: int, inserted: int) -> bool:
    """Whether the log is on disk up to where records were inserted. Bytes.

    At a page boundary the insert position is told past the next page's header (24 or 40 bytes), the flush
    position before it; on an idle server they would never meet (xlog.c, `GetXLogInsertRecPtr`).
    """
    into_page = inserted % _PAGE
    return flushed >= (inserted - into_page if into_page in (24, _LONG_PAGE_HEADER) else inserted)


def _locked(tables: Collection[TableName]) -> sql.Composed:
    return _LOCKED.format(sql.SQL(", ").join(sql.Identifier(*name) for name in sorted(tables)))


def _escaped(name: str) -> str:
    """For a statement with parameters: psycopg looks for placeholders in quoted names, too."""
    return name.replace("%", "%%")


def _columns(keys: Collection[Key]) -> list[list[str]]:
    """From rows of texts to one array a column."""
    return [list(column) for column in zip(*keys, strict=True)]
