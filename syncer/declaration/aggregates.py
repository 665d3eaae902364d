"""Generates the SQL of aggregates. Each result depends only on the snapshot.

PostgreSQL passes rows to an aggregate in any order. Where the order can affect the result, the SQL specifies one:

* lists, `first` and `last`;
* sums and averages of floats, because they round;
* values that are equal but have different texts (1.0 and 1.00; texts whose collation is not deterministic). `max` keeps
  the last of them, `distinct` the first.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlglot import exp

from syncer.declaration.extensions import geometry_type
from syncer.declaration.names import Word
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, path_of
from syncer.declaration.sql_types import INTEGERS, Value

_SUMS = {
    "smallint": "bigint",
    "integer": "bigint",
    "bigint": "numeric",
    "numeric": "numeric",
    "real": "real",
    "double precision": "double precision",
    "interval": "interval",
}
_AVERAGES = {
    "smallint": "numeric",
    "integer": "numeric",
    "bigint": "numeric",
    "numeric": "numeric",
    "real": "double precision",
    "double precision": "double precision",
    "interval": "interval",
}
_NEVER_ROUNDED = frozenset((*INTEGERS, "numeric", "interval"))


@dataclass(frozen=True)
class Order:
    """An item of an ORDER BY list."""

    sql: str
    descending: bool = False
    nulls_first: bool = False
    type: str = ""
    """As in `Value.type`."""
    text: str = field(default="", compare=False)
    """As the declaration writes it, for messages."""

    def __str__(self) -> str:
        nulls = "FIRST" if self.nulls_first else "LAST"
        return f"{self.sql} {'DESC' if self.descending else 'ASC'} NULLS {nulls}"

    def reversed(self) -> Order:
        return Order(self.sql, not self.descending, not self.nulls_first, self.type, self.text)


class Rows(Protocol):
    """The rows that an aggregate is computed over."""

    def value(self, tree: exp.Expr) -> Value:
        """Returns an expression over one of the rows. Raises UnsupportedExpression."""
        ...

    def relation(self, path: tuple[Word, ...]) -> str | None:
        """Returns what `count` counts if the name refers to a relation: `*` or a column. Otherwise returns None."""
        ...

    def order_item(self, tree: exp.Ordered) -> Order: ...

    def order(self) -> list[Order]:
        """Returns the order of the relation, which ends with the primary key."""
        ...

    def item(self, sql: str) -> str:
        """Adds an output to the scan of these rows. Returns the SQL that refers to it."""
        ...


def write_aggregate(call: Aggregate, rows: Rows) -> Value:
    """Returns the SQL of an aggregate, as an expression outside the scan. Raises UnsupportedExpression."""
    name = {"array": "array_agg", "every": "bool_and"}.get(call.name, call.name)
    expected = 2 if name == "string_agg" else 1
    if len(call.arguments) != expected:
        count = "one argument" if expected == 1 else "two arguments"
        raise UnsupportedExpression(f"{call.name}() takes {count}, not {len(call.arguments)}")
    if call.distinct and call.order:
        raise UnsupportedExpression("DISTINCT sorts the values itself", "remove ORDER BY")
    return _WRITERS[name](_Writer(name, call, rows))


class _Writer:
    """Writes one aggregate. It reads the order only where needed, because an order makes more columns relevant."""

    def __init__(self, name: str, call: Aggregate, rows: Rows) -> None:
        self._name = name
        self._call = call
        self._rows = rows
        self._filter = f" FILTER (WHERE {rows.value(call.filter).sql})" if call.filter is not None else ""

    def count(self) -> Value:
        argument = self._call.arguments[0]
        path = path_of(argument)
        counted = self._rows.relation(path) if path and not self._call.distinct else None
        distinct = "DISTINCT " if self._call.distinct else ""
        return Value(self._item("count", counted or distinct + self._rows.value(argument).sql), "bigint")

    def first_or_last(self) -> Value:
        value = listable(self._value())
        order = self._order() if self._name == "first" else [item.reversed() for item in self._order()]
        found = self._item("array_agg", value.sql + _by(order))
        return Value(f"({found})[1]", value.type, value.element)

    def array(self) -> Value:
        value = listable(self._value())
        if not self._call.distinct:
            found = self._item("array_agg", value.sql + _by(self._order()))
        elif value.has_one_text:
            found = self._item("array_agg", f"DISTINCT {value.sql}{_by([Order(value.sql)])}")
        else:
            found = f"ARRAY(SELECT v FROM {self._first_of_equals(value)} ORDER BY v)"
            return Value(found, "array", value.type)
        return Value(f"coalesce({found}, '{{}}')", "array", value.type)

    def string(self) -> Value:
        value, separator = self._value(), self._rows.value(self._call.arguments[1]).sql
        if self._call.distinct:
            if value.exact is False:
                raise UnsupportedExpression(
                    "equal texts can differ, because a collation is not deterministic",
                    "use array_agg(distinct …), which shows the first of them",
                )
            arguments = f"DISTINCT {value.sql}, {separator}{_by([Order(value.sql)])}"
        else:
            arguments = f"{value.sql}, {separator}{_by(self._order())}"
        return Value(self._item("string_agg", arguments), "text")

    def boolean(self) -> Value:
        return Value(self._item(self._name, self._value().sql), "boolean")

    def min_or_max(self) -> Value:
        value = self._value()
        by = "" if value.has_one_text else _by(self._order())
        return Value(self._item(self._name, value.sql + by), value.type, value.element)

    def sum_or_average(self) -> Value:
        value = self._value()
        result = (_SUMS if self._name == "sum" else _AVERAGES).get(value.type, "")
        if self._call.distinct and not value.has_one_text:
            source = self._first_of_equals(value)
            return Value(f"(SELECT pg_catalog.{self._name}(v ORDER BY v) FROM {source})", result)
        if self._call.distinct:
            return Value(self._item(self._name, f"DISTINCT {value.sql}"), result)
        by = "" if value.type in _NEVER_ROUNDED else _by(self._order())
        return Value(self._item(self._name, value.sql + by), result)

    def _value(self) -> Value:
        value = self._rows.value(self._call.arguments[0])
        if value.type in ("literal", "null"):
            return Value(f"{value.sql}::pg_catalog.text", "text")
        return value

    def _order(self) -> list[Order]:
        return [*map(self._rows.order_item, self._call.order), *self._rows.order()]

    def _item(self, function: str, arguments: str) -> str:
        return self._rows.item(f"pg_catalog.{function}({arguments}){self._filter}")

    def _first_of_equals(self, value: Value) -> str:
        """Returns a FROM item with the distinct values `v`: of equal values, the first in the relation's order."""
        found = self._item("array_agg", value.sql + _by([Order(value.sql), *self._order()]))
        numbered = f"pg_catalog.unnest({found}) WITH ORDINALITY AS u(v, n)"
        return f"(SELECT DISTINCT ON (v) v FROM {numbered} ORDER BY v, n) AS w"


_WRITERS: dict[str, Callable[[_Writer], Value]] = {
    "count": _Writer.count,
    "sum": _Writer.sum_or_average,
    "avg": _Writer.sum_or_average,
    "min": _Writer.min_or_max,
    "max": _Writer.min_or_max,
    "first": _Writer.first_or_last,
    "last": _Writer.first_or_last,
    "array_agg": _Writer.array,
    "string_agg": _Writer.string,
    "bool_and": _Writer.boolean,
    "bool_or": _Writer.boolean,
}


def listable(value: Value) -> Value:
    """Returns the value in a form that can be an element of an array.

    Arrays of different lengths and composite values cannot be elements, but their JSON can.
    """
    if geometry_type(value.element):
        raise UnsupportedExpression(
            "a list cannot contain arrays of geometries", "use a table that has one geometry in each row"
        )
    if value.type in ("array", "composite"):
        return Value(f"pg_catalog.to_jsonb({value.sql})", "jsonb")
    return value


def _by(order: Sequence[Order]) -> str:
    return f" ORDER BY {', '.join(map(str, order))}" if order else ""
