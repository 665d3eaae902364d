"""Searches the trees of a read model (`up`) for cycles, for `syncer check`."""

from __future__ import annotations

from typing import Any

import psycopg

from syncer.checks.trees import TreeFacts
from syncer.declaration.compiled import Ancestors, Compiled
from syncer.postgres.session import classify_error

SEARCH_TIMEOUT = 15.0
"""Seconds. The search reads every row of the tree once. The tree may be large."""


def read_trees(
    connection: psycopg.Connection[Any], compiled: Compiled, timeout: float = SEARCH_TIMEOUT
) -> list[TreeFacts]:
    """Returns the facts about each path of ancestors. timeout: seconds for each tree.

    connection: in autocommit mode. Raises Retry or Fatal if PostgreSQL cannot answer.
    """
    uses = [(use, use.ancestors) for use in compiled.table_uses if use.ancestors]
    return [_read(connection, TreeFacts(use.path, use.table, ancestors), timeout) for use, ancestors in uses]


def _read(connection: psycopg.Connection[Any], facts: TreeFacts, timeout: float) -> TreeFacts:
    ancestors: Ancestors = facts.ancestors
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {round(timeout * 1000)}".encode())
            row = connection.execute(ancestors.search.encode()).fetchone()
            circular, too_deep, longest = row or (0, 0, 0)
            path = connection.execute(ancestors.sample.encode()).fetchone() if circular else None
    except psycopg.errors.QueryCanceled:
        return facts
    except psycopg.Error as error:
        raise classify_error(error, "cannot search a tree for cycles", where=str(facts.table)) from error
    return facts.found(circular, too_deep, longest, path[0] if path else ())
