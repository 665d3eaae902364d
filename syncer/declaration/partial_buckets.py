"""Writes the numbers and the bounds of buckets as SQL.

The rows of a relation are divided by one column:

    integers    `size` consecutive values. Division truncates, so bucket 0 has twice as many
    timestamps  spans of `size`, counted from 1970-01-01 00:00:00. Those of `timestamptz` are in UTC
    dates       the same, counted in days

A value has exactly one bucket. Its number depends on nothing but the value: not on the session's time zone, and not on
daylight saving time. The bounds are inclusive, and have the type of the column, so that an index on it serves them.
Times before year 1, with `-infinity`, belong to the first bucket, and times after year 9999 to the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from syncer.declaration.catalog import Column, Table
from syncer.declaration.form import Partials
from syncer.declaration.names import nearest, quote
from syncer.declaration.sql_types import INTEGERS

_LEAST, _GREATEST = -(2**63), 2**63 - 1
_DAY = 86_400
_YEAR_1, _YEAR_10000 = -719_162, 2_932_897
"""The days from 1970-01-01 to 0001-01-01 and to 10000-01-01."""
_TIMESTAMP, _TIMESTAMPTZ = "timestamp without time zone", "timestamp with time zone"


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets of a relation. Each SQL has `{}` in the place of a value, or of a bucket's number."""

    _number: str
    _low: str
    _high: str

    def number(self, value: str) -> str:
        """Returns the number of the bucket of a value, as bigint. value: of the column, or its text from an event."""
        return self._number.replace("{}", value)

    def low(self, number: str) -> str:
        """Returns the lowest value of a bucket, in the type of the column (integers: bigint)."""
        return self._low.replace("{}", number)

    def high(self, number: str) -> str:
        """Returns the highest value of a bucket, in the type of the column (integers: bigint)."""
        return self._high.replace("{}", number)


def mistake(given: Partials, table: Table) -> tuple[str, str] | None:
    """Returns why a table cannot be divided by the given column and size, and what to write instead."""
    column, timed = table.columns.get(given.by), isinstance(given.size, timedelta)
    if column is None:
        return "there is no such column", nearest(given.by, table.columns)
    if column.base not in (*INTEGERS, "date", _TIMESTAMP, _TIMESTAMPTZ):
        return f"its type is {column.type}", "choose an integer, a date or a timestamp"
    if not column.not_null:
        what = "it can be NULL, and a row with NULL would be in no bucket"
        return what, f"ALTER TABLE {quote(*table.name)} ALTER COLUMN {quote(column.name)} SET NOT NULL"
    if column.base in INTEGERS and timed:
        return f"its type is {column.type}, and `size` is a duration", "write a number of values, such as size: 5000"
    if column.base not in INTEGERS and not timed:
        return f"its type is {column.type}, and `size` has no unit", "write a duration, such as size: 1h"
    if column.base == "date" and isinstance(given.size, timedelta) and given.size % timedelta(days=1):
        return "its type is date, and `size` is not a number of days", "write days, such as size: 7d"
    return None


def buckets(given: Partials, column: Column) -> Buckets:
    """Returns the buckets of a column for which there is no `mistake`."""
    if not isinstance(given.size, timedelta):
        return _of_integers(given.size)
    if column.base == "date":
        return _of_dates(given.size.days)
    return _of_timestamps(round(given.size.total_seconds()), zone=column.base == _TIMESTAMPTZ)


def _of_integers(size: int) -> Buckets:
    width = f"CASE WHEN {{}} {{sign}} 0 THEN {size - 1} ELSE 0 END"
    low, high = width.replace("{sign}", "<="), width.replace("{sign}", ">=")
    return Buckets(
        f"({{}}::pg_catalog.int8 / {size})",
        f"greatest({{}}::pg_catalog.numeric * {size} - {low}, {_LEAST})::pg_catalog.int8",
        f"least({{}}::pg_catalog.numeric * {size} + {high}, {_GREATEST})::pg_catalog.int8",
    )


def _of_dates(days: int) -> Buckets:
    epoch = "'1970-01-01'::pg_catalog.date"
    clamped = "greatest(least({}::pg_catalog.date, '9999-12-31'::pg_catalog.date), '0001-01-01'::pg_catalog.date)"
    at = f"({epoch} + {{}}::pg_catalog.int4)"
    low, high = _bounds("date", days, _YEAR_1, _YEAR_10000, at, f"{at} - 1")
    return Buckets(_floor(f"({clamped} - {epoch})", days), low, high)


def _of_timestamps(seconds: int, *, zone: bool) -> Buckets:
    type, suffix = ("timestamptz", "+00") if zone else ("timestamp", "")
    clamped = (
        f"greatest(least({{}}::pg_catalog.{type}, '9999-12-31 23:59:59.999999{suffix}'::pg_catalog.{type}),"
        f" '0001-01-01 00:00:00{suffix}'::pg_catalog.{type})"
    )
    # Exact: between these years, a whole number of seconds, in microseconds, has at most 53 significant bits.
    at = "pg_catalog.to_timestamp({}::pg_catalog.float8)"
    if not zone:
        at = f"pg_catalog.timezone('UTC', {at})"
    before = f"{at} - '1 microsecond'::pg_catalog.interval"
    low, high = _bounds(type, seconds, _YEAR_1 * _DAY, _YEAR_10000 * _DAY, at, before)
    return Buckets(_floor(f"pg_catalog.floor(extract(epoch from {clamped}))", seconds), low, high)


def _floor(units: str, size: int) -> str:
    """Returns the greatest whole number that is at most `units / size`.

    units: SQL of a whole number. Below 10^12, the 16 significant digits of a quotient of `numeric` show that it is not
    the next whole number, and `size` is below 10^10.
    """
    return f"pg_catalog.floor({units}::pg_catalog.numeric / {size})::pg_catalog.int8"


def _bounds(type: str, size: int, first: int, end: int, low: str, high: str) -> tuple[str, str]:
    """Returns the lowest and the highest value of a bucket. The first bucket has no lower bound, the last no upper one.

    first, end: the units of the first value, and the units after the last value. low, high: the SQL of the bounds, with
    `{}` for units.
    """
    begin, following = f"({{}}::pg_catalog.numeric * {size})", f"(({{}}::pg_catalog.numeric + 1) * {size})"
    return (
        f"CASE WHEN {begin} <= {first} THEN '-infinity'::pg_catalog.{type} ELSE {low.replace('{}', begin)} END",
        f"CASE WHEN {following} >= {end} THEN 'infinity'::pg_catalog.{type} ELSE {high.replace('{}', following)} END",
    )
