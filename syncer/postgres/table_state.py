"""Reads `syncer.checks.table_state.Shape` from the catalog."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from syncer.checks.table_state import FORM, TableState
from syncer.events import TableName

# `xmin` is the transaction that wrote a row of the catalog: it tells what was altered and altered back, and
# stays when the row is frozen. Which rows a command writes was found by trying: a table's row type by RENAME,
# SET SCHEMA and OWNER alone; its row of pg_class also by GRANT, ADD COLUMN, VACUUM FULL.
_TABLES: LiteralString = """
SELECT n.nspname, c.relname, c.oid::bigint, c.relfilenode::bigint,
       (SELECT t.xmin::text FROM pg_catalog.pg_type t WHERE t.oid = c.reltype),
       (SELECT pg_catalog.string_agg(
                   pg_catalog.concat_ws(' ', p.oid, p.xmin, r.oid, r.xmin), ',' ORDER BY p.oid)
          FROM pg_catalog.pg_publication p
          LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
         WHERE p.pubname = %s AND (p.puballtables OR r.oid IS NOT NULL)),
       (SELECT pg_catalog.jsonb_object_agg(a.attname, pg_catalog.jsonb_build_array(
                   a.attnum, a.atttypid::bigint, a.atttypmod,
                   pg_catalog.format_type(a.atttypid, a.atttypmod), a.xmin::text,
                   pg_catalog.concat_ws(' ', a.attnotnull, a.attidentity, a.attstattarget, a.attstorage,
                       a.attcompression, a.attoptions, a.attacl, d.oid)))
          FROM pg_catalog.pg_attribute a
          LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', i.indexrelid, i.xmin), ',')
          FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident),
       (WITH RECURSIVE tree (oid, links) AS (
            SELECT i.inhrelid, i.xmin::text
              FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid AND NOT i.inhdetachpending
             UNION ALL
            SELECT i.inhrelid, tree.links || ' ' || i.xmin
              FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid AND NOT i.inhdetachpending)
        SELECT pg_catalog.jsonb_object_agg(leaf.oid, pg_catalog.jsonb_build_array(
                   leaf.relfilenode::bigint, tree.links,
                   (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', i.indexrelid, i.xmin), ',')
                      FROM pg_catalog.pg_index i WHERE i.indrelid = leaf.oid AND i.indisreplident)))
          FROM tree
          JOIN pg_catalog.pg_class leaf ON leaf.oid = tree.oid AND leaf.relkind <> 'p'
         WHERE c.relkind = 'p')
  FROM unnest(%s::text[], %s::text[]) AS wanted (nspname, relname)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nspname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relname
"""

# PostgreSQL 15 and up: FOR TABLES IN SCHEMA.
_SCHEMAS: LiteralString = """
SELECT n.nspname, pg_catalog.concat_ws(' ', p.oid, p.xmin, s.oid, s.xmin)
  FROM pg_catalog.pg_publication p
  JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = p.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
 WHERE p.pubname = %s
"""

# Also inside of arrays, domains and composite types.
_LABELS: LiteralString = """
WITH RECURSIVE used (oid) AS (
    SELECT unnest(%s::bigint[])::oid
    UNION
    SELECT inside.oid
      FROM used
      JOIN pg_catalog.pg_type t ON t.oid = used.oid
      LEFT JOIN pg_catalog.pg_attribute a ON t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0
     CROSS JOIN LATERAL (VALUES (t.typelem), (t.typbasetype), (a.atttypid)) AS inside (oid)
     WHERE inside.oid >= 16384)
SELECT e.oid::text, e.enumlabel::text, e.xmin::text
  FROM used JOIN pg_catalog.pg_enum e ON e.enumtypid = used.oid
 UNION ALL
SELECT t.oid::text,
       pg_catalog.string_agg(
           pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum),
       pg_catalog.string_agg(a.xmin::text, ' ' ORDER BY a.attnum)
  FROM used
  JOIN pg_catalog.pg_type t ON t.oid = used.oid
  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0
 WHERE t.typrelid <> 0
 GROUP BY t.oid
"""

_FILLED: LiteralString = """
SELECT oid::text FROM unnest(%s::text[]::oid[]) AS leaf (oid) WHERE pg_catalog.pg_relation_size(oid) > 0
"""


def read(
    connection: psycopg.Connection[Any], used: Mapping[TableName, Collection[str]], publication: str
) -> TableState:
    """used: the columns that matter, by table. Raises psycopg.Error."""
    names = sorted(used)
    tables: dict[str, Any] = {}
    types: set[int] = set()
    with connection.cursor(row_factory=tuple_row) as cursor:
        by_schema: dict[str, str] = {}
        if connection.info.server_version >= 150000:
            by_schema = dict(cursor.execute(_SCHEMAS, (publication,)).fetchall())
        cursor.execute(_TABLES, (publication, [t.schema for t in names], [t.name for t in names]))
        for schema, name, oid, file, named, published, columns, identity, leaves in cursor:
            table = TableName(schema, name)
            own = {column: columns[column] for column in sorted(used[table]) if column in columns}
            types |= {type_ for _, type_, *_ in own.values()}
            tables[str(table)] = {
                "oid": oid,
                "named": named,
                "file": file,
                "columns": own,
                "publication": [published or "", by_schema.get(schema, "")],
                "identity": identity or "",
                "leaves": leaves or {},
            }
        cursor.execute(_LABELS, (sorted(types),))
        labels = {oid: [label, version] for oid, label, version in cursor}
    return {"form": FORM, "tables": tables, "labels": labels}


def filled(connection: psycopg.Connection[Any], shape: TableState) -> set[str]:
    """The leaves that have held a row since they were made or last truncated."""
    leaves = [leaf for table in shape["tables"].values() for leaf in table["leaves"]]
    return {oid for (oid,) in connection.execute(_FILLED, (leaves,)).fetchall()}
