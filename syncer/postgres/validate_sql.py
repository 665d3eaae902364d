"""Has PostgreSQL parse the statement compiled from a declaration, and finds each expression that it rejects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg

from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.isolate import alone, bare, group_alone, places, without
from syncer.declaration.located_yaml import Path
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model
from syncer.errors import Fatal, Reject
from syncer.postgres.chunked_results import numbered
from syncer.postgres.session import classify_error

_CONTEXT = 40
"""Characters of SQL that a message shows before and after the position of an error."""
_DECLARATION_ERROR = re.compile(r"42(?!501|P01)")
"""SQLSTATEs for wrong types and names in a declaration. Missing privileges (42501) and missing tables (42P01) are not
errors of the declaration. Errors in its values and limits are a `Reject`."""


def plan(connection: psycopg.Connection[Any], model: Model, catalog: Catalog, compiled: Compiled) -> None:
    """Runs the statements with no keys, because only PostgreSQL detects types that do not fit (text + integer).

    Raises Fatal with each expression that PostgreSQL rejects, and its line.
    """
    if error := _rejection(connection, compiled, model.file):
        found = list(_rejected_expressions(connection, model, catalog))
        raise together(found or [_rejected_statement(error, model, compiled.render)]) from error
    for lookup in (use.lookup for use in compiled.table_uses if use.lookup and use.lookup.sql):
        statement = lookup.sql or ""
        if error := _error(connection, statement, len(lookup.columns), model.file):
            raise _rejected_statement(error, model, statement) from error


def _rejection(connection: psycopg.Connection[Any], compiled: Compiled, where: str) -> psycopg.Error | None:
    """Returns PostgreSQL's error if the declaration causes one. Raises other errors as a SyncerError."""
    return _error(connection, compiled.render, len(compiled.key), where)


def _error(connection: psycopg.Connection[Any], statement: str, arrays: int, where: str) -> psycopg.Error | None:
    """Runs a statement with empty arrays."""
    try:
        connection.execute(statement.encode(), [[] for _ in range(arrays)])
    except psycopg.Error as error:
        kind = classify_error(error, "cannot validate the statements", where=where)
        if _DECLARATION_ERROR.match(error.sqlstate or "") or isinstance(kind, Reject):
            return error
        raise kind from error
    return None


def _rejected_expressions(connection: psycopg.Connection[Any], model: Model, catalog: Catalog) -> Iterator[Fatal]:
    """Yields each expression that fails on its own. If none does, yields the first one whose removal makes the
    statement valid."""

    def rejection(part: Model) -> psycopg.Error | None:
        return _rejection(connection, compile(part, catalog), model.file)

    for name, text in (model.declaration.root.group or {}).items():
        if error := rejection(group_alone(model, name)):
            yield _fatal(error, f"PostgreSQL rejects {text}", model.at(("root", "group", name)))
            return
    if rejection(bare(model)):  # a link fails, not an expression
        return
    rejected: list[Path] = []
    for place, text in places(model):
        if any(place[:-1][: len(one) - 1] == one[:-1] for one in rejected if one[-1] == "group_by"):
            continue  # an expression over these groups
        if error := rejection(alone(model, place)):
            rejected.append(place)
            yield _fatal(error, f"PostgreSQL rejects {text}", model.at(place))
    if not rejected:
        whole = rejection(model)
        for place, text in places(model):
            if whole and not rejection(without(model, place)):
                yield _fatal(whole, f"PostgreSQL rejects {text}", model.at(place))
                return


def _rejected_statement(error: psycopg.Error, model: Model, statement: str) -> Fatal:
    """Returns an error that quotes the SQL near PostgreSQL's error position, where no single expression fails."""
    sent = numbered(statement).decode()
    what = "PostgreSQL rejects the statement compiled from the declaration"
    if error.diag.statement_position:
        at = int(error.diag.statement_position) - 1
        what += f", near … {sent[max(0, at - _CONTEXT) : at + _CONTEXT]} …"
    return _fatal(error, what, model.file)


def _fatal(error: psycopg.Error, what: str, where: str) -> Fatal:
    why = error.diag.message_primary or str(error).strip().split("\n")[0]
    hint = error.diag.message_hint or "fix the expression; syncer explain shows the tables' columns"
    return Fatal(what, where=where, why=f"{why} [{error.sqlstate}]", hint=hint.replace("\n", " "))
