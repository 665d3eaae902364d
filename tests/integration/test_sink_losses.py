"""Sinks that lose documents or the memory of deletes. The daemon detects the loss and repairs the documents."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import urllib3

from syncer.clock import version
from tests.harness.proxy import proxy
from tests.harness.redis_servers import free_port, redis_server
from tests.harness.system import System
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers SELECT n, 'Ada ' || n FROM generate_series(1, 20) n"
FIVE = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 5) n"

LOST = "sink may have lost acknowledged documents, re-rendering all documents"


@pytest.fixture
def system(system: System) -> System:
    system.environment["SYNCER_PIPELINE__MAX_AGE"] = "1s"
    return system


def host(url: str) -> str:
    return url.partition("//")[2].partition("/")[0]


def in_redis(system: System, url: str) -> None:
    system.redis = system.environment["SYNCER_REDIS__URL"] = url


def test_hazard_21_a_ghost_written_after_its_delete_was_forgotten_is_swept(system: System) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE)
    system.until_in_sync(system.orders)
    system.execute("DELETE FROM {schema}.orders WHERE id = 5")
    system.until_in_sync(system.orders)
    index = f"{system.stack.elasticsearch}/{system.orders}-000001"
    late = f"{index}/_doc/5?version_type=external&version={version(1, 1)}"
    assert urllib3.request("PUT", late, json={"id": 5}).status == 409
    for action in ("_close", "_open"):
        assert urllib3.request("POST", f"{index}/{action}").status == 200
    until(lambda: urllib3.request("PUT", late, json={"id": 5}).status == 201)
    assert "5" in system.documents(system.orders)
    system.until_in_sync(system.orders)
    [warning] = daemon.logged("sink may have lost deletes, sweeping recent documents")
    assert warning["model"] == system.orders
    assert daemon.metric("syncer_sink_losses_total", model=system.orders, kind="deletes") == 1
    assert daemon.metric("syncer_sink_losses_total", model=system.summaries) == 0


def test_hazard_27_a_failover_that_lost_writes(system: System) -> None:
    """The replica stops replicating before the last changes, then becomes the primary."""
    with (
        redis_server("--repl-diskless-sync-delay", "0") as first,
        redis_server() as second,
        proxy(host(first)) as link,
        redis.Redis.from_url(second) as connected,
    ):
        replica: Any = connected
        in_redis(system, first.replace(host(first), link.address))
        replica.execute_command("REPLICAOF", *host(first).split(":"))
        daemon = system.start()
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync(system.summaries)
        until(lambda: replica.dbsize() >= 40)
        replica.execute_command("REPLICAOF", "NO", "ONE")
        system.execute(
            "UPDATE {schema}.customers SET name = 'Grace' WHERE id = 1",
            "DELETE FROM {schema}.customers WHERE id = 20",
            "INSERT INTO {schema}.customers VALUES (21, 'Edsger')",
        )
        system.until_in_sync(system.summaries)
        until(lambda: system.status_of(system.summaries)["lag_records"] == 0)
        link.redirect(host(second))
        assert system.documents(system.summaries) != system.expected(system.summaries)
        system.until_in_sync(system.summaries)
        assert daemon.logged(LOST, model=system.summaries)
        assert daemon.metric("syncer_sink_losses_total", model=system.summaries, kind="documents") == 1


def test_hazard_27_a_flush_and_a_restart_without_persistence(system: System) -> None:
    port = free_port()
    with redis_server(port=port) as url:
        in_redis(system, url)
        daemon = system.start()
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync(system.summaries)
        with redis.Redis.from_url(url) as client:
            client.flushall()
        assert system.documents(system.summaries) == {}
        system.until_in_sync(system.summaries)
    daemon.until_state(system.summaries, "waiting")
    system.execute("DELETE FROM {schema}.customers WHERE id = 20")
    with redis_server(port=port) as url:
        system.until_in_sync(system.summaries)
        daemon.stop()
        with redis.Redis.from_url(url) as client:
            client.flushall()
        system.start()  # the daemon was down during the flush
        system.until_in_sync(system.summaries)


def test_hazard_27_evictions_stop_the_read_model_and_are_repaired_afterwards(system: System) -> None:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        in_redis(system, url)
        daemon = system.start()
        system.execute(CUSTOMERS, FIVE)
        system.until_in_sync(system.summaries)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "3mb")
        for n in range(30):
            client.set(f"filler:{n}", b"x" * 300_000)
        reason = daemon.until_reason(system.summaries, "failed")
        assert "maxmemory-policy is allkeys-lru" in reason and "CONFIG SET maxmemory-policy noeviction" in reason
        assert len(system.documents(system.summaries)) < 20
        client.config_set("maxmemory", "0")
        daemon.stop()
        system.start()
        system.until_in_sync(system.summaries)
