"""Compiles the partials of a read model. `relation_partials.py` and `grouped_partials.py` have the differences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from syncer.declaration.binding import Node
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import CombinedField, Compiled, Lookup, Partials, TableUse
from syncer.declaration.form import Many
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model
from syncer.declaration.names import quote
from syncer.declaration.partial_keys import HIGH, LOW, division, link
from syncer.declaration.partial_states import PartialField, States, rows_of
from syncer.declaration.render_sql import Document, render, sorted_rows
from syncer.declaration.scope import Aliases, Scope
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.errors import Fatal


class PartialCompiler(ABC):
    """Compiles the partials of one read model. node: of the divided rows, a relation or the grouped root itself."""

    def __init__(self, model: Model, root: Node, node: Node, catalog: Catalog) -> None:
        self._model, self._root, self._node, self._catalog = model, root, node, catalog
        self._errors: list[Fatal] = []

    def compile(self, compiled: Compiled) -> Compiled:
        """Returns the read model with its partials. Raises Fatal with every mistake."""
        scope = Scope(Aliases(self._catalog))
        states, order = self._states(scope)
        document = self._root_document({field.name for field in states.fields})
        if self._errors:
            raise together(self._errors)
        given = division(self._node)
        sql: dict[str, Any] = self._statements(document, self._bucket_document(scope, states))
        key, types = (*compiled.key, "bucket"), (*compiled.key_types, "bigint")
        parts = replace(compiled, key=key, key_types=types, table_uses=tuple(self._uses()), group=(), **sql)
        return replace(
            compiled,
            partials=Partials(
                parts,
                tuple(states.by_name.get(name, CombinedField(name, "", 0)) for name in order),
                self._every_partial(),
                ".".join(self._node.path) or "root",
                self._node.table.name,
                self._link(),
                given.by,
                given.size,
            ),
        )

    def _link(self) -> tuple[str, ...]:
        """Returns what precedes the bucket column in an index that leads to one bucket."""
        return link(self._node)

    @abstractmethod
    def _field(self, scope: Scope, states: States, name: str) -> PartialField:
        """Returns what writes the states of a field over buckets."""

    @abstractmethod
    def _bucket(self, scope: Scope) -> str:
        """Returns the alias of the row that has the bounds `LOW` and `HIGH` of the bucket."""

    @abstractmethod
    def _bucket_document(self, scope: Scope, states: States) -> str:
        """Returns the SELECT of the states of one bucket."""

    @abstractmethod
    def _statements(self, document: Document, bucket: str) -> dict[str, str]:
        """Returns the statements on partials by their names in `Compiled`."""

    @abstractmethod
    def _uses(self) -> Iterator[TableUse]:
        """Yields the uses of tables, with look-ups from changed rows to keys of partials."""

    @abstractmethod
    def _every_partial(self) -> Lookup:
        """Returns the look-up from a document's key to the keys of the root partial and of all buckets with rows."""

    def _states(self, scope: Scope) -> tuple[States, list[str]]:
        """Returns the aggregates over buckets, and the names of all fields of the document in their order."""
        states, order = States(), []
        self._limit_scans(scope)
        scope.scan(self._root)
        for name, entry in self._model.declaration.document.items():
            order.append(name)
            try:
                if isinstance(entry, str):
                    self._field(scope, states, name).add(entry)
                elif isinstance(entry, Many) and entry.partials:
                    states.add_list(name, entry.limit or 0, *sorted_rows(self._model, scope, self._node, name, entry))
            except UnsupportedExpression as error:
                if not error.follows:
                    where = self._model.at(("document", name))
                    self._errors.append(Fatal(error.what, where=where, hint=error.hint))
        if not states.fields and not self._errors:
            self._report(
                f"no field is an aggregate of {rows_of(self._node)}",
                f"write a field such as `rows: count({'.'.join(self._node.path) or '*'})`, or remove `partials`",
            )
        return states, order

    def _limit_scans(self, scope: Scope) -> None:
        """Limits each scan of the divided rows to the rows of the bucket."""
        by = quote(division(self._node).by)

        def bounds(alias: str) -> str:
            asked = self._bucket(scope)
            return f"{alias}.{by} >= {asked}.{LOW} AND {alias}.{by} <= {asked}.{HIGH}"

        scope.aliases.bounds[self._node] = bounds

    def _root_document(self, combined: Collection[str]) -> Document:
        """Returns the document without its combined fields. It must not read the divided rows, except for a group."""
        declaration = self._model.declaration
        rest = {name: entry for name, entry in declaration.document.items() if name not in combined}
        reduced = replace(self._model, declaration=declaration.model_copy(update={"document": rest}))
        used, self._node.used = self._node.used, set()
        document = render(reduced, self._root, self._catalog, self._errors)
        read = document.is_aggregated if self._node is self._root else bool(self._node.used)
        self._node.used |= used
        if read:
            self._report(
                f"a nested or computed field uses {rows_of(self._node)}, whose aggregates are combined from partials",
                "write each aggregate alone, as a field at the top of the document",
            )
        return document

    def _report(self, what: str, hint: str, place: Sequence[str | int] = ("partials",)) -> None:
        self._errors.append(Fatal(what, where=self._model.at((*self._node.place, *place)), hint=hint))
