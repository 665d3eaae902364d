"""A PostgreSQL server without the rest of the stack, and databases for the sink."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

import devstack
from tests.conftest import temporary_home


@contextmanager
def postgres_stack(*, standby_of: str | None = None) -> Iterator[devstack.Stack]:
    """Yields a stack with a PostgreSQL server only. It is deleted afterwards.

    standby_of: the URL of a server, whose standby the new one is.
    """
    own = devstack.start(temporary_home(), only=["postgres"], standby_of=standby_of, ephemeral=True)
    try:
        yield own
    finally:
        own.remove()


@contextmanager
def postgres_server() -> Iterator[str]:
    """Yields the URL of a new server's superuser. The server is deleted afterwards."""
    with postgres_stack() as own:
        yield own.postgres


@contextmanager
def reads_database(url: str) -> Iterator[str]:
    """Yields the DSN of a new database with the schema `read`, for a role that has only the documented privileges.

    url: of a superuser. Drops the database and the role afterwards.
    """
    name = f"reads_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'reads'").format(sql.Identifier(name)))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    made = psycopg.conninfo.make_conninfo(url, dbname=name)
    try:
        with psycopg.connect(made, autocommit=True) as admin:
            admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            admin.execute(sql.SQL("CREATE SCHEMA read AUTHORIZATION {}").format(sql.Identifier(name)))
        yield psycopg.conninfo.make_conninfo(made, user=name, password="reads")
    finally:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
