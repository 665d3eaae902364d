"""Creates a PostgreSQL database for one test. Drops it with its sessions, slots and connectors."""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import urllib3
from psycopg import sql

from devstack import Stack
from tests.harness.waiting import until


@dataclass(frozen=True)
class Database:
    """A database that exists only during one test."""

    name: str
    dsn: str
    host: str
    port: int
    user: str
    password: str

    def connect(self, *, autocommit: bool = True, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Opens a session of the superuser. Close it, or use it in a `with` block."""
        return psycopg.connect(self.dsn, autocommit=autocommit, **options)

    def execute(self, *statements: str) -> None:
        """Runs statements, each in its own transaction."""
        with self.connect() as session:
            for statement in statements:
                session.execute(statement.encode())

    def query(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Runs a query and returns its rows."""
        with self.connect() as session:
            return session.execute(statement.encode(), parameters).fetchall()


@contextmanager
def fresh_database(stack: Stack) -> Iterator[Database]:
    """Creates a database with a random name. Drops it afterwards with its sessions, slots and connectors."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(stack.postgres, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = urllib3.util.parse_url(stack.postgres)
    user, _, password = (url.auth or "").partition(":")
    dsn = f"postgresql://{url.auth}@{url.host}:{url.port}/{name}"
    try:
        yield Database(name, dsn, str(url.host), url.port or 5432, user, password)
    finally:
        if "connect" in stack.running():
            delete_connectors(stack.connect, name)
        # The test may have restarted the server, so this needs a new session.
        with psycopg.connect(stack.postgres, autocommit=True) as admin:
            drop_slots(admin, name)
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def wal_writer_paused(database: Database) -> Iterator[None]:
    """Stops PostgreSQL's WAL writer. Otherwise it may flush an asynchronous commit before the test looks at it."""
    [(pid,)] = database.query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")

    def stopped() -> bool:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        return stat.rpartition(")")[2].split()[0] == "T"

    os.kill(pid, signal.SIGSTOP)
    try:
        until(stopped, "the WAL writer stops")
        yield
    finally:
        with suppress(ProcessLookupError):  # the test may have killed the server
            os.kill(pid, signal.SIGCONT)


def delete_connectors(connect: str, database: str) -> None:
    """Deletes the connectors of this database. Otherwise they would create its slot again."""
    known = urllib3.request("GET", f"{connect}/connectors?expand=info").json()
    for name, connector in known.items():
        if connector["info"]["config"].get("database.dbname") == database:
            urllib3.request("DELETE", f"{connect}/connectors/{name}")


def drop_slots(admin: psycopg.Connection[Any], database: str) -> None:
    """Drops the replication slots of a database. Terminates their readers first."""
    deadline = time.monotonic() + 20
    find = "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s"
    while slots := admin.execute(find, [database]).fetchall():
        for slot, reader in slots:
            admin.execute("SELECT pg_terminate_backend(%s)", [reader])
            try:
                admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
