"""Detects in every batch that a table was altered, with a fingerprint of the system catalogs.

The fingerprint is part of each batch's first statement. If it changes, the catalog that the read model was compiled
from may be out of date. Then the syncer reads the catalog again and compiles again. It continues if the result is the
same. Some alterations change values without a change event (`ALTER COLUMN … TYPE … USING`, a partition with rows is
attached). Only the fingerprint detects these.

It changes whenever `checks/table_state.compare` finds an alteration (tests/integration/test_table_state.py): it hashes
id and version (`xmin`) of the catalog rows that `table_state.py` reads. PostgreSQL never changes the content of a row
without its version. The file of a plain table, and a column's default, are not part of the fingerprint. They count for
`compare` only together with a new version of a column.

One difference remains: `table_state.py` also reads types inside of composite types. If only a label of an enum inside
of a composite type is renamed, the fingerprint does not change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from psycopg import sql

from syncer.declaration.catalog import Catalog
from syncer.errors import Retry


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

    It detects changes of names, columns, types, enum labels, partitions, inheritance, unique indexes, replica
    identities, row security and membership of `publication`, even if they are reverted. ANALYZE, VACUUM and changes of
    rows do not change it.
    TRUNCATE does not change it, except TRUNCATE of a single partition, because that sends no change event.

    schemas: whether a publication can contain schemas (PostgreSQL 15 and later).

    The subquery takes a fraction of a millisecond. It has no parameters, so it is the same statement for each batch,
    and is prepared once.
    """
    oids = [table.oid for table in catalog.tables.values()]
    trees = [table.oid for table in catalog.tables.values() if table.kind not in ("table", "view")]
    own_types = any("." in c.type or "." in c.element for t in catalog.tables.values() for c in t.columns.values())
    parts = [
        _RELATION_PRINT.format(_oids(oids)),
        _COLUMN_PRINT.format(_oids(oids)),
    ]
    if trees:
        parts.append(_TREE_PRINT.format(_oids(trees)))
    if own_types:
        parts.append(_TYPE_PRINT.format(_oids(oids)))
    if publication:
        of_schemas = _SCHEMAS_PRINT.format(_oids(oids)) if schemas else sql.SQL("''")
        parts.append(
            _PUBLICATION_PRINT.format(publication=sql.Literal(publication), oids=_oids(oids), of_schemas=of_schemas)
        )
    return sql.SQL("(SELECT pg_catalog.md5(pg_catalog.concat_ws('/', {})))").format(sql.SQL(", ").join(parts))


# `oid >= 16384` (FirstNormalObjectId: objects that users created) makes the planner use the catalogs' indexes.
_RELATION_PRINT = sql.SQL("""
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', c.oid, c.relnamespace, c.relname, c.relkind,
            c.relpersistence, c.relreplident, c.relrowsecurity, c.relforcerowsecurity,
            (SELECT t.xmin FROM pg_catalog.pg_type t WHERE t.oid = c.reltype),
            (SELECT pg_catalog.string_agg(i.inhrelid::text, ' ' ORDER BY i.inhrelid)
               FROM pg_catalog.pg_inherits i
              WHERE c.relkind = 'r' AND c.oid IN (i.inhrelid, i.inhparent)),
            (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', i.indexrelid,
                        CASE WHEN i.indisreplident THEN i.xmin END), ' ' ORDER BY i.indexrelid)
               FROM pg_catalog.pg_index i
              WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid)),
            ',' ORDER BY c.oid)
   FROM pg_catalog.pg_class c
  WHERE c.oid = ANY ({}))""")

_COLUMN_PRINT = sql.SQL("""
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.xmin), ',' ORDER BY a.attrelid, a.attnum)
   FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ({}) AND a.attnum > 0)""")

_TREE_PRINT = sql.SQL("""
(WITH RECURSIVE tree (oid, link) AS (
    SELECT i.inhrelid, i.xmin::text FROM pg_catalog.pg_inherits i WHERE i.inhparent = ANY ({})
    UNION ALL
    SELECT i.inhrelid, i.xmin::text FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
 SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', c.oid, c.relfilenode, c.relpersistence,
            c.relreplident, tree.link,
            (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', i.indexrelid,
                        CASE WHEN i.indisreplident THEN i.xmin END), ' ' ORDER BY i.indexrelid)
               FROM pg_catalog.pg_index i
              WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid)),
            ',' ORDER BY c.oid)
   FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid AND c.oid >= 16384)""")

# Enums, domains and composite types, also inside of arrays and domains; and the casts of types to json.
_TYPE_PRINT = sql.SQL("""
(WITH RECURSIVE used (oid) AS (
    SELECT a.atttypid FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = ANY ({}) AND a.attnum > 0 AND a.atttypid >= 16384
    UNION
    SELECT inner_type.oid
      FROM used
      JOIN pg_catalog.pg_type t ON t.oid = used.oid AND t.oid >= 16384
     CROSS JOIN LATERAL (VALUES (t.typelem), (t.typbasetype)) AS inner_type (oid)
     WHERE inner_type.oid >= 16384)
 SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.xmin,
            (SELECT pg_catalog.string_agg(e.xmin::text, ',' ORDER BY e.oid)
               FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
            (SELECT pg_catalog.string_agg(a.xmin::text, ',' ORDER BY a.attnum)
               FROM pg_catalog.pg_attribute a WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid),
            (SELECT c.xmin FROM pg_catalog.pg_cast c
              WHERE c.castsource = t.oid AND c.casttarget = 'pg_catalog.json'::regtype)),
            ',' ORDER BY t.oid)
   FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid AND t.oid >= 16384)""")

_PUBLICATION_PRINT = sql.SQL("""
(SELECT pg_catalog.concat_ws(' ', p.oid, p.xmin,
            (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', r.oid, r.xmin), ',' ORDER BY r.oid)
               FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = ANY ({oids})),
            {of_schemas})
   FROM pg_catalog.pg_publication p WHERE p.pubname = {publication})""")

_SCHEMAS_PRINT = sql.SQL("""
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.oid, s.xmin), ',' ORDER BY s.oid)
   FROM pg_catalog.pg_publication_namespace s
  WHERE s.pnpubid = p.oid
    AND s.pnnspid IN (SELECT c.relnamespace FROM pg_catalog.pg_class c WHERE c.oid = ANY ({})))""")


def _oids(oids: Iterable[int]) -> sql.Literal:
    # A text literal, not a parameter: the statement is the same for each batch, and is prepared once.
    return sql.Literal("{" + ",".join(str(oid) for oid in sorted(oids)) + "}")
