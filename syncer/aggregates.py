"""Aggregates in SQL, each as a function of the snapshot alone.

PostgreSQL feeds an aggregate its rows in any order. Where that can show, an order is given: lists, `first`
and `last`, sums of floats (they round), and values that are equal but look different (1.0 and 1.00), of which
`max` keeps the last and `distinct` the first that comes.
"""

# ruff: noqa: S608 - what is joined here are quoted names and expressions written anew

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlglot import exp

from syncer.names import Word
from syncer.sql_parser import Aggregate, Unfit, path_of
from syncer.sql_types import EXACT, INTEGERS, Value

_SUMS = {
    "smallint": "bigint", "integer": "bigint", "bigint": "numeric", "numeric": "numeric", "real": "real",
    "double precision": "double precision", "interval": "interval",
}  # fmt: skip
_AVERAGES = {
    "smallint": "numeric", "integer": "numeric", "bigint": "numeric", "numeric": "numeric",
    "real": "double precision", "double precision": "double precision", "interval": "interval",
}  # fmt: skip
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
        told = "one argument" if expected == 1 else "two arguments"
        raise Unfit(f"{call.name}() takes {told}, not {len(call.arguments)}")
    kept = f" FILTER (WHERE {rows.value(call.filter).sql})" if call.filter is not None else ""
    distinct = "DISTINCT " if call.distinct else ""
    if name == "count":
        path = path_of(call.arguments[0])
        counted = rows.relation(path) if path and not call.distinct else None
        counted = counted or distinct + rows.value(call.arguments[0]).sql
        return Value(rows.item(f"pg_catalog.count({counted}){kept}"), "bigint")

    value = _fit_for_a_list(rows.value(call.arguments[0]), name)
    order = [*map(rows.order_item, call.order), *rows.order()]
    if name in ("first", "last"):
        by = _by(order if name == "first" else [o.reversed() for o in order])
        return Value(
            f"({rows.item(f'pg_catalog.array_agg({value.sql}{by}){kept}')})[1]", value.type, value.element
        )
    if name == "string_agg":
        by = _by([Order(value.sql)] if call.distinct else order)
        arguments = f"{distinct}{value.sql}, {rows.value(call.arguments[1]).sql}{by}"
        return Value(rows.item(f"pg_catalog.string_agg({arguments}){kept}"), "text")
    if name in ("bool_and", "bool_or"):
        return Value(rows.item(f"pg_catalog.{name}({value.sql}){kept}"), "boolean")
    if name in ("min", "max"):
        by = "" if value.type in EXACT else _by(order)
        return Value(rows.item(f"pg_catalog.{name}({value.sql}{by}){kept}"), value.type, value.element)
    if name == "array_agg":
        return _array(value, order, kept, rows, distinct=call.distinct)
    return _sum(name, value, order, kept, rows, distinct=call.distinct)


def _array(value: Value, order: Sequence[Order], kept: str, rows: Rows, *, distinct: bool) -> Value:
    if not distinct:
        found = rows.item(f"pg_catalog.array_agg({value.sql}{_by(order)}){kept}")
    elif value.type in EXACT:
        found = rows.item(f"pg_catalog.array_agg(DISTINCT {value.sql}{_by([Order(value.sql)])}){kept}")
    else:
        found = f"ARRAY(SELECT v FROM {_first_of_equals(value, order, kept, rows)} ORDER BY v)"
        return Value(found, "array", value.type)
    return Value(f"coalesce({found}, '{{}}')", "array", value.type)


def _sum(name: str, value: Value, order: Sequence[Order], kept: str, rows: Rows, *, distinct: bool) -> Value:
    result = (_SUMS if name == "sum" else _AVERAGES).get(value.type, "")
    if distinct and value.type not in EXACT:
        source = _first_of_equals(value, order, kept, rows)
        return Value(f"(SELECT pg_catalog.{name}(v ORDER BY v) FROM {source})", result)
    if distinct:
        return Value(rows.item(f"pg_catalog.{name}(DISTINCT {value.sql}){kept}"), result)
    by = "" if value.type in _NEVER_ROUNDED else _by(order)
    return Value(rows.item(f"pg_catalog.{name}({value.sql}{by}){kept}"), result)


def _first_of_equals(value: Value, order: Sequence[Order], kept: str, rows: Rows) -> str:
    """A FROM item with the distinct values `v`: of equal ones, the first in the relation's order."""
    all_values = rows.item(f"pg_catalog.array_agg({value.sql}{_by([Order(value.sql), *order])}){kept}")
    numbered = f"pg_catalog.unnest({all_values}) WITH ORDINALITY AS u(v, n)"
    return f"(SELECT DISTINCT ON (v) v FROM {numbered} ORDER BY v, n) AS w"


def _fit_for_a_list(value: Value, name: str) -> Value:
    """Arrays of unequal length cannot be elements of an array, but their JSON can."""
    if value.type == "array" and name in ("first", "last", "array_agg"):
        return Value(f"pg_catalog.to_jsonb({value.sql})", "jsonb")
    if value.type in ("literal", "null"):
        return Value(f"{value.sql}::pg_catalog.text", "text")
    return value


def _by(order: Sequence[Order]) -> str:
    return f" ORDER BY {', '.join(map(str, order))}" if order else ""
