"""Builds the query with which `table_state.py` reads the system catalogs.

A read model depends on certain rows of the system catalogs: its tables, columns, partitions, identity indexes, types
and the publication. The query returns one row for each of them: its kind, the relation (or type) that it belongs to,
its own id, its version and its content as JSON. `fingerprint.py` hashes ids and versions of these rows, and of others.

The version is the row's `xmin`, the transaction that wrote the row last. PostgreSQL alters a catalog row by writing a
new one, with another `xmin`. So an alteration changes the version even if it is reverted later. VACUUM keeps `xmin`
when it freezes a row.

pg_class is the exception: GRANT, ADD COLUMN and VACUUM FULL write its rows, too. So a table's version is the `xmin` of
its row type in pg_type. Only RENAME, SET SCHEMA and OWNER write that row (found by trial). A partition's version
consists of the versions of the links from the root to the partition.
"""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

from psycopg import sql

__all__ = ["CatalogRow", "rows_query"]


class CatalogRow(NamedTuple):
    """One row of the query."""

    kind: str
    """The name of a `_Kind`."""
    relation: int
    """The oid of the table or type that the row belongs to; 0 for the publication."""
    id: int
    """An oid, or the number of a column."""
    version: str
    detail: Any
    """The row's content, by name; None for some rows."""


class _Kind(NamedTuple):
    """One kind of catalog row, as a part of the query. `{oids}` stands for an array of the tables' oids."""

    name: LiteralString
    columns: LiteralString
    """SQL of relation, id and version."""
    source: LiteralString
    """What follows FROM."""
    detail: LiteralString = "NULL"


_TABLES = (
    _Kind(
        "table",
        "c.oid, c.oid, (SELECT t.xmin::text FROM pg_catalog.pg_type t WHERE t.oid = c.reltype)",
        "pg_catalog.pg_class c WHERE c.oid = ANY ({oids})",
        """pg_catalog.jsonb_build_object(
               'schema', (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = c.relnamespace),
               'name', c.relname, 'file', c.relfilenode::bigint)""",
    ),
    _Kind(
        "column",
        "a.attrelid, a.attnum, a.xmin::text",
        "pg_catalog.pg_attribute a WHERE a.attrelid = ANY ({oids}) AND a.attnum > 0 AND NOT a.attisdropped",
        """pg_catalog.jsonb_build_object(
               'name', a.attname, 'type', a.atttypid::bigint, 'modifier', a.atttypmod,
               'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod),
               'other', pg_catalog.concat_ws(' ', a.attnotnull, a.attidentity, a.attstattarget, a.attstorage,
                   a.attcompression, a.attoptions, a.attacl,
                   (SELECT d.oid FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)))""",
    ),
    _Kind(
        "identity",
        "i.indrelid, i.indexrelid, i.xmin::text",
        "pg_catalog.pg_index i WHERE i.indrelid = ANY ({oids}) AND i.indisreplident",
    ),
)
# The partitions that hold rows. `oid >= 16384` (FirstNormalObjectId: objects that users created) makes the planner use
# the catalogs' indexes.
_PARTITIONS = (
    _Kind(
        "partition",
        "tree.root, c.oid, tree.links",
        """tree
           JOIN pg_catalog.pg_class c ON c.oid = tree.oid AND c.oid >= 16384
          WHERE c.relkind <> 'p' AND NOT tree.detached""",
        "pg_catalog.jsonb_build_object('file', c.relfilenode::bigint)",
    ),
    _Kind(
        "partition identity",
        "i.indrelid, i.indexrelid, i.xmin::text",
        "tree JOIN pg_catalog.pg_index i ON i.indrelid = tree.oid AND i.indrelid >= 16384 AND i.indisreplident",
    ),
)
# Types that users created, also inside of arrays, domains and composite types.
_TYPES = (
    _Kind(
        "type",
        "t.oid, t.oid, t.xmin::text",
        "used JOIN pg_catalog.pg_type t ON t.oid = used.oid AND t.oid >= 16384",
        """pg_catalog.jsonb_build_object(
               'inner', pg_catalog.jsonb_build_array(t.typelem::bigint, t.typbasetype::bigint))""",
    ),
    _Kind(
        "label",
        "e.enumtypid, e.oid, e.xmin::text",
        "used JOIN pg_catalog.pg_enum e ON e.enumtypid = used.oid",
        "pg_catalog.jsonb_build_object('text', e.enumlabel)",
    ),
    _Kind(
        "attribute",
        "t.oid, a.attnum, a.xmin::text",
        """used
           JOIN pg_catalog.pg_type t ON t.oid = used.oid AND t.oid >= 16384 AND t.typrelid <> 0
           JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0""",
        """pg_catalog.jsonb_build_object(
               'text', pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod), 'type', a.atttypid::bigint)""",
    ),
)
_PUBLICATION = (
    _Kind(
        "publication",
        "0, published.oid, published.version",
        "published",
        "pg_catalog.jsonb_build_object('all_tables', published.all_tables)",
    ),
    _Kind(
        "member",
        "r.prrelid, r.oid, r.xmin::text",
        """published
           JOIN pg_catalog.pg_publication_rel r ON r.prpubid = published.oid AND r.prrelid = ANY ({oids})""",
    ),
)
# PostgreSQL 15 and later: FOR TABLES IN SCHEMA.
_PUBLICATION_SCHEMAS = (
    _Kind(
        "schema member",
        "c.oid, s.oid, s.xmin::text",
        """published
           JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = published.oid
           JOIN pg_catalog.pg_class c ON c.oid = ANY ({oids}) AND c.relnamespace = s.pnnspid""",
    ),
)

_TREE_CTE = sql.SQL("""tree (root, oid, links, detached) AS (
    SELECT c.oid, i.inhrelid, i.xmin::text, i.inhdetachpending
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_inherits i ON i.inhparent = c.oid
     WHERE c.oid = ANY ({oids}) AND c.relkind = 'p'
     UNION ALL
    SELECT tree.root, i.inhrelid, tree.links || ' ' || i.xmin::text, tree.detached OR i.inhdetachpending
      FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)""")
_USED_CTE = sql.SQL("""used (oid) AS (
    SELECT a.atttypid
      FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = ANY ({oids}) AND a.attnum > 0 AND a.atttypid >= 16384
     UNION
    SELECT inside.oid
      FROM used
      JOIN pg_catalog.pg_type t ON t.oid = used.oid AND t.oid >= 16384
      LEFT JOIN pg_catalog.pg_attribute a ON t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0
     CROSS JOIN LATERAL (VALUES (t.typelem), (t.typbasetype), (a.atttypid)) AS inside (oid)
     WHERE inside.oid >= 16384)""")
_PUBLISHED_CTE = sql.SQL("""published (oid, version, all_tables) AS (
    SELECT p.oid, p.xmin::text, p.puballtables FROM pg_catalog.pg_publication p WHERE p.pubname = {publication})""")
_NAMED_CTE = sql.SQL("""named (oids) AS (
    SELECT pg_catalog.array_agg(c.oid)
      FROM unnest(%s::text[], %s::text[]) AS wanted (nspname, relname)
      JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nspname
      JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relname)""")


def rows_query(*, schemas: bool) -> sql.Composed:
    """Returns the query. Its columns are those of `CatalogRow`.

    Its parameters are the schemas and the names of the tables, as two arrays, and the name of the publication.
    schemas: whether a publication can contain schemas (PostgreSQL 15 and later).
    """
    oids = sql.SQL("(SELECT named.oids FROM named)::oid[]")
    ctes = [
        _NAMED_CTE.format(),
        _PUBLISHED_CTE.format(publication=sql.Placeholder()),
        _TREE_CTE.format(oids=oids),
        _USED_CTE.format(oids=oids),
    ]
    kinds = [*_TABLES, *_PARTITIONS, *_TYPES, *_PUBLICATION, *(_PUBLICATION_SCHEMAS if schemas else ())]
    selects = [
        sql.SQL("SELECT {}::text, {}, {}::jsonb FROM {}").format(
            sql.Literal(kind.name),
            sql.SQL(kind.columns),
            sql.SQL(kind.detail),
            sql.SQL(kind.source).format(oids=oids),
        )
        for kind in kinds
    ]
    return sql.SQL("WITH RECURSIVE {} {}").format(sql.SQL(", ").join(ctes), sql.SQL(" UNION ALL ").join(selects))
