"""Writes the `when` of a relation: a condition over the outer row, without which the relation has no rows.

It belongs to the link. So a change of its columns dirties the documents that show the outer row, like a change of the
linking columns. A look-up from a related row uses the comparisons with constants only: with fewer conditions it finds
more roots, never fewer. And these comparisons cannot fail on a row.
"""

from __future__ import annotations

from contextlib import suppress

from syncer.declaration.catalog import Catalog
from syncer.declaration.fixed_columns import fixed
from syncer.declaration.names import find, quote
from syncer.declaration.node import Node
from syncer.declaration.row import Row, describe, value_of
from syncer.declaration.sql_parser import UnsupportedExpression, parse, paths
from syncer.declaration.sql_types import Value


def outer_condition(node: Node, parent: str, catalog: Catalog) -> str:
    """Returns the SQL of a node's `when`, and marks its columns as used. Empty if the node has none.

    parent: the alias of the outer row. Raises UnsupportedExpression.
    """
    if node.when is None or node.parent is None:
        return ""
    try:
        _refuse_relations(node.when, node.parent)
        return Row(_OuterRow(parent, catalog), node.parent).condition(node.when)
    except UnsupportedExpression as error:
        error.place = (*node.place, "when")
        raise


def constants(node: Node, parent: str, catalog: Catalog) -> list[str]:
    """Returns the comparisons of a node's `when` with constants, as SQL over the outer row."""
    if node.parent is None:
        return []
    row = Row(_OuterRow(parent, catalog), node.parent)
    return [row.value(comparison).sql for comparison in fixed(node.when, node.parent.table.columns).values()]


def outer_columns(node: Node) -> list[str]:
    """Returns the columns of the outer row that decide which rows are related: those of the link and of `when`."""
    found = dict.fromkeys(other for _, other in node.on)
    if node.when is not None and node.parent is not None:
        with suppress(ValueError):  # `outer_condition` reports it
            columns = node.parent.table.columns
            found |= dict.fromkeys(c.name for path in paths(parse(node.when)) if (c := find(path[0], columns)))
    return list(found)


class _OuterRow:
    """Provides the columns of one row (`row.Columns`)."""

    def __init__(self, alias: str, catalog: Catalog) -> None:
        self._alias, self._catalog = alias, catalog

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def column(self, node: Node, name: str) -> Value:
        return value_of(node.use(name), f"{self._alias}.{quote(name)}", self._catalog)


def _refuse_relations(condition: str, outer: Node) -> None:
    """Raises UnsupportedExpression if a condition uses anything but columns of the outer row."""
    try:
        names = list(paths(parse(condition)))
    except ValueError:
        return  # `Row.condition` reports it
    for path in names:
        if len(path) > 1 or (find(path[0], outer.table.columns) is None and find(path[0], outer.links) is not None):
            raise UnsupportedExpression(
                f"`when` cannot use `{describe(path)}`: it is a condition over columns of {outer.table.name}",
                "put a condition over related rows into `where`",
            )
