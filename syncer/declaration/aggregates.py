"""Aggregates in SQL, each as a function of the snapshot alone.

PostgreSQL feeds an aggregate its rows in any order. Where that can show, an order is given: lists, `first`
and `last`, sums of floats (they round), and values that are equal but look different (1.0 and 1.00), of which
`max` keeps the last and `distinct` the first that comes.
"""

# ruff: noqa: S608 - what is joined here are quoted names and expressions written anew

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlglot import exp

from syncer.declaration.extensions import shape_of
from syncer.declaration.names import Word
from syncer.declaration.sql_parser import Aggregate, UnsupportedExpression, path_of
from syncer.declaration.sql_types import EXACT, INTEGERS, Value

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
    """One item of an ORDER BY list."""

    sql: str
    descending: bool = False
    nulls_first: bool = False

    def __str__(self) -> str:
        nulls = "FIRST" if self.nulls_first else "LAST"
        return f"{self.sql} {'DESC' if self.descending else 'ASC'} NULLS {nulls}"

    def reversed(self) -> Order:
        return Order(self.sql, not self.descending, not self.nulls_first)


class Rows(Protocol):
    """The rows that an aggregate is computed over."""

    def value(self, tree: exp.Expr) -> Value:
        """An expression over one of them. Raises Unfit."""
        ...

    def relation(self, path: tuple[Word, ...]) -> str | None:
        """If the name is a relation: what to count, `*` or a column. Otherwise None."""
        ...

    def order_item(self, tree: exp.Ordered) -> Order: ...

    def order(self) -> list[Order]:
        """The relation's own order, which ends in the primary key."""
        ...

    def item(self, sql: str) -> str:
        """Compute this in the scan of these rows; the answer refers to it."""
        ...


def write_aggregate(call: Aggregate, rows: Rows) -> Value:
    """The aggregate as seen from outside the scan. Raises Unfit."""
    name = {"array": "array_agg", "every": "bool_and"}.get(call.name, call.name)
    expected = 2 if name == "string_agg" else 1
    if len(call.arguments) != expected:
        count = "one argument" if expected == 1 else "two arguments"
        raise UnsupportedExpression(f"{call.name}() takes {count}, not {len(call.arguments)}")
    if call.distinct and call.order:
        raise UnsupportedExpression("DISTINCT values are in their own order", "leave ORDER BY out")
    return _WRITERS[name](_Writer(name, call, rows))


class _Writer:
    """One aggregate being written. The order is only read where it is needed: it depends on more columns."""

    def __init__(self, name: str, call: Aggregate, rows: Rows) -> None:
        self._name = name
        self._call = call
        self._rows = rows
        self._kept = f" FILTER (WHERE {rows.value(call.filter).sql})" if call.filter is not None else ""

    def count(self) -> Value:
        argument = self._call.arguments[0]
        path = path_of(argument)
        counted = self._rows.relation(path) if path and not self._call.distinct else None
        distinct = "DISTINCT " if self._call.distinct else ""
        return Value(self._item("count", counted or distinct + self._rows.value(argument).sql), "bigint")

    def one_of_them(self) -> Value:
        """`first` and `last`."""
        value = _listable(self._value())
        order = self._order() if self._name == "first" else [item.reversed() for item in self._order()]
        found = self._item("array_agg", value.sql + _by(order))
        return Value(f"({found})[1]", value.type, value.element)

    def array(self) -> Value:
        value = _listable(self._value())
        if not self._call.distinct:
            found = self._item("array_agg", value.sql + _by(self._order()))
        elif value.type in EXACT:
            found = self._item("array_agg", f"DISTINCT {value.sql}{_by([Order(value.sql)])}")
        else:
            found = f"ARRAY(SELECT v FROM {self._first_of_equals(value)} ORDER BY v)"
            return Value(found, "array", value.type)
        return Value(f"coalesce({found}, '{{}}')", "array", value.type)

    def joined(self) -> Value:
        value, separator = self._value(), self._rows.value(self._call.arguments[1]).sql
        if self._call.distinct:
            arguments = f"DISTINCT {value.sql}, {separator}{_by([Order(value.sql)])}"
        else:
            arguments = f"{value.sql}, {separator}{_by(self._order())}"
        return Value(self._item("string_agg", arguments), "text")

    def truth(self) -> Value:
        return Value(self._item(self._name, self._value().sql), "boolean")

    def extreme(self) -> Value:
        value = self._value()
        by = "" if value.type in EXACT else _by(self._order())
        return Value(self._item(self._name, value.sql + by), value.type, value.element)

    def sum(self) -> Value:
        value = self._value()
        result = (_SUMS if self._name == "sum" else _AVERAGES).get(value.type, "")
        if self._call.distinct and value.type not in EXACT:
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
        return self._rows.item(f"pg_catalog.{function}({arguments}){self._kept}")

    def _first_of_equals(self, value: Value) -> str:
        """A FROM item with the distinct values `v`: of equal ones, the first in the relation's order."""
        found = self._item("array_agg", value.sql + _by([Order(value.sql), *self._order()]))
        numbered = f"pg_catalog.unnest({found}) WITH ORDINALITY AS u(v, n)"
        return f"(SELECT DISTINCT ON (v) v FROM {numbered} ORDER BY v, n) AS w"


_WRITERS: dict[str, Callable[[_Writer], Value]] = {
    "count": _Writer.count,
    "sum": _Writer.sum,
    "avg": _Writer.sum,
    "min": _Writer.extreme,
    "max": _Writer.extreme,
    "first": _Writer.one_of_them,
    "last": _Writer.one_of_them,
    "array_agg": _Writer.array,
    "string_agg": _Writer.joined,
    "bool_and": _Writer.truth,
    "bool_or": _Writer.truth,
}


def _listable(value: Value) -> Value:
    """Arrays of unequal length and rows cannot be elements of an array, but their JSON can."""
    if shape_of(value.element):
        raise UnsupportedExpression(
            "arrays of shapes cannot be listed", "use a relation of a table with one shape a row"
        )
    if value.type in ("array", "composite"):
        return Value(f"pg_catalog.to_jsonb({value.sql})", "jsonb")
    return value


def _by(order: Sequence[Order]) -> str:
    return f" ORDER BY {', '.join(map(str, order))}" if order else ""
