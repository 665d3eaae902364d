"""Builds the SQL statements for one table of documents. No I/O.

The table has the columns `_id`, `_version` and `_deleted_at`, and one for each field. A delete is a row whose
`_deleted_at` is set and whose fields are null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from syncer.declaration.names import quote
from syncer.sinks.postgres.columns import DELETED, ID, VERSION
from syncer.sinks.postgres.settings import Index, Settings

_ID, _VERSION, _DELETED = quote(ID), quote(VERSION), quote(DELETED)
LIVE = f"{_DELETED} IS NULL"
ARRIVED = "pg_catalog.statement_timestamp()"


class Mark(NamedTuple):
    """The statements for the mark of a table (`durability.py`): the row with an empty id."""

    table: str
    read: str
    create: str
    """Takes the number of the mark."""
    renew: str
    """Takes the new number."""

    @classmethod
    def of(cls, table: str, values: Mapping[str, str]) -> Mark:
        """Returns the statements for a table. values: column → value as SQL, for further columns of the row."""
        names, given = ("".join(f", {one}" for one in part) for part in (map(quote, values), values.values()))
        return cls(
            table,
            f"SELECT {_VERSION}, xmin::text FROM {table} WHERE {_ID} = ''",
            f"INSERT INTO {table} ({_ID}, {_VERSION}{names}) VALUES ('', %s{given}) ON CONFLICT DO NOTHING",
            f"UPDATE {table} SET {_VERSION} = %s WHERE {_ID} = ''",
        )


class Statements:
    """The statements for one table. columns: name → type, in the order of the fields."""

    def __init__(self, table: str, columns: Mapping[str, str]) -> None:
        self.table = table
        self.columns = columns
        names = [quote(name).replace("%", "%%") for name in columns]  # as psycopg requires it with parameters
        given = ", ".join(f"{name} {columns[plain]}" for name, plain in zip(names, columns, strict=True))
        updates = ", ".join(f"{name} = excluded.{name}" for name in (_VERSION, _DELETED, *names))
        values = "".join(f", r.{name}" for name in names)
        self.write = f"""
INSERT INTO {table} AS t ({_ID}, {_VERSION}, {_DELETED}{"".join(f", {name}" for name in names)})
SELECT d.id, d.version, CASE WHEN d.body IS NULL THEN {ARRIVED} END{values}
  FROM unnest(%(ids)b::text[], %(versions)b::bigint[], %(bodies)b::text[]) AS d(id, version, body)
 CROSS JOIN LATERAL json_to_record(coalesce(d.body, '{{}}')::json) AS r({given})
 ORDER BY d.id COLLATE "C"
    ON CONFLICT ({_ID}) DO UPDATE SET {updates} WHERE t.{_VERSION} < excluded.{_VERSION}
RETURNING t.{_ID}, t.{_DELETED} IS NULL"""
        shown = ", ".join(f"t.{name}" for name in names)
        row = f"(SELECT pg_catalog.row_to_json(r) FROM (SELECT {shown}) AS r)::text"
        self.read = f"SELECT t.{_ID}, {row} FROM {table} AS t WHERE t.{_ID} = ANY(%b::text[]) AND t.{LIVE}"
        self.versions = f"SELECT {_ID}, {_VERSION} FROM {table} WHERE {_ID} = ANY(%b::text[])"
        self.ids = f"SELECT {_ID} FROM {table} WHERE {LIVE} AND {_ID} > %s ORDER BY {_ID} LIMIT %s"
        self.count = f"SELECT count(*) FROM {table} WHERE {LIVE}"
        self.mark = Mark.of(table, {DELETED: "'infinity'"})
        self.purge = f"""
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM {table} WHERE {_DELETED} < {ARRIVED} - pg_catalog.make_interval(secs => %s)
     LIMIT %s FOR UPDATE SKIP LOCKED))"""


def create_table(table: str, columns: Mapping[str, str]) -> str:
    """Returns the statement that creates a table of documents. Ids are compared byte by byte, as writers sort them."""
    fields = "".join(f", {quote(name)} {type}" for name, type in columns.items())
    own = f'{_ID} text COLLATE "C" PRIMARY KEY, {_VERSION} bigint NOT NULL, {_DELETED} timestamp with time zone'
    return f"CREATE TABLE {table} ({own}{fields})"


def create_indexes(table: str, indexes: Sequence[Index]) -> list[str]:
    """Returns the statements for the declared indexes, and last the one that finds deletes to forget."""
    found = []
    for index in indexes:
        columns = ", ".join(f"{quote(one.name)} {one.order}".rstrip() for one in index.parsed())
        include = f" INCLUDE ({', '.join(map(quote, index.include))})" if index.include else ""
        found.append(f"CREATE INDEX ON {table} USING {index.using} ({columns}){include} WHERE {LIVE}")
    return [*found, f"CREATE INDEX ON {table} ({_DELETED}) WHERE {_DELETED} IS NOT NULL"]


def view_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Returns name → type of the view's columns. A field that is added comes last, so REPLACE can add it."""
    return {ID: "text", VERSION: "bigint", **columns}


def select(table: str, names: Sequence[str]) -> str:
    """Returns the query of the view."""
    return f"SELECT {', '.join(map(quote, names))} FROM {table} WHERE {LIVE}"


def create_view(settings: Settings, table: str, names: Sequence[str], options: str = "") -> str:
    """Returns the statement that points the view at a table. options: the view's options as SQL."""
    with_ = f" WITH ({options})" if options else ""
    return f"CREATE OR REPLACE VIEW {settings.quoted(settings.view)}{with_} AS {select(table, names)}"
