"""Opens sessions with pinned settings, and classifies PostgreSQL's errors for the sink."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from syncer import libpq
from syncer.errors import Fatal, Reject, Retry, SyncerError
from syncer.sinks.postgres.settings import Connection

Session = psycopg.Connection[Any]

OLDEST = 140_000
_PINNED: Mapping[str, str] = {
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "default_transaction_isolation": "read committed",
    "extra_float_digits": "1",
    "idle_in_transaction_session_timeout": "10s",
    "idle_session_timeout": "10min",
    "IntervalStyle": "iso_8601",
    "jit": "off",
    "search_path": "pg_catalog",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}
"""Settings that change how values are read and printed. Read committed lets `ON CONFLICT` see the newest version.

A process that is frozen while it prepares or switches a table must not hold its locks for long. A process that is
frozen before it sends a write must find its session ended: the delete that forbids the write can be forgotten already.
Deletes are kept for at least half an hour."""
_SYNCHRONOUS = ("on", "local", "remote_write", "remote_apply")
_CHECK = """
SELECT pg_catalog.current_setting('server_version_num')::integer, pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('fsync')"""


def connect(connection: Connection, where: str) -> Session:
    """Opens a session in autocommit mode. Raises Retry when the server is unreachable or a standby.

    Raises Fatal when the server refuses the login, is too old, or may lose acknowledged commits.
    """
    arguments = connection.arguments()
    given = conninfo_to_dict(arguments["conninfo"])
    keep: dict[str, Any] = {name: value for name, value in libpq.KEEPALIVE.items() if name not in given}
    try:
        session: Session = psycopg.connect(**{**keep, **arguments}, autocommit=True, prepare_threshold=2)
        try:
            synchronous = _check(session, where)
            settings = {**_PINNED, "synchronous_commit": synchronous}
            calls = ", ".join(["pg_catalog.set_config(%s, %s, false)"] * len(settings))
            session.execute(f"SELECT {calls}", [text for one in settings.items() for text in one])
        except BaseException:
            session.close()
            raise
    except psycopg.Error as error:
        raise classify(error, "cannot connect to PostgreSQL", where) from error
    return session


def _check(session: Session, where: str) -> str:
    """Returns the server's `synchronous_commit`. It is pinned, so that a later change cannot weaken a session."""
    row = session.execute(_CHECK).fetchone()
    assert row is not None
    version, standby, synchronous, fsync = row
    if version < OLDEST:
        raise Fatal(f"PostgreSQL {version // 10000} is too old", where=where, hint="use PostgreSQL 14 or later")
    if standby:
        hint = "set postgres_sink.dsn to the primary (target_session_attrs=read-write finds it)"
        raise Retry("this PostgreSQL server is a standby", where=where, hint=hint)
    if synchronous not in _SYNCHRONOUS:
        raise Fatal(
            "PostgreSQL may lose acknowledged documents in a crash",
            where=where,
            why=f"synchronous_commit is {synchronous}",
            hint=f"ALTER ROLE {session.info.user} SET synchronous_commit = on, or change postgres_sink.dsn",
        )
    check_fsync(fsync, where)
    return str(synchronous)


def check_fsync(fsync: str, where: str) -> None:
    """Raises Fatal if the server does not write commits to disk. An operator can change it while sessions are open."""
    if fsync != "on":
        raise Fatal(
            "PostgreSQL may lose acknowledged documents in a crash",
            where=where,
            why=f"fsync is {fsync}",
            hint="ALTER SYSTEM SET fsync = on, and SELECT pg_reload_conf()",
        )


def classify(error: psycopg.Error, what: str, where: str, resync: str = "") -> SyncerError:
    """Returns the error as one of the three kinds of `errors.py`. The SQLSTATE decides (manual, appendix A).

    A Reject is about the values of a statement. resync: the command to run when the table is missing.
    """
    state, why = error.sqlstate or "", str(error).strip().split("\n")[0]
    if detail := getattr(error.diag, "message_detail", None):
        why += f" ({detail})"
    if not state:
        if isinstance(error, psycopg.DataError):  # a character that PostgreSQL does not store
            return Reject(what, where=where, why=why)
        if hint := libpq.refused(str(error), "postgres_sink"):
            return Fatal(what, where=where, why=why, hint=hint)
        hint = "check that the server is up and postgres_sink.dsn is correct"
        return Retry(what, where=where, why=why, hint=hint)
    for prefix, (kind, hint) in _STATES.items():
        if state.startswith(prefix):
            return kind(what, where=where, why=f"{why} [{state}]", hint=hint)
    hint = resync if state in ("42P01", "3F000", "42703") else "syncer check"
    return Fatal(what, where=where, why=f"{why} [{state}]", hint=hint)


_STATES: Mapping[str, tuple[type[SyncerError], str]] = {
    "0A000": (Retry, ""),  # a cached plan is out of date; the statement is planned again
    "08": (Retry, ""),
    "22": (Reject, ""),
    "23": (Reject, ""),  # a constraint that was added to the table; `check` names it
    "25": (Retry, ""),
    "26": (Retry, "configure the connection pooler to pool sessions, not transactions"),
    "28P01": (Fatal, "set SYNCER_POSTGRES_SINK__PASSWORD or postgres_sink.password_file"),
    "28": (Fatal, "check the role in postgres_sink.dsn, and pg_hba.conf of the server"),
    "3D": (Fatal, "correct the database in postgres_sink.dsn, or create it"),
    "40": (Retry, ""),
    "42501": (Fatal, "docs/postgres-sink.md#privileges has the GRANT statements"),
    "53": (Retry, "free memory, disk space or connections of the server"),
    "54": (Reject, ""),
    "55P03": (
        Retry,
        "find the transaction with the lock: SELECT pid, relation::regclass, mode FROM pg_locks WHERE granted",
    ),
    "55": (Retry, ""),
    "57": (Retry, ""),
    "58": (Retry, ""),
    "XX": (Retry, "see the server's log"),
}
