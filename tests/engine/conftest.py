"""The PostgreSQL of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

import devstack
from tests.conftest import temporary_home
from tests.engine import changes
from tests.engine.application import OPTIONS


@pytest.fixture(scope="package")
def dsn() -> Iterator[str]:
    """Starts a PostgreSQL for this test.

    With `synchronous_commit=on`, commits wait for a standby that does not exist.
    """
    own = devstack.start(temporary_home(), only=["postgres"], ephemeral=True)
    try:
        with psycopg.connect(own.postgres, autocommit=True, options=OPTIONS) as admin:
            changes.begin(admin)
            for setting in (
                "synchronous_commit = local",
                "synchronous_standby_names = 'none_exists'",
                "autovacuum = off",  # it locks catalogs, and the sessions do not wait for locks
            ):
                admin.execute(f"ALTER SYSTEM SET {setting}".encode())
            admin.execute("SELECT pg_reload_conf()")
        yield own.postgres
    finally:
        own.remove()
