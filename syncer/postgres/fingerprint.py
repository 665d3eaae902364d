"""A cheap fingerprint of a read model's tables, part of every batch's first statement.

Another fingerprint means that what the read model was compiled from may be true no longer: read the
catalog again, compile again, and go on if the same came out. Where a change can alter values without a
change event (`ALTER COLUMN … TYPE … USING`, a partition attached), only this tells.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from psycopg import sql

from syncer.declaration.catalog import Catalog
from syncer.errors import Retry


class Fingerprint(NamedTuple):
    """sql: asks for it, as `fingerprint` makes it; value: what the tables said that it belongs to."""

    sql: sql.Composable
    value: str


class Tables:
    """The tables that a compiled read model fits, as one fingerprint; shared by its connections' threads.

    again: reads the catalog anew; returns the fingerprint of the tables as they are now if the read model
    fits these, too. Raises Retry otherwise, as when there is no `again`: compile again.

    A snapshot with another fingerprint is given up, before anything else is read in it. So it does not matter
    which connection notices first, nor that one begins before and another after an alteration: each snapshot
    that is used shows tables that the read model was found to fit.
    """

    def __init__(self, name: str, fingerprint: Fingerprint, again: Callable[[], Fingerprint] | None = None) -> None:
        self.name, self.fingerprint, self._again = name, fingerprint, again
        self._lock = threading.Lock()

    def revalidate(self, seen: Fingerprint) -> None:
        """A snapshot did not have this fingerprint: read the catalog, unless another thread has since."""
        with self._lock:
            if self.fingerprint is seen:
                if self._again is None:
                    raise altered(self.name)
                self.fingerprint = self._again()


def altered(name: str) -> Retry:
    """The tables are others than those that the read model was compiled from."""
    return Retry(
        "the tables were altered: the read model is compiled again",
        where=name,
        hint="nothing to do, unless it comes again: syncer check",
    )


def fingerprint(catalog: Catalog, *, publication: str = "", schemas: bool = False) -> sql.Composed:
    """A scalar subquery, in parentheses: a text that changes when these tables are altered in any way that
    can matter to a read model (names, columns, types, enum labels, partitions, inheritance, identities, row
    security, membership of `publication`), also if they are altered back, and not by ANALYZE, VACUUM or
    changes of rows. It changes whenever the shape of the tables (`postgres/table_state.py`) tells of an alteration.

    schemas: whether publications may name schemas, too (PostgreSQL 15 and up).

    It takes no parameters and a fraction of a millisecond, so it can be part of every batch's first
    statement. A TRUNCATE does not change it, except of a partition: that sends no change event if it is
    truncated by itself, so its file counts, too. `ALTER COLUMN … TYPE … USING`, which changes values without
    a change event, is seen as a new version of the column.
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


# `oid >= 16384` (FirstNormalObjectId: what users made) keeps the planner on the catalogs' indexes.
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
              WHERE i.indrelid = c.oid AND (i.indisreplident OR i.indisprimary) AND i.indisvalid)),
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
              WHERE i.indrelid = c.oid AND (i.indisreplident OR i.indisprimary) AND i.indisvalid)),
            ',' ORDER BY c.oid)
   FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid AND c.oid >= 16384)""")

# Enums, domains and composites, also inside arrays and under domains; and how types become json.
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
    # A text literal, not a parameter: the statement stays the same from batch to batch and is prepared once.
    return sql.Literal("{" + ",".join(str(oid) for oid in sorted(oids)) + "}")
