"""The checks of the PostgreSQL sink for `syncer check`, and its column types for `syncer explain`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from syncer.declaration.compile import Compiled, Field
from syncer.declaration.names import quote
from syncer.errors import Fatal, SyncerError
from syncer.sinks.postgres import catalog, columns, generations, refusals, views
from syncer.sinks.postgres.server import Session, classify
from syncer.sinks.postgres.sessions import Sessions
from syncer.sinks.postgres.settings import Connection, Settings
from syncer.sinks.postgres.statements import create_indexes, create_table
from syncer.sinks.problem import Path, Problem

TARGET_HINT = "choose another table"
_PRIVILEGES = """
SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.has_schema_privilege(n.oid, 'CREATE')
  FROM pg_catalog.pg_namespace n WHERE n.nspname = %s"""


def target(settings: Settings) -> str:
    """Returns the view that applications read."""
    return settings.table


def derived(settings: Settings, fields: Sequence[Field]) -> dict[str, Any]:
    """Returns the types of all columns."""
    return {"columns": columns.types(settings.columns, fields)}


def validate(settings: Settings, fields: Sequence[Field]) -> list[Problem]:
    """Reports types that cannot hold a field's values, unknown fields, and names that no column can have."""
    return columns.problems(settings, fields)


def preflight(connection: Connection, settings: Sequence[Settings]) -> list[SyncerError]:
    """Reports a server that is unreachable, a standby, or may lose commits, and missing schemas and privileges."""
    where = "PostgreSQL of postgres_sink"
    sessions = Sessions(connection, where)
    try:
        with sessions.session("cannot check the schemas") as session:
            names = sorted({one.schema_name for one in settings})
            return [error for name in names if (error := _schema_error(session, name, where)) is not None]
    except SyncerError as error:
        return [error]
    finally:
        sessions.close()


def _schema_error(session: Session, name: str, where: str) -> Fatal | None:
    role = quote(session.info.user)
    row = session.execute(_PRIVILEGES, (name,)).fetchone()
    if row is None:
        hint = f"CREATE SCHEMA {quote(name)} AUTHORIZATION {role}"
        return Fatal(f"the schema {name} does not exist", where=where, hint=hint)
    missing = [word for word, has in zip(("USAGE", "CREATE"), row, strict=True) if not has]
    if not missing:
        return None
    hint = f"GRANT {', '.join(missing)} ON SCHEMA {quote(name)} TO {role}"
    return Fatal(f"privileges on the schema {name} are missing", where=where, why=", ".join(missing), hint=hint)


def trial(connection: Connection, settings: Settings, model: Compiled) -> list[Problem]:
    """Reports names that are taken, tables that cannot be used, and what PostgreSQL refuses of such a table.

    Creates a table and indexes in a transaction, and rolls it back.
    """
    sessions = Sessions(connection, f"postgres:{settings.table}")
    try:
        with sessions.session("cannot check the table") as session:
            if _schema_error(session, settings.schema_name, "") is not None:
                return []  # `preflight` reports it
            if model.partials:
                try:
                    settings.partials_of(1)
                except Fatal as error:
                    return [Problem(error.what, error.why, error.hint, ("table",))]
            types = columns.types(settings.columns, model.fields)
            return list(_existing(session, settings, model, types)) or _refused(session, settings, types)
    finally:
        sessions.close()


def _existing(session: Session, settings: Settings, model: Compiled, types: Mapping[str, str]) -> Iterator[Problem]:
    registered = catalog.relation(session, settings.schema_name, generations.NAME)
    known = generations.find(session, settings) if registered else {}
    for row in known.values():
        if row.model != model.name:
            yield Problem(f"{settings.table} belongs to the read model {row.model}", "", TARGET_HINT, ("table",))
            return
    try:
        view = views.find(session, settings, known)
    except Fatal as error:
        yield Problem(error.what, error.why, error.hint, ("table",))
        return
    table = view.table if view else settings.table_of(1)
    if not known and catalog.relation(session, settings.schema_name, table):
        yield views.unrecorded(session, settings, table, model.name)
        return
    if view and (problem := views.blocked(session, settings, view, types)):
        yield problem
    numbers = list(known) or [1]
    partials = [settings.partials_of(one) for one in numbers] if model.partials else []
    yield from refusals.table_problems(session, settings, [settings.table_of(one) for one in numbers], partials)


def _refused(session: Session, settings: Settings, types: Mapping[str, str]) -> list[Problem]:
    """Returns the first statement that PostgreSQL refuses."""
    scratch = settings.quoted(f"syncer_check_{uuid.uuid4().hex}")
    statements = [create_table(scratch, types), *create_indexes(scratch, settings.indexes)]
    for number, statement in enumerate(statements):
        at: Path = () if number == 0 else ("indexes", number - 1)
        try:
            with session.transaction(force_rollback=True):
                for earlier in statements[:number] if number == 0 else statements[:1]:
                    session.execute(earlier)
                session.execute(statement)
        except psycopg.Error as error:
            refused = classify(error, "PostgreSQL refuses the table", "")
            if not isinstance(refused, Fatal) or not (error.sqlstate or "").startswith("42"):
                raise
            return [Problem(f"PostgreSQL refuses: {statement.replace(scratch, settings.table)}", refused.why, "", at)]
    return []
