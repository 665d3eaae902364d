"""Reads `syncer.shape.Shape` from the catalog."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from syncer.change import TableName
from syncer.shape import Shape

# A table's row of a publication; of one FOR ALL TABLES the publication itself.
_TABLES: LiteralString = """
SELECT n.nspname, c.relname, c.oid::bigint, c.relfilenode::bigint,
       (SELECT pg_catalog.string_agg(coalesce(r.oid, p.oid)::text, ' ' ORDER BY p.oid)
          FROM pg_catalog.pg_publication p
          LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
         WHERE p.pubname = %s AND (p.puballtables OR r.oid IS NOT NULL)),
       (SELECT pg_catalog.jsonb_object_agg(a.attname, pg_catalog.jsonb_build_array(
                   a.attnum, a.atttypid::bigint, a.atttypmod, a.xmin::text))
          FROM pg_catalog.pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       (SELECT pg_catalog.jsonb_object_agg(leaf.oid, leaf.relfilenode::bigint)
          FROM pg_catalog.pg_partition_tree(c.oid) t
          JOIN pg_catalog.pg_class leaf ON leaf.oid = t.relid
         WHERE c.relkind = 'p' AND t.isleaf)
  FROM unnest(%s::text[], %s::text[]) AS wanted (nspname, relname)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nspname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relname
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
SELECT e.oid::text, e.enumlabel::text FROM used JOIN pg_catalog.pg_enum e ON e.enumtypid = used.oid
 UNION ALL
SELECT t.oid::text, pg_catalog.string_agg(
           pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
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
) -> Shape:
    """used: the columns that matter, by table. Raises psycopg.Error."""
    names = sorted(used)
    tables: dict[str, Any] = {}
    types: set[int] = set()
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(_TABLES, (publication, [t.schema for t in names], [t.name for t in names]))
        for schema, name, oid, file, published, columns, leaves in cursor:
            table = TableName(schema, name)
            own = {column: columns[column] for column in sorted(used[table]) if column in columns}
            types |= {type_ for _, type_, _, _ in own.values()}
            tables[str(table)] = {
                "oid": oid, "publication": published or "",
                "file": file, "columns": own, "leaves": leaves or {},
            }  # fmt: skip
        labels: dict[str, str] = dict(cursor.execute(_LABELS, (sorted(types),)).fetchall())
    return {"tables": tables, "labels": labels}


def filled(connection: psycopg.Connection[Any], shape: Shape) -> set[str]:
    """The leaves that have held a row since they were made or last truncated."""
    leaves = [leaf for table in shape["tables"].values() for leaf in table["leaves"]]
    return {oid for (oid,) in connection.execute(_FILLED, (leaves,)).fetchall()}
