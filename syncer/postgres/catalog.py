"""Reads `declaration.catalog.Catalog` from PostgreSQL 14 and later.

A few set-based queries read pg_catalog by oid. They do not depend on `search_path`, so the same database always gives
the same catalog. The package `checks` judges whether a catalog suits a read model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from syncer.declaration.catalog import Catalog, Identity, Index, Leaf, SortColumn, Table
from syncer.declaration.row_key import row_key
from syncer.errors import Retry
from syncer.events import TableName
from syncer.postgres.columns import read_columns
from syncer.postgres.fingerprint import Fingerprint, fingerprint
from syncer.postgres.session import fetch_rows

__all__ = ["fingerprint", "load", "load_stable"]

_KINDS: dict[str, Any] = {
    "r": "table",
    "p": "partitioned",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}
_PERSISTENCE: dict[str, Any] = {"p": "permanent", "u": "unlogged", "t": "temporary"}
_IDENTITIES: dict[str, Identity] = {"d": "default", "f": "full", "i": "index", "n": "nothing"}

_RELATIONS: LiteralString = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
       NOT c.relispartition AND c.relkind = 'r' AND EXISTS (
           SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)),
       pg_catalog.row_security_active(c.oid),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
  FROM unnest(%s::text[], %s::text[]) AS wanted (nspname, relname)
  JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.nspname
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relname
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""

_OTHERS: LiteralString = """
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
 ORDER BY n.nspname, c.relname
 LIMIT 10000
"""

_EVENT_TRIGGERS: LiteralString = """
SELECT evtname FROM pg_catalog.pg_event_trigger WHERE evtevent = 'ddl_command_end' AND evtenabled <> 'D'
"""

_EXTENSIONS: LiteralString = """
SELECT e.extname, n.nspname
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
"""

# Only indexes that an equality look-up can use. indkey is 0-based, and holds 0 in place of an expression.
_INDEXES: LiteralString = """
SELECT i.indrelid, c.relname, i.indisunique, i.indpred IS NOT NULL, i.indisprimary,
       ARRAY(SELECT a.attname::text
               FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
               LEFT JOIN pg_catalog.pg_attribute a
                 ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.attnum <> 0
              WHERE k.place <= i.indnkeyatts ORDER BY k.place),
       CASE WHEN am.amname = 'btree' THEN ARRAY(
           SELECT pg_catalog.pg_get_indexdef(i.indexrelid, place, false)
             FROM pg_catalog.generate_series(1, i.indnkeyatts) AS place ORDER BY place) ELSE '{}' END,
       CASE am.amname WHEN 'btree' THEN ARRAY(SELECT o::int FROM unnest(i.indoption::int2[]) AS o) ELSE '{}' END,
       i.indimmediate
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am am ON am.oid = c.relam
 WHERE i.indrelid = ANY (%s) AND i.indisvalid AND i.indisready AND i.indislive
   AND am.amname IN ('btree', 'hash')
 ORDER BY i.indrelid, c.relname
"""

# Indexes for `@>` of pg_catalog. intarray's class gin__int_ops is of its own operators. A GIN index serves each of its
# columns, whatever their order.
_ELEMENT_INDEXES: LiteralString = """
SELECT DISTINCT i.indrelid, a.attname
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am am ON am.oid = c.relam AND am.amname = 'gin'
 CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) AS k (attnum, opclass, coll)
  JOIN pg_catalog.pg_attribute a
    ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND a.attcollation = k.coll
  JOIN pg_catalog.pg_opclass o ON o.oid = k.opclass AND o.opcname = 'array_ops'
   AND o.opcnamespace = 'pg_catalog'::regnamespace
 WHERE i.indrelid = ANY (%s) AND i.indisvalid AND i.indisready AND i.indislive AND i.indpred IS NULL
"""

# The replica identity that the server uses. With an invalid or deferrable index it logs no old key at all.
_LEAVES: LiteralString = """
SELECT root.oid, leaf.oid, n.nspname, leaf.relname, leaf.relkind::text,
       leaf.relpersistence::text, leaf.relreplident::text, greatest(leaf.reltuples, 0)::bigint,
       CASE leaf.relreplident
            WHEN 'f' THEN ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                                 WHERE a.attrelid = leaf.oid AND a.attnum > 0 AND NOT a.attisdropped
                                 ORDER BY a.attnum)
            WHEN 'n' THEN '{}'
            ELSE ARRAY(SELECT a.attname::text
                         FROM pg_catalog.pg_index i
                        CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                         JOIN pg_catalog.pg_attribute a ON a.attrelid = leaf.oid AND a.attnum = k.attnum
                        WHERE i.indrelid = leaf.oid AND i.indisvalid AND i.indimmediate
                          AND k.place <= i.indnkeyatts
                          AND CASE leaf.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END
                        ORDER BY k.place) END,
       EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = leaf.oid AND a.attgenerated = 'v')
  FROM unnest(%s::oid[]) AS root (oid)
 CROSS JOIN LATERAL (
       SELECT t.relid::oid AS oid FROM pg_catalog.pg_partition_tree(root.oid) t WHERE t.isleaf
       UNION SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = root.oid AND c.relkind <> 'p') AS part
  JOIN pg_catalog.pg_class leaf ON leaf.oid = part.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = leaf.relnamespace
 ORDER BY root.oid, n.nspname, leaf.relname
"""


def load(conn: psycopg.Connection[Any], tables: Collection[TableName]) -> Catalog:
    """Reads all facts about these tables that read models and checks need.

    Leaves out missing tables. If any is missing, `Catalog.others` lists the tables that exist.
    Raises psycopg.Error; the caller classifies it.
    """
    names = sorted(set(tables))
    relations = fetch_rows(conn, _RELATIONS, [t.schema for t in names], [t.name for t in names])
    oids = [row[0] for row in relations]
    columns, enums = read_columns(conn, oids)
    indexes, primary_keys = _indexes(conn, oids)
    elements: dict[int, set[str]] = defaultdict(set)
    for relation, column in fetch_rows(conn, _ELEMENT_INDEXES, oids):
        elements[relation].add(column)
    leaves: dict[int, list[tuple[Leaf, str, str, int]]] = defaultdict(list)
    for root, oid, schema, name, kind, persistence, identity, rows, covered, virtual in fetch_rows(conn, _LEAVES, oids):
        leaf = Leaf(oid, TableName(schema, name), _IDENTITIES[identity], tuple(covered), virtual)
        leaves[root].append((leaf, kind, persistence, rows))

    found: dict[TableName, Table] = {}
    for oid, schema, relname, kind, persistence, inherits, row_security, can_select in relations:
        own = leaves[oid]
        # One foreign or unlogged partition disqualifies the whole table: its rows never reach WAL.
        if any(leaf_kind == "f" for _, leaf_kind, _, _ in own):
            kind = "f"
        persistence = next((p for _, _, p, _ in own if p != "p"), persistence)
        table, key, key_index = TableName(schema, relname), primary_keys.get(oid, ()), ""
        if not key and (unique := row_key(columns[oid], indexes[oid], own[0][0].identity_columns if own else ())):
            key, key_index = unique.columns, unique.name
        found[table] = Table(
            name=table,
            oid=oid,
            kind=_KINDS.get(kind, "other"),
            persistence=_PERSISTENCE[persistence],
            columns=columns[oid],
            primary_key=key,
            key_index=key_index,
            indexes=tuple(indexes[oid]),
            leaves=tuple(leaf for leaf, _, _, _ in own),
            element_indexes=frozenset(elements[oid]),
            inherits=inherits,
            row_security=row_security,
            rows_estimate=sum(rows for _, _, _, rows in own),
            can_select=can_select,
        )
    triggers = frozenset[str]()
    if any(table.kind == "partitioned" for table in found.values()):
        triggers = frozenset(name for (name,) in fetch_rows(conn, _EVENT_TRIGGERS))
    others: tuple[TableName, ...] = ()
    if found.keys() < set(names):
        others = tuple(TableName(*row) for row in fetch_rows(conn, _OTHERS))
    return Catalog(found, enums, dict(fetch_rows(conn, _EXTENSIONS)), triggers, others)


def load_stable(
    conn: psycopg.Connection[Any], tables: Collection[TableName], *, publication: str = ""
) -> tuple[Catalog, Fingerprint]:
    """Reads a catalog and the fingerprint that belongs to it, even while a migration alters the tables.

    Raises Retry when the tables keep changing.
    """
    catalog = load(conn, tables)
    for _ in range(5):
        query = fingerprint(catalog, publication=publication, schemas=conn.info.server_version >= 150000)
        with conn.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute(sql.SQL("SELECT {}").format(query)).fetchone()
        again = load(conn, tables)
        if row and _without_estimates(again) == _without_estimates(catalog):
            return again, Fingerprint(query, str(row[0]))
        catalog = again
    raise Retry(
        "cannot read the catalog",
        where=", ".join(map(str, sorted(tables))),
        why="the tables changed during each of 5 attempts",
    )


def _without_estimates(catalog: Catalog) -> Catalog:
    tables = {name: replace(t, rows_estimate=0) for name, t in catalog.tables.items()}
    return replace(catalog, tables=tables, others=())


def _indexes(
    conn: psycopg.Connection[Any], oids: list[int]
) -> tuple[dict[int, list[Index]], dict[int, tuple[str, ...]]]:
    indexes: dict[int, list[Index]] = defaultdict(list)
    primary_keys: dict[int, tuple[str, ...]] = {}
    for relation, name, unique, partial, primary, columns, keys, options, immediate in fetch_rows(conn, _INDEXES, oids):
        plain = tuple(columns[: columns.index(None)] if None in columns else columns)
        # unique (a, lower(b)) does not make a unique
        # indoption has a bit for DESC and one for NULLS FIRST
        order = tuple(SortColumn(c, bool(o & 1), bool(o & 2)) for c, o in zip(plain, options, strict=False))
        whole = unique and len(plain) == len(columns)
        by_expression = unique and not whole
        indexes[relation].append(Index(name, plain, whole, partial, tuple(keys), order, by_expression, not immediate))
        if primary:
            primary_keys[relation] = plain
    return indexes, primary_keys
