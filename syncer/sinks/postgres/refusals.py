"""Finds properties of tables under which documents would be lost, refused, or sent around in a circle.

`syncer check` reports them, and each process checks them again when it opens its sinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from syncer.sinks.postgres import catalog, generations
from syncer.sinks.postgres.columns import ID, VERSION
from syncer.sinks.postgres.partials import KEY, NOT_NULL
from syncer.sinks.postgres.server import Session
from syncer.sinks.postgres.settings import Settings
from syncer.sinks.problem import Problem

_AT = ("table",)


def table_problems(
    session: Session, settings: Settings, tables: Sequence[str], partials: Sequence[str] = ()
) -> list[Problem]:
    """Returns what forbids these tables, with the statement that fixes it. Tables may be missing.

    tables: of documents. partials: tables of partials.
    """
    found = list(_publications(session, settings, [*tables, *partials]))
    for names, kind in ((tables, _DOCUMENTS), (partials, _PARTIALS)):
        for table in names:
            if (known := catalog.relation(session, settings.schema_name, table)) is not None:
                found += _of_table(session, settings, table, known, kind)
    return found


class _Kind(NamedTuple):
    """What a table must have."""

    key: Sequence[str]
    not_null: Sequence[str]


_DOCUMENTS = _Kind([ID], [ID, VERSION])
_PARTIALS = _Kind(KEY, NOT_NULL)


def _publications(session: Session, settings: Settings, tables: Sequence[str]) -> Iterator[Problem]:
    """A change of the sink's table would enter the stream of changes, which the syncer reads again."""
    version = session.info.server_version
    schemas = _IN_SCHEMA if version >= 150_000 else ""
    values = {"schema": settings.schema_name, "names": [*tables, generations.NAME]}
    for name, why, hint in session.execute(_PUBLISHED.format(schemas=schemas), values):
        what = f"the publication {name} would stream the sink's own tables"
        yield Problem(what, why, hint, _AT)


_OTHER = "use another database for the sink (postgres_sink.dsn), or list the tables of the publication by name"
_PUBLISHED = f"""
SELECT p.pubname, 'it is FOR ALL TABLES', '{_OTHER}' FROM pg_catalog.pg_publication p WHERE p.puballtables
 UNION ALL
SELECT p.pubname, 'it has the table ' || c.relname,
       format('ALTER PUBLICATION %%I DROP TABLE %%I.%%I', p.pubname, n.nspname, c.relname)
  FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = ANY(%(names)s)
{{schemas}} ORDER BY 1, 2"""
_IN_SCHEMA = """ UNION ALL
SELECT p.pubname, 'it has all tables of the schema ' || n.nspname,
       format('ALTER PUBLICATION %%I DROP TABLES IN SCHEMA %%I', p.pubname, n.nspname)
  FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = p.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid WHERE n.nspname = %(schema)s"""


def _of_table(
    session: Session, settings: Settings, table: str, known: catalog.Relation, kind: _Kind
) -> Iterator[Problem]:
    quoted = settings.quoted(table)
    if known.persistence == "u":
        why = "PostgreSQL empties it after a crash"
        yield Problem(f"the table {quoted} is UNLOGGED", why, f"ALTER TABLE {quoted} SET LOGGED", _AT)
    if session.execute(_PRIMARY, (known.oid, list(kind.key))).fetchone() is None:
        key = ", ".join(kind.key)
        what, why = f"the table {quoted} has no primary key ({key})", "a document could have two rows"
        yield Problem(what, why, f"ALTER TABLE {quoted} ADD PRIMARY KEY ({key})", _AT)
    for index, constraint in session.execute(_UNIQUE, (known.oid,)):
        what = f"the table {quoted} has the unique index {index}"
        why = "documents arrive in any order, so two rows can briefly have the same values"
        fix = f"ALTER TABLE {quoted} DROP CONSTRAINT {constraint}" if constraint else f"DROP INDEX {index}"
        yield Problem(what, why, fix, _AT)
    for (column,) in session.execute(_NOT_NULL, (known.oid, list(kind.not_null))):
        what, why = (
            f"the column {column} of {quoted} is NOT NULL",
            "the row of a deleted document has null in this column",
        )
        yield Problem(what, why, f"ALTER TABLE {quoted} ALTER COLUMN {column} DROP NOT NULL", _AT)
    for object, name, why, fix in session.execute(_INTERFERING, (known.oid,)):
        yield Problem(f"the table {quoted} has {object} {name}".rstrip(), why, fix.replace("{table}", quoted), _AT)


_INTERFERING = """
WITH t AS (SELECT %s::oid AS oid)
SELECT 'the trigger', quote_ident(g.tgname), 'a trigger can change or suppress a write',
       format('DROP TRIGGER %%I ON {table}', g.tgname)
  FROM t JOIN pg_catalog.pg_trigger g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal AND g.tgenabled <> 'D'
 UNION ALL
SELECT 'the rule', quote_ident(r.rulename), 'a rule can change or suppress a write',
       format('DROP RULE %%I ON {table}', r.rulename)
  FROM t JOIN pg_catalog.pg_rewrite r ON r.ev_class = t.oid
 UNION ALL
SELECT 'row security', '', 'a policy can suppress a write', 'ALTER TABLE {table} DISABLE ROW LEVEL SECURITY'
  FROM t WHERE pg_catalog.row_security_active(t.oid)
 UNION ALL
SELECT CASE c.contype WHEN 'c' THEN 'the check constraint' ELSE 'the foreign key' END, quote_ident(c.conname),
       'documents and the rows of deletes must always fit',
       format('ALTER TABLE %%s DROP CONSTRAINT %%I', c.conrelid::pg_catalog.regclass, c.conname)
  FROM t JOIN pg_catalog.pg_constraint c ON (c.conrelid = t.oid AND c.contype IN ('c', 'f'))
         OR (c.confrelid = t.oid AND c.contype = 'f') ORDER BY 1, 2"""
_PRIMARY = """
SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = %s AND i.indisprimary
   AND ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)) = %s"""
_UNIQUE = """
SELECT i.indexrelid::pg_catalog.regclass::text, pg_catalog.quote_ident(c.conname)
  FROM pg_catalog.pg_index i
  LEFT JOIN pg_catalog.pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
 WHERE i.indrelid = %s AND (i.indisunique OR i.indisexclusion) AND NOT i.indisprimary ORDER BY 1"""
_NOT_NULL = """
SELECT pg_catalog.quote_ident(attname) FROM pg_catalog.pg_attribute
 WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attnotnull AND attname <> ALL(%s) ORDER BY 1"""
