"""Tables that were altered so that documents may be wrong without any change event: all are rendered again.

The shape of the tables (`shape.py`) is noted for each generation before anything is rendered. When the
daemon opens a read model and finds another one, it hands out all roots and a sweep as work items, and only
then notes it; so nothing is missed that came while nothing ran, and a daemon that is killed begins again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import structlog

from syncer import load, shape
from syncer.change import TableName
from syncer.config import Config
from syncer.errors import Retry
from syncer.gate import lasting
from syncer.load import Loaded
from syncer.planning import ranges, sweeps
from syncer.ports import Rows, Sink
from syncer.registry import Registry, told_outgrown
from syncer.rows import shape as rows_shape
from syncer.rows.publication import Open, wait_for_open_transactions
from syncer.shape import Altered, Shape
from syncer.sources.state import Registration
from syncer.sources.writing import KafkaWork
from syncer.waiting import Patience

log = structlog.get_logger()


class Alterations:
    """Of one generation of a read model."""

    def __init__(
        self, config: Config, registry: Registry, registration: Registration, loaded: Loaded
    ) -> None:
        self.config, self.registry, self.registration, self.loaded = config, registry, registration, loaded
        self._key = registration.key("shape")

    def note_first(self) -> None:
        """Before the first document is rendered: what all of them rest on."""
        if self._noted() is None:
            with load.reading(self.config) as connection:
                self._note(self._read(connection))

    def render_again(self, rows: Rows, work: KafkaWork, size: int, wait: Patience) -> Altered | None:
        """Hand out all roots, in ranges of so many, if documents may be wrong. Raises Retry when a server is
        away, or a table is altered at this moment."""
        with load.reading(self.config) as connection:
            noted, now = self._noted() or {}, self._read(connection)
            if now == noted:
                return None
            found = shape.compare(noted, now, rows_shape.filled(connection, now))
        if found:
            log.warning("all documents are rendered again", model=self.loaded.name, why=found.why)
            if found.unseen:
                self._wait(wait)
            for item in sweeps("altered", time.time_ns() // 1_000_000, self.config.pipeline.max_age):
                work.put(item)
            for item in lasting(rows, lambda view: ranges(view, size, "altered"), wait):
                work.put(item)
                wait.breathe()
            work.flush()
        self._note(now)
        return found

    def outgrown(self, sinks: Sequence[Sink]) -> str:
        """Why a resync is due although the read model goes on: a sink was built for other types of columns.

        Documents are rendered from the tables as they are, so none of them is wrong. One that a sink refuses
        has a dead letter. To stop instead would let all of them grow old. Remembered until the types fit
        again, with the columns that were altered: these are not known any more after the next start.
        """
        key = self.registration.key("outgrown")
        texts = [f"{sink.name}: {text}" for sink in sinks for text in sink.outgrown()]
        known = self.registry.state.load().get(key, {})
        if texts != known.get("texts", []):
            with load.reading(self.config) as connection:
                columns = shape.retyped(self._noted() or {}, self._read(connection))
            known = {"texts": texts, "columns": columns} if texts else {}
            self.registry.state.save(key, known)
        why = told_outgrown(known, self.loaded.name)
        if why:
            log.warning("a resync is due", model=self.loaded.name, why=why)
        return why

    def _wait(self, wait: Patience) -> None:
        def progress(still: Open) -> None:
            log.info("waiting for open transactions", model=self.loaded.name, open=str(still))
            wait.breathe()

        with load.reading(self.config) as own:
            wait_for_open_transactions(own, progress=progress)

    def _read(self, connection: psycopg.Connection[Any]) -> Shape:
        used: dict[TableName, frozenset[str]] = {}
        for place in self.loaded.compiled.occurrences:
            used[place.table] = used.get(place.table, frozenset()) | place.used
        found = rows_shape.read(connection, used, self.loaded.publication)
        for table, columns in used.items():
            if not columns <= found["tables"].get(str(table), {"columns": {}})["columns"].keys():
                raise Retry("the tables were altered: the read model is compiled again", where=str(table))
        render = hashlib.sha256(self.loaded.compiled.render.encode()).hexdigest()[:16]
        weak = self.registry.state.load().get(self.registration.key("weak"), {}).get("token", "")
        return {**found, "render": render, "weak": weak}

    def _noted(self) -> Mapping[str, Any] | None:
        return self.registry.state.load().get(self._key)

    def _note(self, now: Shape) -> None:
        self.registry.state.save(self._key, now)
