"""Finds the documents that a request is about, on separate connections.

    keys    are written as PostgreSQL writes them: 007 becomes 7. So equal keys are rendered once, and the document of
            a deleted row is deleted under its id
    rows    lead to their roots as rows in change events do (`pipeline/resolve.py`), through the same look-ups

A row that leads to no root is refused (409). The row, or one between it and its document, may have been deleted. The
snapshot then no longer shows which document is stale, and an answer "fresh" would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import product
from typing import Any, cast

import psycopg

from syncer.declaration.catalog import Column, Table
from syncer.declaration.compile import Compiled, Lookup, TableUse
from syncer.declaration.names import quote
from syncer.declaration.sql_types import KEYABLE, key_type
from syncer.errors import Reject
from syncer.events import Key, TableName, Values
from syncer.freshness.refresh_request import RefreshRequest, Row, text_of, too_many
from syncer.freshness.refused import Refused
from syncer.pipeline.visibility import VisibilityGate
from syncer.ports import View
from syncer.postgres.session import classify_error


class Roots:
    """Finds the roots of requests. most: the largest number of roots of one request."""

    def __init__(self, compiled: Compiled, tables: Mapping[TableName, Table], most: int) -> None:
        self._compiled, self._tables, self._most = compiled, tables, most
        self._root = Lookup(compiled.key, compiled.key_types, None)

    def find(self, request: RefreshRequest, connection: psycopg.Connection[Any], gate: VisibilityGate) -> list[Key]:
        """Returns the distinct keys of the roots, as PostgreSQL writes them.

        connection: in autocommit mode. gate: opens views for look-ups.
        Raises Refused: 400 for values that do not fit, 409 for rows that lead to no root, 413 for too many roots.
        """
        if request.keys:
            return self._canonical(connection, request.keys)
        links = [self._links(row, request.uses, connection) for row in request.rows]
        direct = [cast(Key, value) for row in links for lookup, value in row if lookup.sql is None]
        roots = dict.fromkeys(self._canonical(connection, direct) if direct else ())
        if any(lookup.sql is not None for row in links for lookup, _ in row):
            try:
                with gate.open_view() as view:
                    roots |= dict.fromkeys(self._look_up(view.view, links, request.rows))
            except Reject as error:
                raise _unfit(f"{request.uses[0].table}", error.why) from error
        if len(roots) > self._most:
            raise too_many(self._compiled.name, self._most)
        return list(roots)

    def _canonical(self, connection: psycopg.Connection[Any], keys: Sequence[Key]) -> list[Key]:
        """Returns the keys as PostgreSQL writes them, each once."""
        arrays = [list(column) for column in zip(*keys, strict=True)]
        found = self._query(connection, self._compiled.canonical_keys, arrays, f"key ({', '.join(self._compiled.key)})")
        return list(dict.fromkeys(found))

    def _query(
        self, connection: psycopg.Connection[Any], statement: str, parameters: Sequence[Any], where: str
    ) -> list[Key]:
        """Returns the rows of a statement. Raises Refused (400) if a value does not fit its type."""
        query: Any = statement
        try:
            return [tuple(row) for row in connection.execute(query, parameters).fetchall()]
        except psycopg.DataError as error:
            raise _unfit(where, str(error)) from error
        except psycopg.Error as error:
            raise classify_error(error, "cannot read from PostgreSQL", where=self._compiled.name) from error

    # -- rows -----------------------------------------------------------------------------------------

    def _links(
        self, row: Row, uses: Sequence[TableUse], connection: psycopg.Connection[Any]
    ) -> list[tuple[Lookup, Values]]:
        """Returns the look-ups of a row with their values. A NULL links to no row, so its look-up is left out.

        A NULL may belong to a group (`Lookup.nulls`).

        If the row has only its primary key, its link values are read from PostgreSQL.
        """
        lookups = [use.lookup or self._root for use in uses]
        needed = list(dict.fromkeys(column for lookup in lookups for column in lookup.columns))
        table = self._tables[uses[0].table]
        if any(column not in row for column in needed):
            row = self._read(table, row, needed, connection, nulls=any(lookup.nulls for lookup in lookups))
        texts = {column: _texts(row[column], table.columns[column], column) for column in needed}
        found: list[tuple[Lookup, Values]] = []
        for lookup in lookups:
            values = product(*(texts[column] for column in lookup.columns))
            found += [(lookup, value) for value in values if lookup.nulls or None not in value]
        return found

    def _read(
        self, table: Table, row: Row, needed: Sequence[str], connection: psycopg.Connection[Any], *, nulls: bool
    ) -> Row:
        """Returns the link values of a row that PostgreSQL has under this primary key.

        nulls: whether a row with a NULL may belong to a document. Raises Refused.
        """
        key = table.primary_key
        if not key or any(column not in row for column in key):
            either = f" or the primary key ({', '.join(key)})" if key else ""
            raise Refused(
                HTTPStatus.BAD_REQUEST,
                "an entry of `rows` lacks columns",
                where=str(table.name),
                why=f"a row needs the columns that link it to its parent ({', '.join(needed)}){either}",
                hint="send the link values before and after the change, as two rows",
            )
        columns = [table.columns[column] for column in key]
        if any(column.base not in KEYABLE for column in columns):
            raise _unfit(f"{table.name}, key ({', '.join(key)})", "keys of this type cannot be compared as text")
        casts = [f"%s::pg_catalog.text::{key_type(column.type, column.base)}" for column in columns]
        condition = " AND ".join(f"{_name(column)} = {cast}" for column, cast in zip(key, casts, strict=True))
        outputs = ", ".join(_output(table.columns[column]) for column in needed)
        statement = f"SELECT {outputs} FROM {quote(*table.name).replace('%', '%%')} WHERE {condition}"  # noqa: S608 - quoted names
        values = [None if row[column] is None else text_of(row[column], f"column {column!r}") for column in key]
        found = self._query(connection, statement, values, f"{table.name}, key ({', '.join(key)})")
        if not found or (None in found[0] and not nulls):
            raise self._unresolved(row)
        return dict(zip(needed, found[0], strict=True))

    def _look_up(self, view: View, links: Sequence[Sequence[tuple[Lookup, Values]]], rows: Sequence[Row]) -> list[Key]:
        """Returns the roots that the look-ups find. Raises Refused for a row that leads to no root at all."""
        known: dict[tuple[Lookup, Values], list[Key]] = {}
        roots: dict[Key, None] = {}
        for row, of_row in zip(rows, links, strict=True):
            found = not of_row  # all links of the row are NULL: it belongs to no document
            for lookup, value in of_row:
                if lookup.sql is None:
                    found = True
                    continue
                if (lookup, value) not in known:
                    known[lookup, value] = self._roots_of(view, lookup, value)
                roots |= dict.fromkeys(known[lookup, value])
                found |= bool(known[lookup, value])
                if len(roots) > self._most:
                    raise too_many(self._compiled.name, self._most)
            if not found:
                raise self._unresolved(row)
        return list(roots)

    def _roots_of(self, view: View, lookup: Lookup, value: Values) -> list[Key]:
        roots = []
        for key in view.look_up(lookup, [value]):
            roots.append(key)
            if len(roots) > self._most:
                raise too_many(self._compiled.name, self._most)
        return roots

    def _unresolved(self, row: Row) -> Refused:
        shown = ", ".join(f"{column}: {str(value)[:50]}" for column, value in list(row.items())[:5])
        return Refused(
            HTTPStatus.CONFLICT,
            "a row of the request leads to no document",
            where=f"{self._compiled.name}, row {{{shown}}}",
            why="the row, or one between it and its document, was deleted or belongs to no document",
            hint="send the keys of the documents, or the link values before and after the change",
        )


def _texts(value: Any, column: Column, name: str) -> list[str | None]:
    """Returns the values that a row's column is looked up with: its text, or the texts of the elements of an array.

    Raises Refused (400) for a value of another form.
    """
    where = f"column {name!r}"
    if column.base != "array" or value is None:
        return [None if value is None else text_of(value, where)]
    if not isinstance(value, list):
        raise _unfit(where, "an array is written as a JSON list of its elements")
    return [*dict.fromkeys(text_of(element, where) for element in value if element is not None)]


def _output(column: Column) -> str:
    name = _name(column.name)
    if column.base != "array":
        return f"{name}::pg_catalog.text"
    elements = f"pg_catalog.unnest({name}) e"
    return f"(SELECT pg_catalog.array_agg(e::pg_catalog.text) FROM {elements})"  # noqa: S608 - a quoted name


def _name(column: str) -> str:
    return quote(column).replace("%", "%%")


def _unfit(where: str, why: str) -> Refused:
    return Refused(
        HTTPStatus.BAD_REQUEST,
        "a value of the request does not fit the type of its column",
        where=where,
        why=why.strip().split("\n")[0],
    )
