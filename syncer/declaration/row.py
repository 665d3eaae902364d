"""Resolves the names at one row of the tree, and writes the expressions, filters and orders over that row.

A `Row` implements `calls.Names` for the expressions of a document. An `InGroup` does the same inside of an aggregate.
Both get their SQL from a scope, which adds the joins that the names need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sqlglot import exp

from syncer.declaration import extensions
from syncer.declaration.aggregates import Order, write_aggregate
from syncer.declaration.ancestors_sql import depth_of
from syncer.declaration.catalog import Catalog, Column
from syncer.declaration.expressions import write
from syncer.declaration.names import Word, quote
from syncer.declaration.node import Node
from syncer.declaration.sql_parser import (
    Aggregate,
    UnsupportedExpression,
    parse,
    parse_order,
    paths,
    shown,
    syntax_hint,
)
from syncer.declaration.sql_types import TEXTS, Value

Chain = tuple[Node, ...]
"""The relations that a name passes through, from the outside in."""


class Columns(Protocol):
    """Provides columns of rows (`scope.Scope`)."""

    @property
    def catalog(self) -> Catalog: ...

    def column(self, node: Node, name: str) -> Value: ...


class Aliased(Columns, Protocol):
    """Provides the aliases of rows, too."""

    def alias(self, node: Node) -> str: ...


class Scan(Protocol):
    """Computes aggregates over the rows of a scan (`scope.Group`)."""

    @property
    def inner(self) -> Columns: ...

    def item(self, sql: str) -> str: ...

    def order(self) -> list[Order]: ...


class Row:
    """Resolves the names at one row: its columns, those of its `one` relations, and aggregates.

    It implements `calls.Names`. group: returns where aggregates are computed; None where they are not allowed.
    """

    def __init__(self, scope: Columns, node: Node, group: Callable[[Chain], Scan] | None = None) -> None:
        self.scope = scope
        self.node = node
        self._group = group

    def whole(self, tree: exp.Expr) -> Value | None:
        return None

    def column(self, path: tuple[Word, ...]) -> Value:
        through, column = self.node.follow(path)
        if column is None:
            raise UnsupportedExpression(
                f"`{describe(path)}` is a relation, not a value", f"write one of its columns: {describe(path)}.…"
            )
        self._check(path, through)
        return self.scope.column(through[-1] if through else self.node, column)

    def _check(self, path: tuple[Word, ...], through: Chain) -> None:
        if any(node.kind == "many" for node in through):
            raise UnsupportedExpression(
                f"`{describe(path)}` has many values", f"use an aggregate, such as max({describe(path)})"
            )

    def aggregate(self, call: Aggregate) -> Value:
        if self._group is None:
            raise UnsupportedExpression(
                f"{call.name}() is not allowed in a filter, an order, a grouping or another aggregate",
                "use columns of the row; an aggregate can be a field of the document",
            )
        return write_aggregate(call, InGroup(self._group(self.chain(call)), self.node))

    def chain(self, call: Aggregate) -> Chain:
        """Returns the relations that lead to the rows of an aggregate. All its names have to lie along them."""
        longest: Chain = ()
        chains = []
        for path in call.paths():
            through, _ = self.node.follow(path)
            last = max((n + 1 for n, node in enumerate(through) if node.kind == "many"), default=0)
            chains.append(through[:last])
            longest = max(longest, through[:last], key=len)
        if not longest:
            many = [".".join(n.path) for n in self.node.walk() if n.kind == "many"]
            hint = f"relations here: {', '.join(many)}" if many else "declare a `many` relation of this row"
            raise UnsupportedExpression(f"{call.name}() needs a name that goes through a `many` relation", hint)
        if any(chain != longest[: len(chain)] for chain in chains):
            raise UnsupportedExpression(
                f"the names in {call.name}() belong to different relations", "write an aggregate for each relation"
            )
        return longest

    def shown(self, text: str) -> Value:
        """Returns an expression over this row, as a document shows it. Raises UnsupportedExpression."""
        return extensions.shown(self.write(text), text, self.scope.catalog.extensions)

    def write(self, text: str) -> Value:
        """Returns an expression over this row. Raises UnsupportedExpression."""
        try:
            tree = parse(text)
        except ValueError as error:
            raise UnsupportedExpression(f"`{text}` {error}", syntax_hint(text)) from error
        return self.value(tree)

    def value(self, tree: exp.Expr) -> Value:
        return write(tree, self, self.scope.catalog)

    def condition(self, text: str) -> str:
        """Returns a filter over this row. Raises UnsupportedExpression."""
        found = self.write(text)
        if found.type not in ("boolean", "", "null"):
            raise UnsupportedExpression(f"`{text}` is not a condition: its type is {found.type}", "write a comparison")
        return found.sql

    def order_item(self, tree: exp.Ordered) -> Order:
        value = self.value(tree.this)
        if isinstance(tree.this, exp.Literal):
            raise UnsupportedExpression(f"ordering by the constant {value.sql} has no effect", "name a column")
        descending, nulls_first = bool(tree.args.get("desc")), bool(tree.args.get("nulls_first"))
        return Order(value.sql, descending, nulls_first, value.type, shown(tree.this))


class InGroup(Row):
    """Resolves the names in an aggregate. They mean the same as at the outer row, but are read in the group's scan.

    It implements `aggregates.Rows`.
    """

    def __init__(self, group: Scan, node: Node) -> None:
        super().__init__(group.inner, node)
        self.item = group.item
        self.order = group.order

    def value(self, tree: exp.Expr) -> Value:
        found = super().value(tree)
        return found._replace(exact=False) if is_loose(found, tree, self.node) else found

    def _check(self, path: tuple[Word, ...], through: Chain) -> None:
        """Allows names with many values, because an aggregate combines them."""

    def relation(self, path: tuple[Word, ...]) -> str | None:
        through, column = self.node.follow(path)
        if column is not None:
            return None
        end = through[-1]
        return "*" if end.kind == "many" else self.scope.column(end, end.on[0][0]).sql


def is_loose(value: Value, tree: exp.Expr, node: Node) -> bool:
    """Returns whether different texts of an expression can be equal, because a collation is not deterministic.

    node: whose row the names of the expression start at.
    """
    if not {value.type, value.element} & set(TEXTS):
        return False
    for path in paths(tree):
        through, name = node.follow(path)
        table = (through[-1] if through else node).table
        if name is not None and table.columns[name].loose_collation:
            return True
    return False


def filtered(scope: Columns, node: Node) -> str:
    """Returns the condition of a node's `where`. Empty if it has none."""
    if node.where is None:
        return ""
    try:
        return Row(scope, node).condition(node.where)
    except UnsupportedExpression as error:
        error.place = (*node.place, "where")
        raise


def ordering(scope: Aliased, node: Node) -> list[Order]:
    """Returns the order of a relation's rows: the declared order, then the primary key, so that it is unambiguous.

    Ancestors have the order of their path.
    """
    if node.climb:
        return [Order(f"{scope.alias(node)}.{quote(depth_of(node))}", descending=node.climb.farthest_first)]
    try:
        found = order_items(Row(scope, node), node.order)
    except UnsupportedExpression as error:
        error.place = (*node.place, "order_by")
        raise
    values = {column: scope.column(node, column) for column in node.table.primary_key}
    key = [Order(value.sql, type=value.type, text=column) for column, value in values.items()]
    ordered = {item.sql for item in found}
    return found + [item for item in key if item.sql not in ordered]


def order_items(row: Row, texts: Sequence[str]) -> list[Order]:
    """Returns the items of an order. texts: lists of items, as in ORDER BY. Raises UnsupportedExpression."""
    return [row.order_item(item) for text in texts for item in _items(text)]


def _items(text: str) -> list[exp.Ordered]:
    try:
        return parse_order(text)
    except ValueError as error:
        raise UnsupportedExpression(
            f"the order `{text}` {error}",
            "write columns or expressions, each with `desc` if needed: placed_at desc, id",
        ) from error


def value_of(column: Column, sql: str, catalog: Catalog) -> Value:
    """Returns a column's value in expressions. json is read as jsonb, because its text can contain line breaks."""
    array = column.base == "array"
    base = column.element_base if array else column.base
    if base == "money" or base.startswith("reg"):
        what = f"the column {column.name} has the type {column.type}, whose text depends on the session"
        raise UnsupportedExpression(what, "remove it, or add a column of type numeric or text to the table")
    if found := extensions.column_type(column, catalog.extensions):
        return Value(sql, "array", found) if array else Value(sql, found)
    if base == "json":
        return (
            Value(f"{sql}::pg_catalog.jsonb[]", "array", "jsonb")
            if array
            else Value(f"{sql}::pg_catalog.jsonb", "jsonb")
        )
    if base == "composite":
        return Value(f"pg_catalog.to_jsonb({sql})", "jsonb")
    return Value(sql, "array", base) if array else Value(sql, base, exact=True if column.has_scale else None)


def describe(path: tuple[Word, ...]) -> str:
    return ".".join(quote(w.text) if w.quoted else w.text for w in path)
