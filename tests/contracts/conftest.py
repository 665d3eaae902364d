"""Fixtures of the contract suites: the servers of a kind of sink, and a target that only the current test uses."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.contracts.sinks import SERVED, Harness, harness
from tests.harness.postgres_servers import postgres_server, reads_database
from tests.harness.redis_servers import redis_cluster, redis_server, valkey_binary


@pytest.fixture
def target(kind: str, request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Starts servers only for the sinks that need the test stack."""
    prefix = request.getfixturevalue("names").prefix if kind in SERVED else f"t{uuid.uuid4().hex[:8]}"

    def url(server: str) -> str:
        if fixture := {"redis-cluster": "cluster", "postgres": "reads", "valkey": "valkey"}.get(server):
            return str(request.getfixturevalue(fixture))
        return str(getattr(request.getfixturevalue("stack"), server))

    with harness(kind, prefix, url) as made:
        yield made


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    with redis_cluster() as url:
        yield url


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    with redis_server(binary=valkey_binary()) as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server for these tests alone: they need no other server of the stack."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def reads(postgres: str) -> Iterator[str]:
    with reads_database(postgres) as dsn:
        yield dsn
