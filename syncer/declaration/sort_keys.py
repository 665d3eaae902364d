"""Writes the values of an order in a form that sorts outside of PostgreSQL, so that sorted lists can be merged.

`pipeline/combine_states.py` merges the lists. It compares numbers only, so these types are possible:

    numbers           as they are
    dates, times      the seconds since 1970
    boolean           0 or 1
    uuid              its text, which is a hexadecimal number

A text has the order of a collation, which only PostgreSQL knows.
"""

from __future__ import annotations

from collections.abc import Sequence

from syncer.declaration.aggregates import Order
from syncer.declaration.compiled import SortKey
from syncer.declaration.sql_parser import UnsupportedExpression
from syncer.declaration.sql_types import NUMBERS

TIMES = frozenset(("date", "timestamp without time zone", "timestamp with time zone"))


def mergeable(element: str, order: Sequence[Order]) -> str:
    """Returns a JSON array of texts: the values of the order, and the element as JSON in an array of its own.

    Raises UnsupportedExpression for a type whose order is not known here.
    """
    # Only `array_to_json` writes a value as the list of a document does: it keeps NULL, and types a bare constant.
    shown = f"pg_catalog.array_to_json(ARRAY[{element}])::pg_catalog.text"
    return f"pg_catalog.json_build_array({', '.join([*map(_key, order), shown])})"


def sort_keys(order: Sequence[Order]) -> tuple[SortKey, ...]:
    """Returns how to compare the values of an order."""
    return tuple(SortKey(item.type == "uuid", item.descending, item.nulls_first) for item in order)


def number(sql: str, type: str) -> str:
    """Returns a number, a date or a timestamp as a number."""
    return f"extract(epoch from {sql})" if type in TIMES else sql


def _key(item: Order) -> str:
    if item.type in (*NUMBERS, "uuid") or item.type in TIMES:
        return f"({number(item.sql, item.type)})::pg_catalog.text"
    if item.type == "boolean":
        return f"({item.sql})::pg_catalog.int4::pg_catalog.text"
    raise UnsupportedExpression(
        f"an order by `{item.text or item.sql}` of the type {item.type or 'unknown'} cannot be combined from partials",
        "order by numbers, dates, timestamps, booleans or uuids; the primary key ends each order, so it needs them too",
    )
