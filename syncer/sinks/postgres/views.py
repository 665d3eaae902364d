"""Checks that the view that applications read belongs to the read model, and points it at another table.

`CREATE OR REPLACE VIEW` keeps the view with its owner and grants, but it can only add columns at the end. Otherwise
the view is dropped and created again in one transaction. Readers wait for it, and never find the view missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from syncer.declaration.names import quote
from syncer.errors import Fatal
from syncer.sinks.postgres import catalog
from syncer.sinks.postgres.columns import DELETED, OWN
from syncer.sinks.postgres.generations import NAME, Generation
from syncer.sinks.postgres.server import Session
from syncer.sinks.postgres.settings import Settings
from syncer.sinks.postgres.statements import create_view, view_columns
from syncer.sinks.problem import Problem

TAKEN_HINT = "choose another table name, or remove the relation that has this one"


class View(NamedTuple):
    """The view of a read model, as it is now."""

    oid: int
    table: str
    """The name of the table that it reads."""
    columns: dict[str, str]


def find(session: Session, settings: Settings, known: Mapping[int, Generation]) -> View | None:
    """Returns the view, or None if it is missing.

    known: the generations of the view. Raises Fatal if the name belongs to another relation. A view of a table whose
    record is missing is accepted, so that a resync can replace it.
    """
    found = catalog.relation(session, settings.schema_name, settings.view)
    if found is None:
        return None
    own = {settings.table_of(generation) for generation in known}
    tables = catalog.tables_of_view(session, found.oid) if found.kind == "v" else []
    if len(tables) != 1 or (tables[0] not in own and not is_own(session, settings, tables[0])):
        what = f"the name {settings.table} is taken by {_described(found, tables)}"
        raise Fatal(what, where=f"postgres:{settings.table}", hint=TAKEN_HINT)
    return View(found.oid, tables[0], catalog.columns(session, found.oid))


def is_own(session: Session, settings: Settings, name: str) -> bool:
    """Returns whether the syncer created a relation, judging by its name and columns. Its record may be missing."""
    found = catalog.relation(session, settings.schema_name, name)
    if found is None or found.kind != "r" or not re.fullmatch(rf"{settings.view}_\d{{6,}}", name):
        return False
    return set(OWN) <= set(catalog.columns(session, found.oid))


def unrecorded(session: Session, settings: Settings, table: str, model: str) -> Problem:
    """Returns the problem of an existing table that has no record."""
    quoted = settings.quoted(table)
    if not is_own(session, settings, table):
        return Problem(f"the relation {quoted} was not created by the syncer", "", TAKEN_HINT, ("table",))
    what = f"the record of the table {quoted} in {settings.schema_name}.{NAME} is missing"
    why = "the syncer does not know the declaration of the table; readers of the view still see the table"
    return Problem(what, why, f"syncer resync {model}", ("table",))


def _described(found: catalog.Relation, tables: list[str]) -> str:
    if found.kind == "v":
        return f"a view of {', '.join(tables) or 'no table'}, which the syncer did not create"
    return {"r": "a table", "p": "a partitioned table", "m": "a materialized view", "f": "a foreign table"}.get(
        found.kind, "another relation"
    )


def replaceable(view: View, columns: Mapping[str, str]) -> bool:
    """Returns whether `CREATE OR REPLACE VIEW` can give a view these columns."""
    wanted = list(view_columns(columns).items())
    return wanted[: len(view.columns)] == list(view.columns.items())


def blocked(session: Session, settings: Settings, view: View, columns: Mapping[str, str]) -> Problem | None:
    """Returns the problem if the view has to be dropped, and other objects depend on it."""
    if replaceable(view, columns):
        return None
    others = catalog.dependents(session, view.oid)
    if not others:
        return None
    return Problem(
        f"objects depend on the view {settings.table}, and its columns change",
        f"PostgreSQL cannot replace it while these exist: {', '.join(others)}",
        "drop these objects, run syncer resync, and create them again",
        ("table",),
    )


def point(session: Session, settings: Settings, view: View | None, table: str, columns: Mapping[str, str]) -> None:
    """Creates the view over a table, or points it at this table. In the transaction of the caller.

    Raises Fatal if objects that depend on the view forbid it. Then nothing is changed.
    """
    quoted, names = settings.quoted(table), list(view_columns(columns))
    if view is None:
        session.execute(create_view(settings, quoted, names))
        return
    if problem := blocked(session, settings, view, columns):
        raise Fatal(problem.what, where=f"postgres:{settings.table}", why=problem.why, hint=problem.hint)
    name = settings.quoted(settings.view)
    session.execute(_LOCK.format(view=name))
    old, old_table = catalog.access(session, view.oid), catalog.relation(session, settings.schema_name, view.table)
    kept = replaceable(view, columns)
    if not kept:
        session.execute(f"DROP VIEW {name}")
    session.execute(create_view(settings, quoted, names, old.options))
    if not kept:
        _grant(session, old, name, names)
    if old_table is not None:  # with the option security_invoker, readers of the view need privileges on the table
        _grant(session, catalog.access(session, old_table.oid), quoted, [*names, DELETED])
    # A view reads its table with the privileges of its owner. The operator may have given it to another role.
    session.execute(f"GRANT SELECT ON {quoted} TO {old.owner}")
    if not kept:
        session.execute(f"ALTER VIEW {name} OWNER TO {old.owner}")


_LOCK = "ALTER VIEW {view} RESET (syncer_lock)"
"""Resets an option that no view has. It locks the view, and writes its row of `pg_class`.

`GRANT` does not lock a view. But a concurrent one writes the same row, so one of the two transactions fails."""


def _grant(session: Session, access: catalog.Access, relation: str, columns: Sequence[str]) -> None:
    """Grants the privileges of another relation on this one. Leaves out columns that it does not have."""
    for column, privilege, grantee in access.grants:
        if column is None or column in columns:
            of = f" ({quote(column)})" if column else ""
            session.execute(f"GRANT {privilege}{of} ON {relation} TO {grantee}")


def fix(session: Session, settings: Settings, table: str) -> str:
    """Returns the statement that points the view at a table again."""
    found = catalog.relation(session, settings.schema_name, table)
    names = [name for name in catalog.columns(session, found.oid) if name != DELETED] if found else []
    return create_view(settings, settings.quoted(table), names)
