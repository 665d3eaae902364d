"""A session with PostgreSQL: what is pinned in it, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from syncer import tls
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
"""What could make the same rows look different. `row_security=off` makes a policy an error instead of
missing rows."""

PLANNING: Mapping[str, str] = {"enable_seqscan": "off", "jit": "off", "random_page_cost": "1.1"}
"""Everything is found by index, a few rows at a time. Left to itself, PostgreSQL scans a small table once
for every document (measured: 6,000 documents/s instead of 36,000)."""

_KEEPALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Of libpq, unless the DSN has its own: that a server vanished is noticed in a minute, not in hours."""


def connect(arguments: Mapping[str, Any], *, statement_timeout: float = 60.0) -> psycopg.Connection[Any]:
    """A session with everything pinned. arguments: of `psycopg.connect`; statement_timeout: seconds.

    Raises Retry when the server cannot be reached, Fatal when it refuses us.
    """
    options = {
        **PINNED,
        **PLANNING,
        "statement_timeout": f"{round(statement_timeout * 1000)}ms",
        "lock_timeout": f"{round(lock_timeout(statement_timeout) * 1000)}ms",
    }
    try:
        given = conninfo_to_dict(arguments.get("conninfo", ""))
        keep: dict[str, Any] = {name: value for name, value in _KEEPALIVE.items() if name not in given}
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


def lock_timeout(statement_timeout: float) -> float:
    """Seconds. Earlier: to wait for another's ALTER TABLE or TRUNCATE says nothing about the rows."""
    return statement_timeout / 2


def standby(where: str) -> Retry:
    """It may be promoted, or the name may lead to the primary again."""
    return Retry(
        "this PostgreSQL server is a standby, whose snapshots have no clock",
        where=where,
        hint="set postgres.dsn to the primary (target_session_attrs=read-write finds it)",
    )


def classify_error(error: psycopg.Error, what: str, *, where: str = "PostgreSQL") -> SyncerError:
    """What an error of the server or of the connection means for a read model.

    By SQLSTATE class (manual, appendix A); libpq gives none for a refused connection, only text.
    """
    state, why = error.sqlstate or "", str(error).strip().split("\n")[0]
    detail = getattr(error.diag, "message_detail", None)
    if detail:
        why += f" ({detail})"
    if not state:
        for pattern, hint in _REFUSED.items():
            if re.search(pattern, str(error)):
                return Fatal(what, where=where, why=why, hint=hint)
        return Retry(what, where=where, why=why, hint="is the server up? see postgres.dsn")
    if state == "XX000" and _POSTGIS.match(error.diag.source_file or ""):
        return Reject(what, where=where, why=f"{why} [{state}]", hint=_STATES["22"][1])
    for prefix, (kind, hint) in _STATES.items():
        if state.startswith(prefix):
            return kind(what, where=where, why=f"{why} [{state}]", hint=hint)
    return Fatal(what, where=where, why=f"{why} [{state}]", hint="syncer check")


_POSTGIS = re.compile(r"lwgeom|geography|gserialized|postgis")
"""The source files of PostGIS, which calls every mistake in a value an internal error (XX000)."""

_REFUSED = {
    "password authentication failed": "set SYNCER_POSTGRES__PASSWORD or postgres.password_file",
    "no password supplied": "set SYNCER_POSTGRES__PASSWORD or postgres.password_file",
    "no pg_hba.conf entry": "allow the syncer's host in pg_hba.conf",
    "(database|role) .* does not exist": "see postgres.dsn: the database or role is not there",
    "root certificate file": "see sslrootcert in postgres.dsn: the file has to be there, with certificates",
    "(?i)certificate verify failed": tls.advice("sslrootcert in postgres.dsn"),
    "does not match host name": "postgres.dsn has to name the host as its certificate does",
    "could not load (client )?certificate|private key file": "see sslcert and sslkey in postgres.dsn",
    "does not support SSL": "see sslmode in postgres.dsn: the server has no TLS",
    "permission denied for database": "GRANT CONNECT ON DATABASE … TO the syncer's role",
}
_STATES: Mapping[str, tuple[type[SyncerError], str]] = {
    "0A000": (Retry, "a cached plan is out of date: it is made anew"),
    "08": (Retry, ""),
    "22": (Reject, "mend the row, or the expression that fails on it"),
    "25006": (Retry, ""),
    "25P": (Retry, ""),
    "26": (Retry, "a connection pooler in between has to pool sessions, not transactions"),
    "28P01": (Fatal, "set SYNCER_POSTGRES__PASSWORD or postgres.password_file"),
    "28": (Fatal, "see the role in postgres.dsn, and pg_hba.conf of the server"),
    "3F": (Retry, "a schema is gone: the read model is compiled again"),
    "3D": (Fatal, "see postgres.dsn: the database is not there"),
    "40": (Retry, ""),
    "42P01": (Retry, "a table is gone: the read model is compiled again"),
    "42501": (Fatal, "syncer check prints the GRANT to run; with row security the role needs BYPASSRLS"),
    "42": (Fatal, "syncer check tells what does not fit the tables any more"),
    "53": (Retry, "the server is short of memory, disk or connections"),
    "54": (Reject, "a document is too large or too deep for the server"),
    "55P03": (Retry, "who holds the lock: SELECT * FROM pg_locks WHERE mode = 'AccessExclusiveLock'"),
    "55": (Retry, ""),
    "57014": (Retry, "longer statements: postgres.statement_timeout"),
    "57": (Retry, ""),
    "58": (Retry, ""),
    "72": (Retry, "old_snapshot_threshold took the snapshot: another one is taken"),
    "XX": (Retry, "see the server's log"),
}
