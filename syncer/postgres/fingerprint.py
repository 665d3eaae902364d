"""Detects in every batch that a table was altered, with a fingerprint of the system catalogs.

The fingerprint is part of each batch's first statement. If it changes, the catalog that the read model was compiled
from may be out of date. Then the syncer reads the catalog again and compiles again. It continues if the result is the
same. Some alterations change values without a change event (`ALTER COLUMN … TYPE … USING`, a partition with rows is
attached). Only the fingerprint detects these.

It changes whenever `checks/table_state.compare` finds an alteration, because both read the rows of `catalog_rows.py`:

* The fingerprint hashes the id and the version of every row.
* The table state holds some of these rows, with their content. `compare` reports an alteration only if a row is
  missing, or if its id, its version or its content changed. PostgreSQL never changes the content without the version.
* The content of two kinds includes more than versioned columns. The file of a plain table, and a column's default,
  count for `compare` only together with a new version of a column.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from psycopg import sql

from syncer.declaration.catalog import Catalog
from syncer.errors import Retry
from syncer.postgres.catalog_rows import catalog_rows


class Fingerprint(NamedTuple):
    """A fingerprint, and the SQL that computes it."""

    sql: sql.Composable
    """The expression that `fingerprint` returns."""
    value: str
    """Its value for the tables that the read model was compiled from."""


class Tables:
    """Holds the fingerprint of the tables that a compiled read model fits. Its connections' threads share it.

    again: reads the catalog again. It returns the current fingerprint if the read model also fits the current tables,
    and raises Retry otherwise. Without it, every difference raises Retry. After Retry, the caller compiles again.

    A snapshot with another fingerprint is rolled back before anything else is read in it. So each snapshot in use shows
    tables that the read model fits. It does not matter which connection detects an alteration first, nor that one
    snapshot was taken before it and another after it.
    """

    def __init__(self, name: str, fingerprint: Fingerprint, again: Callable[[], Fingerprint] | None = None) -> None:
        self.name, self.fingerprint, self._again = name, fingerprint, again
        self._lock = threading.Lock()

    def revalidate(self, seen: Fingerprint) -> None:
        """Reads the catalog again, unless another thread has done so since.

        seen: the fingerprint that a snapshot did not have.
        """
        with self._lock:
            if self.fingerprint is seen:
                if self._again is None:
                    raise altered(self.name)
                self.fingerprint = self._again()


def altered(name: str) -> Retry:
    """Returns the error for tables that differ from those that the read model was compiled from."""
    return Retry(
        "the tables were altered: the read model is compiled again",
        where=name,
        hint="nothing to do; if this repeats: syncer check",
    )


def fingerprint(catalog: Catalog, *, publication: str = "", schemas: bool = False) -> sql.Composed:
    """Returns a scalar subquery, in parentheses, whose text changes when these tables are altered.

    It detects changes of names, columns, types, enum labels, partitions, inheritance, replica identities, row security
    and membership of `publication`, even if they are reverted. ANALYZE, VACUUM and changes of rows do not change it.
    TRUNCATE does not change it, except TRUNCATE of a single partition, because that sends no change event.

    schemas: whether a publication can contain schemas (PostgreSQL 15 and later).

    The subquery has no parameters and takes a fraction of a millisecond, so that it can be part of each batch.
    """
    # A text literal, not a parameter: the statement is the same for each batch, and is prepared once.
    oids = sql.Literal("{" + ",".join(str(oid) for oid in sorted(table.oid for table in catalog.tables.values())) + "}")
    rows = catalog_rows(
        sql.SQL("SELECT pg_catalog.unnest({}::oid[])").format(oids),
        sql.Literal(publication) if publication else None,
        partitions=any(table.kind not in ("table", "view") for table in catalog.tables.values()),
        types=any("." in c.type or "." in c.element for t in catalog.tables.values() for c in t.columns.values()),
        schemas=schemas,
    )
    return _HASH.format(rows)


_HASH = sql.SQL(
    """
(SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(
            pg_catalog.concat_ws(' ', kind, relation, id, version), ','
            ORDER BY kind COLLATE "C", relation, id, version COLLATE "C"), ''))
   FROM ({}) AS catalog_row (kind, relation, id, version))""".strip()
)
