"""Resolves names at a grouped level: a place of the document where one element represents a group of rows.

The rows of the level are those of one relation. Its group expressions divide them into groups. An expression of an
element may contain the following, and nothing else:

1. a group expression, or an expression over group expressions;
2. an aggregate over the rows of the group. In its arguments, a name means a column of a row or of its `one` relations;
3. a column of a `one` relation whose row is the same for all rows of the group: group expressions determine its link.

Everything else can differ among the rows of a group, and is refused.

Two texts are the same group expression if they lead to the same SQL over a row. So `Store_ID` and `store_id` are equal.
`json -> 'A'` and `json -> 'a'` are not, although sqlglot's comparison of trees may ignore case.

The SQL is a scan of the rows with GROUP BY, as the FROM item `alias` with the columns k0, k1, … (group expressions) and
a0, a1, … (aggregates). Relations of the third kind are joined to the groups, not to the rows. Rows with NULL form a
group, as in SQL. Where equal values can have several texts (1.0 and 1.00), a group shows the value of its first row by
primary key.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sqlglot import exp

from syncer.declaration.aggregates import Order, write_aggregate
from syncer.declaration.names import Word, quote
from syncer.declaration.node import Node
from syncer.declaration.outer_conditions import outer_columns
from syncer.declaration.row import Chain, InGroup, Row, Scan, describe, is_loose, order_items, ordering
from syncer.declaration.scope import Aliases, Scope, rows
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, parse, path_of, paths
from syncer.declaration.sql_types import EXACT, Value
from syncer.declaration.text_links import compares_texts


class Level(Protocol):
    """A place of the document that represents a group of rows: here, or the root (`group_document.GroupRows`)."""

    what: str
    """Names it in error messages."""

    def row(self, scope: Scope) -> Row:
        """Returns what resolves the names in the expressions of the document."""
        ...

    def check_relation(self, relation: Node, name: str) -> None:
        """Raises UnsupportedExpression if rows of one group can be linked to different rows of this relation."""
        ...


class _Key(NamedTuple):
    """A group expression."""

    row_sql: str
    """Over a row of the level, in the probe: the identity of the expression."""
    value: Value
    """At the grouped level."""
    column: tuple[Node, str] | None
    """The column that is the whole expression."""


class GroupedLevel:
    """The groups of a relation's rows. It implements `Level`, and `row.Scan` for aggregates.

    outer: the scope of the row that the relation belongs to. keys: the group expressions as texts.
    Raises UnsupportedExpression for a group expression that cannot be used.
    """

    what = "a list of groups"

    def __init__(self, outer: Scope, node: Node, keys: Sequence[str]) -> None:
        self.node = node
        self.alias = outer.aliases.alias("g")
        self.inner = Scope(outer.aliases, outer)
        """The scan of the rows."""
        self.inner.scan(node)
        self.scope = Scope(outer.aliases, outer)
        """The groups, and the `one` relations that are joined to them."""
        self._probe = Scope(Aliases(outer.catalog))
        self._probe.scan(node)
        self._items: dict[str, str] = {}
        self._by: list[str] = []
        self._columns: list[str] = []
        self.keys = [self._key(number, text) for number, text in enumerate(keys)]
        self._of_column = {key.column: key.value for key in self.keys if key.column}
        self._name_columns()

    # -- names ----------------------------------------------------------------------------------------------

    def row(self, scope: Scope) -> Row:
        return _GroupedRow(self, scope)

    def known(self, tree: exp.Expr) -> Value | None:
        """Returns the group expression that this is, or None."""
        if isinstance(tree, exp.Literal | exp.Identifier) or not self.keys:
            return None
        found = self._row_sql(tree)
        return next((key.value for key in self.keys if key.row_sql == found), None)

    def column(self, node: Node, name: str) -> Value | None:
        """Returns a column of the rows if it is a group expression, otherwise None."""
        return self._of_column.get((node, name))

    def check_relation(self, relation: Node, name: str) -> None:
        if relation.kind == "many":
            raise UnsupportedExpression(
                f"`{name}` leads to many rows for each row, which {self.what} cannot use",
                "group the rows of that table, or show the rows without `group_by`",
            )
        if not self._determined(relation):
            missing = [c for c in outer_columns(relation) if (relation.parent, c) not in self._of_column]
            linked = ", ".join(self._written(relation, column) for column in missing)
            raise UnsupportedExpression(
                f"`{name}` can differ among the rows of a group",
                (f"put {linked} in `group_by`, too, or " if linked else "") + f"use an aggregate, such as max({name})",
            )

    def _determined(self, relation: Node) -> bool:
        """Returns whether group expressions determine the row that a `one` relation leads to."""
        parent = relation.parent
        if relation.kind != "one" or parent is None:
            return False
        if parent is not self.node and self._determined(parent):
            return True
        outer_side = [parent.table.columns[name] for name in outer_columns(relation)]
        if relation.when is not None and any(c.base not in EXACT or c.loose_collation for c in outer_side):
            return False  # equal values can differ in the condition
        pairs = [(relation.table.columns[own], parent.table.columns[other]) for own, other in relation.on]
        conditions = {column.name for column in outer_side} - {outer.name for _, outer in pairs}
        if any((parent, name) not in self._of_column for name in conditions):
            return False
        if all((parent, outer.name) in self._of_column for _, outer in pairs):
            return not any(outer.base == "citext" and compares_texts(own, outer) for own, outer in pairs)
        return all((relation, own.name) in self._of_column and not compares_texts(own, outer) for own, outer in pairs)

    def _written(self, relation: Node, column: str) -> str:
        """Returns the parent's column of a link as an expression of this level names it."""
        names = relation.path[len(self.node.path) : -1]
        return ".".join([*names, column])

    # -- group expressions ----------------------------------------------------------------------------------

    def _key(self, number: int, text: str) -> _Key:
        try:
            tree = parse(text)
        except ValueError as error:
            raise UnsupportedExpression(f"`{text}` {error}", "write several expressions as a list") from error
        value = Row(self.inner, self.node).value(tree)
        if not any(paths(tree)):
            raise UnsupportedExpression(f"`{text}` depends on no column", "group by columns of the rows")
        self._by.append(value.sql)
        self._columns.append(f"{self._shown(text, tree, value)} AS k{number}")
        path = path_of(tree)
        column = None
        if path is not None and (found := self.node.follow(path))[1] is not None:
            column = (found[0][-1] if found[0] else self.node, found[1])
        shown = Value(f"{self.alias}.k{number}", value.type, value.element)
        return _Key(self._row_sql(tree) or "", shown, column)

    def _shown(self, text: str, tree: exp.Expr, value: Value) -> str:
        """Returns the value that a group shows, as an output of the scan."""
        if value.type in ("", "literal", "null"):
            raise UnsupportedExpression(f"the type of `{text}` is not certain", f"add a cast, such as ({text})::text")
        kind = value.element if value.type == "array" else value.type
        if (value.has_one_text or kind in EXACT) and not is_loose(value, tree, self.node):
            return value.sql
        if value.type in ("array", "composite"):
            raise UnsupportedExpression(
                f"equal values of `{text}` can have different texts", "group by its parts, or cast it to text"
            )
        order = ", ".join(map(str, self.order()))
        return f"(pg_catalog.array_agg({value.sql} ORDER BY {order}))[1]"

    def _row_sql(self, tree: exp.Expr) -> str | None:
        """Returns an expression over a row of the level, or None if it is not one. Marks no column as used."""
        used = {node: set(node.used) for node in self.node.walk()}
        try:
            return Row(self._probe, self.node).value(tree).sql
        except UnsupportedExpression:
            return None
        finally:
            for node, before in used.items():
                node.used = before

    # -- SQL ------------------------------------------------------------------------------------------------

    def item(self, sql: str) -> str:
        name = self._items.setdefault(sql, f"a{len(self._items)}")
        return f"{self.alias}.{name}"

    def order(self) -> list[Order]:
        """Returns the order of the rows of a group: the primary key."""
        return ordering(self.inner, self.node)

    def ordering(self, texts: Sequence[str]) -> list[Order]:
        """Returns the order of the groups: the declared one, then the group expressions, so that it is unambiguous."""
        found = order_items(self.row(self.scope), texts)
        known = {item.sql for item in found}
        return found + [Order(key.value.sql) for key in self.keys if key.value.sql not in known]

    def sql(self, element: str, order: Sequence[Order], limit: int | None) -> str:
        """Returns a statement with one row for each group. Call it once, after all expressions are written.

        element: the output, over the groups.
        """
        (element,) = self.scope.replace_marks(element)
        joined = self.scope.joined()
        by = ", ".join(map(str, order))
        most = f" LIMIT {limit}" if limit else ""
        return f"SELECT {element} FROM ({self._scan()}) {self.alias}{self._names}{joined} ORDER BY {by}{most}"

    def _scan(self) -> str:
        items = self.inner.replace_marks(*self._items)
        outputs = [*self._columns, *(f"{i} AS {n}" for i, n in zip(items, self._items.values(), strict=True))]
        return f"SELECT {', '.join(outputs)} {rows(self.inner, [self.node])} GROUP BY {', '.join(self._by)}"

    def _name_columns(self) -> None:
        """Declares the grouped columns as one row of each table that they belong to. So links to them can be written.

        A `one` relation can also be grouped by its own side of its link. Its parent's side then has the same value, or
        there is no such row. If several relations link the same column, each row that exists has its value.
        """
        named: dict[Node, dict[str, str]] = {self.node: {}}
        for (node, name), value in self._of_column.items():
            named.setdefault(node, {})[name] = value.sql
        implied: dict[tuple[Node, str], list[str]] = {}
        for (node, name), value in self._of_column.items():
            parent = node.parent
            if node is self.node or parent is None:
                continue
            for other in (other for own, other in node.on if own == name):
                if not compares_texts(node.table.columns[name], parent.table.columns[other]):
                    implied.setdefault((parent, other), []).append(value.sql)
        for (node, name), values in implied.items():
            one = values[0] if len(values) == 1 else f"coalesce({', '.join(values)})"
            named.setdefault(node, {}).setdefault(name, one)
        self._names = ""
        for node, columns in named.items():
            if columns and (node is self.node or not self._determined(node)):
                outputs = ", ".join(f"{sql} AS {quote(name)}" for name, sql in columns.items())
                self._names += f" CROSS JOIN LATERAL (SELECT {outputs}) {self.scope.scan(node)}"


class _GroupedRow(Row):
    """Resolves the names in the expressions of an element. It implements `calls.Names`."""

    def __init__(self, level: GroupedLevel, scope: Scope) -> None:
        super().__init__(scope, level.node)
        self._level = level

    def whole(self, tree: exp.Expr) -> Value | None:
        return self._level.known(tree)

    def column(self, path: tuple[Word, ...]) -> Value:
        through, column = self.node.follow(path)
        if column is not None and (found := self._level.column(through[-1] if through else self.node, column)):
            return found
        return super().column(path)

    def _check(self, path: tuple[Word, ...], through: Chain) -> None:
        name = describe(path)
        if not through:
            raise UnsupportedExpression(
                f"`{name}` is neither grouped nor aggregated",
                f"put it in `group_by`, or in an aggregate, such as max({name})",
            )
        self._level.check_relation(next((n for n in through if n.kind == "many"), through[-1]), name)

    def aggregate(self, call: Aggregate) -> Value:
        return aggregate_of_rows(call, self._level, self.node)


class _OfRows(InGroup):
    """Resolves the names in an aggregate over the rows of a group."""

    def _check(self, path: tuple[Word, ...], through: Chain) -> None:
        _refuse_many(path, through)

    def relation(self, path: tuple[Word, ...]) -> str | None:
        _refuse_many(path, self.node.follow(path)[0])
        return super().relation(path)


def _refuse_many(path: tuple[Word, ...], through: Chain) -> None:
    if any(node.kind == "many" for node in through):
        raise UnsupportedExpression(
            f"`{describe(path)}` leads to many rows for each row of a group",
            "group the rows of that table instead; its `one` relations can lead back to this one",
        )


def aggregate_of_rows(call: Aggregate, scan: Scan, node: Node) -> Value:
    """Returns an aggregate over the rows of a group. `count(*)` counts them. Raises UnsupportedExpression.

    scan: of the rows of this node.
    """
    names = _OfRows(scan, node)
    if counts_rows(call):
        condition = f" FILTER (WHERE {names.value(call.filter).sql})" if call.filter is not None else ""
        return Value(scan.item(f"pg_catalog.count(*){condition}"), "bigint")
    return write_aggregate(call, names)


def counts_rows(call: Aggregate) -> bool:
    """Returns whether this is `count(*)`."""
    return call.name == "count" and [type(argument) for argument in call.arguments] == [exp.Star] and not call.distinct
