"""The visibility gate on a PostgreSQL server of its own: transactions that are not visible yet, and WAL not flushed."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import urllib3
from prometheus_client import CollectorRegistry

import devstack
from devstack import Stack, process
from devstack.servers import Postgres as PostgresServer
from syncer.clock import Clock
from syncer.config.schema import load as load_config
from syncer.errors import Fatal, Retry
from syncer.operations.backfill import Backfill
from syncer.pacing import Waiter
from syncer.pipeline.limits import Limits
from syncer.pipeline.visibility import VisibilityGate
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry.backends import open_registry
from syncer.registry.loader import load_declared, load_model
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.conftest import program, temporary_home
from tests.harness.database import fresh_database, wal_writer_paused
from tests.harness.engine import SCHEMA, Engine
from tests.harness.system import Source, System, streaming_source
from tests.harness.waiting import until

CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
FIVE = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 5) n"


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    """Yields a PostgreSQL server with changeable settings. It flushes asynchronous commits only on request."""
    own = devstack.start(temporary_home(), only=["postgres"], ephemeral=True)
    try:
        set_up(own.postgres, wal_writer_delay="10s", wal_writer_flush_after="1GB")
        yield own
    finally:
        own.remove()


@pytest.fixture(scope="module")
def source(stack: Stack, private: Stack) -> Iterator[Source]:
    with streaming_source(private, stack) as source:
        yield source


def set_up(dsn: str, **settings: str) -> None:
    """Changes settings for all sessions, and waits until they apply."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        for name, value in settings.items():
            admin.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        admin.execute("SELECT pg_reload_conf()")
        for name, value in settings.items():
            until(lambda n=name, v=value: admin.execute("SELECT current_setting(%s)", [n]).fetchone() == (v,))  # type: ignore[misc]


def test_hazard_01_a_lane_waits_for_a_commit_that_is_not_visible_yet(system: System, private: Stack) -> None:
    """The commit is in WAL, so Debezium sends its events.

    It stays invisible until the synchronous standby confirms it.
    """
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE)
    system.until_in_sync()
    before = {model: system.documents(model) for model in (system.orders, system.summaries)}
    set_up(private.postgres, synchronous_standby_names="nobody")
    late = [
        threading.Thread(target=system.execute, args=(statement,))
        for statement in (
            "UPDATE {schema}.orders SET status = 'paid', customer_id = 2 WHERE id = 2",
            "INSERT INTO {schema}.customers VALUES (9, 'Edsger')",  # has no orders, so the look-up finds none
        )
    ]
    try:
        for thread in late:
            thread.start()
        for model in (system.orders, system.summaries):
            reason = daemon.until_reason(model, "waiting")
            assert "not visible yet" in reason and "in progress" in reason and "synchronous standby" in reason
        until(lambda: all(daemon.status(model)["lag_seconds"] > 2 for model in before))
        for model, documents in before.items():
            assert system.documents(model) == documents
            assert system.status_of(model)["lag_records"] > 0
        assert daemon.get("/livez") == (200, "ok\n")
    finally:
        set_up(private.postgres, synchronous_standby_names="")
        for thread in late:
            thread.join()
    system.execute("INSERT INTO {schema}.orders (id, customer_id) VALUES (6, 9)")
    system.until_in_sync()
    daemon.until_ready()
    assert daemon.metric("syncer_gate_waits_total", model=system.orders) > 0
    until(lambda: system.status_of(system.orders)["lag_records"] == 0)


def test_a_repair_moves_the_clock_of_a_quiet_server(system: System) -> None:
    """Only manual edits have happened since the documents were rendered."""
    system.execute(CUSTOMERS, FIVE)
    system.run("backfill")
    for n in range(3):
        url = f"{system.stack.elasticsearch}/{system.orders}/_doc/1"
        assert urllib3.request("PUT", url, json={"status": f"edited {n}"}).status == 200
    with redis.Redis.from_url(system.stack.redis) as client:
        client.set(f"{system.prefix}:summary:1", '{"name": "Eve", "orders": []}')
    output = system.run("verify", "--patience", "0", expect=1)
    assert output.count("differing: 1") == 2
    system.run("verify", "--repair", "--patience", "0")
    for model in (system.orders, system.summaries):
        assert system.documents(model) == system.expected(model)


def test_hazard_10_an_event_of_an_unknown_transaction_stops_the_read_model(
    system: System,
) -> None:
    daemon = system.start()
    system.execute(CUSTOMERS, FIVE)
    system.until_in_sync()
    [(now,)] = system.database.query("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    source = {"schema": system.schema, "table": "customers", "txId": now + (1 << 29), "ts_ms": 1}
    event = {"op": "c", "before": None, "after": {"id": 1, "name": "Ada"}, "source": source}
    system.produce("customers", json.dumps(event).encode())
    reason = daemon.until_reason(system.orders, "failed")
    assert "does not have" in reason and "in the future" in reason and f"syncer resync {system.orders}" in reason
    assert daemon.metric("syncer_errors_total", model=system.orders, kind="fatal") == 1


def test_hazard_09_wal_is_flushed_before_rendered_documents_are_written(system: System, private: Stack) -> None:
    config = load_config(environ=system.environment)
    loaded = load_model(config, load_declared(config, [system.orders])[0])
    rows = SnapshotReader(config.postgres.arguments(), loaded.compiled)
    stop = threading.Event()
    observer = LaneObserver("changes", Metrics(CollectorRegistry()).for_model(system.orders))
    clock = Clock(1)
    gate = VisibilityGate(
        system.orders, rows, clock, limits=Limits(gate_timeout=5.0), wait=Waiter(stop), observer=observer
    )

    def behind() -> int:
        query = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn())::bigint"
        [(value,)] = system.database.query(query)
        return int(value)

    with closing(rows), wal_writer_paused(system.database), system.database.connect() as session:
        session.execute("SET synchronous_commit = off")
        session.execute(f"INSERT INTO {system.schema}.customers VALUES (1, 'Ada')".encode())
        assert behind() > 0
        with gate.open_view() as sight:
            assert sight.view.head.insert_lsn
            assert behind() > 0
        assert behind() < 100  # the flushed part ends at the last record, perhaps before a page header
    private.kill("postgres")
    private.launch("postgres")
    assert system.database.query(f"SELECT name FROM {system.schema}.customers") == [("Ada",)]


def test_hazard_28_a_backfill_is_planned_from_flushed_wal(system: System, private: Stack) -> None:
    """Found by the simulation: a crash undid the delete of a row. The row had no event and was in no range."""
    system.execute(CUSTOMERS, FIVE)
    config = load_config(environ=system.environment)
    loaded = load_model(config, load_declared(config, [system.orders])[0])
    registry = open_registry(config)
    names = registry.open(loaded.compiled).names
    with system.database.connect() as session:
        session.execute("SET synchronous_commit = off")
        session.execute(f"DELETE FROM {system.schema}.orders WHERE id = 5".encode())
        run = Backfill(config, loaded.model, registry).plan(loaded, names, lambda progress: None)
    private.kill("postgres")
    private.launch("postgres")
    assert system.database.query(f"SELECT count(*), max(id) FROM {system.schema}.orders") == [(run.roots, 4)]


def test_hazard_09_changes_undone_by_a_crash_are_never_written(private: Stack, tmp_path: Path) -> None:
    """An asynchronous commit is visible and rendered, but a crash undoes it.

    New transactions soon reuse its identifier, and the timeline stays the same, so neither reveals the loss.
    Therefore nothing is written before WAL is flushed.
    """
    with fresh_database(private) as database:
        database.execute(*SCHEMA.split(";"))
        engine = Engine(database, tmp_path)
        lane = engine.lane()
        seen: list[Any] = []

        class Crash(SnapshotReader):
            """Crashes the server after the snapshot has ended, before the flush position is read."""

            def flushed(self, lsn: int) -> bool:
                seen.extend(database.query("SELECT id, note FROM orders"))
                private.kill("postgres")
                private.launch("postgres")
                return super().flushed(lsn)

        lane.gate.rows = Crash(engine.config.postgres.arguments(), engine.compiled)
        with wal_writer_paused(database), contextlib.suppress(psycopg.OperationalError), database.connect() as session:
            session.execute("SET synchronous_commit = off")
            session.execute("INSERT INTO orders VALUES (1, 1, 'lost')")
            engine.add_event(None, "orders", "c", after={"id": 1, "customer_id": 1, "note": "lost"})
            with pytest.raises(Retry):
                lane.step()
        assert seen == [(1, "lost")]
        assert database.query("SELECT id, note FROM orders") == []
        assert engine.sink.batches == [] and engine.changes.committed == 0
        txid = engine.execute("INSERT INTO orders VALUES (2, 2, 'kept')")
        engine.add_event(txid, "orders", "c", after={"id": 2, "customer_id": 2, "note": "kept"})
        engine.changes.close()  # the next lane starts at the committed offsets
        engine.drain(engine.lane())
        assert engine.documents() == engine.expected() == {"2": {"note": "kept", "customer": "Grace"}}
        engine.close()


def test_hazard_10_ids_of_32_bits_are_widened_after_a_wraparound(tmp_path: Path) -> None:
    """Events contain the low half of a transaction ID, snapshots contain all of it."""
    own = devstack.start(temporary_home(), only=["postgres"], ephemeral=True)
    try:
        server = own.server("postgres")
        assert isinstance(server, PostgresServer)
        resetwal = program(own, "pg_resetwal")
        own.halt("postgres")
        reset: list[str | Path] = [resetwal, "--epoch=7", server.folder / "data"]
        process.run(reset, account=own.site.account, env=server.env(), cwd=server.folder)
        own.launch("postgres")
        with fresh_database(own) as database:
            database.execute(*SCHEMA.split(";"))
            engine = Engine(database, tmp_path)
            txid = engine.execute("INSERT INTO orders VALUES (1, 2, 'x')")
            assert txid >> 32 == 7
            engine.add_event(txid % 2**32, "orders", "c", after={"id": 1, "customer_id": 2, "note": "x"})
            engine.add_event(None, "orders", "c", after={"id": 1, "customer_id": 2, "note": "x"})
            engine.drain(engine.lane(max_records=1))
            assert engine.documents() == engine.expected() == {"1": {"note": "x", "customer": "Grace"}}
            engine.add_event(txid % 2**32 + (1 << 29), "orders", after={"id": 1, "customer_id": 2, "note": "x"})
            with pytest.raises(Fatal, match="does not have") as error:
                engine.drain(engine.lane())
            assert "in the future" in error.value.why
            engine.close()
    finally:
        own.remove()
