"""Checks that an index leads to one bucket of a relation with partials. Without it, each change reads all its rows."""

from __future__ import annotations

from collections.abc import Iterator

from syncer.checks.finding import Finding, NewIndex, quote
from syncer.declaration.catalog import Table
from syncer.declaration.compiled import Partials

_SMALL = 1000
"""Rows up to which a scan is as fast as an index."""


def check_partials(where: str, partials: Partials, table: Table) -> Iterator[Finding]:
    """Yields an error if no index has the link columns first and then the column of the buckets.

    table: of the relation. where: the file of the declaration. It is a note for a small table.
    """
    count = len(partials.link)
    for index in table.indexes:
        columns = index.columns
        if (
            not index.partial
            and set(columns[:count]) == set(partials.link)
            and columns[count : count + 1] == (partials.by,)
        ):
            return
    keys = tuple(map(quote, [*partials.link, partials.by]))
    new = NewIndex(table.name, keys, concurrently=table.kind != "partitioned")
    yield Finding(
        "note" if 0 < table.rows_estimate <= _SMALL else "error",
        "partials-index",
        f"{where}: {partials.relation}",
        f"{table.name} has no index on {', '.join([*partials.link, partials.by])}",
        "each change reads all rows of a document instead of one bucket",
        str(new),
        new,
    )
