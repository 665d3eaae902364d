"""Writes the look-ups from changed rows to the keys of the partials that have to be rendered again."""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from syncer.declaration.binding import Node
from syncer.declaration.catalog import Catalog
from syncer.declaration.compiled import Lookup, TableUse
from syncer.declaration.names import quote
from syncer.declaration.parameters import arrays, texts, with_placeholders
from syncer.declaration.partial_keys import ROOT, buckets_of, division, link
from syncer.declaration.sql_types import key_type

LookupOf = Callable[[Node, Catalog, Node | None], Lookup | None]
"""Returns the look-up from a row to its root, or to the link of the second node if that is given."""
UseOf = Callable[[Node, Catalog], TableUse]


class Lookups:
    """The look-ups of a read model with partials. node: the divided relation."""

    def __init__(self, root: Node, node: Node, catalog: Catalog, lookup: LookupOf, table_use: UseOf) -> None:
        self._root, self._node, self._catalog = root, node, catalog
        self._lookup_of, self._table_use = lookup, table_use

    def uses(self) -> Iterator[TableUse]:
        below = set(self._node.walk())
        for node in self._root.walk():
            use = self._table_use(node, self._catalog)
            if node is self._root:
                yield replace(use, lookup=self._root_lookup())
                # The sink may not know the buckets of a row that did not exist, or that now ceases to exist.
                yield replace(use, path="(all partials)", lookup=self.every_partial(), ops="crd", needs_before=False)
            elif node is self._node:
                lookup = self._own_lookup()
                full = all(leaf.identity == "full" for leaf in node.table.leaves)
                moves = not set(lookup.columns) <= set(node.table.primary_key)
                yield replace(use, lookup=lookup, needs_before=full and moves)
            elif node in below:
                yield replace(use, lookup=self._lookup_of(node, self._catalog, self._node))
            else:
                yield replace(use, lookup=to_root_partial(self._lookup_of(node, self._catalog, None)))

    def _root_lookup(self) -> Lookup:
        key, types = self._key()
        names = ", ".join(f"v{n}" for n in range(len(key)))
        given = f"ROWS FROM ({arrays(len(key))}) AS u({names})"
        return Lookup(key, types, with_placeholders(f"SELECT DISTINCT {names}, '{ROOT}' FROM {given}"))

    def _key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        columns = [self._root.table.columns[name] for name in self._root.table.primary_key]
        return tuple(c.name for c in columns), tuple(c.base for c in columns)

    def every_partial(self) -> Lookup:
        """Returns the look-up from a root's key to the keys of the root partial and of all buckets with rows."""
        key, types = self._key()
        columns = [self._root.table.columns[name] for name in key]
        linked = " AND ".join(f"c.{quote(own)} = k.k{n}" for n, own in enumerate(link(self._node)))
        return every_partial(self._node, key, types, [key_type(c.type, c.base) for c in columns], linked)

    def _own_lookup(self) -> Lookup:
        """Returns the look-up from the link and the bucket column of a row: it reads no table."""
        table = self._node.table
        own, by = link(self._node), table.columns[division(self._node).by]
        names = [f"v{n}" for n in range(len(own) + 1)]
        sql = (
            f"SELECT DISTINCT {', '.join(names[:-1])}, {buckets_of(self._node).number(names[-1])}::pg_catalog.text "
            f"FROM ROWS FROM ({arrays(len(names))}) AS u({', '.join(names)})"
        )
        types = tuple(table.columns[name].base for name in own)
        return Lookup((*own, by.name), (*types, by.base), with_placeholders(sql))


def every_partial(
    node: Node, key: tuple[str, ...], families: tuple[str, ...], types: Sequence[str], linked: str
) -> Lookup:
    """Returns the look-up from a document's key to the keys of the root partial and of all buckets with rows.

    node: of the divided rows. families, types: of the key's columns; the texts of a key are cast to the types.
    linked: the condition that the row `c` belongs to the document with the key `k`.
    """
    names = ", ".join(f"v{n}" for n in range(len(key)))
    values = ", ".join(f"v{n}::{type} AS k{n}" for n, type in enumerate(types))
    number = buckets_of(node).number(f"c.{quote(division(node).by)}")
    buckets = f"SELECT DISTINCT {number} AS b FROM {quote(*node.table.name)} c WHERE {linked}"
    sql = (
        f"SELECT {texts([f'k.k{n}' for n in range(len(key))])}, d.b::pg_catalog.text "
        f"FROM (SELECT DISTINCT {values} FROM ROWS FROM ({arrays(len(key))}) AS u({names})) k "
        f"CROSS JOIN LATERAL ({buckets} UNION ALL SELECT {ROOT}) d"
    )
    return Lookup(key, families, with_placeholders(sql))


def to_root_partial(lookup: Lookup | None) -> Lookup | None:
    """Returns a look-up to the root partials instead of the roots."""
    if lookup is None:
        return None
    if lookup.sql is not None:
        return replace(lookup, sql=f"SELECT q.*, '{ROOT}' FROM ({lookup.sql}) q")
    names = ", ".join(f"v{n}" for n in range(len(lookup.columns)))
    given = f"ROWS FROM ({arrays(len(lookup.columns))}) AS u({names})"
    return replace(lookup, sql=with_placeholders(f"SELECT DISTINCT {names}, '{ROOT}' FROM {given}"))
