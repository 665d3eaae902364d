"""The client and `syncer wait` with a daemon and real servers."""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest
import urllib3
from psycopg.rows import dict_row

from syncer.client import Client, FreshnessError, Session, TimedOut, read_token, read_token_async
from syncer.freshness import tokens
from tests.harness.system import System
from tests.unit.client.client_harness import client

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
ORDERS = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 20) n"


def write(system: System, order: int, status: str) -> str:
    """Writes an order as an application does. Returns the token after the commit."""
    with system.database.connect(autocommit=False) as connection:
        connection.execute(
            f"INSERT INTO {system.schema}.orders (id, customer_id, status) VALUES (%s, 1, %s)"
            " ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status".encode(),
            (order, status),
        )
        return read_token(connection)


def status_in_elasticsearch(system: System, order: int) -> str | None:
    answer = urllib3.request("GET", f"{system.stack.elasticsearch}/{system.orders}/_doc/{order}").json()
    found: str | None = answer.get("_source", {}).get("status")
    return found


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_a_session_reads_its_own_writes(system: System, kind: str) -> None:
    system.execute(CUSTOMERS, ORDERS)
    daemon = system.start()
    system.run("backfill")
    session = Session()
    with client(kind, daemon.url) as api:
        for number in range(5):
            session.wrote(write(system, 7, f"state {number}"))
            shown = api.read(
                system.orders,
                session,
                lambda: status_in_elasticsearch(system, 7),
                lambda: "from PostgreSQL",
                keys=[7],
                fresh_within=20,
                timeout=20,
            )
            assert (shown.value, shown.source) == (f"state {number}", "read model"), shown.reason
        assert api.status(system.orders)["staleness_seconds"] < 20
        # the command
        token = write(system, 8, "paid")
        output = system.run("wait", system.orders, "--token", token, "--url", daemon.url, "--timeout", "20")
        assert f"{system.orders}: the commit is shown. The watermark is of 20" in output
        assert status_in_elasticsearch(system, 8) == "paid"
        system.run("wait", system.orders, "--token", "x:seven", "--url", daemon.url, expect=2)
        system.run("wait", "nothing", "--url", daemon.url, expect=2)
        system.run("wait", system.orders, "--token", "x:7341@1/1", "--url", daemon.url, expect=3)
        # Without Kafka Connect, a refresh shows the write, and the command times out with the reason.
        system.stack.halt("connect")
        try:
            session.wrote(write(system, 7, "sent"))
            with pytest.raises(TimedOut) as raised:
                api.wait(system.orders, session.token, timeout=0.5)
            assert raised.value.answer["wanted"] > raised.value.answer["reached"]
            shown = api.read(
                system.orders,
                session,
                lambda: status_in_elasticsearch(system, 7),
                lambda: "from PostgreSQL",
                keys=[7],
                timeout=20,
            )
            assert (shown.value, shown.source) == ("sent", "refreshed"), shown.reason
            arguments = ("wait", system.orders, "--token", session.token, "--url", daemon.url, "--timeout", "0.5")
            found = json.loads(system.run(*arguments, "--json", expect=1))
            assert found["shown"] is False and found["wanted"] > found["reached"]
            daemon.stop()
            system.run("wait", system.orders, "--url", daemon.url, expect=4)
            shown = api.read(system.orders, session, lambda: "old", lambda: "from PostgreSQL", keys=[7])
            assert (shown.value, shown.source) == ("from PostgreSQL", "write store")
        finally:
            system.stack.launch("connect")


def test_the_token_of_a_transaction_that_was_rolled_back_is_refused(system: System) -> None:
    system.execute(CUSTOMERS, ORDERS)
    daemon = system.start()
    system.run("backfill")
    with system.database.connect(autocommit=False) as connection:
        connection.execute(f"DELETE FROM {system.schema}.orders WHERE id = 7")
        session = Session(read_token(connection))
        connection.rollback()
    api = Client(daemon.url)
    with pytest.raises(FreshnessError, match="rolled back") as raised:
        api.wait(system.orders, session.token, timeout=20)
    assert raised.value.status == 409
    shown = api.read(system.orders, session, lambda: "document", lambda: "row", fresh_within=5, timeout=20)
    assert (shown.value, session.token) == ("row", "")
    assert api.read(system.orders, session, lambda: "document", lambda: "row").source == "read model"


def test_a_token_is_read_through_any_cursor(system: System) -> None:
    dsn = system.database.dsn
    with psycopg.connect(dsn) as connection:
        expected = read_token(connection)
        parsed = tokens.parse(expected)
        assert parsed.identity is not None and parsed.identity.timeline == 1
        [xid] = connection.execute("SELECT pg_current_xact_id()::text").fetchone() or ()
        assert expected.startswith(f"x:{xid}@")
        assert read_token(connection.cursor()) == expected
        assert read_token(connection.cursor(row_factory=dict_row)) == expected

    async def from_asyncio() -> tuple[str, str]:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            return await read_token_async(connection), await read_token_async(connection.cursor())

    first, second = asyncio.run(from_asyncio())
    assert first == second and first.partition("@")[2] == expected.partition("@")[2]


def test_a_role_that_may_not_read_the_system_identifier_gets_a_short_token(system: System) -> None:
    with psycopg.connect(system.database.dsn) as connection:
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        connection.execute("SET LOCAL ROLE pg_read_all_data")
        assert tokens.parse(read_token(connection)).identity is None
        connection.execute("SELECT 1")  # the transaction goes on
        connection.rollback()
