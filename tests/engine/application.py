"""The application's sessions on a PostgreSQL whose commits may stay invisible for long."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import pq

from tests.engine.statements import Savepoint, Statement, Step

OPTIONS = "-c lock_timeout=10 -c synchronous_commit=local -c timezone=UTC"
"""Sessions do not wait for locks: the holder of a lock waits for the test itself."""


class Session:
    """One session. Between a late commit and `release`, the commit is in WAL, and no snapshot sees it.

    It waits for a synchronous standby that does not exist.
    """

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, options=OPTIONS)
        self.late = False

    @property
    def open(self) -> bool:
        return self.connection.pgconn.transaction_status != pq.TransactionStatus.IDLE

    def begin(self) -> None:
        if not self.open:
            self.connection.execute("BEGIN")

    def run(self, step: Step) -> None:
        """Runs a step. Undoes the step alone if it fails."""
        self.connection.execute("SAVEPOINT step")
        try:
            self._run(step)
        except psycopg.Error:
            self.connection.execute("ROLLBACK TO step")
        self.connection.execute("RELEASE step")

    def _run(self, step: Step) -> None:
        if isinstance(step, Statement):
            self.connection.execute(step.sql.encode())
        elif isinstance(step, Savepoint):
            self.connection.execute("SAVEPOINT s")
            for statement in step.statements:
                self.run(statement)
            if step.undone:
                self.connection.execute("ROLLBACK TO s")
            self.connection.execute("RELEASE s")

    def end(self, how: str, admin: psycopg.Connection[Any]) -> None:
        """Ends the transaction. how: one of `ENDS`."""
        if "asynchronous" in how:
            self.connection.execute("SET LOCAL synchronous_commit = off")
        if "late" not in how:
            self.connection.execute("ROLLBACK" if how == "ROLLBACK" else "COMMIT")
            return
        self.connection.execute("SET LOCAL synchronous_commit = on")
        pgconn = self.connection.pgconn
        pgconn.send_query(b"COMMIT")
        while not (self._answered() or self._waits(admin)):  # each check is a round trip
            pass
        self.late = bool(pgconn.is_busy())
        if not self.late:
            self._read()

    def _answered(self) -> bool:
        """Whether COMMIT has returned. It returns at once if the transaction wrote nothing."""
        self.connection.pgconn.consume_input()
        return not self.connection.pgconn.is_busy()

    def _waits(self, admin: psycopg.Connection[Any]) -> bool:
        """Whether COMMIT waits for the standby."""
        query = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        return admin.execute(query, [self.connection.info.backend_pid]).rowcount == 1

    def release(self, admin: psycopg.Connection[Any]) -> None:
        """Makes a late commit visible, as if the standby had answered."""
        self.late = False
        admin.execute("SELECT pg_cancel_backend(%s)", [self.connection.info.backend_pid])
        self._read()

    def _read(self) -> None:
        while (result := self.connection.pgconn.get_result()) is not None:
            assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message

    def close(self) -> None:
        self.connection.close()
