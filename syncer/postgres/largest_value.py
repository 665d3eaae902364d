"""Finds large values of a column without reading its table, for `syncer check`.

An index has the highest and the lowest value. Without an index, the statistics of the last ANALYZE have some values.
Neither proves that there is no larger value of an expression over the column: it need not be monotonic, and the
statistics are a sample. But each value that they have is, or was, the value of a row.
"""

# ruff: noqa: S608 - the SQL is joined from quoted names and re-generated expressions only

from __future__ import annotations

from typing import Any

import psycopg

from syncer.checks.limits import LargestValue
from syncer.declaration.catalog import Index
from syncer.declaration.field_source import ROW, FieldSource
from syncer.declaration.names import literal, quote
from syncer.declaration.sql_types import INTEGERS, own_type
from syncer.postgres.session import classify_error

_TIMEOUT = 5.0
"""Seconds. Dead entries at the end of an index can make it slow."""


def read_largest(
    connection: psycopg.Connection[Any], source: FieldSource, timeout: float = _TIMEOUT
) -> LargestValue | None:
    """Returns the largest known value of an expression over a column. None if no value is known.

    connection: in autocommit mode. timeout: seconds for each statement.
    Raises Retry or Fatal if PostgreSQL cannot answer.
    """
    index = next((index for index in source.table.indexes if _leads(index, source.column.name)), None)
    if index and (row := _query(connection, source, _extremes(source), timeout)):
        return LargestValue(row[0], row[1], f"the index {index.name}", current=True)
    if row := _query(connection, source, _statistics(source), timeout):
        return LargestValue(row[0], row[1], f"the statistics of {row[2]}", current=False)
    return None


def _leads(index: Index, column: str) -> bool:
    """Returns whether the entries of an index begin with a column, in its order, and cover all rows."""
    return bool(index.order) and index.order[0].name == column and not index.partial


def _extremes(source: FieldSource) -> str:
    """Returns a query for the highest and the lowest finite value of a column that leads an index."""
    column, table = f"t.{quote(source.column.name)}", quote(*source.table.name)
    finite = "" if source.column.base in INTEGERS else f" WHERE {column} > '-infinity' AND {column} < 'infinity'"
    ends = (f"SELECT pg_catalog.{end}({column}), '' FROM {table} t{finite}" for end in ("max", "min"))
    return " UNION ALL ".join(ends)


def _statistics(source: FieldSource) -> str:
    """Returns a query for the values of a column in the statistics of its table and of the partitions."""
    type = own_type(source.column.type, source.column.base)
    names = {source.table.name, *(leaf.name for leaf in source.table.leaves)}
    tables = ", ".join(f"({literal(table.schema)}, {literal(table.name)})" for table in sorted(names))
    values = (f"s.{values}::pg_catalog.text::{type}[]" for values in ("histogram_bounds", "most_common_vals"))
    return (
        "SELECT u.value, pg_catalog.concat_ws(' of ', s.tablename, pg_catalog.to_char("
        "greatest(a.last_analyze, a.last_autoanalyze), 'YYYY-MM-DD HH24:MI TZ'))"
        " FROM pg_catalog.pg_stats s LEFT JOIN pg_catalog.pg_stat_all_tables a"
        " ON a.schemaname = s.schemaname AND a.relname = s.tablename"
        f" CROSS JOIN LATERAL pg_catalog.unnest({' || '.join(values)}) AS u (value)"
        f" WHERE (s.schemaname, s.tablename) IN ({tables}) AND s.attname = {literal(source.column.name)}"
    )


def _query(
    connection: psycopg.Connection[Any], source: FieldSource, values: str, timeout: float
) -> tuple[Any, ...] | None:
    """Returns the largest number, the value of the column and the place of one row of `values`."""
    number = f"({source.sql})::pg_catalog.text::pg_catalog.numeric"  # a cast from double precision keeps 15 digits only
    query = (
        f"SELECT n.number, s.value::pg_catalog.text, s.place FROM ({values}) AS s (value, place)"
        f" CROSS JOIN LATERAL (SELECT s.value AS {quote(source.column.name)}) {ROW}"
        f" CROSS JOIN LATERAL (SELECT {number} AS number) n"
        " WHERE n.number <> ALL ('{NaN,Infinity,-Infinity}'::pg_catalog.numeric[])"
        " ORDER BY pg_catalog.abs(n.number) DESC LIMIT 1"
    )
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {round(timeout * 1000)}".encode())
            return connection.execute(query.encode()).fetchone()
    except (psycopg.errors.QueryCanceled, psycopg.DataError):  # it took too long, or the expression fails on a value
        return None
    except psycopg.Error as error:
        raise classify_error(error, "cannot read the largest value", where=str(source.table.name)) from error
