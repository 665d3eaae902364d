"""Compiles combined partials: the aggregates over a very large relation are rendered for one bucket of rows at a time.

A document with partials has these parts:

* one partial for each bucket of the relation's rows: the aggregates over the rows of this bucket;
* the root partial: the rest of the document, from the root row. It also says whether the root exists, and whether
  `where` excludes it.

`Partials.parts` is a compiled read model whose documents are the partials. Its key is the key of the root, followed by
the number of the bucket. So the lanes render, version and sweep partials in the same way as documents. The sinks store
partials where readers do not see them, and `pipeline/combine.py` writes the document that readers see.

A bucket's partial does not depend on the root row, not even on its existence. It depends on the rows whose link has
the root's key. So a change of the root row makes only the root partial dirty. A row that is inserted or deleted makes
all its partials dirty, because a sink may not know the partials of a root that did not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from syncer.declaration.binding import Node
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import CombinedField, Compiled, Partials
from syncer.declaration.form import Many
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model
from syncer.declaration.names import quote
from syncer.declaration.partial_keys import HIGH, LOW, division, link
from syncer.declaration.partial_lookups import LookupOf, Lookups, UseOf
from syncer.declaration.partial_mistakes import mistakes_of
from syncer.declaration.partial_statements import statements
from syncer.declaration.partial_states import PartialField, States
from syncer.declaration.render_sql import Document, render, sorted_rows
from syncer.declaration.scope import Aliases, Scope
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.errors import Fatal


def with_partials(
    compiled: Compiled,
    model: Model,
    root: Node,
    catalog: Catalog,
    *,
    lookup: LookupOf,
    table_use: UseOf,
) -> Compiled:
    """Returns the read model with its partials, or unchanged if no relation declares them.

    Raises Fatal with every mistake.
    """
    nodes = [node for node in root.walk() if node.partials]
    if not nodes:
        return compiled
    return _Compiler(model, root, nodes, catalog, lookup, table_use).compile(compiled)


class _Compiler:
    def __init__(
        self,
        model: Model,
        root: Node,
        nodes: Sequence[Node],
        catalog: Catalog,
        lookup: LookupOf,
        table_use: UseOf,
    ) -> None:
        self._model, self._root, self._nodes, self._catalog = model, root, nodes, catalog
        self._node = nodes[0]
        self._lookups = Lookups(root, self._node, catalog, lookup, table_use)
        self._errors: list[Fatal] = []

    def compile(self, compiled: Compiled) -> Compiled:
        if mistakes := mistakes_of(self._model, self._root, self._nodes):
            raise together(mistakes)
        scope = Scope(Aliases(self._catalog))
        states, order = self._states(scope)
        document = self._root_document({field.name for field in states.fields})
        if self._errors:
            raise together(self._errors)
        bucket = self._bucket_document(scope, states)
        node, given = self._node, division(self._node)
        sql: dict[str, Any] = statements(self._root, node, document, bucket)
        key, types = (*compiled.key, "bucket"), (*compiled.key_types, "bigint")
        parts = replace(compiled, key=key, key_types=types, table_uses=tuple(self._lookups.uses()), **sql)
        return replace(
            compiled,
            partials=Partials(
                parts,
                tuple(states.by_name.get(name, CombinedField(name, "", 0)) for name in order),
                self._lookups.every_partial(),
                ".".join(node.path),
                node.table.name,
                link(node),
                given.by,
                given.size,
            ),
        )

    # -- the two kinds of partials ----------------------------------------------------------------------

    def _states(self, scope: Scope) -> tuple[States, list[str]]:
        """Returns the aggregates over buckets, and the names of all fields of the document in their order."""
        states = States()
        self._bounded(scope)
        scope.scan(self._root)
        below = set(self._node.walk())
        others = {node: node.used for node in self._root.walk() if node not in below}
        for node in others:
            node.used = set()
        order = []
        for name, entry in self._model.declaration.document.items():
            order.append(name)
            try:
                if isinstance(entry, str):
                    PartialField(scope, self._root, self._node, states, name).add(entry)
                elif isinstance(entry, Many) and entry.partials:
                    states.add_list(name, entry.limit or 0, *sorted_rows(self._model, scope, self._node, name, entry))
            except UnsupportedExpression as error:
                if not error.follows:
                    where = self._model.at(("document", name))
                    self._errors.append(Fatal(error.what, where=where, hint=error.hint))
        key = set(self._root.table.primary_key)
        foreign = {name for node in others for name in node.used - (key if node is self._root else set())}
        for node, used in others.items():
            node.used |= used
        if foreign:
            self._report(
                self._node,
                f"an aggregate of {self._node.path[-1]} depends on rows above it: {', '.join(sorted(foreign))}",
                "use only columns of the relation and of its own relations",
                (),
            )
        if not states.fields and not self._errors:
            self._report(
                self._node,
                f"no field is an aggregate of {self._node.path[-1]}",
                f"write a field such as `rows: count({self._node.path[-1]})`, or remove `partials`",
            )
        if self._node.order and states.fields and not self._errors and not any(field.order for field in states.fields):
            self._report(
                self._node,
                "`order_by` has no effect: no combined field depends on the order of the rows",
                "remove `order_by`",
                ("order_by",),
            )
        return states, order

    def _bounded(self, scope: Scope) -> None:
        """Limits each scan of the relation to the rows of the bucket."""
        root, by = self._root, quote(division(self._node).by)

        def bounds(alias: str) -> str:
            asked = scope.alias(root)
            return f"{alias}.{by} >= {asked}.{LOW} AND {alias}.{by} <= {asked}.{HIGH}"

        scope.aliases.bounds[self._node] = bounds

    def _root_document(self, combined: set[str]) -> Document:
        """Returns the document without its combined fields. It must not read the divided relation."""
        declaration = self._model.declaration
        rest = {name: entry for name, entry in declaration.document.items() if name not in combined}
        reduced = replace(self._model, declaration=declaration.model_copy(update={"document": rest}))
        used, self._node.used = self._node.used, set()
        document = render(reduced, self._root, self._catalog, self._errors)
        read = bool(self._node.used)
        self._node.used |= used
        if read:
            self._report(
                self._node,
                f"a nested or computed field uses {self._node.path[-1]}, whose aggregates are combined from partials",
                "write each aggregate alone, as a field at the top of the document",
            )
        return document

    def _bucket_document(self, scope: Scope, states: States) -> str:
        shown = f"pg_catalog.json_build_array({', '.join(states.items)})"
        return f"SELECT {shown}::pg_catalog.text AS doc{scope.joined(alone=True)}"

    def _report(self, node: Node, what: str, hint: str, place: Sequence[str | int] = ("partials",)) -> None:
        self._errors.append(Fatal(what, where=self._model.at((*node.place, *place)), hint=hint))
