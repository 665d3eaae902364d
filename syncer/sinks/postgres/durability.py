"""Reads the durability token of a generation: of the table of documents, and of the one of partials if there is one.

Acknowledged commits are on disk (`synchronous_commit` and `fsync` are checked), so neither a crash nor a restart loses
anything. These events do:

- Another server, a restored copy, or a standby that was promoted before it had received all commits. The system
  identifier or the timeline changes.
- The table was dropped and created again, for example from a dump. Its oid changes.
- `TRUNCATE`, or a `DELETE` of all rows. The mark is gone: a row with an empty id and a random number as its version.
- The rows were replaced by those of a dump, with the mark among them. The mark's `xmin` changes.
- A disk snapshot was restored, and the server recovered as after a crash. The position in the WAL goes backwards, and
  the mark gets a new number.

The file number of a table (`relfilenode`) also shows `TRUNCATE`. But `VACUUM FULL` changes it and loses nothing. It
keeps `xmin`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping

from syncer.errors import Fatal
from syncer.ports import DurabilityToken
from syncer.sinks.postgres import catalog
from syncer.sinks.postgres.server import Session, check_fsync
from syncer.sinks.postgres.sessions import IDENTITY
from syncer.sinks.postgres.settings import Settings
from syncer.sinks.postgres.statements import Mark, Statements
from syncer.sinks.target import Target

PURGED = 5000
"""Deletes that one call forgets at most."""
_SERVER = f"""
SELECT pg_catalog.concat_ws('.', i.system, i.timeline,
       (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())),
       pg_catalog.pg_current_wal_flush_lsn() - '0/0'::pg_lsn, pg_catalog.current_setting('fsync')
  FROM ({IDENTITY}) AS i"""
"""The position up to which WAL is on disk. A crash never takes it back, unlike the insert position."""


class Durability:
    """Reads the token, and remembers the highest position in the WAL. Safe to share between threads.

    marks: by the name of each table.
    """

    def __init__(self, settings: Settings, marks: Mapping[str, Mark], target: Target) -> None:
        self._settings, self._marks, self._target = settings, marks, target
        self._seen = DurabilityToken("", "")
        self._lock = threading.Lock()

    def remember(self, token: DurabilityToken) -> None:
        """Takes over a token that another object has read, for example before a restart of the daemon."""
        if token.written.isdecimal():
            self._raise_position(token)

    def read(self, session: Session) -> DurabilityToken:
        """Returns the token, and creates a missing mark. `written` is the position in the WAL.

        Raises Fatal if a table is missing, or if a crash may empty it or lose commits.
        """
        before = self._seen  # read first: another thread may raise it while this one waits for the server
        oids = [self._permanent(session, name, mark.table) for name, mark in self._marks.items()]
        [server, position, fsync] = session.execute(_SERVER).fetchall()[0]
        check_fsync(fsync, self._target.name)

        def documents() -> str:
            marks = zip(oids, self._marks.values(), strict=True)
            return ".".join((server, *(f"{oid}.{_read(session, mark)}" for oid, mark in marks)))

        token = DurabilityToken("", documents(), str(position))
        if before.documents == token.documents and int(position) < int(before.written):
            for mark in self._marks.values():
                session.execute(mark.renew, (secrets.randbits(62),))
            token = token._replace(documents=documents())
        self._raise_position(token)
        return token

    def _permanent(self, session: Session, name: str, quoted: str) -> int:
        """Returns the oid of a table. Raises Fatal if it is missing or UNLOGGED."""
        found = catalog.relation(session, self._settings.schema_name, name)
        if found is None:
            raise self._target.gone(f"the table {quoted}")
        if found.persistence != "p":
            why, hint = "PostgreSQL empties it after a crash", f"ALTER TABLE {quoted} SET LOGGED"
            raise Fatal(f"the table {quoted} is UNLOGGED", where=self._target.name, why=why, hint=hint)
        return found.oid

    def _raise_position(self, token: DurabilityToken) -> None:
        with self._lock:
            if token.documents != self._seen.documents or int(token.written) > int(self._seen.written):
                self._seen = token


def _read(session: Session, mark: Mark) -> str:
    """Returns the number of a mark and the transaction that wrote it. Creates a missing mark."""
    for _ in range(2):
        for version, xmin in session.execute(mark.read):
            return f"{version}.{xmin}"
        session.execute(mark.create, (secrets.randbits(62),))
    return ""


def purge(session: Session, statements: Statements, tombstone: float) -> bool:
    """Forgets deletes that are older than the given number of seconds. Returns whether these were all of them.

    The mark's time is infinite.
    """
    return session.execute(statements.purge, (tombstone, PURGED)).rowcount < PURGED
