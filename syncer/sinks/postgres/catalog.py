"""Reads PostgreSQL's catalog: the relations of the sink, their columns, and the objects that depend on a view."""

from __future__ import annotations

from typing import NamedTuple

from syncer.sinks.postgres.server import Session


class Relation(NamedTuple):
    """An entry of `pg_class`."""

    oid: int
    kind: str
    """`r` table, `v` view, and so on."""
    persistence: str
    """`p` permanent, `u` unlogged."""


class Access(NamedTuple):
    """What a new view has to take over from the old one."""

    owner: str
    """As SQL, quoted where needed."""
    options: str
    """As SQL: `security_barrier=true`. Empty if there are none."""
    grants: list[tuple[str | None, str, str]]
    """Grants: the column, or None for the whole view; the privilege; the grantee with the grant option, as SQL."""


def relation(session: Session, schema: str, name: str) -> Relation | None:
    """Returns a relation, or None if there is none of this name."""
    row = session.execute(_RELATION, (schema, name)).fetchone()
    return Relation(*row) if row else None


_RELATION = """
SELECT c.oid, c.relkind, c.relpersistence
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s"""


def columns(session: Session, oid: int) -> dict[str, str]:
    """Returns name → type of a relation's columns, in their order."""
    return dict(session.execute(_COLUMNS, (oid,)).fetchall())


_COLUMNS = """
SELECT attname, pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
 WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""


def tables_of_view(session: Session, oid: int) -> list[str]:
    """Returns the names of the relations that a view reads, sorted."""
    return [name for (name,) in session.execute(_TABLES, (oid,))]


_TABLES = """
SELECT DISTINCT c.relname
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
  JOIN pg_catalog.pg_class c ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.refobjid
 WHERE r.ev_class = %s AND c.oid <> r.ev_class ORDER BY 1"""


def dependents(session: Session, oid: int) -> list[str]:
    """Returns descriptions of the objects that would be dropped with a view: other views, functions, triggers."""
    return [text for (text,) in session.execute(_DEPENDENTS, {"view": oid})]


_DEPENDENTS = """
SELECT DISTINCT CASE WHEN r.oid IS NULL THEN pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
                     ELSE pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, r.ev_class, 0) END
  FROM pg_catalog.pg_depend d
  LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
 WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = %(view)s
   AND d.deptype IN ('n', 'a') AND r.ev_class IS DISTINCT FROM %(view)s ORDER BY 1"""


def access(session: Session, oid: int) -> Access:
    """Returns the owner, options and grants of a view. Grants of single columns are included."""
    [owner, options] = session.execute(_OWNER, (oid,)).fetchall()[0]
    return Access(owner, options, session.execute(_GRANTS, {"view": oid}).fetchall())


_OWNER = """
SELECT pg_catalog.quote_ident(r.rolname), coalesce(pg_catalog.array_to_string(c.reloptions, ', '), '')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.oid = c.relowner WHERE c.oid = %s"""
_GRANTS = """
WITH granted AS (
    SELECT NULL::name AS attname, a.* FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
     WHERE c.oid = %(view)s AND a.grantee <> c.relowner
    UNION ALL
    SELECT t.attname, a.* FROM pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) a
     WHERE t.attrelid = %(view)s AND t.attnum > 0 AND NOT t.attisdropped)
SELECT attname, privilege_type,
       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(grantee)) END
       || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
  FROM granted ORDER BY 1, 2, 3"""
