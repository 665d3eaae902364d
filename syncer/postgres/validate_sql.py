"""Whether PostgreSQL takes what is made of a declaration, and if not, which of its expressions it refuses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import psycopg

from syncer.declaration.catalog import Catalog
from syncer.declaration.compile import Compiled, compile
from syncer.declaration.isolate import alone, bare, places, without
from syncer.declaration.mistakes import together
from syncer.declaration.model import Model
from syncer.errors import Fatal, Reject
from syncer.postgres.session import classify_error

_SHOWN = 40  # characters of SQL before and after the one that PostgreSQL points at
_DECLARED = re.compile(r"42(?!501|P01)")
"""SQLSTATEs of the types and names in a declaration; not of privileges or a table that is gone. Errors that
are a `Reject` are of its values and limits."""


def plan(connection: psycopg.Connection[Any], model: Model, catalog: Catalog, compiled: Compiled) -> None:
    """Render nothing, so that PostgreSQL reads the statement: types that do not fit (text + integer) show
    only there. Raises Fatal with every expression that it refuses, and its line."""
    if error := _refused(connection, compiled, model.file):
        found = list(_expressions(connection, model, catalog))
        raise together(found or [_statement(error, model, compiled)]) from error


def _refused(connection: psycopg.Connection[Any], compiled: Compiled, where: str) -> psycopg.Error | None:
    try:
        connection.execute(compiled.render.encode(), [[] for _ in compiled.key])
    except psycopg.Error as error:
        kind = classify_error(error, "cannot render", where=where)
        if _DECLARED.match(error.sqlstate or "") or isinstance(kind, Reject):
            return error
        raise kind from error
    return None


def _expressions(connection: psycopg.Connection[Any], model: Model, catalog: Catalog) -> Iterator[Fatal]:
    """Those that are refused by themselves; or else the one without which nothing is."""

    def refused(part: Model) -> psycopg.Error | None:
        return _refused(connection, compile(part, catalog), model.file)

    if refused(bare(model)):  # it is no expression: a link
        return
    found = False
    for place, text in places(model):
        if error := refused(alone(model, place)):
            found = True
            yield _fatal(error, f"PostgreSQL refuses {text}", model.at(place))
    if not found:
        whole = refused(model)
        for place, text in places(model):
            if whole and not refused(without(model, place)):
                yield _fatal(whole, f"PostgreSQL refuses {text}", model.at(place))
                return


def _statement(error: psycopg.Error, model: Model, compiled: Compiled) -> Fatal:
    """Where no expression is to blame: the piece of SQL at the position that PostgreSQL tells."""
    numbers = itertools.count(1)
    sent = re.sub(r"%(s|%)", lambda m: f"${next(numbers)}" if m[1] == "s" else "%", compiled.render)
    what = "PostgreSQL refuses what is made of the declaration"
    if error.diag.statement_position:
        at = int(error.diag.statement_position) - 1
        what += f", near … {sent[max(0, at - _SHOWN) : at + _SHOWN]} …"
    return _fatal(error, what, model.file)


def _fatal(error: psycopg.Error, what: str, where: str) -> Fatal:
    told = error.diag.message_primary or str(error).strip().split("\n")[0]
    hint = error.diag.message_hint or "mend the expression; syncer explain shows the tables' columns"
    return Fatal(what, where=where, why=f"{told} [{error.sqlstate}]", hint=hint.replace("\n", " "))
