"""Servers that are unreachable, hang, refuse a password or are a standby.

The daemon reports it, waits, loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit

import pytest
import redis

from devstack import Stack
from syncer.config.schema import load as load_config
from syncer.errors import Retry
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from tests.harness.proxy import Proxy, kafka_proxy, proxy
from tests.harness.system import Source, System

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
FIVE = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 5) n"
SERVERS = ("postgres", "kafka", "elasticsearch", "redis")


@contextmanager
def behind_proxy(system: System, server: str) -> Iterator[Proxy]:
    """Routes the syncer's connections to this server through a proxy. All others connect directly."""
    variables = {
        "postgres": "SYNCER_POSTGRES__DSN",
        "kafka": "SYNCER_KAFKA__BOOTSTRAP_SERVERS",
        "elasticsearch": "SYNCER_ELASTICSEARCH__URL",
        "redis": "SYNCER_REDIS__URL",
    }
    url = system.environment[variables[server]]
    address = url if server == "kafka" else urlsplit(url).netloc.rpartition("@")[2]
    with (kafka_proxy if server == "kafka" else proxy)(address) as made:
        system.environment[variables[server]] = url.replace(address, made.address)
        yield made


@pytest.mark.parametrize("server", SERVERS)
def test_the_daemon_waits_for_an_unreachable_server(system: System, server: str) -> None:
    concerned = {"elasticsearch": [system.orders], "redis": [system.summaries]}
    models = concerned.get(server, [system.orders, system.summaries])
    with behind_proxy(system, server) as link:
        link.down()
        daemon = system.start(ready=False)
        for model in models:
            reason = daemon.until_reason(model, "waiting")
            assert server in reason.lower() or link.address in reason, reason
            assert f"{model} is waiting: {reason}" in daemon.get("/readyz")[1]
        assert daemon.get("/livez") == (200, "ok\n")
        for model in {system.orders, system.summaries} - set(models):
            daemon.until_state(model, "running")
        link.up()
        daemon.until_ready()
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync()
        link.down()
        system.execute(
            "UPDATE {schema}.orders SET status = 'paid' WHERE id < 4",
            "DELETE FROM {schema}.orders WHERE id = 5",
            "INSERT INTO {schema}.orders (id, customer_id) VALUES (6, 2)",
        )
        for model in models:
            daemon.until_state(model, "waiting")
        output = system.run("status", expect=4 if server == "kafka" else 1)
        assert server in output.lower() or link.address in output, output
        for model in {system.orders, system.summaries} - set(models):
            system.until_in_sync(model)
        assert daemon.get("/livez") == (200, "ok\n")
        link.up()
        system.until_in_sync()
        daemon.until_ready()
        assert all(daemon.status(model)["reason"] == "" for model in models)
        daemon.stop()


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_hangs_does_not_prevent_the_daemon_from_stopping(system: System, server: str) -> None:
    system.environment["SYNCER_PIPELINE__STOP_TIMEOUT"] = "2s"
    with behind_proxy(system, server) as link:
        daemon = system.start()
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync()
        link.stall()
        system.execute("UPDATE {schema}.orders SET status = 'paid'")
        began = time.monotonic()
        output = system.run("status", expect=4 if server == "kafka" else 1)
        assert time.monotonic() - began < 8, "a second for this server; the others answer"
        assert server in output.lower() or link.address in output, output
        assert daemon.stop() < 6
        link.resume()
        system.start()
        system.until_in_sync()


def test_wrong_passwords_are_reported_without_the_password(system: System) -> None:
    user = f"{system.prefix}-user"
    with redis.Redis.from_url(system.stack.redis) as client:
        client.execute_command("ACL", "SETUSER", user, "on", ">right", "~*", "+@all")
        try:
            system.environment |= {"SYNCER_REDIS__USERNAME": user, "SYNCER_REDIS__PASSWORD": "wr0ng-redis"}
            daemon = system.start(ready=False)
            reason = daemon.until_reason(system.summaries, "failed")
            assert "invalid username-password" in reason and "redis.username and password" in reason
            system.execute(CUSTOMERS, FIVE)
            system.until_in_sync(system.orders)
            daemon.stop()
            system.environment["SYNCER_REDIS__PASSWORD"] = "right"
            system.environment["SYNCER_POSTGRES__PASSWORD"] = "wr0ng-postgres"
            daemon = system.start(ready=False)
            for model in (system.orders, system.summaries):
                reason = daemon.until_reason(model, "failed")
                assert "password authentication failed" in reason and "SYNCER_POSTGRES__PASSWORD" in reason
            assert "password authentication failed" in system.run("backfill", expect=3)
            daemon.stop(expect=3)
            assert not any("wr0ng" in one.log.read_text() for one in system.daemons)
            del system.environment["SYNCER_POSTGRES__PASSWORD"]
            system.start()
            system.until_in_sync()
        finally:
            client.execute_command("ACL", "DELUSER", user)


def test_the_daemon_waits_at_a_standby_and_records_nothing(system: System, source: Source, standby: Stack) -> None:
    primary = system.environment["SYNCER_POSTGRES__DSN"]
    standby_url = urlsplit(standby.postgres)
    system.environment["SYNCER_POSTGRES__DSN"] = urlsplit(primary)._replace(netloc=standby_url.netloc).geturl()
    system.execute(CUSTOMERS, FIVE)
    daemon = system.start(ready=False)
    for model in (system.orders, system.summaries):
        reason = daemon.until_reason(model, "waiting")
        assert "standby" in reason and "postgres.dsn" in reason
    assert "standby" in system.run("check", expect=1)
    assert "standby" in system.run("backfill", expect=4)
    assert [key for key in system.state_store().load() if "/process/" not in key] == []
    config = load_config(environ=system.environment)
    with loader.catalog_session(config) as session:
        compiled = loader.compile_model(session, loader.load_declared(config, [system.orders])[0]).compiled
    with (  # a server that becomes a standby later
        closing(SnapshotReader(config.postgres.arguments(), compiled)) as rows,
        pytest.raises(Retry, match="standby"),
        rows.view(),
    ):
        pass
    daemon.stop()
    system.environment["SYNCER_POSTGRES__DSN"] = primary
    system.start()
    system.run("backfill")
    system.until_in_sync()
