"""Snapshots of the connector: `r` events of rows that existed before it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack import Stack
from syncer.connect.client import Connect
from tests.harness import Database, Names
from tests.harness.connector import definition
from tests.harness.system import Source, System
from tests.harness.waiting import until

_numbers = itertools.count(1)
CUSTOMERS = "INSERT INTO {schema}.customers VALUES (1, 'Ada'), (2, 'Grace')"
FIVE = "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 + n % 2 FROM generate_series(1, 5) n"


@pytest.fixture
def system(stack: Stack, database: Database, names: Names, tmp_path: Path) -> Iterator[System]:
    """Returns a system with rows that nothing has streamed yet. The test starts the connector."""
    database.execute("CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)")
    wanted = definition(database, names, table__include__list=r".*\..*", snapshot__mode="initial")
    system = System(Source(stack, database, names, wanted), tmp_path, next(_numbers))
    system.execute(CUSTOMERS, FIVE, "CREATE TABLE {schema}.zebras (id int PRIMARY KEY)")
    try:
        yield system
    finally:
        system.close()


@contextmanager
def connector(system: System) -> Iterator[None]:
    """Starts the connector. It does not read its slot until the snapshot is finished."""
    connect = Connect(system.stack.connect)
    connect.apply(system.connector)
    try:
        yield
    finally:
        connect.delete(system.connector.name)
        connect.close()


def test_initial_snapshot_events_are_rendered_before_the_snapshot_ends(system: System) -> None:
    """Debezium 3.6 gives `r` events the ID of its own transaction, which stays open until the last table is read.

    One table is locked here. The documents of the others must be written nevertheless.
    """
    database = system.database
    database.query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [system.topic_prefix])
    daemon = system.start()
    with database.connect(autocommit=False) as reader:
        reader.execute(f"LOCK TABLE {system.schema}.zebras".encode())
        with connector(system):
            system.until_in_sync()
            records = system.topic_reader().read_all(system.topic("orders"))
            events = [json.loads(record.value or b"") for record in records]
            assert {event["op"] for event in events} == {"r"}
            [txid] = {event["source"]["txId"] for event in events}
            status = "SELECT pg_xact_status(%s::text::xid8)"
            assert database.query(status, [str(txid)]) == [("in progress",)]
            # changes committed during the snapshot have their own events after it
            system.execute("UPDATE {schema}.orders SET status = 'paid' WHERE id = 2")
            reader.rollback()
            system.until_in_sync()
    assert daemon.metric("syncer_events_total", op="r") > 0
    assert daemon.metric("syncer_gate_waits_total") == 0
    until(lambda: daemon.metric("syncer_lag_records") == 0)
