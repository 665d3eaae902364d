"""A server that does not answer a daemon: `/status` and `syncer status` say so long before the timeout."""

from __future__ import annotations

import pytest

from tests.harness.freezing import frozen
from tests.harness.system import System
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada')"
ORDERS = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 FROM generate_series(1, 5) n"


@pytest.mark.parametrize("server", ["elasticsearch", "redis"])
def test_a_frozen_sink_is_reported_before_the_timeout(system: System, server: str) -> None:
    system.environment |= {"SYNCER_ELASTICSEARCH__TIMEOUT": "5m", "SYNCER_REDIS__TIMEOUT": "5m"}
    model = system.orders if server == "elasticsearch" else system.summaries
    daemon = system.start(model)
    system.execute(CUSTOMERS, ORDERS)
    system.until_in_sync(model)
    with frozen(system.stack, server):
        system.execute("UPDATE {schema}.orders SET status = 'paid'", "UPDATE {schema}.customers SET name = 'Ada L.'")
        until(lambda: daemon.status(model)["state"] == "waiting", lambda: f"{daemon.status(model)}")
        reason = daemon.status(model)["reason"]
        assert reason.startswith(f"waiting for sink {server}:") and "it has not answered a write since 20" in reason
        found = system.until_status(model, state="waiting")
        assert found["reason"] == reason
        assert f"{model}: {reason}" in system.run("status", model, expect=1)
    system.until_in_sync(model)
    until(lambda: daemon.status(model)["state"] == "running")
    system.until_status(model, state="running", reason="")
    assert not daemon.logged("read model failed")


def test_a_locked_table_is_reported_before_the_timeout(system: System) -> None:
    system.environment |= {"SYNCER_POSTGRES__STATEMENT_TIMEOUT": "5m"}
    daemon = system.start(system.orders)
    system.execute(CUSTOMERS, ORDERS)
    system.until_in_sync(system.orders)
    with system.database.connect() as session:
        session.execute("BEGIN")
        session.execute(f"LOCK TABLE {system.schema}.customers IN ACCESS EXCLUSIVE MODE".encode())
        system.execute("UPDATE {schema}.orders SET status = 'paid'")
        until(lambda: daemon.status(system.orders)["state"] == "waiting", lambda: f"{daemon.status(system.orders)}")
        reason = daemon.status(system.orders)["reason"]
        assert reason.startswith("waiting for PostgreSQL: no snapshot, or no lock on a table, since 20")
        session.execute("ROLLBACK")
    system.until_in_sync(system.orders)
    until(lambda: daemon.status(system.orders)["state"] == "running")
    assert not daemon.logged("read model failed")
