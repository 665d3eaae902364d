"""Fixtures: one connector for all tests of a module, and a syncer for each test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from devstack import Stack
from tests.harness import Database, Names
from tests.harness.exports import Exports
from tests.harness.object_store import ObjectStore
from tests.harness.object_store import object_store as running_store
from tests.harness.postgres_servers import postgres_stack, reads_database
from tests.harness.system import Source, System, new_system, streaming_source
from tests.harness.table_sink import Reads

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def source(stack: Stack) -> Iterator[Source]:
    with streaming_source(stack) as source:
        yield source


@pytest.fixture
def system(source: Source, tmp_path: Path) -> Iterator[System]:
    with new_system(source, tmp_path, next(_numbers)) as system:
        yield system


@pytest.fixture(scope="session")
def postgres_alone() -> Iterator[Stack]:
    """A PostgreSQL server for tests that need no other."""
    with postgres_stack() as own:
        yield own


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """A server with the protocol of S3. A test that stops it must start it again."""
    with running_store() as store:
        yield store


@pytest.fixture
def exports(
    request: pytest.FixtureRequest, stack: Stack, database: Database, names: Names, tmp_path: Path
) -> Iterator[Exports]:
    """A read model to export: to a folder, or with the parameter `s3` to the object store."""
    store = request.getfixturevalue("object_store") if getattr(request, "param", "folder") == "s3" else None
    made = Exports(stack, database, names, tmp_path, store)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def reads(postgres_alone: Stack) -> Iterator[Reads]:
    url = postgres_alone.postgres
    with reads_database(url) as dsn:
        database = conninfo_to_dict(dsn)["dbname"]
        with psycopg.connect(make_conninfo(url, dbname=database), autocommit=True) as admin:
            yield Reads(dsn, admin)
