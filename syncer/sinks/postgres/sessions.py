"""Lends sessions to threads, keeps idle ones, and separates the sessions of a server from those of its successor."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import psycopg

from syncer.errors import Retry, SyncerError
from syncer.sinks.postgres.deadline import deadline
from syncer.sinks.postgres.server import Session, classify, connect
from syncer.sinks.postgres.settings import Connection

_SHORTEST_MS = 100
"""The shortest `statement_timeout`. A shorter one also cancels the statement that would raise it again."""
_IDLE_SECONDS = 300
"""Sessions that were idle for longer are not used again. The server ends them after twice that time."""


class Identity(NamedTuple):
    """The history that a server writes. It cannot change while a session is open: a promotion needs a standby."""

    system: str
    """The system identifier. A restored or promoted copy keeps it."""
    timeline: str
    """In hexadecimal, 8 digits. Every promotion and every point-in-time recovery raises it."""


IDENTITY = """
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system())::text AS system,
       pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) AS timeline"""


@dataclass
class _Pooled:
    """A session, with the generation of the pool in which it was opened."""

    session: Session
    generation: int
    limit: int = 0
    """The session's `statement_timeout`, in milliseconds. 0: not set yet, or unknown."""
    idle_since: float = 0.0
    """Monotonic seconds."""


class Sessions:
    """Lends sessions to threads. An idle session is used again, a broken one is closed.

    After a failover, some sessions may still reach the old server, and others the new one. Nothing that the old server
    acknowledges then may count as written, because the durability token may already be the one of the new server. So
    the first session on another server starts a new generation. Sessions of older generations are closed, and
    operations that end on them fail with Retry.

    where: the sink's name. resync: the command to run when the table is missing. Errors contain both.
    """

    def __init__(self, connection: Connection, where: str, resync: str = "") -> None:
        self._connection, self._where, self._resync = connection, where, resync
        self._idle: list[_Pooled] = []
        self._generation = 0
        self._server: Identity | None = None
        self._replaced: set[Identity] = set()
        """Servers of earlier generations."""
        self._lock = threading.Lock()

    @contextmanager
    def session(self, what: str, timeout: float | None = None) -> Iterator[Session]:
        """Lends a session. Raises errors of PostgreSQL as the syncer's.

        Raises Retry at the end if another server replaced the session's server meanwhile.

        what: the operation, for errors.
        timeout: seconds for each statement, instead of the configured ones. Also limits the whole block: the
        connection is closed a few seconds later.
        """
        seconds = min(timeout, self._connection.statement_timeout) if timeout else self._connection.statement_timeout
        limit = max(_SHORTEST_MS, round(seconds * 1000))
        pooled: _Pooled | None = None
        usable = False
        try:
            pooled = self._take() or self._open()
            if pooled.limit != limit:
                _set_limit(pooled, limit)
            with deadline(pooled.session, seconds) if timeout else contextlib.nullcontext():
                yield pooled.session
            self._check_generation(pooled, what)
            usable = True
        except psycopg.Error as error:
            usable = bool(error.sqlstate)
            if pooled is not None and pooled.session.closed:  # the others have probably lost their server, too
                self.close()
            raise classify(error, what, self._where, self._resync) from error
        except SyncerError:
            usable = True
            raise
        finally:
            if pooled is not None:
                self._return(pooled, usable=usable)

    def _take(self) -> _Pooled | None:
        """Returns the session that was used last. Closes those that were idle for too long."""
        oldest = time.monotonic() - _IDLE_SECONDS
        with self._lock:
            old = [pooled for pooled in self._idle if pooled.idle_since < oldest]
            self._idle = [pooled for pooled in self._idle if pooled.idle_since >= oldest]
            taken = self._idle.pop() if self._idle else None
        for pooled in old:
            pooled.session.close()
        return taken

    def _open(self) -> _Pooled:
        session = connect(self._connection, self._where)
        try:
            found = Identity(*session.execute(IDENTITY).fetchall()[0])
            with self._lock:
                if found != self._server:
                    self._follow(found)
                return _Pooled(session, self._generation)
        except BaseException:
            session.close()
            raise

    def _follow(self, found: Identity) -> None:
        """Starts a new generation on another server. The caller holds the lock.

        Raises Retry for a server that was replaced. Documents that it acknowledged now would be missing on its
        successor, and the durability token of the successor would not show it.
        """
        before = self._server
        older = before is not None and before.system == found.system and found.timeline < before.timeline
        if older or found in self._replaced:
            raise Retry(
                "this PostgreSQL server was replaced by another one",
                where=self._where,
                why=f"it has timeline {found.timeline} of the system {found.system}",
                hint="stop the old server; if the syncer should use it again, restart the daemon",
            )
        if before is not None:
            self._replaced.add(before)
        self._server = found
        self._generation += 1
        for pooled in self._idle:
            pooled.session.close()
        self._idle.clear()

    def _check_generation(self, pooled: _Pooled, what: str) -> None:
        with self._lock:
            if pooled.generation == self._generation:
                return
        why = "another server replaced the one that answered; documents that only the old one has are lost"
        raise Retry(what, where=self._where, why=why)

    def _return(self, pooled: _Pooled, *, usable: bool) -> None:
        session = pooled.session
        if usable and not session.closed and session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            with self._lock:
                if pooled.generation == self._generation:
                    pooled.idle_since = time.monotonic()
                    self._idle.append(pooled)
                    return
        with contextlib.suppress(psycopg.Error):
            session.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for pooled in idle:
            pooled.session.close()


_SET_LIMIT = "SELECT pg_catalog.set_config('statement_timeout', %s, false)"


def _set_limit(pooled: _Pooled, limit: int) -> None:
    pooled.session.execute(_SET_LIMIT, (f"{limit}ms",))
    pooled.limit = limit  # only now: a failure leaves the old limit
