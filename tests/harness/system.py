"""The smallest system under test: two tables, two read models, and the `syncer` command as a process.

One connector streams everything of one database (`source`); each test has a schema of its own in it, with its
own topics, models, groups, index and keys (`System`), so that what a test breaks is broken for it alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis
import urllib3
from click.testing import CliRunner
from confluent_kafka import Producer

from devstack import Stack
from syncer import cli
from syncer.connect.client import Connect
from syncer.connect.definition import Definition
from syncer.events import TableName
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.names import topic_of
from syncer.kafka.producer import KafkaProducer
from syncer.kafka.reader import TopicReader
from syncer.kafka.state_store import KafkaStateStore
from tests.harness import Database, Names
from tests.harness.connector import definition, streaming
from tests.harness.daemon import Daemon
from tests.harness.database import fresh_database
from tests.harness.names import fresh_names
from tests.harness.waiting import until

ROOT = Path(__file__).parents[2]
SCHEMA = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.customers (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE {schema}.orders (
    id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text NOT NULL DEFAULT 'new',
    amount integer NOT NULL DEFAULT 100, parts integer NOT NULL DEFAULT 1, address text);
CREATE INDEX ON {schema}.orders (customer_id);
ALTER TABLE {schema}.orders REPLICA IDENTITY FULL;
"""
# `each` fails on an order of no parts; Elasticsearch refuses an address that is none.
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
    """A database whose every table is streamed to Kafka."""

    stack: Stack
    database: Database
    names: Names
    connector: Definition


@contextmanager
def streaming_source(stack: Stack, kafka: Stack | None = None, **settings: str) -> Iterator[Source]:
    """stack: whose PostgreSQL has the database. kafka: whose Kafka Connect streams it, if not its own.
    settings: of the connector, with `__` for a dot."""
    kafka = kafka or stack
    with fresh_names(kafka) as names, fresh_database(stack) as database:
        database.execute("CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)")
        wanted = definition(database, names, table__include__list=r".*\..*", **settings)
        connect = Connect(kafka.connect)
        with streaming(kafka, connect, wanted, database):
            yield Source(kafka, database, names, wanted)
        connect.close()


class System:
    """A schema and all that the syncer needs to keep its read models: `orders` in Elasticsearch, `summaries`
    in Redis. `environment` may be changed before anything is started."""

    def __init__(self, source: Source, folder: Path, number: int) -> None:
        self.stack, self.database, self.folder = source.stack, source.database, folder
        self.connector = source.connector
        self.schema = f"s{number}"
        self.prefix = f"{source.names.prefix}{self.schema}"
        self.topic_prefix = source.names.prefix
        self.orders, self.summaries = f"{self.prefix}-orders", f"{self.prefix}-summaries"
        self.redis = self.stack.redis
        """Where `summaries` are; another server for a test that breaks it."""
        self.daemons: list[Daemon] = []
        (folder / "models").mkdir()
        (folder / "connectors").mkdir()
        connector = {"name": source.connector.name, "config": dict(source.connector.config)}
        (folder / "connectors" / "connector.json").write_text(json.dumps(connector))
        self.declare("orders", ORDERS)
        self.declare("summaries", SUMMARIES)
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "SYNCER_MODELS": str(folder / "models"),
            "SYNCER_POSTGRES__DSN": self.database.dsn,
            "SYNCER_KAFKA__BOOTSTRAP_SERVERS": self.stack.kafka,
            "SYNCER_KAFKA__TOPIC_PREFIX": self.topic_prefix,
            "SYNCER_KAFKA__GROUP_PREFIX": self.prefix,
            "SYNCER_KAFKA__STATE_TOPIC": f"{self.prefix}.state",
            "SYNCER_KAFKA__PARTITIONS": "2",
            "SYNCER_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS": "3000",
            "SYNCER_CONNECT__URL": self.stack.connect,
            "SYNCER_CONNECT__DEFINITIONS": str(folder / "connectors"),
            "SYNCER_ELASTICSEARCH__URL": self.stack.elasticsearch,
            "SYNCER_REDIS__URL": self.redis,
            "SYNCER_HTTP__PORT": "0",
            "SYNCER_PIPELINE__COMMIT_INTERVAL": "200ms",
            "SYNCER_PIPELINE__GATE_TIMEOUT": "1s",
        }
        for statement in SCHEMA.split(";\n"):
            if statement.strip():
                self.execute(statement)

    # -- the application ------------------------------------------------------------------------------------

    def execute(self, *statements: str) -> None:
        """As the application does; {schema} stands for the test's own."""
        self.database.execute(*(statement.format(schema=self.schema) for statement in statements))

    def topic(self, table: str) -> str:
        return topic_of(self.topic_prefix, TableName(self.schema, table))

    def produce(self, table: str, value: bytes, key: bytes = b"{}") -> None:
        """A record in a table's topic that no connector has written."""
        producer = Producer({"bootstrap.servers": self.stack.kafka})
        producer.produce(self.topic(table), value, key)
        assert producer.flush(10) == 0

    # -- the syncer -----------------------------------------------------------------------------------------

    def declare(self, name: str, text: str) -> None:
        path = self.folder / "models" / f"{name}.yaml"
        path.write_text(text.format(**vars(self)))

    def run(self, *arguments: str, expect: int = 0) -> str:
        """A command from start to end, in this process; returns what it says."""
        done = CliRunner().invoke(cli.main, arguments, env=self.environment, catch_exceptions=False)
        assert done.exit_code == expect, f"syncer {arguments} ended with {done.exit_code}:\n{done.output}"
        return done.output

    def start(self, *models: str, ready: bool = True) -> Daemon:
        daemon = Daemon(models, self.environment, self.folder / f"daemon-{len(self.daemons)}.log")
        self.daemons.append(daemon)
        if ready:
            daemon.until_ready()
        return daemon

    def status_of(self, model: str) -> dict[str, Any]:
        """What `syncer status` says of it."""
        command = ["status", "--json", model]
        done = CliRunner().invoke(cli.main, command, env=self.environment, catch_exceptions=False)
        assert done.exit_code in (0, 1), done.output
        [found] = json.loads(done.stdout)["models"]
        assert isinstance(found, dict)
        return found

    def until_status(self, model: str, **fields: Any) -> dict[str, Any]:
        """Waits until `syncer status` reports these fields, and returns the report. A daemon publishes a new
        state after it has reached it, so a report that is read at once can be the one before."""
        found: dict[str, Any] = {}

        def reported() -> bool:
            found.update(self.status_of(model))
            return fields.items() <= found.items()

        until(reported, lambda: f"want {fields}, have {found}")
        return found

    def is_healthy(self, *models: str) -> bool:
        """Whether `syncer status` says that all is well. A busy server may not answer in time."""
        return CliRunner().invoke(cli.main, ["status", *models], env=self.environment).exit_code == 0

    def kafka_admin(self) -> KafkaAdmin:
        return KafkaAdmin({"bootstrap.servers": self.stack.kafka}, partitions=1, replication_factor=1)

    def topic_reader(self) -> TopicReader:
        return TopicReader({"bootstrap.servers": self.stack.kafka}, self.kafka_admin())

    def state_store(self) -> KafkaStateStore:
        producer = KafkaProducer({"bootstrap.servers": self.stack.kafka})
        return KafkaStateStore(self.kafka_admin(), self.topic_reader(), producer, f"{self.prefix}.state")

    def dead_letters(self, model: str) -> list[bytes]:
        """Their values: records as they were, nothing for documents."""
        records = self.topic_reader().read_all(f"{self.prefix}.{model}.dlq")
        return [record.value or b"" for record in records]

    # -- the documents --------------------------------------------------------------------------------------

    def documents(self, model: str) -> dict[str, Any]:
        """What the read model's sink holds."""
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
        """What PostgreSQL says, asked in other words than the syncer's."""
        text = EXPECTED_SUMMARIES if model == self.summaries else EXPECTED_ORDERS
        return dict(self.database.query(text.format(schema=self.schema)))

    def until_in_sync(self, *models: str, seconds: float = 90) -> None:
        """Wait until the documents of these read models (or of both) are what PostgreSQL says."""

        def right(model: str) -> bool:
            return self.documents(model) == self.expected(model)

        for model in models or (self.orders, self.summaries):
            until(partial(right, model), partial(self.differences, model), seconds)

    def differences(self, model: str) -> str:
        have, want = self.documents(model), self.expected(model)
        wrong = {id: (have.get(id), want.get(id)) for id in have | want if have.get(id) != want.get(id)}
        logs = "\n".join(daemon.log.read_text()[-3000:] for daemon in self.daemons)
        return f"{len(wrong)} of {model} (have, want): {dict(list(wrong.items())[:5])}\n{logs}"

    def remove_keys(self) -> None:
        """All that the read models have in Redis."""
        with redis.Redis.from_url(self.redis) as client:
            for pattern in (f"{self.prefix}:*", f"version:{self.prefix}:*", f"syncer:*{self.prefix}*"):
                if keys := list(client.scan_iter(pattern, count=1000)):
                    client.delete(*keys)

    def close(self) -> None:
        for daemon in self.daemons:
            daemon.kill()
        if self.redis == self.stack.redis:  # another one is gone by now
            self.remove_keys()


@contextmanager
def new_system(source: Source, folder: Path, number: int) -> Iterator[System]:
    """Nothing of it is left running."""
    system = System(source, folder, number)
    try:
        yield system
    finally:
        system.close()
