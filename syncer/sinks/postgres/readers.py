"""Detects that applications read another table than the one that is kept in sync."""

from __future__ import annotations

from syncer.errors import Fatal, SyncerError
from syncer.sinks.postgres import catalog, views
from syncer.sinks.postgres.sessions import Sessions
from syncer.sinks.postgres.settings import Connection, Settings


def readers_elsewhere(connection: Connection, settings: Settings, generation: int) -> SyncerError | None:
    """Returns an error if the view that applications read does not show this generation's table.

    A later generation is in order: a resync moves the view before that generation is registered.
    """
    where, table = f"postgres:{settings.table}", settings.table_of(generation)
    sessions = Sessions(connection, where)
    try:
        with sessions.session("cannot read the view") as session:
            if catalog.relation(session, settings.schema_name, table) is None:
                return None
            found = catalog.relation(session, settings.schema_name, settings.view)
            read = catalog.tables_of_view(session, found.oid) if found else []
            if len(read) == 1 and (read[0] == table or _is_later(settings, read[0], table)):
                return None
            return Fatal(
                f"readers of {settings.table} see {' and '.join(read) or 'no table'}, but the syncer writes to {table}",
                where=where,
                why="the view was replaced or dropped by hand",
                hint=views.fix(session, settings, table),
            )
    finally:
        sessions.close()


def _is_later(settings: Settings, read: str, table: str) -> bool:
    return read > table and read.startswith(f"{settings.view}_") and len(read) == len(table)
