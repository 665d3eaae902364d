"""Prepares the measurements: new servers, the demo's shop, and the settings of the syncer.

`Arena.reset` gives a step a new syncer: other groups and topics, no index, no events. The rows of the shop keep the
changes of earlier steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import orjson
import psycopg
import redis
import urllib3
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

import devstack
from bench import machine
from demo import shop
from devstack import ports
from syncer.config import schema
from syncer.config.schema import Config
from syncer.registry import loader
from syncer.registry.loader import LoadedModel

ROOT = Path(__file__).parent.parent
PREFIX = "shop"
ORDERS_PER_CUSTOMER = 25
PRODUCTS = 500
_LIMIT = 600.0


class Failed(Exception):
    """Reports that a measurement is invalid, and why."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of a run. repetitions: of each measurement except `latency`; the report shows the median."""

    orders: int
    roots: int
    """Orders that one statement of `streaming` updates."""
    children: int
    repetitions: int
    write_seconds: float
    """Duration of the writes in `latency`."""
    patience: float
    """Seconds that a measurement waits for an idle machine."""
    followers: int
    """Followers of the author in `feed`."""
    readings: int
    """Readings of devices in `telemetry`."""
    single_changes: int
    """Changes of one row of each group in `groups`."""

    @classmethod
    def of(cls, orders: int | None, *, quick: bool) -> Sizes:
        orders = orders or (20_000 if quick else 200_000)
        roots = min(100_000, orders * 6 // 7 // 100 * 100)  # every seventh order is a draft
        children = min(300_000, roots * 5 // 2)
        if quick:
            return cls(
                orders,
                roots,
                children,
                repetitions=2,
                write_seconds=10.0,
                patience=2.0,
                followers=5_000,
                readings=100_000,
                single_changes=10,
            )
        return cls(
            orders,
            roots,
            children,
            repetitions=3,
            write_seconds=60.0,
            patience=20.0,
            followers=100_000,
            readings=10_000_000,
            single_changes=40,
        )


class Arena:
    """Holds the servers and the shop, and runs commands of the syncer. `opened` creates it."""

    def __init__(self, stack: devstack.Stack, sizes: Sizes) -> None:
        self.stack, self.sizes = stack, sizes
        self.dsn = urlunsplit(urlsplit(stack.postgres)._replace(path="/shop"))
        self.reads = urlunsplit(urlsplit(stack.postgres)._replace(path="/reads"))
        """The database with the tables of the sink `postgres`."""
        self.http_port = next(p for p in range(ports.RANDOM_RANGE.stop, 65536) if ports.is_free(p))
        self.elasticsearch = urllib3.PoolManager(maxsize=8, timeout=60.0, retries=False)
        self.elsewhere: list[float] = []
        """The share of all cores that other programs used, for each measurement."""
        self.settings: dict[str, str] = {}
        """Further settings of the syncer, as variables."""
        self._runs = 0

    # -- the shop -----------------------------------------------------------------------------------

    def make_shop(self) -> None:
        """Creates the tables and rows of the shop."""
        with psycopg.connect(self.stack.postgres, autocommit=True) as admin:
            admin.execute("CREATE DATABASE shop")
            admin.execute("CREATE DATABASE reads")
        customers = max(self.sizes.orders // ORDERS_PER_CUSTOMER, 10)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute((ROOT / "demo" / "schema.sql").read_bytes())
            connection.execute("ALTER TABLE orders REPLICA IDENTITY FULL")  # `syncer check` requires it
            shop.seed(connection, customers=customers, products=PRODUCTS, orders=self.sizes.orders)
            connection.execute("VACUUM ANALYZE")

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs a statement in its own transaction, commits it, and returns the rows."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def scalar(self, statement: str, *values: Any) -> int:
        return int(self.sql(statement, *values)[0][0])

    def settle(self) -> None:
        """Lets PostgreSQL vacuum and checkpoint before the next measurement. Waits until the machine is idle."""
        self.sql("VACUUM")
        self.sql("CHECKPOINT")
        machine.settle(self.sizes.patience)

    # -- the syncer ---------------------------------------------------------------------------------

    @property
    def environ(self) -> dict[str, str]:
        at, stack, run = urlsplit(self.dsn), self.stack, f"bench{self._runs}"
        return os.environ | {
            "SYNCER_POSTGRES__DSN": self.dsn,
            "SYNCER_KAFKA__BOOTSTRAP_SERVERS": stack.kafka,
            "SYNCER_KAFKA__TOPIC_PREFIX": PREFIX,
            "SYNCER_KAFKA__GROUP_PREFIX": run,
            "SYNCER_KAFKA__STATE_TOPIC": f"{run}.state",
            "SYNCER_CONNECT__URL": stack.connect,
            "SYNCER_ELASTICSEARCH__URL": stack.elasticsearch,
            "SYNCER_REDIS__URL": stack.redis,
            "SYNCER_POSTGRES_SINK__DSN": self.reads,
            "SYNCER_HTTP__PORT": str(self.http_port),
            "SYNCER_REFRESH__CLIENT_RATE": "0",
            "SYNCER_REFRESH__KEY_RATE": "0",
            "SHOP_PGHOST": str(at.hostname),
            "SHOP_PGPORT": str(at.port),
            "SHOP_PGUSER": str(at.username),
            "SHOP_PGPASSWORD": str(at.password),
            "SHOP_PGDATABASE": at.path.lstrip("/"),
            **self.settings,
        }

    @property
    def config(self) -> Config:
        return schema.load(ROOT / "config" / "syncer.yaml", environ=self.environ)

    def loaded(self, model: str) -> LoadedModel:
        settings = self.config
        [found] = loader.load_declared(settings, [model])
        return loader.load_model(settings, found)

    def popen(self, *arguments: str, log: Path, **environ: str) -> subprocess.Popen[bytes]:
        """Starts a command of the syncer. Appends its output to `log`. environ: further variables."""
        with log.open("ab") as output:
            command = [sys.executable, "-m", "syncer", *arguments]
            return subprocess.Popen(command, cwd=ROOT, env=self.environ | environ, stdout=output, stderr=output)

    def syncer(self, *arguments: str) -> None:
        """Runs a command of the syncer to its end. Raises Failed if its exit status is not 0."""
        log = self.log(arguments[0])
        if self.popen(*arguments, log=log).wait(_LIMIT):
            raise Failed(f"syncer {' '.join(arguments)} failed. Its output:\n{tail(log)}")

    def log(self, name: str) -> Path:
        return self.stack.home / f"{name}.log"

    def reset(self) -> None:
        """Removes all data of the syncer, so that the next one starts from nothing. No syncer may be running."""
        self._runs += 1
        for index in self.request("GET", "/_cat/indices?h=index&format=json"):
            self.request("DELETE", f"/{index['index']}")
        with redis.from_url(self.stack.redis) as client:
            client.flushall()
        with psycopg.connect(self.reads, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS read CASCADE")
            connection.execute("CREATE SCHEMA read")
        self._delete_events()

    def _delete_events(self) -> None:
        """Deletes the change events. Otherwise the next syncer would read the events of the last ten minutes."""
        if ends := self.ends(self.partitions(self.change_topics)):
            for future in self._admin.delete_records(ends).values():
                future.result(30)

    # -- Kafka and Elasticsearch --------------------------------------------------------------------

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.stack.kafka, "log_level": 0})

    @cached_property
    def _consumer(self) -> Consumer:
        settings = {"bootstrap.servers": self.stack.kafka, "group.id": "bench", "log_level": 0}
        return Consumer(settings)

    def close(self) -> None:
        """Closes the clients. Call it before the servers stop, otherwise the clients log many connection errors."""
        if "_consumer" in vars(self):
            self._consumer.close()
        vars(self).pop("_admin", None)
        self.elasticsearch.clear()

    @property
    def change_topics(self) -> list[str]:
        return [name for name in self._admin.list_topics(timeout=30).topics if name.startswith(f"{PREFIX}.")]

    def partitions(self, topics: Sequence[str]) -> list[TopicPartition]:
        known = self._admin.list_topics(timeout=30).topics
        return [TopicPartition(t, p) for t in topics for p in known[t].partitions]

    def ends(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Returns the partitions with their end offsets."""
        found = []
        for partition in partitions:
            marks: Any = self._consumer.get_watermark_offsets(partition, timeout=30)
            found.append(TopicPartition(partition.topic, partition.partition, marks[1]))
        return found

    def records(self, partitions: Sequence[TopicPartition]) -> int:
        """Returns the sum of the end offsets of these partitions."""
        return sum(partition.offset for partition in self.ends(partitions))

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Sends a request to Elasticsearch. Returns the body, or None for 404. Raises Failed for other errors."""
        headers = {"content-type": "application/json"}
        data = orjson.dumps(body) if body is not None else None
        response = self.elasticsearch.request(method, self.stack.elasticsearch + path, body=data, headers=headers)
        if response.status == 404:
            return None
        if response.status != 200:
            raise Failed(f"{method} {path}: {response.status} {response.data[:500]!r}")
        return orjson.loads(response.data)

    def documents(self, index: str) -> int:
        """Returns the number of documents in an index, after a refresh."""
        self.request("POST", f"/{index}/_refresh")
        return int(self.request("GET", f"/{index}/_count")["count"])

    def no_dead_letters(self) -> None:
        """Raises Failed if there are dead letters since the last reset."""
        topics = [t for t in self._admin.list_topics(timeout=30).topics if t.endswith(".dlq")]
        if letters := self.records(self.partitions(topics)):
            raise Failed(f"{letters} dead letters in {', '.join(topics)}")


@contextmanager
def opened(sizes: Sizes, echo: Any) -> Iterator[Arena]:
    """Starts the servers, fills the shop and applies the connector. Deletes everything at the end."""
    home = ROOT / f".devstack-bench-{os.getpid()}"
    stack = devstack.start(home, ephemeral=True, echo=echo)
    arena = Arena(stack, sizes)
    try:
        began = time.monotonic()
        arena.make_shop()
        echo(f"the shop has {sizes.orders:,} orders ({time.monotonic() - began:.1f} s)")
        arena.syncer("connectors", "apply", "--yes")
        yield arena
    finally:
        arena.close()
        for log in home.glob("*.log"):
            log.unlink()
        stack.remove()


def tail(log: Path, characters: int = 3000) -> str:
    """Returns the end of a log file."""
    return log.read_text(errors="replace")[-characters:]


def versions(arena: Arena) -> Mapping[str, str]:
    """Returns the versions of the servers and of the connector."""
    from devstack import downloads

    return {**arena.stack.versions(), "debezium": downloads.pins()["debezium"]}
