"""The table `syncer_generations` of the sink's schema: one row for each table of documents.

It records which read model a table belongs to and what it was built from. It also holds the watermark, and whether
applications read the table. They find both in one query:

    SELECT taken_at, snapshot FROM read.syncer_generations WHERE name = 'orders' AND active
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from syncer.ports import PublishedWatermark
from syncer.sinks import watermark as stored
from syncer.sinks.postgres.server import Session
from syncer.sinks.postgres.sessions import Sessions
from syncer.sinks.postgres.settings import Connection, Settings
from syncer.sinks.problem import Problem
from syncer.sinks.target import Target

NAME = "syncer_generations"
_MARKED = ("clock", "snapshot", "taken_at", "lsn", "dead_letters", "searchable_clock", "searchable_taken_at")
_CREATE = """
CREATE TABLE IF NOT EXISTS {table} (
    name text NOT NULL, generation integer NOT NULL, model text NOT NULL, hash text NOT NULL, epoch integer NOT NULL,
    active boolean NOT NULL DEFAULT false, version bigint NOT NULL DEFAULT 0,
    clock bigint, snapshot text, taken_at timestamp with time zone, lsn text, dead_letters bigint,
    searchable_clock bigint, searchable_taken_at timestamp with time zone, PRIMARY KEY (name, generation))"""


class Generation(NamedTuple):
    """A row of the table, without the watermark."""

    generation: int
    model: str
    hash: str
    epoch: int
    active: bool


def create(session: Session, settings: Settings) -> None:
    session.execute(_CREATE.format(table=settings.quoted(NAME)))


def find(session: Session, settings: Settings) -> dict[int, Generation]:
    """Returns generation → its row, of one view. Raises UndefinedTable if the table is missing."""
    text = f"SELECT generation, model, hash, epoch, active FROM {settings.quoted(NAME)} WHERE name = %s"
    return {row[0]: Generation(*row) for row in session.execute(text, (settings.view,))}


def record(session: Session, settings: Settings, target: Target) -> None:
    """Records what the table of a generation is built from."""
    text = f"""
INSERT INTO {settings.quoted(NAME)} (name, generation, model, hash, epoch)
VALUES (%(name)s, %(generation)s, %(model)s, %(hash)s, %(epoch)s)
    ON CONFLICT (name, generation) DO UPDATE SET epoch = excluded.epoch, hash = excluded.hash"""
    session.execute(text, {**target.meta(), "name": settings.view})


def activate(session: Session, settings: Settings, generation: int) -> None:
    """Records which generation applications read."""
    text = f"UPDATE {settings.quoted(NAME)} SET active = (generation = %s) WHERE name = %s"
    session.execute(text, (generation, settings.view))


def publish(session: Session, settings: Settings, watermark: PublishedWatermark) -> None:
    """See `ports.PublishingSink.publish`."""
    found = stored.fields(watermark)
    sets = ", ".join(f"{name} = %({name})s" for name in _MARKED)
    text = f"""
UPDATE {settings.quoted(NAME)} SET version = %(version)s, {sets}
 WHERE name = %(name)s AND generation = %(generation)s AND version < %(version)s"""
    values = dict.fromkeys(_MARKED) | found | {"name": settings.view, "version": watermark.version}
    session.execute(text, values)


def published(session: Session, settings: Settings, generation: int) -> PublishedWatermark | None:
    """See `ports.PublishingSink.published`. The time is read in the form in which it is stored elsewhere."""
    # The epoch of the watermark, not the one of the row: a later epoch of this generation can have begun.
    text = f"""
SELECT to_jsonb(g) - 'version' || jsonb_build_object('epoch', g.version >> 48)
  FROM {settings.quoted(NAME)} AS g WHERE name = %s AND generation = %s AND version > 0"""
    row = session.execute(text, (settings.view, generation)).fetchone()
    found: Mapping[str, Any] = row[0] if row else {}
    return stored.parse({name: value for name, value in found.items() if value is not None})


def published_for(connection: Connection, settings: Settings, generation: int) -> PublishedWatermark | None:
    """Returns the published watermark of a generation, for a command. Raises Retry and Fatal."""
    sessions = Sessions(connection, f"postgres:{settings.table}")
    try:
        with sessions.session("cannot read the watermark") as session:
            try:
                return published(session, settings, generation)
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                return None
    finally:
        sessions.close()


def publishing_problems(connection: Connection, settings: Sequence[Settings]) -> list[Problem]:
    """Returns nothing: the watermark is in a table that the sink needs anyway."""
    return []
