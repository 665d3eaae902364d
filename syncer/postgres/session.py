"""Opens PostgreSQL sessions with pinned settings, and classifies PostgreSQL's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from syncer import libpq
from syncer.errors import Fatal, Reject, Retry, SyncerError

PINNED: Mapping[str, str] = {
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "lc_numeric": "C",
    "lc_time": "C",
    "default_transaction_read_only": "on",
    "extra_float_digits": "1",
    "IntervalStyle": "iso_8601",
    "lc_monetary": "C",
    "row_security": "off",
    "search_path": "pg_catalog",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
    "xmlbinary": "base64",
    "xmloption": "content",
}
"""Settings that change how the same rows are rendered. With `row_security=off`, a policy that would hide rows raises
an error instead."""

PLANNING: Mapping[str, str] = {"enable_seqscan": "off", "jit": "off", "random_page_cost": "1.1"}
"""Settings that make the planner use indexes, because each look-up finds few rows. With its defaults, PostgreSQL scans
a small table once for every document (measured: 6,000 documents/s instead of 36,000)."""


def connect(arguments: Mapping[str, Any], *, statement_timeout: float = 60.0) -> psycopg.Connection[Any]:
    """Opens a session in autocommit mode with `PINNED` and `PLANNING`.

    arguments: of `psycopg.connect`.
    statement_timeout: seconds.
    Raises Retry when the server is unreachable, Fatal when it refuses the login.
    """
    options = {
        **PINNED,
        **PLANNING,
        "statement_timeout": f"{round(statement_timeout * 1000)}ms",
        "lock_timeout": f"{round(lock_timeout(statement_timeout) * 1000)}ms",
    }
    try:
        given = conninfo_to_dict(arguments.get("conninfo", ""))
        keep: dict[str, Any] = {name: value for name, value in libpq.KEEPALIVE.items() if name not in given}
        connection = psycopg.connect(**{**keep, **arguments}, autocommit=True, prepare_threshold=2)
        try:
            for name, value in options.items():
                connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
        except BaseException:
            connection.close()
            raise
    except psycopg.Error as error:
        raise classify_error(error, "cannot connect to PostgreSQL") from error
    return connection


def fetch_rows(conn: psycopg.Connection[Any], query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    """Returns the rows of a query as tuples. Without parameters, a `%` in the query is a plain character.

    Raises psycopg.Error.
    """
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, parameters or None).fetchall()


def lock_timeout(statement_timeout: float) -> float:
    """Returns the lock timeout in seconds: half of the statement timeout.

    So a wait for another session's ALTER TABLE or TRUNCATE ends as a lock timeout. It is not mistaken for a document
    that takes too long to render.
    """
    return statement_timeout / 2


def standby(where: str) -> Retry:
    """Returns the error for a standby. It is a Retry: the standby may be promoted, or its host name may lead to the
    primary later."""
    return Retry(
        "this PostgreSQL server is a standby, and snapshots of a standby have no clock",
        where=where,
        hint="set postgres.dsn to the primary (target_session_attrs=read-write finds it)",
    )


def classify_error(error: psycopg.Error, what: str, *, where: str = "PostgreSQL") -> SyncerError:
    """Turns an error of the server or of the connection into one of the three kinds of `errors.py`.

    The SQLSTATE decides (PostgreSQL manual, appendix A). For a refused connection libpq gives only a text.
    what: the operation that failed. where: the read model, or the server.
    """
    state, why = error.sqlstate or "", str(error).strip().split("\n")[0]
    detail = getattr(error.diag, "message_detail", None)
    if detail:
        why += f" ({detail})"
    if not state:
        if hint := libpq.refused(str(error), "postgres"):
            return Fatal(what, where=where, why=why, hint=hint)
        if isinstance(error, psycopg.ProgrammingError):  # psycopg did not send the statement
            return Fatal(what, where=where, why=why, hint="report this defect of the syncer, as CONTRIBUTING.md says")
        return Retry(what, where=where, why=why, hint="check that the server is up and postgres.dsn is correct")
    if state == "XX000" and _POSTGIS.match(error.diag.source_file or ""):
        return Reject(what, where=where, why=f"{why} [{state}]", hint=_STATES["22"][1])
    for prefix, (kind, hint) in _STATES.items():
        if state.startswith(prefix):
            return kind(what, where=where, why=f"{why} [{state}]", hint=hint)
    return Fatal(what, where=where, why=f"{why} [{state}]", hint="syncer check")


_POSTGIS = re.compile(r"lwgeom|geography|gserialized|postgis")
"""Source files of PostGIS, which reports an invalid value as an internal error (XX000)."""

_STATES: Mapping[str, tuple[type[SyncerError], str]] = {
    "0A000": (Retry, "nothing to do: a cached plan was out of date, and the statement is planned again"),
    "08": (Retry, ""),
    "22": (Reject, "fix the row, or the expression that fails on it"),
    "25006": (Retry, ""),
    "25P": (Retry, ""),
    "26": (Retry, "configure the connection pooler to pool sessions, not transactions"),
    "28P01": (Fatal, "set SYNCER_POSTGRES__PASSWORD or postgres.password_file"),
    "28": (Fatal, "check the role in postgres.dsn, and pg_hba.conf of the server"),
    "3F": (Retry, "a schema is missing: the read model is compiled again"),
    "3D": (Fatal, "correct the database in postgres.dsn, or create it"),
    "40": (Retry, ""),
    "42P01": (Retry, "a table is missing: the read model is compiled again"),
    "42501": (Fatal, "syncer check prints the GRANT to run; with row security the role needs BYPASSRLS"),
    "42": (Fatal, "syncer check prints what no longer fits the tables"),
    "53": (Retry, "the server is short of memory, disk or connections"),
    "54": (Reject, "the document is too large or too deeply nested for the server"),
    "55P03": (Retry, "find the lock: SELECT * FROM pg_locks WHERE mode = 'AccessExclusiveLock'"),
    "55": (Retry, ""),
    "57014": (Retry, "raise postgres.statement_timeout to allow longer statements"),
    "57": (Retry, ""),
    "58": (Retry, ""),
    "72": (Retry, "nothing to do: old_snapshot_threshold ended the snapshot, and a new one is taken"),
    "XX": (Retry, "see the server's log"),
}
