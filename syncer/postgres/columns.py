"""Reads the columns of tables from pg_catalog, and the types below domains, arrays and ranges."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, LiteralString, NamedTuple

import psycopg

from syncer.declaration.catalog import Column
from syncer.postgres.session import fetch_rows

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
            ORDER BY source.attnum) END,
       CASE WHEN a.attcollation NOT IN (0, 'pg_catalog."default"'::regcollation)
            THEN pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) ELSE '' END,
       coalesce(NOT co.collisdeterministic, false)
  FROM pg_catalog.pg_attribute a
  LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
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


def read_columns(
    conn: psycopg.Connection[Any], oids: list[int]
) -> tuple[dict[int, dict[str, Column]], dict[str, tuple[str, ...]]]:
    """Returns the columns of each table in table order, and the labels of each enum type that they use."""
    rows = fetch_rows(conn, _COLUMNS, oids)
    types = {row[0]: _Type(*row) for row in fetch_rows(conn, _TYPES, sorted({row[3] for row in rows}))}
    columns: dict[int, dict[str, Column]] = defaultdict(dict)
    enums: dict[str, tuple[str, ...]] = {}
    for relation, _, name, type_oid, formatted, not_null, generated_from, collation, loose in rows:
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
            collation=collation,
            loose_collation=loose,
            has_scale=base.standard == "numeric" and bool(_modifier(types, type_oid, formatted)),
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
