"""Creates the table of a generation and its view, or accepts those that exist. One transaction for each call.

A lock for the whole schema lets processes do it one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from syncer.errors import Fatal, Retry
from syncer.sinks.postgres import catalog, generations, partials, refusals, views
from syncer.sinks.postgres.columns import OWN
from syncer.sinks.postgres.server import Session
from syncer.sinks.postgres.sessions import Sessions
from syncer.sinks.postgres.settings import PARTIALS
from syncer.sinks.postgres.statements import create_indexes, create_table
from syncer.sinks.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syncer.sinks.postgres.settings import Settings

_ATTEMPTS = 10
_LOCK_TIMEOUT = "1s"
"""While the switch waits for its lock, all later readers wait, too. So it gives up soon and tries again."""
_PAUSE = 0.5
"""Seconds between two attempts."""


class Schema:
    """The relations of one generation. columns: name → type, in the order of the fields.

    partials: whether the generation has a table of partials.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        columns: Mapping[str, str],
        sessions: Sessions,
        *,
        partials: bool = False,
    ) -> None:
        self._settings, self._target, self._columns, self._sessions = settings, target, columns, sessions
        self._partials = settings.partials_of(target.generation) if partials else ""
        self._name = settings.table_of(target.generation)
        self._table = settings.quoted(self._name)

    def prepare(self, *, new: bool) -> None:
        """See `ports.WritableSink.prepare`."""
        with self._sessions.session("cannot prepare the table") as session, self._locked(session):
            generations.create(session, self._settings)
            known = generations.find(session, self._settings)
            self._check_owner(known)
            self._accept_table(session, known.get(self._target.generation), new=new)
            view = views.find(session, self._settings, known)
            for generation, row in known.items():
                if view and view.table == self._settings.table_of(generation):
                    self._target.check_epoch(row.epoch, f"the table {view.table}, which applications read,")
            generations.record(session, self._settings, self._target)
            if view is None:
                self._create_view(session, known)

    def _create_view(self, session: Session, known: Mapping[int, generations.Generation]) -> None:
        """Creates a missing view, over the table that applications read last if it exists. This one can be empty."""
        for generation, row in known.items():
            name = self._settings.table_of(generation)
            found = catalog.relation(session, self._settings.schema_name, name)
            if row.active and name != self._name and found is not None:
                columns = catalog.columns(session, found.oid)
                fields = {name: type for name, type in columns.items() if name not in OWN}
                views.point(session, self._settings, None, name, fields)
                return
        self._point(session, None)

    def _check_owner(self, known: Mapping[int, generations.Generation]) -> None:
        others = sorted({row.model for row in known.values()} - {self._target.model})
        if others:
            what = f"{self._settings.table} belongs to the read model {others[0]}"
            raise Fatal(what, where=self._target.name, hint=views.TAKEN_HINT)

    def _accept_table(self, session: Session, row: generations.Generation | None, *, new: bool) -> None:
        found = catalog.relation(session, self._settings.schema_name, self._name)
        if found is None:
            if not new:
                raise self._target.gone(f"the table {self._table}")
            session.execute(create_table(self._table, self._columns))
            for statement in create_indexes(self._table, self._settings.indexes):
                session.execute(statement)
            self._create_partials(session)
        elif row is None:
            problem = views.unrecorded(session, self._settings, self._name, self._target.model)
            raise Fatal(problem.what, where=self._target.name, why=problem.why, hint=problem.hint)
        else:
            self._target.check_epoch(row.epoch, "the table")
            self._target.check_hash(row.hash)
        if self._partials and catalog.relation(session, self._settings.schema_name, self._partials) is None:
            raise self._target.gone(f"the table {self._settings.quoted(self._partials)}")
        for problem in refusals.table_problems(session, self._settings, [self._name], [self._partials]):
            raise Fatal(problem.what, where=self._target.name, why=problem.why, hint=problem.hint)

    def _create_partials(self, session: Session) -> None:
        """Creates the table of partials with the table of documents. Raises Fatal if it exists without that one."""
        if not self._partials:
            return
        quoted = self._settings.quoted(self._partials)
        if catalog.relation(session, self._settings.schema_name, self._partials) is not None:
            raise Fatal(
                f"the relation {quoted} exists, but the table of its documents does not",
                where=self._target.name,
                why="partials of other documents would be combined",
                hint=f"DROP TABLE {quoted}, or choose another table",
            )
        for statement in partials.create_table(quoted):
            session.execute(statement)

    def activate(self) -> list[str]:
        """See `ports.WritableSink.activate`. The view, its grants and the record change in one transaction."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE)
            try:
                return self._activate()
            except Retry as error:
                if not _is_conflict(error.__cause__):
                    raise
                blocked = error
        raise self._with_holders(blocked)

    def _with_holders(self, blocked: Retry) -> Retry:
        """Returns the error of the last attempt with the sessions that have locks on the view."""
        with self._sessions.session("cannot read the locks of the view") as session:
            holders = [text for (text,) in session.execute(_HOLDERS, (self._settings.schema_name, self._settings.view))]
        if not holders:
            return blocked
        why = f"{blocked.why}; sessions with a lock on {self._settings.table}: {', '.join(holders)}"
        return Retry(blocked.what, where=blocked.where, why=why, hint=_END_HINT)

    def _activate(self) -> list[str]:
        with self._sessions.session("cannot switch the view") as session, self._locked(session):
            session.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            known = generations.find(session, self._settings)
            view = views.find(session, self._settings, known)
            for generation, row in known.items():
                if view and view.table == self._settings.table_of(generation):
                    self._target.check_epoch(row.epoch, f"the table {view.table}, which applications read,")
            if view is None or view.table != self._name:
                self._point(session, view)
            tables = [self._settings.table_of(one) for one in known if one < self._target.generation]
            others = [name for table in tables for name in (table, f"{table}{PARTIALS}")]
            return [name for name in others if catalog.relation(session, self._settings.schema_name, name)]

    def _point(self, session: Session, view: views.View | None) -> None:
        views.point(session, self._settings, view, self._name, self._columns)
        generations.activate(session, self._settings, self._target.generation)

    @contextmanager
    def _locked(self, session: Session) -> Iterator[None]:
        with session.transaction():
            session.execute(_LOCK, (f"syncer {self._settings.schema_name}",))
            yield


def _is_conflict(cause: BaseException | None) -> bool:
    """Returns whether another transaction was in the way, so that a further attempt can succeed."""
    if isinstance(cause, psycopg.errors.InternalError_):  # a GRANT at the same time; it has no SQLSTATE of its own
        return "tuple concurrently" in str(cause)
    kinds = psycopg.errors
    return isinstance(cause, kinds.LockNotAvailable | kinds.DeadlockDetected | kinds.QueryCanceled)


_END_HINT = "wait for these transactions, or end them: SELECT pg_terminate_backend(PID)"
_HOLDERS = """
SELECT DISTINCT format('PID %%s of %%s', a.pid, coalesce(a.usename, 'an unknown role'))
  FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
  JOIN pg_catalog.pg_class c ON c.oid = l.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE l.granted AND n.nspname = %s AND c.relname = %s
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) ORDER BY 1"""
_LOCK = "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))"
