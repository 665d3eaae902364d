"""Runs the smallest complete system: two tables, two read models, and the `syncer` command as a process.

One connector streams all tables of one database (`Source`). Each test has its own schema in it, with its own topics,
read models, groups, index and keys (`System`). So a test can break its system without affecting other tests.
"""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis
import urllib3
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from devstack import Stack
from syncer import cli
from syncer.connect.client import Connect
from syncer.connect.definition import Definition
from syncer.events import TableName
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.group_offsets import GroupOffsets
from syncer.kafka.names import topic_of
from syncer.kafka.producer import KafkaProducer
from syncer.kafka.reader import TopicReader
from syncer.kafka.state_store import KafkaStateStore
from syncer.ports import Partition
from tests.harness import Database, Names
from tests.harness.connector import definition, streaming
from tests.harness.daemon import Daemon
from tests.harness.database import fresh_database
from tests.harness.names import fresh_names, remove_keys
from tests.harness.settings import environment
from tests.harness.waiting import until

SCHEMA = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.customers (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE {schema}.orders (
    id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL DEFAULT 'new',
    amount integer NOT NULL DEFAULT 100, parts integer NOT NULL DEFAULT 1, address text);
CREATE INDEX ON {schema}.orders (customer_id);
ALTER TABLE {schema}.orders REPLICA IDENTITY FULL;
"""
# `each` fails for an order with 0 parts. Elasticsearch rejects an invalid address.
ORDERS = """
name: {orders}
root: {{table: {schema}.orders}}
document:
  id: id
  status: status
  each: amount / parts
  address: address
  customer: {{one: {schema}.customers, on: {{id: customer_id}}, value: name}}
sink:
  elasticsearch:
    index: {orders}
    mapping: {{address: {{type: ip}}}}
    settings: {{number_of_shards: 1, number_of_replicas: 0}}
"""
SUMMARIES = """
name: {summaries}
root: {{table: {schema}.customers}}
document:
  name: name
  orders: {{many: {schema}.orders, on: {{customer_id: id}}, order_by: id, value: status}}
sink: {{redis: {{key: "{prefix}:summary:{{id}}"}}}}
"""
EXPECTED_ORDERS = """
SELECT o.id::text, json_build_object('id', o.id, 'status', o.status, 'each', o.amount / o.parts,
       'address', o.address, 'customer', c.name)
  FROM {schema}.orders o LEFT JOIN {schema}.customers c ON c.id = o.customer_id"""
EXPECTED_SUMMARIES = """
SELECT c.id::text, json_build_object('name', c.name, 'orders', coalesce(
       (SELECT json_agg(o.status ORDER BY o.id) FROM {schema}.orders o WHERE o.customer_id = c.id), '[]'))
  FROM {schema}.customers c"""


@dataclass(frozen=True)
class Source:
    """A database whose tables are all streamed to Kafka."""

    stack: Stack
    database: Database
    names: Names
    connector: Definition


@contextmanager
def streaming_source(stack: Stack, kafka: Stack | None = None, **settings: str) -> Iterator[Source]:
    """Yields a database that a connector streams to Kafka.

    stack: its PostgreSQL has the database.
    kafka: its Kafka Connect runs the connector. The default is `stack`.
    settings: of the connector, with `__` for a dot.
    """
    kafka = kafka or stack
    with fresh_names(kafka) as names, fresh_database(stack) as database:
        database.execute("CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)")
        wanted = definition(database, names, table__include__list=r".*\..*", **settings)
        connect = Connect(kafka.connect)
        with streaming(kafka, connect, wanted, database):
            yield Source(kafka, database, names, wanted)
        connect.close()


class System:
    """Holds a schema and the settings for two read models: `orders` in Elasticsearch, and `summaries` in Redis.

    A test may change `environment` before it starts a command.
    """

    def __init__(self, source: Source, folder: Path, number: int) -> None:
        self.stack, self.database, self.folder = source.stack, source.database, folder
        self.connector = source.connector
        self.schema = f"s{number}"
        self.prefix = f"{source.names.prefix}{self.schema}"
        self.topic_prefix = source.names.prefix
        self.orders, self.summaries = f"{self.prefix}-orders", f"{self.prefix}-summaries"
        self.redis = self.stack.redis
        """URL of the Redis server with `summaries`. A test that breaks Redis uses another server than the stack's."""
        self.daemons: list[Daemon] = []
        (folder / "models").mkdir()
        (folder / "connectors").mkdir()
        connector = {"name": source.connector.name, "config": dict(source.connector.config)}
        (folder / "connectors" / "connector.json").write_text(json.dumps(connector))
        self.declare("orders", ORDERS)
        self.declare("summaries", SUMMARIES)
        self.environment = environment(
            self.stack,
            self.database,
            folder,
            topic_prefix=self.topic_prefix,
            group_prefix=self.prefix,
            state_topic=f"{self.prefix}.state",
        ) | {
            "SYNCER_KAFKA__PARTITIONS": "2",
            "SYNCER_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS": "3000",
            "SYNCER_HTTP__PORT": "0",
            "SYNCER_PIPELINE__COMMIT_INTERVAL": "200ms",
            "SYNCER_PIPELINE__GATE_TIMEOUT": "1s",
        }
        for statement in SCHEMA.split(";\n"):
            if statement.strip():
                self.execute(statement)

    # -- the application ------------------------------------------------------------------------------------

    def execute(self, *statements: str) -> None:
        """Runs statements of the application. {schema} stands for the schema of the test."""
        self.database.execute(*(statement.format(schema=self.schema) for statement in statements))

    def topic(self, table: str) -> str:
        """Returns the change topic of a table."""
        return topic_of(self.topic_prefix, TableName(self.schema, table))

    def produce(self, table: str, value: bytes, key: bytes = b"{}") -> None:
        """Writes a record to the topic of a table, in place of the connector."""
        producer = Producer({"bootstrap.servers": self.stack.kafka})
        producer.produce(self.topic(table), value, key)
        assert producer.flush(10) == 0

    # -- the syncer -----------------------------------------------------------------------------------------

    def declare(self, name: str, text: str) -> None:
        """Writes a read model. `text` may contain attributes of the system, such as {schema}."""
        path = self.folder / "models" / f"{name}.yaml"
        path.write_text(text.format(**vars(self)))

    def invoke(self, *arguments: str, catch_exceptions: bool = False) -> Result:
        """Runs a command to its end in this process.

        Closes its clients: a test that polls the status would otherwise have hundreds of connections and threads.
        """
        try:
            return CliRunner().invoke(cli.main, arguments, env=self.environment, catch_exceptions=catch_exceptions)
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # the end of a process closes its sockets, too
                gc.collect()

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Runs a command to its end in this process and returns its output. expect: the exit status."""
        done = self.invoke(*arguments)
        assert done.exit_code == expect, f"syncer {arguments} ended with {done.exit_code}:\n{done.output}"
        return done.output

    def start(self, *models: str, ready: bool = True) -> Daemon:
        """Starts a daemon for these read models, or for all. ready: waits until it is ready."""
        daemon = Daemon(models, self.environment, self.folder / f"daemon-{len(self.daemons)}.log")
        self.daemons.append(daemon)
        if ready:
            daemon.until_ready()
        return daemon

    def status_of(self, model: str) -> dict[str, Any]:
        """Returns the status of a read model from `syncer status --json`."""
        done = self.invoke("status", "--json", model)
        assert done.exit_code in (0, 1), done.output
        [found] = json.loads(done.stdout)["models"]
        assert isinstance(found, dict)
        return found

    def until_status(self, model: str, **fields: Any) -> dict[str, Any]:
        """Waits until `syncer status` reports these fields. Returns the status.

        A daemon publishes a new state after it has reached it, so a status without waiting can be outdated.
        """
        found: dict[str, Any] = {}

        def reported() -> bool:
            found.update(self.status_of(model))
            return fields.items() <= found.items()

        until(reported, lambda: f"expected {fields}, found {found}")
        return found

    def is_healthy(self, *models: str) -> bool:
        """Returns whether the exit status of `syncer status` is 0. A busy server may respond too late."""
        return self.invoke("status", *models, catch_exceptions=True).exit_code == 0

    def kafka_admin(self) -> KafkaAdmin:
        return KafkaAdmin({"bootstrap.servers": self.stack.kafka}, partitions=1, replication_factor=1)

    def committed(self, group: str, *topics: str) -> dict[Partition, int]:
        """Returns the offsets of these topics that a group has committed."""
        offsets = GroupOffsets({"bootstrap.servers": self.stack.kafka})
        found = offsets.committed(group, self.kafka_admin().ends(topics))
        offsets.close()
        return found

    def topic_reader(self) -> TopicReader:
        return TopicReader({"bootstrap.servers": self.stack.kafka}, self.kafka_admin())

    def state_store(self) -> KafkaStateStore:
        producer = KafkaProducer({"bootstrap.servers": self.stack.kafka})
        return KafkaStateStore(self.kafka_admin(), self.topic_reader(), producer, f"{self.prefix}.state")

    def dead_letters(self, model: str) -> list[bytes]:
        """Returns the values of the dead letters: the original value of a record, b"" for a document."""
        records = self.topic_reader().read_all(f"{self.prefix}.{model}.dlq")
        return [record.value or b"" for record in records]

    # -- the documents --------------------------------------------------------------------------------------

    def documents(self, model: str) -> dict[str, Any]:
        """Returns the documents of a read model in its sink, by id."""
        if model == self.summaries:
            with redis.Redis.from_url(self.redis) as client:
                keys = [key.decode() for key in client.scan_iter(f"{self.prefix}:summary:*", count=1000)]
                values: Any = client.mget(keys) if keys else []
            return {key.rpartition(":")[2]: json.loads(v) for key, v in zip(keys, values, strict=True) if v}
        urllib3.request("POST", f"{self.stack.elasticsearch}/{model}/_refresh")
        url = f"{self.stack.elasticsearch}/{model}/_search?size=10000"
        hits = urllib3.request("GET", url).json().get("hits", {}).get("hits", [])
        return {hit["_id"]: hit["_source"] for hit in hits}

    def expected(self, model: str) -> dict[str, Any]:
        """Returns the expected documents by id, from a query that is independent of the syncer."""
        text = EXPECTED_SUMMARIES if model == self.summaries else EXPECTED_ORDERS
        return dict(self.database.query(text.format(schema=self.schema)))

    def until_in_sync(self, *models: str, seconds: float = 90) -> None:
        """Waits until the documents of these read models, or of both, are the expected ones."""

        def in_sync(model: str) -> bool:
            return self.documents(model) == self.expected(model)

        for model in models or (self.orders, self.summaries):
            until(partial(in_sync, model), partial(self.differences, model), seconds)

    def differences(self, model: str) -> str:
        """Describes the wrong documents, for an error message. Includes the end of the logs."""
        found, expected = self.documents(model), self.expected(model)
        wrong = {id: (found.get(id), expected.get(id)) for id in found | expected if found.get(id) != expected.get(id)}
        logs = "\n".join(daemon.log.read_text()[-3000:] for daemon in self.daemons)
        return f"{len(wrong)} wrong documents of {model} (found, expected): {dict(list(wrong.items())[:5])}\n{logs}"

    def remove_keys(self) -> None:
        """Deletes all keys of the read models in Redis."""
        remove_keys(self.redis, f"{self.prefix}:*", f"version:*{self.prefix}:*", f"syncer:*{self.prefix}*")

    def close(self) -> None:
        """Kills the daemons and deletes the keys in Redis."""
        for daemon in self.daemons:
            daemon.kill()
        if self.redis == self.stack.redis:  # any other server has already stopped
            self.remove_keys()


@contextmanager
def new_system(source: Source, folder: Path, number: int) -> Iterator[System]:
    """Yields a system. Kills its daemons afterwards."""
    system = System(source, folder, number)
    try:
        yield system
    finally:
        system.close()
