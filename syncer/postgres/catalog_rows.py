"""Builds the one query on the system catalogs behind `fingerprint.py` and `table_state.py`.

A read model depends on certain rows of the system catalogs: its tables, columns, partitions, identity indexes, types
and the publication. The query returns one row for each of them: its kind, the relation (or type) that it belongs to,
its own id and its version.

The version is the row's `xmin`, the transaction that wrote the row last. PostgreSQL alters a catalog row by writing a
new one, with another `xmin`. (It updates some columns of pg_class in place, mostly statistics. The query reads none of
these.) So an alteration changes the version even if it is reverted later. VACUUM keeps `xmin` when it freezes a row.

pg_class is the exception: GRANT, ADD COLUMN and VACUUM FULL write its rows, too. There the version consists of the
columns that matter, and of the `xmin` of the table's row type in pg_type. Only RENAME, SET SCHEMA and OWNER write that
row (found by trial).

With details, each row also has its content as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString, NamedTuple

from psycopg import sql

__all__ = ["CatalogRow", "catalog_rows"]


class CatalogRow(NamedTuple):
    """One row of the query with details."""

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
    """One kind of catalog row, as a part of the query."""

    name: LiteralString
    columns: LiteralString
    """SQL of relation, id and version."""
    source: LiteralString
    """What follows FROM."""
    detail: LiteralString = "NULL::jsonb"


_RELATIONS = (
    _Kind(
        "relation",
        """c.oid::bigint, c.oid::bigint,
           pg_catalog.concat_ws(' ', c.relnamespace, c.relname, c.relkind, c.relpersistence, c.relreplident,
               c.relrowsecurity, c.relforcerowsecurity, t.xmin)""",
        """wanted
           JOIN pg_catalog.pg_class c ON c.oid = wanted.oid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_catalog.pg_type t ON t.oid = c.reltype""",
        """pg_catalog.jsonb_build_object(
               'schema', n.nspname, 'name', c.relname, 'file', c.relfilenode::bigint, 'name_version', t.xmin::text)""",
    ),
    _Kind(
        "inheritance",
        "c.oid::bigint, i.inhrelid::bigint, i.inhparent::text",
        """wanted
           JOIN pg_catalog.pg_class c ON c.oid = wanted.oid AND c.relkind = 'r'
           JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid OR i.inhparent = c.oid""",
    ),
    # Dropped columns count: what is left of their rows changes with DROP COLUMN.
    _Kind(
        "column",
        "a.attrelid::bigint, a.attnum::bigint, a.xmin::text",
        "wanted JOIN pg_catalog.pg_attribute a ON a.attrelid = wanted.oid AND a.attnum > 0",
        """CASE WHEN NOT a.attisdropped THEN pg_catalog.jsonb_build_object(
               'name', a.attname, 'type', a.atttypid::bigint, 'modifier', a.atttypmod,
               'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod),
               'other', pg_catalog.concat_ws(' ', a.attnotnull, a.attidentity, a.attstattarget, a.attstorage,
                   a.attcompression, a.attoptions, a.attacl,
                   (SELECT d.oid FROM pg_catalog.pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)))
           END""",
    ),
    # A primary key counts while it exists; an index that is the replica identity, with its version.
    _Kind(
        "index",
        """i.indrelid::bigint, i.indexrelid::bigint,
           pg_catalog.concat_ws(' ', i.indisvalid, CASE WHEN i.indisreplident THEN i.xmin END)""",
        """relation
           JOIN pg_catalog.pg_index i ON i.indrelid = relation.oid AND (i.indisreplident OR i.indisprimary)""",
        """CASE WHEN i.indisreplident THEN
               pg_catalog.jsonb_build_object('identity', pg_catalog.concat_ws(' ', i.indexrelid, i.xmin)) END""",
    ),
)
# A partition counts with its file: TRUNCATE of a single partition sends no change event. `oid >= 16384`
# (FirstNormalObjectId: objects that users created) makes the planner use the catalogs' indexes.
_PARTITIONS = (
    _Kind(
        "partition",
        """tree.root::bigint, c.oid::bigint,
           pg_catalog.concat_ws(' ', c.relfilenode, c.relpersistence, c.relreplident, tree.links, tree.detached)""",
        "tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid AND c.oid >= 16384",
        """CASE WHEN c.relkind <> 'p' AND NOT tree.detached THEN
               pg_catalog.jsonb_build_object('file', c.relfilenode::bigint, 'links', tree.links) END""",
    ),
)
# Types that users created, also inside of arrays, domains and composite types; and their casts to json.
_TYPES = (
    _Kind(
        "type",
        "t.oid::bigint, t.oid::bigint, t.xmin::text",
        "used JOIN pg_catalog.pg_type t ON t.oid = used.oid AND t.oid >= 16384",
        """pg_catalog.jsonb_build_object(
               'inner', pg_catalog.jsonb_build_array(t.typelem::bigint, t.typbasetype::bigint))""",
    ),
    _Kind(
        "label",
        "e.enumtypid::bigint, e.oid::bigint, e.xmin::text",
        "used JOIN pg_catalog.pg_enum e ON e.enumtypid = used.oid",
        "pg_catalog.jsonb_build_object('text', e.enumlabel)",
    ),
    _Kind(
        "attribute",
        "t.oid::bigint, a.attnum::bigint, a.xmin::text",
        """used
           JOIN pg_catalog.pg_type t ON t.oid = used.oid AND t.oid >= 16384 AND t.typrelid <> 0
           JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0""",
        """pg_catalog.jsonb_build_object(
               'text', pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod), 'type', a.atttypid::bigint)""",
    ),
    _Kind(
        "cast",
        "c.castsource::bigint, c.oid::bigint, c.xmin::text",
        """used
           JOIN pg_catalog.pg_cast c
             ON c.castsource = used.oid AND c.casttarget = 'pg_catalog.json'::pg_catalog.regtype""",
    ),
)
_PUBLICATION = (
    _Kind(
        "publication",
        "0::bigint, published.oid::bigint, published.version",
        "published",
        "pg_catalog.jsonb_build_object('all_tables', published.all_tables)",
    ),
    _Kind(
        "member",
        "r.prrelid::bigint, r.oid::bigint, r.xmin::text",
        """wanted
           JOIN published ON true
           JOIN pg_catalog.pg_publication_rel r ON r.prrelid = wanted.oid AND r.prpubid = published.oid""",
    ),
)
# PostgreSQL 15 and later: FOR TABLES IN SCHEMA.
_PUBLICATION_SCHEMAS = (
    _Kind(
        "schema member",
        "c.oid::bigint, s.oid::bigint, s.xmin::text",
        """wanted
           JOIN published ON true
           JOIN pg_catalog.pg_class c ON c.oid = wanted.oid
           JOIN pg_catalog.pg_publication_namespace s ON s.pnnspid = c.relnamespace AND s.pnpubid = published.oid""",
    ),
)

_TREE_CTE = sql.SQL("""tree (root, oid, links, detached) AS (
    SELECT wanted.oid, i.inhrelid, i.xmin::text, i.inhdetachpending
      FROM wanted
      JOIN pg_catalog.pg_class c ON c.oid = wanted.oid AND c.relkind = 'p'
      JOIN pg_catalog.pg_inherits i ON i.inhparent = wanted.oid
     UNION ALL
    SELECT tree.root, i.inhrelid, tree.links || ' ' || i.xmin::text, tree.detached OR i.inhdetachpending
      FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)""")
_USED_CTE = sql.SQL("""used (oid) AS (
    SELECT a.atttypid
      FROM wanted
      JOIN pg_catalog.pg_attribute a ON a.attrelid = wanted.oid AND a.attnum > 0 AND a.atttypid >= 16384
     UNION
    SELECT inside.oid
      FROM used
      JOIN pg_catalog.pg_type t ON t.oid = used.oid AND t.oid >= 16384
      LEFT JOIN pg_catalog.pg_attribute a ON t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0
     CROSS JOIN LATERAL (VALUES (t.typelem), (t.typbasetype), (a.atttypid)) AS inside (oid)
     WHERE inside.oid >= 16384)""")
_PUBLISHED_CTE = sql.SQL("""published (oid, version, all_tables) AS (
    SELECT p.oid, p.xmin::text, p.puballtables FROM pg_catalog.pg_publication p WHERE p.pubname = {})""")


def catalog_rows(
    wanted: sql.Composable,
    publication: sql.Composable | None,
    *,
    partitions: bool = True,
    types: bool = True,
    schemas: bool = True,
    details: bool = False,
) -> sql.Composed:
    """Returns the query. Its columns are those of `CatalogRow`; without details, the last one is missing.

    wanted: a SELECT of the tables' oids.
    publication: SQL of its name; None leaves it out.
    partitions, types: False leaves them out, if the tables have none.
    schemas: whether a publication can contain schemas (PostgreSQL 15 and later).
    """
    ctes = [sql.SQL("wanted (oid) AS ({})").format(wanted)]
    if publication is not None:
        ctes.append(_PUBLISHED_CTE.format(publication))
    if partitions:
        ctes += [
            _TREE_CTE.format(),
            sql.SQL("relation (oid) AS (SELECT oid FROM wanted UNION SELECT oid FROM tree)").format(),
        ]
    else:
        ctes.append(sql.SQL("relation (oid) AS (SELECT oid FROM wanted)").format())
    if types:
        ctes.append(_USED_CTE.format())
    kinds = _kinds(partitions=partitions, types=types, publication=publication is not None, schemas=schemas)
    selects = [_select(kind, details=details) for kind in kinds]
    return sql.SQL("WITH RECURSIVE {} {}").format(sql.SQL(", ").join(ctes), sql.SQL(" UNION ALL ").join(selects))


def _kinds(*, partitions: bool, types: bool, publication: bool, schemas: bool) -> Iterator[_Kind]:
    yield from _RELATIONS
    if partitions:
        yield from _PARTITIONS
    if types:
        yield from _TYPES
    if publication:
        yield from _PUBLICATION
        if schemas:
            yield from _PUBLICATION_SCHEMAS


def _select(kind: _Kind, *, details: bool) -> sql.Composed:
    columns = [sql.SQL(kind.columns), *([sql.SQL(kind.detail)] if details else [])]
    return sql.SQL("SELECT {}::text, {} FROM {}").format(
        sql.Literal(kind.name), sql.SQL(", ").join(columns), sql.SQL(kind.source)
    )
