"""Compiles the partials of a relation of the root row.

A bucket's partial does not depend on the root row, not even on its existence. It depends on the rows whose link has
the root's key. So a change of the root row makes only the root partial dirty. A row that is inserted or deleted makes
all its partials dirty, because a sink may not know the partials of a root that did not exist. The root partial also
shows whether `where` excludes the root row.
"""

from __future__ import annotations

from collections.abc import Iterator

from syncer.declaration.binding import Node
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import Lookup, TableUse
from syncer.declaration.model import Model
from syncer.declaration.partial_compiler import PartialCompiler
from syncer.declaration.partial_lookups import LookupOf, Lookups, UseOf
from syncer.declaration.partial_statements import RelationStatements
from syncer.declaration.partial_states import PartialField, States
from syncer.declaration.render_sql import Document
from syncer.declaration.scope import Scope


class RelationPartials(PartialCompiler):
    """Compiles the partials of a read model whose relation `node` is divided."""

    def __init__(
        self, model: Model, root: Node, node: Node, catalog: Catalog, *, lookup: LookupOf, table_use: UseOf
    ) -> None:
        super().__init__(model, root, node, catalog)
        self._lookups = Lookups(root, node, catalog, lookup, table_use)

    def _field(self, scope: Scope, states: States, name: str) -> PartialField:
        return PartialField(scope, self._root, self._node, states, name)

    def _bucket(self, scope: Scope) -> str:
        return scope.alias(self._root)

    def _bucket_document(self, scope: Scope, states: States) -> str:
        return f"SELECT {states.sql}::pg_catalog.text AS doc{scope.joined(alone=True)}"

    def _statements(self, document: Document, bucket: str) -> dict[str, str]:
        return RelationStatements(self._root, self._node, document, bucket).all()

    def _uses(self) -> Iterator[TableUse]:
        return self._lookups.uses()

    def _every_partial(self) -> Lookup:
        return self._lookups.every_partial()

    def _states(self, scope: Scope) -> tuple[States, list[str]]:
        below = set(self._node.walk())
        others = {node: node.used for node in self._root.walk() if node not in below}
        for node in others:
            node.used = set()
        states, order = super()._states(scope)
        key = set(self._root.table.primary_key)
        foreign = {name for node in others for name in node.used - (key if node is self._root else set())}
        for node, used in others.items():
            node.used |= used
        if foreign:
            self._report(
                f"an aggregate of {self._node.path[-1]} depends on rows above it: {', '.join(sorted(foreign))}",
                "use only columns of the relation and of its own relations",
                (),
            )
        if self._node.order and states.fields and not self._errors and not any(field.order for field in states.fields):
            self._report(
                "`order_by` has no effect: no combined field depends on the order of the rows",
                "remove `order_by`",
                ("order_by",),
            )
        return states, order
