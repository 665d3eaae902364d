"""Reads `declaration.catalog.Catalog` from PostgreSQL 14 and later.

A few set-based queries read pg_catalog by oid. They do not depend on `search_path`, so the same database always gives
the same catalog. The package `checks` judges whether a catalog suits a read model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from syncer.declaration.catalog import Catalog, Column, Identity, Index, Leaf, Table
from syncer.errors import Retry
from syncer.events import TableName
from syncer.postgres.fingerprint import Fingerprint, fingerprint

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

# The inputs of a generated column: in PostgreSQL 15 and later its pg_attrdef row depends on them, in 14 the column.
_COLUMNS: LiteralString = """
SELECT a.attrelid, a.attnum, a.attname, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod),
       a.attnotnull,
       CASE WHEN a.attgenerated = '' THEN '{}'::text[] ELSE ARRAY(
           SELECT source.attname::text
             FROM pg_catalog.pg_attribute source
            WHERE source.attrelid = a.attrelid AND source.attnum > 0 AND source.attnum <> a.attnum
              AND source.attnum IN (
                  SELECT d.refobjsubid
                    FROM pg_catalog.pg_depend d
                   WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = a.attrelid
                     AND (d.classid, d.objid, d.objsubid) IN (
                         SELECT 'pg_catalog.pg_attrdef'::regclass::oid, f.oid, 0
                           FROM pg_catalog.pg_attrdef f
                          WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum
                          UNION ALL
                         SELECT 'pg_catalog.pg_class'::regclass::oid, a.attrelid, a.attnum::int))
            ORDER BY source.attnum) END
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum
"""

_TYPES: LiteralString = """
WITH RECURSIVE used (oid) AS (
    SELECT unnest(%s::oid[])
    UNION
    SELECT inner_type.oid
      FROM used
      JOIN pg_catalog.pg_type t ON t.oid = used.oid
      LEFT JOIN pg_catalog.pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid)
     CROSS JOIN LATERAL (VALUES (CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc
                                      THEN t.typelem END),
                                (t.typbasetype), (r.rngsubtype)) AS inner_type (oid)
     WHERE inner_type.oid <> 0
)
SELECT t.oid, t.typname, t.typtype::text,
       t.typelem <> 0 AND t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc,
       CASE WHEN n.nspname = 'pg_catalog' THEN pg_catalog.format_type(t.oid, -1)
            ELSE pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.typname) END,
       CASE WHEN n.nspname = 'pg_catalog' THEN pg_catalog.format_type(t.oid, NULL) END,
       CASE WHEN t.typtype = 'd' THEN t.typbasetype
            WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::regproc THEN t.typelem
            ELSE coalesce(r.rngsubtype, 0) END,
       CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
       t.oid >= 16384 AND EXISTS (
           SELECT FROM pg_catalog.pg_cast c
            WHERE c.castsource = t.oid AND c.casttarget = 'pg_catalog.json'::regtype AND c.castmethod = 'f'),
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e
              WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
  FROM used
  JOIN pg_catalog.pg_type t ON t.oid = used.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid)
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
              WHERE k.place <= i.indnkeyatts ORDER BY k.place)
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_am am ON am.oid = c.relam
 WHERE i.indrelid = ANY (%s) AND i.indisvalid AND i.indisready AND i.indislive
   AND am.amname IN ('btree', 'hash')
 ORDER BY i.indrelid, c.relname
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


class _Type(NamedTuple):
    oid: int
    plain: str
    """`typname`, unqualified."""
    kind: str
    is_array: bool
    name: str
    """Qualified, for use in a cast. Formatted with type modifier -1, so that `character` is `bpchar` (any length)."""
    standard: str | None
    """The SQL name of a built-in type; None for other types."""
    inner: int
    """The oid of a domain's base type, or of the element type of an array or range; 0 for other types."""
    base_with_modifier: str | None
    """For a domain: its base type as `format_type` writes it."""
    json_cast: bool
    """Whether the type has a cast to json that `to_json` uses (json.c, `json_categorize_type`)."""
    labels: list[str]


def load(conn: psycopg.Connection[Any], tables: Collection[TableName]) -> Catalog:
    """Reads all facts about these tables that read models and checks need.

    Leaves out missing tables. If any is missing, `Catalog.others` lists the tables that exist.
    Raises psycopg.Error; the caller classifies it.
    """
    names = sorted(set(tables))
    relations = _query(conn, _RELATIONS, [t.schema for t in names], [t.name for t in names])
    oids = [row[0] for row in relations]
    columns, enums = _columns(conn, oids)
    indexes, primary_keys = _indexes(conn, oids)
    leaves: dict[int, list[tuple[Leaf, str, str, int]]] = defaultdict(list)
    for root, oid, schema, name, kind, persistence, identity, rows, covered, virtual in _query(conn, _LEAVES, oids):
        leaf = Leaf(oid, TableName(schema, name), _IDENTITIES[identity], tuple(covered), virtual)
        leaves[root].append((leaf, kind, persistence, rows))

    found: dict[TableName, Table] = {}
    for oid, schema, relname, kind, persistence, inherits, row_security, can_select in relations:
        own = leaves[oid]
        # One foreign or unlogged partition disqualifies the whole table: its rows never reach WAL.
        if any(leaf_kind == "f" for _, leaf_kind, _, _ in own):
            kind = "f"
        persistence = next((p for _, _, p, _ in own if p != "p"), persistence)
        table = TableName(schema, relname)
        found[table] = Table(
            name=table,
            oid=oid,
            kind=_KINDS.get(kind, "other"),
            persistence=_PERSISTENCE[persistence],
            columns=columns[oid],
            primary_key=primary_keys.get(oid, ()),
            indexes=tuple(indexes[oid]),
            leaves=tuple(leaf for leaf, _, _, _ in own),
            inherits=inherits,
            row_security=row_security,
            rows_estimate=sum(rows for _, _, _, rows in own),
            can_select=can_select,
        )
    triggers = frozenset[str]()
    if any(table.kind == "partitioned" for table in found.values()):
        triggers = frozenset(name for (name,) in _query(conn, _EVENT_TRIGGERS))
    others: tuple[TableName, ...] = ()
    if found.keys() < set(names):
        others = tuple(TableName(*row) for row in _query(conn, _OTHERS))
    return Catalog(found, enums, dict(_query(conn, _EXTENSIONS)), triggers, others)


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


def _query(conn: psycopg.Connection[Any], query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def _columns(
    conn: psycopg.Connection[Any], oids: list[int]
) -> tuple[dict[int, dict[str, Column]], dict[str, tuple[str, ...]]]:
    """Returns the columns of each table in table order, and the labels of each enum type that they use."""
    rows = _query(conn, _COLUMNS, oids)
    types = {row[0]: _Type(*row) for row in _query(conn, _TYPES, sorted({row[3] for row in rows}))}
    columns: dict[int, dict[str, Column]] = defaultdict(dict)
    enums: dict[str, tuple[str, ...]] = {}
    for relation, _, name, type_oid, formatted, not_null, generated_from in rows:
        base = _base(types, type_oid)
        element = types[base.inner] if base.is_array or base.kind in "rm" else None
        innermost = _base(types, element.oid) if element and base.is_array else base
        columns[relation][name] = Column(
            name=name,
            type=_name(types, type_oid),
            base=_judged_by(base),
            not_null=not_null,
            generated_from=tuple(generated_from),
            element=_name(types, element.oid) if element else "",
            element_base=_judged_by(innermost) if base.is_array else "",
            json_cast=innermost.json_cast,
            shape=_modifier(types, type_oid, formatted) if innermost.plain in _SPATIAL else "",
        )
        for oid in {type_oid, base.oid, element.oid if element else base.oid}:
            if (enum := _base(types, oid)).kind == "e":
                enums[_name(types, oid)] = enums[enum.name] = tuple(enum.labels)
    return columns, enums


def _base(types: dict[int, _Type], oid: int) -> _Type:
    """Returns the type below all domains."""
    while types[oid].kind == "d":
        oid = types[oid].inner
    return types[oid]


def _name(types: dict[int, _Type], oid: int) -> str:
    found = types[oid]
    return (
        f"{_name(types, found.inner)}[]"
        if found.is_array and found.standard is None and found.kind == "b"
        else found.name
    )


_SPATIAL = ("geometry", "geography")
_MODIFIER = re.compile(r"\(([^()]+)\)(\[\])?$")


def _modifier(types: dict[int, _Type], oid: int, formatted: str) -> str:
    """Returns the type modifier in the text of `format_type`. If there is none, returns the modifier of the domain's
    base type or of the array's element."""
    found = _MODIFIER.search(formatted)
    inner = types[oid].inner
    if found or not inner:
        return found[1] if found else ""
    return _modifier(types, inner, types[oid].base_with_modifier or "")


_BY_KIND = {"e": "enum", "r": "range", "m": "multirange", "c": "composite"}


def _judged_by(base: _Type) -> str:
    """Returns `Column.base`. A type of an extension (citext, hstore) has its unqualified name, in any schema."""
    if base.is_array:
        return "array"
    return _BY_KIND.get(base.kind) or base.standard or base.plain


def _indexes(
    conn: psycopg.Connection[Any], oids: list[int]
) -> tuple[dict[int, list[Index]], dict[int, tuple[str, ...]]]:
    indexes: dict[int, list[Index]] = defaultdict(list)
    primary_keys: dict[int, tuple[str, ...]] = {}
    for relation, name, unique, partial, primary, columns in _query(conn, _INDEXES, oids):
        plain = tuple(columns[: columns.index(None)] if None in columns else columns)
        # unique (a, lower(b)) does not make a unique
        indexes[relation].append(Index(name, plain, unique and len(plain) == len(columns), partial))
        if primary:
            primary_keys[relation] = plain
    return indexes, primary_keys
