"""Checks that an index leads to one bucket of the divided rows. Without it, each change reads far more rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from syncer.checks.finding import Finding, NewIndex, quote
from syncer.checks.groups import canonical, entry
from syncer.declaration.catalog import Index, Table
from syncer.declaration.compiled import GroupColumn, Partials

_SMALL = 1000
"""Rows up to which a scan is as fast as an index."""


def check_partials(
    where: str, partials: Partials, table: Table, groups: Sequence[GroupColumn] = ()
) -> Iterator[Finding]:
    """Yields an error if no index has the link or the groups first, and then the column of the buckets.

    table: of the divided rows. groups: of a grouped root. where: the file of the declaration.
    It is a note for a small table.
    """
    if any(_leads_to_bucket(index, partials, groups) for index in table.indexes if not index.partial):
        return
    found = [entry(group) for group in groups if not group.bounded] if groups else map(quote, partials.link)
    new = NewIndex(table.name, (*found, quote(partials.by)), concurrently=table.kind != "partitioned")
    yield Finding(
        "note" if 0 < table.rows_estimate <= _SMALL else "error",
        "partials-index",
        f"{where}: {partials.relation}",
        f"{table.name} has no index on {', '.join([*partials.link, partials.by])}",
        "each change reads all rows of a document instead of one bucket",
        str(new),
        new,
    )


def _leads_to_bucket(index: Index, partials: Partials, groups: Sequence[GroupColumn]) -> bool:
    """Returns whether an index leads to one bucket.

    The index may leave out a group with bounds, such as an hour: a bucket has few rows of other hours.
    """
    if not groups:
        count, columns = len(partials.link), index.columns
        return set(columns[:count]) == set(partials.link) and columns[count : count + 1] == (partials.by,)
    keys, by = tuple(map(canonical, index.keys)), canonical(quote(partials.by))
    if by not in keys:
        return False
    before = set(keys[: keys.index(by)])
    needed = {canonical(group.sql) for group in groups if not group.bounded}
    return needed <= before <= {canonical(group.sql) for group in groups}
