"""Failures between PostgreSQL and Kafka: slot, connector, publication and offsets.

Each test has its own database, connector and daemon.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3

from devstack import Stack
from syncer.checks.source import RESET
from syncer.connect.client import Connect
from tests.harness.daemon import Daemon
from tests.harness.database import drop_slots
from tests.harness.system import Source, System, new_system, streaming_source
from tests.harness.waiting import until

ORDERS = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada')",
    "INSERT INTO {schema}.orders (id, customer_id) VALUES (1, 1)",
)
ANOTHER = "INSERT INTO {{schema}}.orders (id, customer_id) VALUES ({}, 1)"


@pytest.fixture
def source(stack: Stack) -> Iterator[Source]:
    with streaming_source(stack) as source:
        yield source


@pytest.fixture
def system(source: Source, tmp_path: Path) -> Iterator[System]:
    with new_system(source, tmp_path, 1) as system:
        system.environment |= {
            "SYNCER_WATCH__INTERVAL": "500ms",
            "SYNCER_WATCH__OVERDUE": "5s",
            "SYNCER_FRESHNESS__INTERVAL": "200ms",  # messages are sent so often that every skipped part has some
        }
        yield system


@pytest.fixture
def connect(stack: Stack) -> Iterator[Connect]:
    client = Connect(stack.connect)
    yield client
    client.close()


def start_in_sync(system: System, *options: str) -> Daemon:
    """Starts a daemon whose read models are in sync and which has received canaries."""
    system.run("backfill")
    daemon = system.start(*options)
    system.execute(*ORDERS)
    system.until_in_sync()
    canary_comes(daemon, system)
    return daemon


def canary_comes(daemon: Daemon, system: System) -> None:
    topic = f"{system.topic_prefix}.message"
    before = sum(system.kafka_admin().ends([topic]).values())
    until(lambda: sum(system.kafka_admin().ends([topic]).values()) > before + 2, daemon.log.read_text)


@contextmanager
def stopped(connect: Connect, name: str) -> Iterator[None]:
    """Stops the connector for the duration of the block."""
    connect.stop(name)
    yield
    connect.resume(name)
    connect.wait_running(name, 60, steady=0)


def failed(daemon: Daemon, model: str, *words: str) -> None:
    reason = daemon.until_reason(model, "failed")
    for word in words:
        assert word in reason


def resync(system: System, daemon: Daemon) -> None:
    """Resyncs both read models as the error message says, and checks that they stay in sync."""
    for model in (system.orders, system.summaries):
        system.run("resync", model, "--yes")
    daemon.until_ready()
    system.execute(ANOTHER.format(100))
    system.until_in_sync()


def test_hazard_15_a_dropped_slot(source: Source, system: System) -> None:
    """Debezium 3.6 fails when its slot is missing.

    After an offset reset it creates a new slot and runs, but the changes committed in between never arrive. The
    daemon remembers the slot and stops when it is missing.
    """
    daemon = start_in_sync(system)
    with system.database.connect() as admin:
        drop_slots(admin, system.database.name)
    system.execute(ANOTHER.format(2))
    for model in (system.orders, system.summaries):
        failed(
            daemon,
            model,
            "changes were lost",
            f"slot {source.names.prefix} does not exist any more",
            f"syncer resync {model}",
        )
    until(lambda: "syncer connectors reset" in daemon.get("/status")[1], daemon.log.read_text)
    assert daemon.metric("syncer_slot_lost", slot=source.names.prefix) == 1
    # Every command gives the same advice: reset the connector first. The reset lists the read models to resync.
    until(lambda: "it has failed" in daemon.get("/status")[1], daemon.log.read_text)
    status = system.until_status(system.orders, state="failed")
    assert status["lag_seconds"] != 0
    assert "connectors reset, then" in status["hint"]
    for command, exit_code in ((["status"], 1), (["check"], 1), (["resync", system.orders, "--yes"], 3)):
        output = system.run(*command, expect=exit_code)
        assert f"→ {RESET}" in output and "→ fix" not in output and "→ syncer connectors apply" not in output
    assert f"slot {source.names.prefix}: it does not exist" in output
    system.state_store().save("half/1/active", {"at_ms": 1})
    output = system.run("connectors", "reset", "--yes")
    assert f"syncer resync {system.orders}" in output
    assert "syncer resync half" not in output and "registered in Kafka, but not declared" in output and "half" in output
    resync(system, daemon)
    assert daemon.metric("syncer_slot_lost", slot=source.names.prefix) == 0


@pytest.mark.parametrize("running", [True, False], ids=["daemon runs", "daemon is down"])
def test_hazard_15_an_advanced_slot(source: Source, system: System, connect: Connect, running: bool) -> None:
    """Debezium 3.6 accepts a slot that is ahead of its offsets, even with `offset.mismatch.strategy=trust_offset`.

    It runs, and the skipped changes never arrive. It fails only if the slot's `restart_lsn` moved too. That happens
    if PostgreSQL logged its running transactions (every 15 s) in the skipped part.
    """
    daemon = start_in_sync(system)
    connect.stop(source.connector.name)
    until(lambda: daemon.status(system.orders)["state"] == "waiting", daemon.log.read_text)
    system.execute(ANOTHER.format(2))
    if not running:
        daemon.stop()
    skip = "SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())"
    system.database.query(skip, [source.names.prefix])
    connect.resume(source.connector.name)
    if not running:
        daemon = system.start(ready=False)

    def refused() -> bool:
        return "no longer available on the server" in daemon.get("/status")[1]

    until(lambda: refused() or daemon.status(system.orders)["state"] == "failed", daemon.log.read_text)
    if refused():
        system.run("connectors", "reset", "--yes")
        failed(daemon, system.orders, "changes were lost", f"syncer resync {system.orders}")
    else:
        failed(daemon, system.orders, "changes were lost", "did not arrive", f"syncer resync {system.orders}")
    system.execute(ANOTHER.format(3))
    resync(system, daemon)
    assert daemon.metric("syncer_stream_breaks") >= 1


def test_hazard_15_reset_connector_offsets_lose_nothing(source: Source, system: System, connect: Connect) -> None:
    """A connector without offsets continues at its slot.

    Nothing is lost, and no error is reported. Repeated messages are not a gap.
    """
    daemon = start_in_sync(system)
    with stopped(connect, source.connector.name):
        connect.forget_offsets(source.connector.name)
        system.execute(ANOTHER.format(2))
    system.until_in_sync()
    canary_comes(daemon, system)
    until(daemon.ready, daemon.log.read_text)
    assert daemon.metric("syncer_stream_breaks") == 0


def test_hazard_15_a_recreated_publication(source: Source, system: System, connect: Connect) -> None:
    """Without its publication, the connector fails.

    After the publication is recreated and the connector is restarted, it reports RUNNING, but no events arrive: the
    WAL in between cannot be decoded. The slot and the canary reveal it.
    """
    daemon = start_in_sync(system)
    system.database.execute("DROP PUBLICATION pub")
    status = daemon.until_state(system.orders, "waiting")
    until(lambda: "publication pub: it does not exist" in daemon.get("/status")[1], status)
    assert daemon.metric("syncer_publication_findings", publication="pub") == 1
    system.execute(ANOTHER.format(2))
    recreate = "CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)"
    [(version,)] = system.database.query("SELECT current_setting('server_version_num')::int")
    if version >= 180000:
        # PostgreSQL 18 skips a missing publication with a warning in its log, and sends nothing. The connector
        # keeps running. The missed changes are rendered, because the publication is a new one.
        system.database.execute(recreate)
        system.until_in_sync()
        assert daemon.logged("re-rendering all documents")
        canary_comes(daemon, system)
        daemon.until_ready()
        return
    until(lambda: "it has failed" in daemon.get("/status")[1], daemon.log.read_text)
    system.database.execute(recreate)
    connect.restart(source.connector.name)
    connect.wait_running(source.connector.name, 60, steady=0)
    until(lambda: "has not arrived" in daemon.get("/status")[1], daemon.log.read_text)
    assert daemon.status(system.orders)["state"] == "waiting"
    system.run("connectors", "reset", "--yes")
    # "the connector was reset", unless the daemon checked while there was no slot
    failed(daemon, system.orders, "changes were lost", f"syncer resync {system.orders}")
    resync(system, daemon)


def test_hazard_15_a_quiet_database_does_not_retain_wal(source: Source, system: System) -> None:
    """Heartbeats alone do not advance the slot while only tables outside the publication are written.

    The canary's message does.
    """
    system.database.execute(
        "DROP PUBLICATION pub",
        "CREATE TABLE noise (id int)",
        f"CREATE PUBLICATION pub FOR TABLE {system.schema}.orders, {system.schema}.customers",
    )
    start_in_sync(system)

    def confirmed() -> int:
        query = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s"
        return int(system.database.query(query, [source.names.prefix])[0][0])

    system.database.execute("INSERT INTO noise SELECT generate_series(1, 10000)")
    [[now]] = system.database.query("SELECT (pg_current_wal_lsn() - '0/0')::bigint")
    until(lambda: confirmed() >= now, lambda: (confirmed(), now))


def test_hazard_15_a_table_removed_from_the_publication_and_added_again(system: System) -> None:
    """The connector reports RUNNING and canaries arrive, but changes from the time outside the publication never do.

    Membership is part of the table state, so all documents are rendered again after the open transactions have
    ended.
    """
    orders = f"{system.schema}.orders"
    publish = f"CREATE PUBLICATION pub FOR TABLE {orders}, {system.schema}.customers"
    system.database.execute("DROP PUBLICATION pub", publish)
    daemon = start_in_sync(system)
    with system.database.connect(autocommit=False) as slow:
        slow.execute(f"UPDATE {orders} SET status = 'open at its return'".encode())
        system.database.execute(f"ALTER PUBLICATION pub DROP TABLE {orders}")
        system.execute(ANOTHER.format(2))
        system.database.execute(f"ALTER PUBLICATION pub ADD TABLE {orders}")
        until(lambda: daemon.logged("waiting for open transactions"), daemon.log.read_text)
    system.until_in_sync()
    assert daemon.metric("syncer_stream_breaks") == 0


def test_hazard_14_a_backfill_waits_for_transactions_open_at_its_start(system: System) -> None:
    """A table joins the publication while a transaction that changed it is open. Debezium never sends its changes."""
    orders = f"{system.schema}.orders"
    # The publication must always exist. A connector that decodes a change from a time without it never recovers.
    system.database.execute("BEGIN; DROP PUBLICATION pub; CREATE PUBLICATION pub; COMMIT")
    system.execute(*ORDERS)
    command = [sys.executable, "-m", "syncer", "backfill", system.orders]
    with system.database.connect(autocommit=False) as slow:
        slow.execute(f"UPDATE {orders} SET status = 'unseen'".encode())
        system.database.execute(f"ALTER PUBLICATION pub ADD TABLE {orders}, {system.schema}.customers")
        backfill = subprocess.Popen(
            command,
            env=system.environment,
            cwd=system.folder,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert backfill.stdout
        until(lambda: f"pid {slow.info.backend_pid}" in backfill.stdout.readline())  # type: ignore[union-attr]
        slow.commit()
    backfill.communicate(timeout=60)
    assert backfill.returncode == 0
    system.start(system.orders)
    assert system.documents(system.orders)["1"]["status"] == "unseen"


def test_hazard_17_a_row_that_is_too_large_is_reported(source: Source, system: System, connect: Connect) -> None:
    """One row above the producer's limit stops the connector and all read models.

    `check` requires a limit of 16 MiB. For a larger row, the error names the cause.
    """
    limit = {"producer.override.max.request.size": "100000"}
    connect.apply(replace(source.connector, config={**source.connector.config, **limit}))
    connect.wait_running(source.connector.name, 60)
    daemon = start_in_sync(system)
    system.execute("INSERT INTO {schema}.customers VALUES (2, repeat('x', 200000))")
    daemon.until_state(system.orders, "waiting")
    until(lambda: "RecordTooLargeException" in daemon.status(system.orders)["reason"], daemon.log.read_text)
    status = system.until_status(system.orders, state="waiting")
    assert status["lag_seconds"] != 0
    assert "RecordTooLargeException" in status["reason"] and "buffer.memory" in status["hint"]
    path = system.folder / "connectors" / "connector.json"
    sound = path.read_text()
    path.write_text(json.dumps({"name": source.connector.name, "config": {**source.connector.config, **limit}}))
    for command, exit_code in ((["status"], 1), (["check"], 1), (["connectors", "apply", "--yes"], 3)):
        output = system.run(*command, expect=exit_code)  # after a restart it runs briefly and fails again
        assert "RecordTooLargeException" in output and "max.message.bytes" in output
    path.write_text(sound)
    assert "change" in system.run("connectors", "apply", "--yes")
    daemon.until_ready()
    system.until_in_sync()


def test_a_stopped_connector_is_reported_until_it_resumes(source: Source, system: System, connect: Connect) -> None:
    """A connector that resumes needs no repair: nothing is lost."""
    daemon = start_in_sync(system)
    with stopped(connect, source.connector.name):
        status = daemon.until_state(system.orders, "waiting")
        assert f"connector {source.connector.name}" in status["reason"]
        assert "stopped" in status["reason"]
        assert daemon.metric("syncer_connector_running") == 0
        system.execute(ANOTHER.format(2))
        assert daemon.ready() is False
    daemon.until_ready()
    system.until_in_sync()
    assert daemon.metric("syncer_connector_running") == 1
    assert daemon.logged("problem resolved")


def test_a_paused_connector_is_reported_and_resumed(source: Source, system: System) -> None:
    daemon = start_in_sync(system)
    system.until_status(system.orders, state="running")
    url = f"{system.stack.connect}/connectors/{source.connector.name}"
    urllib3.request("PUT", f"{url}/pause")
    until(lambda: urllib3.request("GET", f"{url}/status").json()["tasks"][0]["state"] == "PAUSED")
    system.execute(ANOTHER.format(2))
    status = system.until_status(system.orders, state="waiting")
    assert status["lag_seconds"] != 0
    assert "it is paused" in status["reason"]
    # No record waits in Kafka, but the missing canary makes the lag grow, also in `status`.
    until(lambda: daemon.metric("syncer_lag_seconds", model=system.orders) > 4, daemon.log.read_text)
    until(lambda: (system.status_of(system.orders)["lag_seconds"] or 0) > 4, lambda: system.status_of(system.orders))
    assert system.status_of(system.orders)["lag_records"] == 0
    for command in ("status", "check"):
        output = system.run(command, expect=1)
        assert "it is paused" in output and "→ syncer connectors apply" in output
    assert "resume (it is paused)" in system.run("connectors", "apply", "--dry-run")
    assert "is running" in system.run("connectors", "apply", "--yes")
    system.until_in_sync()
    daemon.until_ready()
    until(lambda: system.status_of(system.orders)["state"] == "running")
    until(lambda: system.status_of(system.orders)["lag_seconds"] == 0)
    until(lambda: daemon.metric("syncer_lag_seconds", model=system.orders) == 0)


def test_an_unreachable_kafka_connect_does_not_stop_the_daemon(system: System) -> None:
    system.environment["SYNCER_CONNECT__URL"] = "http://127.0.0.1:1"
    daemon = start_in_sync(system)
    canary_comes(daemon, system)
    assert daemon.ready(), daemon.get("/readyz")
    assert '"connector": "unknown"' in daemon.get("/status")[1]
    assert "\nsyncer_connector_running{" in daemon.get("/metrics")[1]
    assert daemon.metric("syncer_connector_running") == 0, "unknown is not 1"
    assert daemon.metric("syncer_lag_seconds") == 0, "the messages come"
    assert "Kafka Connect is unreachable" in system.run("status", expect=1)
