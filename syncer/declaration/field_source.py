"""Finds the column that a field of the document depends on, if it depends on one column alone.

`syncer check` can then conclude from values of the column which values the field has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from syncer.declaration.binding import bind
from syncer.declaration.catalog import Catalog, Column, Table
from syncer.declaration.form import Object, One
from syncer.declaration.model import Model
from syncer.declaration.names import quote
from syncer.declaration.node import Namespace, Node
from syncer.declaration.row import Row
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.declaration.sql_types import Value

ROW = "v"
"""The alias of the row in `FieldSource.sql`."""


@dataclass(frozen=True, slots=True)
class FieldSource:
    """An expression over one column of a table."""

    table: Table
    column: Column
    text: str
    """The expression, as the declaration writes it."""
    sql: str
    """The expression over the row `ROW`."""
    type: str
    """The type of the expression, as in `sql_types.Value`."""
    every_row: bool
    """Whether every row of the table belongs to a document that has its value."""


def field_source(model: Model, catalog: Catalog, field: str) -> FieldSource | None:
    """Returns the column that a field depends on, and the expression over it.

    model: compiled against this catalog without mistakes. field: a dotted name.
    Returns None for an aggregate, for a list, and for an expression over no column or over several ones.
    """
    root = bind(model, catalog, [])
    if (found := _expression(field, model.declaration.document, root, root.links)) is None:
        return None
    node, text = found
    columns = _OneColumn(catalog)
    try:
        value = Row(columns, node).write(text)
    except UnsupportedExpression:  # an aggregate, or the name of a group
        return None
    if len(columns.used) != 1:
        return None
    [(of, name)] = columns.used
    declaration = model.declaration
    every_row = of is root and declaration.where is None and declaration.root.nulls is None
    return FieldSource(of.table, of.table.columns[name], text, value.sql, value.type, every_row)


def _expression(field: str, entries: Mapping[str, object], node: Node, names: Namespace) -> tuple[Node, str] | None:
    """Returns the expression of a field, and the row that it is over.

    entries: the fields of a document over this row, or of an object in it. names: the relations declared there.
    """
    entry, below = entries.get(field), names.get(field)
    if isinstance(entry, str):
        return node, entry
    if isinstance(entry, One) and entry.value is not None and isinstance(below, Node):
        return below, entry.value
    first, _, rest = field.partition(".")
    entry, below = entries.get(first), names.get(first)
    if isinstance(entry, Object):
        return _expression(rest, entry.object, node, below if isinstance(below, dict) else {})
    if isinstance(entry, One) and isinstance(below, Node):
        return _expression(rest, entry.document or {}, below, below.links)
    return None


class _OneColumn:
    """Provides the columns of an expression under one alias, and records them. It implements `row.Columns`."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.used: set[tuple[Node, str]] = set()

    def column(self, node: Node, name: str) -> Value:
        self.used.add((node, name))
        return Value(f"{ROW}.{quote(name)}", node.table.columns[name].base)
