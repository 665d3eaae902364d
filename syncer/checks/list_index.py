"""Checks that an index provides the order of a list whose rows are linked through other relations, such as a feed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from syncer.checks.finding import Finding, NewIndex, Severity, quote
from syncer.declaration.catalog import Index, SortColumn, Table

_SMALL = 1000
"""Rows up to which a scan is as fast as an index."""


def list_index(at: str, table: Table, link: Sequence[str], order: Sequence[SortColumn]) -> Iterator[Finding]:
    """Finds that each render reads all linked rows, because no index provides the first of them.

    link: the columns that are equal to a link value. order: the order of the list; empty if no index can provide it.
    """
    wanted = [column for column in order if column.name not in link]  # an equal column does not affect the order
    if any(_provides(index, link, wanted) for index in table.indexes) and order:
        return
    why = "each render reads and sorts all linked rows to find the first ones"
    if not order:
        what = "no index can provide the order of the list, because it is not an order by columns of its table"
        fix = f"in `order_by`, use columns of {table.name} only"
        yield Finding(_severity(table), "no-index", at, what, why, fix)
        return
    forwards = [column.reversed() for column in wanted] if wanted and wanted[0].descending else wanted
    columns = ", ".join([*link, *(column.name for column in wanted)])
    suffix = [f"{quote(column.name)}{_direction(column)}" for column in forwards]
    yield missing_index(at, table, columns, why, [*map(quote, link), *suffix])


def missing_index(at: str, table: Table, columns: str, why: str, keys: Sequence[str], using: str = "") -> Finding:
    """Returns the finding that a table has no index on these columns.

    keys: the same as SQL, one by one. using: the access method. Empty for a B-tree.
    """
    what = f"{table.name} has no {'GIN ' if using == 'gin' else ''}index on {columns}"
    index = NewIndex(table.name, tuple(keys), using, concurrently=table.kind != "partitioned")
    return Finding(_severity(table), "no-index", at, what, why, str(index), index)


def _severity(table: Table) -> Severity:
    return "note" if 0 < table.rows_estimate <= _SMALL else "warning"


def _direction(column: SortColumn) -> str:
    nulls = "" if column.nulls_first == column.descending else f" NULLS {'FIRST' if column.nulls_first else 'LAST'}"
    return f"{' DESC' if column.descending else ''}{nulls}"


def _provides(index: Index, link: Sequence[str], wanted: Sequence[SortColumn]) -> bool:
    """Returns whether an index has the link columns first, and then this order, forwards or backwards."""
    if index.partial or set(index.columns[: len(link)]) != set(link):
        return False
    found = list(index.order[len(link) : len(link) + len(wanted)])
    return found == list(wanted) or found == [column.reversed() for column in wanted]
