"""Runs the demo's connector on a test database, and reads the change events that it writes."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer

from devstack import Stack
from syncer.connect.client import Connect
from syncer.connect.definition import Definition, load_definition
from tests.harness.database import Database
from tests.harness.names import Names
from tests.harness.waiting import until

SHOP = Path(__file__).parents[2] / "connectors" / "shop.json"
POLL_INTERVAL = "20"
"""`poll.interval.ms` of the connectors of most tests. With 5 ms, an idle connector uses 15 % of a core.
With 20 ms it uses 5 %."""


def definition(database: Database, names: Names, **changes: str) -> Definition:
    """Returns the definition of the demo's connector for a test database.

    changes: settings of the connector to override, with `__` for a dot.
    """
    environment = {
        "SHOP_PGHOST": database.host,
        "SHOP_PGPORT": str(database.port),
        "SHOP_PGUSER": database.user,
        "SHOP_PGPASSWORD": database.password,
        "SHOP_PGDATABASE": database.name,
        "SHOP_TOPIC_PARTITIONS": "1",
    }
    demo = load_definition(SHOP, environment)
    own = {
        "topic.prefix": names.prefix,
        "slot.name": names.prefix,
        "publication.name": "pub",
        "table.include.list": r"public\..*",
        "poll.interval.ms": POLL_INTERVAL,
    }
    config = {**demo.config, **own, **{key.replace("__", "."): value for key, value in changes.items()}}
    return replace(demo, name=names("connector"), config=config)


def events(stack: Stack, names: Names, count: int, seconds: float = 30) -> dict[str, list[tuple[Any, Any]]]:
    """Reads `count` change events. Returns their keys and values, by the table in `source.table`."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack.kafka,
            "group.id": names("reader"),
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 500,
        }
    )
    consumer.subscribe([f"^{names.prefix}[.].*"])
    found: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    deadline = time.monotonic() + seconds
    try:
        while (received := sum(map(len, found.values()))) < count:
            assert time.monotonic() < deadline, f"received only {received} of {count} events in {seconds:g} s"
            message = consumer.poll(0.5)
            if message is None or message.error():
                continue
            key, value = message.key(), message.value()
            assert value is not None
            event = json.loads(value)
            found[event["source"]["table"]].append((json.loads(key) if key else None, event))
    finally:
        consumer.close()
    return found


@contextmanager
def streaming(stack: Stack, connect: Connect, wanted: Definition, database: Database) -> Iterator[None]:
    """Applies the connector and waits until it reads its slot. Deletes it afterwards."""
    connect.apply(wanted)
    try:
        connect.wait_running(wanted.name, 60, steady=0)
        slot = wanted.config["slot.name"]

        def reads_slot() -> bool:
            status = connect.status(wanted.name)
            assert not (status and status.failure), status
            return bool(database.query("SELECT FROM pg_replication_slots WHERE slot_name = %s AND active", [slot]))

        until(reads_slot, f"the connector does not read the slot {slot}", 30)
        yield
    finally:
        connect.delete(wanted.name)
