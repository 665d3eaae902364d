"""Compiles the partials of a grouped root: the rows of each group are divided into buckets.

A change makes the bucket of its row dirty, and the root partial of the group. The root partial reads whether the group
has any row, so it must be rendered after each change that may have added the first row or removed the last one. All
changes are rendered in a snapshot that sees them. So after the last change of a group, its root partial is right.

A group without rows has a deleted root partial, and a sink may forget all partials of this group after a while. When a
row brings the group back, no other bucket has rows that the sink does not know: each of them had a change, too.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

from syncer.declaration.binding import Node
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import Lookup, TableUse
from syncer.declaration.group_document import GroupRow, GroupRows
from syncer.declaration.group_sql import KEY, Bucket, group_lookup, same_group
from syncer.declaration.groups import Grouping
from syncer.declaration.model import Model
from syncer.declaration.names import Word
from syncer.declaration.partial_compiler import PartialCompiler
from syncer.declaration.partial_keys import ROOT, buckets_of, division
from syncer.declaration.partial_lookups import LookupOf, UseOf, every_partial, to_root_partial
from syncer.declaration.partial_statements import GroupStatements
from syncer.declaration.partial_states import PartialField, States
from syncer.declaration.render_sql import Document
from syncer.declaration.row import Scan
from syncer.declaration.scope import Scope
from syncer.declaration.sql_parser import Aggregate
from syncer.declaration.sql_types import Value, family


class GroupedPartials(PartialCompiler):
    """Compiles the partials of a read model whose root `node` is grouped."""

    def __init__(
        self, model: Model, root: Node, node: Node, catalog: Catalog, *, lookup: LookupOf, table_use: UseOf
    ) -> None:
        super().__init__(model, root, node, catalog)
        self._lookup_of, self._table_use = lookup, table_use
        if root.grouping is None:
            raise AssertionError("the root is not grouped")
        self._grouping: Grouping = root.grouping
        self._rows: GroupRows | None = None
        self._in_buckets: set[Node] = set()
        """The relations that aggregates use, so that a bucket depends on their rows."""
        self._in_root: set[Node] = set()
        """The relations that the root partial depends on."""

    # -- the two kinds of partials ----------------------------------------------------------------------

    def _states(self, scope: Scope) -> tuple[States, list[str]]:
        self._rows = GroupRows(scope, self._root, self._grouping)
        with _marking(self._root) as marked:
            states, order = super()._states(scope)
            if not self._errors:
                self._rows.sql()  # marks what the filter of the rows uses
        self._in_buckets = marked
        return states, order

    def _root_document(self, combined: Collection[str]) -> Document:
        with _marking(self._root) as marked:
            document = super()._root_document(combined)
        self._in_root = marked
        return document

    def _link(self) -> tuple[str, ...]:
        return tuple(key.text for key in self._grouping.keys if not key.span)

    def _field(self, scope: Scope, states: States, name: str) -> PartialField:
        return _GroupField(scope, self._root, self._scanned, states, name)

    @property
    def _scanned(self) -> GroupRows:
        if self._rows is None:
            raise AssertionError("the states are written first")
        return self._rows

    def _bucket(self, scope: Scope) -> str:
        return KEY

    def _bucket_document(self, scope: Scope, states: States) -> str:
        rows = self._scanned
        return f"SELECT {states.sql}::pg_catalog.text AS doc FROM ({rows.sql()}) {rows.alias}"

    def _statements(self, document: Document, bucket: str) -> dict[str, str]:
        return GroupStatements(self._root, self._grouping, document, bucket).all()

    # -- from changed rows to partials ------------------------------------------------------------------

    def _uses(self) -> Iterator[TableUse]:
        for node in self._root.walk():
            use = self._table_use(node, self._catalog)
            if node is self._root:
                lookup = self._and_root_partial(self._own_lookup())
                full = all(leaf.identity == "full" for leaf in node.table.leaves)
                moves = not set(lookup.columns) <= set(node.table.primary_key)
                yield replace(use, lookup=lookup, needs_before=full and moves)
                continue
            to_bucket = self._lookup_of(node, self._catalog, self._root) if node in self._in_buckets else None
            if to_bucket is None:
                yield replace(use, lookup=to_root_partial(self._lookup_of(node, self._catalog, None)))
            else:
                yield replace(use, lookup=self._and_root_partial(to_bucket) if node in self._in_root else to_bucket)

    def _and_root_partial(self, lookup: Lookup) -> Lookup:
        """Returns a look-up to keys of buckets that also returns the root partials of their documents."""
        keys = ", ".join(f"k{n}" for n in range(len(self._grouping.keys)))
        found = f"WITH q({keys}, b) AS MATERIALIZED ({lookup.sql})"
        return replace(lookup, sql=f"{found} SELECT {keys}, b FROM q UNION SELECT {keys}, '{ROOT}' FROM q")

    def _own_lookup(self) -> Lookup:
        column = self._root.table.columns[division(self._root).by]
        return group_lookup(self._root, self._grouping, Bucket(column, buckets_of(self._root).number))

    def _every_partial(self) -> Lookup:
        keys = self._grouping.keys
        families, types = tuple(family(key.base) for key in keys), [key.type for key in keys]
        return every_partial(self._root, self._grouping.names, families, types, same_group(self._grouping, "c"))


class _GroupField(PartialField):
    """Resolves the names in a field of a grouped root's document, and writes its states."""

    def __init__(self, scope: Scope, root: Node, rows: GroupRows, states: States, name: str) -> None:
        super().__init__(scope, root, root, states, name)
        self._rows = rows

    def column(self, path: tuple[Word, ...]) -> Value:
        return GroupRow(self.scope, self.node, self._rows).column(path)

    def _scan(self, call: Aggregate) -> Scan:
        return self._rows

    def _is_divided(self, call: Aggregate) -> bool:
        return True


@contextmanager
def _marking(root: Node) -> Iterator[set[Node]]:
    """Yields a set. At the end, it has the relations that the SQL written meanwhile reads."""
    marked: set[Node] = set()
    before = {node: node.used for node in root.walk() if node is not root}
    for node in before:
        node.used = set()
    try:
        yield marked
    finally:
        for node, used in before.items():
            if node.used:
                marked.add(node)
            node.used |= used
