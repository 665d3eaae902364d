"""Writes the states of aggregates over one bucket of rows. `pipeline/combine.py` combines the states of all buckets.

    count     the count
    sum       the sum, NULL without values. So the combined sum becomes NULL again when the last value disappears
    avg       the sum and the count of the values
    min, max  the value in a form that sorts as a number, and the value as JSON
    bool_*    the value
    first     the values of the order, and the value as JSON. `last` is `first` in the reversed order
    list      such an array for each of the first rows

States are texts, because a sum may have more digits than a JSON number keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from syncer.declaration import extensions
from syncer.declaration.aggregates import Order, listable
from syncer.declaration.binding import Node
from syncer.declaration.compiled import CombinedField
from syncer.declaration.grouped_level import counts_rows
from syncer.declaration.partial_keys import division, link
from syncer.declaration.row import InGroup, Row, Scan
from syncer.declaration.scope import Aliases, Scope
from syncer.declaration.sort_keys import TIMES, mergeable, number, sort_keys
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, path_of
from syncer.declaration.sql_types import INTEGERS, Value

_MARK = "\x02"
_EXACT_NUMBERS = frozenset((*INTEGERS, "numeric"))
_FUNCTIONS = ("count", "sum", "avg", "min", "max", "bool_and", "bool_or", "first", "last")
_NAMES = {"every": "bool_and"}
_HINT = f"use {', '.join(_FUNCTIONS)}, or a list with `limit`, or declare another relation without `partials`"


class States:
    """The states of the aggregates of one relation, in the order in which a partial lists them."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.fields: list[CombinedField] = []

    @property
    def sql(self) -> str:
        """The partial of a bucket: an array of all states."""
        return f"pg_catalog.json_build_array({', '.join(self.items)})"

    @property
    def by_name(self) -> dict[str, CombinedField]:
        return {field.name: field for field in self.fields}

    def add(self, name: str, call: Aggregate, group: Scan, root: Node, node: Node) -> None:
        """Adds the states of one field. Raises UnsupportedExpression if the aggregate does not combine.

        node: the divided relation.
        """
        function = _NAMES.get(call.name, call.name)
        _check_form(function, call, root, node)
        rows = InGroup(group, root)
        only = rows.value(call.filter).sql if call.filter is not None else ""
        if function in ("first", "last"):
            order = [*map(rows.order_item, call.order), *rows.order()]
            self._add_first(name, rows.value(call.arguments[0]), order, rows, only, last=function == "last")
            return
        path = path_of(call.arguments[0])
        counted = "*" if counts_rows(call) else rows.relation(path) if path and function == "count" else None
        value = Value(counted) if counted else rows.value(call.arguments[0])
        _check_type(function, value.type)
        # Of equal numbers with different texts (1.0 and 1.00), PostgreSQL shows that of the last row.
        by_row = function in ("min", "max") and not value.has_one_text
        if by_row and not _in_order_of_rows(node):
            order = [Order(value.sql, descending=function == "min", type="numeric"), *rows.order()]
            there = f"({only}) AND ({value.sql}) IS NOT NULL" if only else f"({value.sql}) IS NOT NULL"
            self._add_first(name, value, order, rows, there, last=True)
            return

        def item(function: str) -> str:
            argument = f"DISTINCT {value.sql}" if call.distinct else value.sql
            if by_row:
                argument += f" ORDER BY {', '.join(map(str, rows.order()))}"
            return rows.item(f"pg_catalog.{function}({argument}){_filter(only)}")

        if function == "avg":
            shown = [f"{item('sum')}::pg_catalog.text", f"{item('count')}::pg_catalog.text"]
        elif function in ("min", "max"):
            extreme = item(function)
            shown = [
                f"({number(extreme, value.type)})::pg_catalog.text",
                f"pg_catalog.to_json({extreme})::pg_catalog.text",
            ]
        else:
            shown = [f"{item(function)}::pg_catalog.text"]
        self._add(CombinedField(name, function, len(self.items)), *shown)

    def _add_first(
        self, name: str, value: Value, order: Sequence[Order], rows: InGroup, only: str, *, last: bool
    ) -> None:
        """Adds the value of the first or last row in an order. only: a condition for the rows; empty for all."""
        order = [item.reversed() for item in order] if last else order
        shown = listable(extensions.shown(value, name, rows.scope.catalog.extensions)).sql
        by = ", ".join(map(str, order))
        found = rows.item(f"pg_catalog.array_agg({mergeable(shown, order)} ORDER BY {by}){_filter(only)}")
        self._add(CombinedField(name, "first", len(self.items), sort_keys(order)), f"({found})[1]::pg_catalog.text")

    def add_list(self, name: str, limit: int, sql: str, order: Sequence[Order]) -> None:
        """Adds the state of a list (`render_sql.sorted_rows`)."""
        self._add(CombinedField(name, "list", len(self.items), sort_keys(order), limit), sql)

    def _add(self, field: CombinedField, *states: str) -> None:
        self.items += states
        self.fields.append(field)


def _in_order_of_rows(node: Node) -> bool:
    """Returns whether all rows of a bucket precede those of the next one: the rows are in the order of `by`."""
    linked = link(node)
    return not node.order and [c for c in node.table.primary_key if c not in linked] == [division(node).by]


def _filter(condition: str) -> str:
    return f" FILTER (WHERE {condition})" if condition else ""


def _check_form(function: str, call: Aggregate, root: Node, node: Node) -> None:
    """Raises UnsupportedExpression if an aggregate of this form does not combine."""
    if function not in _FUNCTIONS:
        raise UnsupportedExpression(f"{call.name}() cannot be combined from partials", _HINT)
    if len(call.arguments) != 1:
        raise UnsupportedExpression(f"{call.name}() takes one argument, not {len(call.arguments)}")
    if call.distinct:
        _check_distinct(call, root, node)
    if call.order and function not in ("first", "last"):
        raise UnsupportedExpression(f"{call.name}() with ORDER BY cannot be combined from partials", "remove ORDER BY")


def _check_distinct(call: Aggregate, root: Node, node: Node) -> None:
    """Raises UnsupportedExpression unless this counts values of the bucket column: each of them is in one bucket."""
    path = path_of(call.arguments[0])
    through, column = root.follow(path) if path else ((), None)
    by = division(node).by
    if call.name != "count" or (through[-1] if through else root) is not node or column != by:
        raise UnsupportedExpression(
            f"{call.name}(distinct …) cannot be combined from partials: a value may be in several buckets",
            f"only count(distinct {'.'.join((*node.path, by))}) is possible: each value of {by} is in one bucket; "
            "divide the relation by the column that you count",
        )


def _check_type(function: str, type: str) -> None:
    """Raises UnsupportedExpression if an aggregate of values of this type does not combine."""
    if function in ("sum", "avg") and type not in _EXACT_NUMBERS:
        raise UnsupportedExpression(
            f"{function}() of the type {type or 'unknown'} is not exact when it is combined from partials",
            f"cast the value: {function}((…)::numeric)",
        )
    if function in ("min", "max") and type not in _EXACT_NUMBERS | TIMES:
        raise UnsupportedExpression(
            f"{function}() of the type {type or 'unknown'} cannot be combined from partials",
            "use a number, a date or a timestamp",
        )


class PartialField(Row):
    """Decides whether a field of the document is an aggregate over buckets, and writes its states."""

    def __init__(self, scope: Scope, root: Node, node: Node, states: States, name: str) -> None:
        super().__init__(scope, root, scope.group)
        self._scope, self._partial, self._states, self._name = scope, node, states, name
        self._calls: list[Aggregate] = []

    def add(self, text: str) -> None:
        """Adds the states of such an aggregate. Ignores other fields. Raises UnsupportedExpression for computations."""
        if _MARK not in self._probe(text):
            return
        if self._probe(text) != _MARK:
            raise UnsupportedExpression(
                f"`{text}` computes with an aggregate of {rows_of(self._partial)}, which is combined from partials",
                "write the aggregate alone, and compute in the application",
            )
        call = self._calls[0]
        self._states.add(self._name, call, self._scan(call), self.node, self._partial)

    def _probe(self, text: str) -> str:
        """Returns the SQL of a field, with a mark for each aggregate over buckets."""
        self._calls.clear()
        scope, self.scope = self.scope, Scope(Aliases(self.scope.catalog))
        used = {node: set(node.used) for node in self.node.walk()}
        try:
            self.scope.scan(self.node)
            self._group = self.scope.group
            return self.write(text).sql
        finally:
            self.scope, self._group = scope, self._scope.group
            for node, before in used.items():
                node.used = before

    def _scan(self, call: Aggregate) -> Scan:
        """Returns the scan of the bucket's rows."""
        return self._scope.group(self.chain(call))

    def aggregate(self, call: Aggregate) -> Value:
        if self._is_divided(call):
            self._calls.append(call)
            return Value(_MARK, "numeric")
        return super().aggregate(call)

    def _is_divided(self, call: Aggregate) -> bool:
        return self._partial in self.chain(call)


def rows_of(node: Node) -> str:
    """Names the divided rows in messages."""
    return node.path[-1] if node.path else "the rows of a group"
