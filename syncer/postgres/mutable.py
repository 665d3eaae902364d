"""Finds the parts of group expressions that PostgreSQL accepts in no index, because they are not immutable.

The answer depends on the version of PostgreSQL, and no function returns it. But the planner draws conclusions from
contradictory conditions only if they are immutable. So the plan of `e IS NULL AND e IS NOT NULL` is empty if and only
if an index can contain e: `relation_excluded_by_constraints` and `CREATE INDEX` call the same function. No row is read.
"""

from __future__ import annotations

from typing import Any

import psycopg

from syncer.declaration.compiled import Compiled
from syncer.declaration.names import quote
from syncer.postgres.session import classify_error

_NO_ROWS = "One-Time Filter"


def read_mutable(connection: psycopg.Connection[Any], compiled: Compiled) -> frozenset[str]:
    """Returns the SQL of the parts of all group expressions that no index can contain.

    Parts that PostgreSQL rejects are not among them: they are reported when the statements are planned. Expressions
    that a finding would advise (`GroupColumn.local`) are, so that it does not advise them.
    connection: in autocommit mode. Raises Retry or Fatal if PostgreSQL cannot answer.
    """
    parts = {sql for group in compiled.group for _, sql in group.parts}
    advice = {group.local[1] for group in compiled.group if group.local}
    table = quote(*compiled.root)
    found = {sql for sql in parts if not _is_immutable(connection, table, sql, rejected=True)}
    found |= {sql for sql in advice if not _is_immutable(connection, table, sql, rejected=False)}
    return frozenset(found)


def _is_immutable(connection: psycopg.Connection[Any], table: str, sql: str, *, rejected: bool) -> bool:
    """Returns whether an index can contain an expression. rejected: the answer for one that PostgreSQL rejects."""
    statement = f"EXPLAIN (FORMAT JSON) SELECT FROM {table} WHERE ({sql}) IS NULL AND ({sql}) IS NOT NULL"
    try:
        with connection.transaction():
            connection.execute("SET LOCAL constraint_exclusion = on")
            row = connection.execute(statement.encode()).fetchone()
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError):
        return rejected
    except psycopg.Error as error:
        raise classify_error(error, "cannot check the group expressions", where=table) from error
    return row is not None and row[0][0]["Plan"].get(_NO_ROWS) == "false"
