"""Changes that no change event tells of: all documents are rendered again.

    tables altered        their shape is another one (`checks/table_state.py`)
    connector resumed     rows may be lost (`monitors/connector_resumes.py`)

Both are noted for each generation before anything is rendered. When the daemon opens a read model, or
detects a difference while it runs, it hands out all roots and a sweep as work items, and only then notes it.
So nothing is missed that came while nothing ran, and a daemon that is killed begins again.
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
from syncer.monitors.rerender import Refresh
from syncer.pacing import Waiter
from syncer.ports import Rows, WritableSink
from syncer.postgres import table_state as rows_shape
from syncer.postgres.publication import Open, wait_for_open_transactions
from syncer.registry import loader
from syncer.registry.loader import LoadedModel
from syncer.registry.names import Names
from syncer.registry.records import Outgrown, Registration, RenderBasis, WeakIdentity
from syncer.registry.registry import Registry

log = structlog.get_logger()


class Outcome(NamedTuple):
    """Of a comparison."""

    reason: str = ""
    """Why all roots were handed out, one of `metrics.REFRESHES`; empty if they were not."""
    later: bool = False
    """There is more to hand out, once the last hand-out is done."""


class TableAlterations:
    """Of one generation of a read model."""

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

    def note_first(self, *, new: bool) -> None:
        """Before the first document is rendered: what all of them rest on. new: none has been rendered."""
        with loader.reading(self.config) as connection:
            if new:
                self._resumes.note_first(connection)
            if self._noted() is None:
                self._note(self._read(connection))

    def render_again(self, rows: Rows, size: int, wait: Waiter) -> Outcome:
        """Hand out all roots if documents may be wrong. size: roots in a range.

        A connector that resumes again and again has one hand-out at a time; altered tables do not wait.
        Raises Retry when a server is unavailable, or a table is altered at this moment.
        """
        with loader.reading(self.config) as connection:
            resumed = self._resumes.look(connection)
            noted, now = self._noted() or {}, self._read(connection)
            altered = None if now == noted else table_state.compare(noted, now, rows_shape.filled(connection, now))
        again = bool(resumed and resumed.why)
        if again and not altered and self._refresh.left():
            self._keep(now, noted)
            return Outcome(later=True)
        if altered or again:
            self._hand_out(rows, size, altered, resumed if again else None, wait)
        self._keep(now, noted)
        if resumed:
            self._resumes.note(resumed.note)
        return Outcome("altered" if altered else "resumed" if again else "")

    def _hand_out(
        self, rows: Rows, size: int, altered: Alteration | None, resumed: Resumed | None, wait: Waiter
    ) -> None:
        why = "; ".join(found.why for found in (altered, resumed) if found)
        log.warning("all documents are rendered again", model=self.loaded.name, why=why)
        found_ms = time.time_ns() // 1_000_000
        if resumed or (altered and altered.unseen):
            self._wait(wait)
        self._refresh.hand_out(rows, size, "altered" if altered else "resumed", why, found_ms, wait)

    def _keep(self, now: TableState, noted: Mapping[str, Any]) -> None:
        if now != noted:
            self._note(now)

    def outgrown(self, sinks: Sequence[WritableSink]) -> str:
        """Why a resync is due although the read model goes on: a sink was built for other types of columns.

        Documents are rendered from the tables as they are, so none of them is wrong. One that a sink refuses
        has a dead letter. To stop instead would let all of them grow old. Remembered until the types fit
        again, with the columns that were altered: these are not known any more after the next start.
        """
        key = Outgrown.key(self.registration.id)
        texts = [f"{sink.name}: {text}" for sink in sinks for text in sink.outgrown()]
        known = self.registry.state.load().get(key)
        if texts != (known.texts if known else []):
            with loader.reading(self.config) as connection:
                columns = table_state.retyped(self._noted() or {}, self._read(connection))
            known = Outgrown(texts, columns) if texts else None
            self.registry.state.save(key, known)
        why = known.describe(self.loaded.name) if known else ""
        if why:
            log.warning("a resync is due", model=self.loaded.name, why=why)
        return why

    def _wait(self, wait: Waiter) -> None:
        def progress(still: Open) -> None:
            log.info("waiting for open transactions", model=self.loaded.name, open=str(still))
            wait.tick()

        with loader.reading(self.config) as own:
            wait_for_open_transactions(own, progress=progress)

    def _read(self, connection: psycopg.Connection[Any]) -> TableState:
        used: dict[TableName, frozenset[str]] = {}
        for place in self.loaded.compiled.occurrences:
            used[place.table] = used.get(place.table, frozenset()) | place.used
        found = rows_shape.read(connection, used, self.loaded.publication)
        for table, columns in used.items():
            if not columns <= found["tables"].get(str(table), {"columns": {}})["columns"].keys():
                raise Retry("the tables were altered: the read model is compiled again", where=str(table))
        render = hashlib.sha256(self.loaded.compiled.render.encode()).hexdigest()[:16]
        weak = self.registry.state.load().get(WeakIdentity.key(self.registration.id))
        return {**found, "render": render, "weak": weak.token if weak else ""}

    def _noted(self) -> Mapping[str, Any] | None:
        basis = self.registry.state.load().get(self._key)
        return basis.state if basis else None

    def _note(self, now: TableState) -> None:
        self.registry.state.save(self._key, RenderBasis(now))
