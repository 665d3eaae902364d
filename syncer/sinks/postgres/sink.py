"""The PostgreSQL sink: one table per generation behind the view that applications read.

`NAME_000001` is the table of generation 1. Each document is a row with typed columns. Each delete is a row that the
view leaves out. It is removed when the delete may be forgotten. A statement writes up to 1,000 documents and skips
those with a newer version. If the read model has partials, they are in the table `NAME_000001_partials`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from syncer.declaration.compile import Compiled
from syncer.document import Batch, Outcome
from syncer.ports import DurabilityToken, PublishedWatermark
from syncer.sinks.chunks import pages
from syncer.sinks.partials import StoresPartials
from syncer.sinks.postgres import catalog, columns, generations, partials
from syncer.sinks.postgres.durability import Durability, purge
from syncer.sinks.postgres.partials import PostgresPartials
from syncer.sinks.postgres.schema import Schema
from syncer.sinks.postgres.sessions import Sessions
from syncer.sinks.postgres.settings import Connection, Settings
from syncer.sinks.postgres.statements import Statements
from syncer.sinks.postgres.writer import Writer, id_problem
from syncer.sinks.target import Target

_PAGE = 5000
_PAGE_BY_ID = 500
_PUBLISH_TIMEOUT = 5.0
_TOKEN_TIMEOUT = 30.0


class PostgresSink(StoresPartials):
    """Implements `ports.Sink` over one table. Safe to share between threads."""

    in_place = False
    _partials: PostgresPartials | None

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        *,
        model: Compiled,
        epoch: int = 1,
        generation: int = 1,
    ) -> None:
        self.name = f"postgres:{settings.table}"
        self._settings = settings
        self._model = model
        self._generation = generation
        self._table = settings.table_of(generation)
        self._target = Target.of(self.name, model, epoch, generation)
        types = columns.types(settings.columns, model.fields)
        self._canonical = columns.Canonical(types)
        self._statements = Statements(settings.quoted(self._table), types)
        self._sessions = Sessions(connection, self.name, self._target.resync)
        self._schema = Schema(settings, self._target, types, self._sessions, partials=model.partials is not None)
        marks = {self._table: self._statements.mark}
        self._partials = None
        if model.partials:
            name = settings.partials_of(generation)
            statements = partials.Statements(settings.quoted(name), settings.tombstone)
            marks[name] = statements.mark
            self._partials = PostgresPartials(statements, self._target, self._sessions)
        self._durability = Durability(settings, marks, self._target)
        self._writer = Writer(self._statements, self._target, self._sessions)

    def prepare(self, *, new: bool = True) -> None:
        """Creates the table and its view, or accepts an existing table of this read model."""
        self._schema.prepare(new=new)

    def outgrown(self) -> list[str]:
        """Compares the fields with the columns that the table has now."""
        with self._sessions.session("cannot read the columns") as session:
            found = catalog.relation(session, self._settings.schema_name, self._table)
            actual = catalog.columns(session, found.oid) if found else {}
        return columns.outgrown(actual, self._model.fields) if found else []

    def activate(self) -> list[str]:
        """Points the view at this generation's table."""
        return [f"{self._settings.schema_name}.{name}" for name in self._schema.activate()]

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        return self._writer.write(batch, timeout)

    def durability(self) -> DurabilityToken:
        """Also forgets old deletes, which applications cannot see."""
        with self._sessions.session("cannot read the durability token", _TOKEN_TIMEOUT) as session:
            token = self._durability.read(session)
            all_forgotten = purge(session, self._statements, self._settings.tombstone)
            if self._partials and all_forgotten:  # partials must not be forgotten before the delete of their document
                self._partials.purge(session)
        return token

    def remember(self, token: DurabilityToken) -> None:
        """See `ports.RememberingSink`."""
        self._durability.remember(token)

    def publish(self, watermark: PublishedWatermark) -> None:
        with self._sessions.session("cannot publish the watermark", _PUBLISH_TIMEOUT) as session:
            generations.publish(session, self._settings, watermark)

    def published(self) -> PublishedWatermark | None:
        with self._sessions.session("cannot read the watermark") as session:
            return generations.published(session, self._settings, self._generation)

    def ids(self, since: str = "") -> Iterator[str]:
        """Yields every id, page by page in their order."""
        last = ""
        while True:
            with self._sessions.session("cannot list the ids") as session:
                page = session.execute(self._statements.ids, (last, _PAGE)).fetchall()
            yield from (id for (id,) in page)
            if len(page) < _PAGE:
                return
            [last] = page[-1]

    def read(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Returns the documents as the columns show them, as `normalize` does."""
        found = self._select(self._statements.read, ids)
        texts = ((id, self._canonical.text(text)) for id, text in found)
        return {id: text for id, text in texts if text is not None}

    def versions(self, ids: Sequence[str]) -> dict[str, int]:
        return dict(self._select(self._statements.versions, ids))

    def _select(self, statement: str, ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
        possible = [id for id in ids if not id_problem(id)]
        for page in pages(possible, _PAGE_BY_ID):
            with self._sessions.session("cannot read documents") as session:
                rows = session.execute(statement, (page,)).fetchall()
            yield from rows

    def normalize(self, body: bytes) -> bytes | None:
        return self._canonical.text(body)

    def count(self) -> int:
        with self._sessions.session("cannot count the documents") as session:
            [count] = session.execute(self._statements.count).fetchall()[0]
        return int(count)

    def expired(self, ids: Sequence[str], rendered: float) -> set[str]:
        """Returns nothing: PostgreSQL removes no document by itself."""
        return set()

    def close(self) -> None:
        self._sessions.close()


SINK = PostgresSink
