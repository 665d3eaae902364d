"""Detects changes that no change event reports. Documents are rendered again then (`monitors/rerender.py`).

    tables altered        The state of the tables differs from the saved one (`checks/table_state.py`).
    connector resumed     Rows may be lost (`monitors/connector_resumes.py`).

Both are saved for each generation before its first document is rendered. The daemon compares when it opens a read
model, and while it runs. If it detects a difference, it writes work items. Only then does it save the new state. So
alterations are detected even if no daemon ran, and a daemon that is killed starts over.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
import structlog

from syncer.checks import table_state
from syncer.checks.table_state import Alteration, TableState
from syncer.config.schema import Config
from syncer.errors import Retry
from syncer.events import TableName
from syncer.monitors.connector_resumes import Resumed, Resumes
from syncer.monitors.rerender import RESUMED, Refresh
from syncer.pacing import Waiter
from syncer.ports import Rows, WritableSink
from syncer.postgres import table_state as catalog_state
from syncer.postgres.publication import OpenTransactions, wait_for_open_transactions
from syncer.registry import loader
from syncer.registry.loader import LoadedModel
from syncer.registry.names import Names
from syncer.registry.records import HandledTables, Outgrown, Registration, RenderBasis, WeakIdentity
from syncer.registry.registry import Registry

log = structlog.get_logger()


class Outcome(NamedTuple):
    """The result of a comparison."""

    reason: str = ""
    """Why a render of all roots was scheduled, one of `telemetry.spec.REFRESHES`; empty if none was."""
    later: bool = False
    """Another render is due, after the work items of the last one are finished."""


class TableAlterations:
    """Compares the tables and the connector with the saved ones, for one generation of a read model."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        registration: Registration,
        names: Names,
        loaded: LoadedModel,
    ) -> None:
        self.config, self.registry, self.registration, self.loaded = config, registry, registration, loaded
        self._key = RenderBasis.key(registration.id)
        self._resumes = Resumes(config, registry, registration)
        self._refresh = Refresh(registry, registration, names, config.pipeline.max_age)

    def save_initial_state(self, *, new: bool) -> None:
        """Saves the state on which all documents depend, before the first of them is rendered.

        new: no document of this generation has been rendered yet.
        """
        with loader.catalog_session(self.config) as connection:
            if new:
                self._resumes.save_initial_state(connection)
            if self._saved() is None:
                self._save(self._read(connection))

    def render_again(self, rows: Rows, size: int, wait: Waiter) -> Outcome:
        """Schedules renders if documents may be wrong.

        size: roots in a range.

        If a connector resumes repeatedly, the next render waits for the last one. Altered tables do not wait.
        Raises Retry when a server is unavailable, or while a table is being altered.
        """
        with loader.catalog_session(self.config) as connection:
            resumed = self._resumes.check(connection)
            saved, now = self._saved() or {}, self._read(connection)
            altered = None if now == saved else table_state.compare(saved, now, catalog_state.filled(connection, now))
        again = bool(resumed and resumed.why)
        if again and not altered and self._refresh.left():
            self._save_changed(now, saved)
            return Outcome(later=True)
        reason = ""
        if altered or again:
            reason = self._schedule(rows, size, altered, resumed if again else None, wait)
        self._save_changed(now, saved)
        if resumed:
            self._resumes.save(resumed.reader)
        return Outcome(reason)

    def _schedule(
        self, rows: Rows, size: int, altered: Alteration | None, resumed: Resumed | None, wait: Waiter
    ) -> str:
        """Writes the work items. Returns why all documents are rendered again; empty if only those of recent rows."""
        why = "; ".join(found.why for found in (altered, resumed) if found)
        proved = resumed.proved if resumed and not altered else None
        event = "re-rendering documents of recent rows" if proved else "re-rendering all documents"
        log.warning(event, model=self.loaded.name, why=why)
        found_ms = time.time_ns() // 1_000_000
        if resumed or (altered and altered.unseen):
            self._wait_for_open_transactions(wait)
        if proved:
            compiled = self.loaded.compiled.rendered
            if self._refresh.schedule_recent(rows, compiled, proved, size, why, found_ms, wait):
                return ""
            why = f"{why}; it is not known which rows are recent"
            log.warning("re-rendering all documents", model=self.loaded.name, why=why)
        reason = "altered" if altered else RESUMED
        self._refresh.schedule_all(rows, size, reason, why, found_ms, wait)
        return reason

    def _save_changed(self, now: TableState, saved: Mapping[str, Any]) -> None:
        if now != saved:
            self._save(now)

    def outgrown(self, sinks: Sequence[WritableSink]) -> str:
        """Returns why a resync is due: a sink was built for other column types. Empty if none is due.

        The read model goes on. Documents are rendered from the current tables, so none of them is wrong. A document
        that a sink rejects has a dead letter. If the read model stopped instead, all of its documents would become
        stale. The reason is saved until the types fit again. It is saved with the altered columns, because after
        the next start they are not known any more.
        """
        key = Outgrown.key(self.registration.id)
        texts = [f"{sink.name}: {text}" for sink in sinks for text in sink.outgrown()]
        known = self.registry.state.load().get(key)
        if texts != (known.texts if known else []):
            with loader.catalog_session(self.config) as connection:
                columns = table_state.retyped(self._saved() or {}, self._read(connection))
            known = Outgrown(texts, columns) if texts else None
            self.registry.state.save(key, known)
        why = known.describe(self.loaded.name) if known else ""
        if why:
            log.warning("resync is due", model=self.loaded.name, why=why)
        return why

    def record_handled(self, fingerprint: str) -> None:
        """Records that all work is durable that follows from the tables with this fingerprint."""
        key, found = HandledTables.key(self.registration.id), HandledTables(fingerprint)
        if self.registry.state.load().get(key) != found:
            self.registry.state.save(key, found)

    def _wait_for_open_transactions(self, wait: Waiter) -> None:
        def progress(still: OpenTransactions) -> None:
            log.info("waiting for open transactions", model=self.loaded.name, open=str(still))
            wait.tick()

        with loader.catalog_session(self.config) as connection:
            wait_for_open_transactions(connection, progress=progress)

    def _read(self, connection: psycopg.Connection[Any]) -> TableState:
        used: dict[TableName, frozenset[str]] = {}
        for use in self.loaded.compiled.table_uses:
            used[use.table] = used.get(use.table, frozenset()) | use.used
        found = catalog_state.read(connection, used, self.loaded.publication)
        for table, columns in used.items():
            if not columns <= found["tables"].get(str(table), {"columns": {}})["columns"].keys():
                raise Retry("the tables were altered: compiling the read model again", where=str(table))
        render = hashlib.sha256(self.loaded.compiled.render.encode()).hexdigest()[:16]
        weak = self.registry.state.load().get(WeakIdentity.key(self.registration.id))
        return {**found, "render": render, "weak": weak.token if weak else ""}

    def _saved(self) -> Mapping[str, Any] | None:
        basis = self.registry.state.load().get(self._key)
        return basis.state if basis else None

    def _save(self, now: TableState) -> None:
        self.registry.state.save(self._key, RenderBasis(now))
