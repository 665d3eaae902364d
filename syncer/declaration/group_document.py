"""Generates the SQL that renders the document of one group of a grouped root.

The rows of the group are scanned once. A sub-select over them has all aggregates, and no row if the group has no rows.
The names outside of aggregates are values that all rows of the group share: the group expressions, and the columns of
`one` relations that are linked by columns of the group. Such a relation is joined once to the group, not to its rows.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from syncer.declaration.aggregates import Order
from syncer.declaration.group_sql import KEY, same_group
from syncer.declaration.grouped_level import aggregate_of_rows
from syncer.declaration.groups import Grouping
from syncer.declaration.names import Word, find, nearest, quote
from syncer.declaration.node import Node
from syncer.declaration.outer_conditions import outer_columns
from syncer.declaration.partial_keys import division
from syncer.declaration.row import Chain, Columns, Row, describe, filtered, ordering
from syncer.declaration.scope import Scope, both, bounded
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression
from syncer.declaration.sql_types import Value


class GroupRows:
    """The scan of the rows of one group. It implements `row.Scan` and `grouped_level.Level`."""

    what = "a grouped root"

    def __init__(self, outer: Scope, root: Node, grouping: Grouping) -> None:
        self.grouping = grouping
        self.alias = outer.aliases.alias("g")
        self.inner = Scope(outer.aliases, outer)
        self.inner.scan(root)
        self._root = root
        self._items: dict[str, str] = {}

    def row(self, scope: Scope) -> Row:
        return GroupRow(scope, self._root, self)

    def check_relation(self, relation: Node, name: str) -> None:
        check_shared(relation, self.grouping, name)

    def item(self, sql: str) -> str:
        name = self._items.setdefault(sql, f"a{len(self._items)}")
        return f"{self.alias}.{name}"

    def order(self) -> list[Order]:
        """Returns the order of the rows: the primary key."""
        return ordering(self.inner, self._root)

    def sql(self) -> str:
        """Returns the sub-select. It has one row, or none if the group has no rows.

        If the scan is limited to the rows of one bucket (`scope.bounded`), it always has one row.
        """
        row = self.inner.scan(self._root)
        items = self.inner.replace_marks(*self._items)
        outputs = ", ".join(f"{i} AS {n}" for i, n in zip(items, self._items.values(), strict=True))
        bounds = bounded(self.inner, self._root, row)
        by = division(self._root).by if bounds else ""
        condition = both(same_group(self.grouping, row, bounded=by), bounds, filtered(self.inner, self._root))
        source = f"{quote(*self._root.table.name)} {row}{self.inner.joined(condition)}"
        if not self._items:
            return f"SELECT 1 AS a FROM {source} LIMIT 1"
        return f"SELECT {outputs} FROM {source}{'' if bounds else ' HAVING pg_catalog.count(*) > 0'}"

    @property
    def is_aggregated(self) -> bool:
        """Whether an expression has an aggregate over the rows."""
        return bool(self._items)


class GroupRow(Row):
    """Resolves the names in the document of a group. It implements `calls.Names`."""

    def __init__(self, scope: Columns, root: Node, rows: GroupRows) -> None:
        super().__init__(scope, root)
        self._rows = rows

    def column(self, path: tuple[Word, ...]) -> Value:
        keys = {key.name: n for n, key in enumerate(self._rows.grouping.keys)}
        if len(path) == 1 and (place := find(path[0], keys)) is not None:
            return Value(f"{KEY}.k{place}", self._rows.grouping.keys[place].base)
        return super().column(path)

    def _check(self, path: tuple[Word, ...], through: Chain) -> None:
        if not through:
            what = f"`{describe(path)}` can differ among the rows of a group"
            names = nearest("", self._rows.grouping.names)
            raise UnsupportedExpression(
                what, f"use an aggregate, such as max({describe(path)}); group names are {names}"
            )
        check_shared(through[0], self._rows.grouping, describe(path))

    def aggregate(self, call: Aggregate) -> Value:
        return aggregate_of_rows(call, self._rows, self.node)


def check_shared(relation: Node, grouping: Grouping, name: str) -> None:
    """Raises UnsupportedExpression if the rows of a group can be linked to different rows of this relation."""
    shared = {key.columns[0] for key in grouping.keys if key.bare}
    outer = outer_columns(relation)
    if relation.kind != "one" or not shared.issuperset(outer):
        linked = ", ".join(outer)
        what = f"`{name}` can differ among the rows of a group"
        raise UnsupportedExpression(what, f"use an aggregate, such as max({name}), or group by {linked}, too")


def shared_columns(grouping: Grouping) -> str:
    """Returns the values of those group expressions that are columns, as a sub-select with one row of the table."""
    columns = {key.columns[0]: f"{KEY}.k{n}" for n, key in enumerate(grouping.keys) if key.bare}
    return f"SELECT {', '.join(f'{sql} AS {quote(name)}' for name, sql in columns.items())}"
