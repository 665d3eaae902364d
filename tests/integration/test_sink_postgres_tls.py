"""The PostgreSQL sink over TLS: a server with its own certificate, and the errors if it cannot be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import certifi
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from devstack import Stack
from syncer.document import Batch
from syncer.errors import Fatal
from tests.harness.postgres_servers import postgres_stack, reads_database
from tests.harness.table_sink import Reads
from tests.harness.waiting import until

TLS = Path(__file__).parents[1] / "unit" / "tls"
CERTIFICATE = TLS / "unknown.pem"
"""A self-signed certificate for `localhost` and 127.0.0.1."""
DOCUMENT = Batch(1 << 48, {"1": b'{"n":1,"name":"Ada"}'}, [])


def copy_to_server(admin: psycopg.Connection[object], file: Path, name: str) -> None:
    """Writes a file to the data directory, as the user of the server, who alone may read it."""
    lines = f"regexp_split_to_table($file${file.read_text()}$file$, '\n')"
    admin.execute(f"CREATE TEMP TABLE file AS SELECT * FROM {lines}")
    admin.execute(f"COPY file TO PROGRAM 'umask 077; cat > {name}'")
    admin.execute("DROP TABLE file")


@pytest.fixture(scope="module")
def server() -> Iterator[Stack]:
    """A server that offers TLS. No other test uses it: clients of a server with TLS use it by default."""
    with postgres_stack() as own, psycopg.connect(own.postgres, autocommit=True) as admin:
        copy_to_server(admin, CERTIFICATE, "server.crt")
        copy_to_server(admin, TLS / "unknown.key", "server.key")
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("SELECT pg_reload_conf()")
        until(lambda: admin.execute("SHOW ssl").fetchone() == ("on",))
        yield own


@pytest.fixture
def encrypted(server: Stack) -> Iterator[Reads]:
    """A database whose sink verifies the certificate of the server."""
    with reads_database(server.postgres) as dsn:
        database = conninfo_to_dict(dsn)["dbname"]
        with psycopg.connect(make_conninfo(server.postgres, dbname=database), autocommit=True) as admin:
            yield Reads(make_conninfo(dsn, sslmode="verify-full", sslrootcert=str(CERTIFICATE)), admin)


def test_a_sink_that_verifies_the_certificate_writes_over_tls(encrypted: Reads) -> None:
    assert encrypted.preflight() == []
    with closing(encrypted.sink()) as sink:
        sink.prepare()
        assert sink.write(DOCUMENT).written == 1
        assert encrypted.names() == ["Ada"]
        sessions = encrypted.query(
            f"SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = '{encrypted.role}'"
        )
        assert sessions == [(True,)]


@pytest.mark.parametrize(
    ("settings", "why", "hint"),
    [
        (
            {"sslrootcert": certifi.where()},
            "certificate verify failed",
            "sslrootcert in postgres_sink.dsn has to name a PEM file with the certificate of the authority",
        ),
        (
            {"host": "reads.example.com", "hostaddr": "127.0.0.1"},
            'certificate for "localhost" (and 1 other name) does not match host name "reads.example.com"',
            "use the host name of the server's certificate in postgres_sink.dsn",
        ),
        (
            {"sslrootcert": "/no/such/ca.pem"},
            'root certificate file "/no/such/ca.pem" does not exist',
            "set sslrootcert in postgres_sink.dsn to a file with certificates",
        ),
    ],
    ids=["unknown authority", "other name", "missing file"],
)
def test_a_certificate_that_cannot_be_trusted_is_refused_with_the_setting(
    encrypted: Reads, settings: dict[str, str], why: str, hint: str
) -> None:
    """`syncer check` and the daemon give the same error. It is permanent: no retry makes the certificate right."""
    dsn = make_conninfo(encrypted.dsn, **settings)
    [problem] = encrypted.preflight(dsn)
    assert why in problem and hint in problem
    with closing(encrypted.sink(dsn=dsn)) as sink, pytest.raises(Fatal) as caught:
        sink.prepare()
    assert why in caught.value.why and hint in caught.value.hint


def test_a_server_without_tls_is_refused(reads: Reads) -> None:
    dsn = make_conninfo(reads.dsn, sslmode="verify-full", sslrootcert=str(CERTIFICATE))
    [problem] = reads.preflight(dsn)
    assert "server does not support SSL" in problem
    assert "change sslmode in postgres_sink.dsn, or enable TLS on the server" in problem
