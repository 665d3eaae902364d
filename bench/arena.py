"""Where everything is measured: servers of its own, the demo's shop in them, and a syncer set up for it.

`Arena.reset` gives a step a syncer that never ran: other groups and topics, no index, no events. The shop's
rows stay as earlier steps left them.
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
    """What was measured is not what should have been measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. repetitions: of what is cheap to repeat; the median counts."""

    orders: int
    roots: int
    """Updated by one statement in `streaming`."""
    children: int
    repetitions: int
    write_seconds: float
    """How long `latency` writes."""
    patience: float
    """How long a run waits for a quiet machine (seconds)."""

    @classmethod
    def of(cls, orders: int | None, *, quick: bool) -> Sizes:
        orders = orders or (20_000 if quick else 200_000)
        roots = min(100_000, orders * 6 // 7 // 100 * 100)  # every seventh order is a draft
        children = min(300_000, roots * 5 // 2)
        if quick:
            return cls(orders, roots, children, repetitions=2, write_seconds=10.0, patience=2.0)
        return cls(orders, roots, children, repetitions=3, write_seconds=60.0, patience=20.0)


class Arena:
    """The stack, the shop, and how the syncer is called. See `opened`."""

    def __init__(self, stack: devstack.Stack, sizes: Sizes) -> None:
        self.stack, self.sizes = stack, sizes
        self.dsn = urlunsplit(urlsplit(stack.postgres)._replace(path="/shop"))
        self.http_port = next(p for p in range(ports.RANDOM_RANGE.stop, 65536) if ports.is_free(p))
        self.elasticsearch = urllib3.PoolManager(maxsize=8, timeout=60.0, retries=False)
        self.elsewhere: list[float] = []
        """The share of all cores that programs of others used, run by run."""
        self._runs = 0

    # -- the shop -----------------------------------------------------------------------------------

    def make_shop(self) -> None:
        """Tables and rows."""
        with psycopg.connect(self.stack.postgres, autocommit=True) as admin:
            admin.execute("CREATE DATABASE shop")
        customers = max(self.sizes.orders // ORDERS_PER_CUSTOMER, 10)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute((ROOT / "demo" / "schema.sql").read_bytes())
            connection.execute("ALTER TABLE orders REPLICA IDENTITY FULL")  # as `syncer check` asks
            shop.seed(connection, customers=customers, products=PRODUCTS, orders=self.sizes.orders)
            connection.execute("VACUUM ANALYZE")

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement in a transaction of its own; it is committed when this returns."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def scalar(self, statement: str, *values: Any) -> int:
        return int(self.sql(statement, *values)[0][0])

    def settle(self) -> None:
        """Have the servers tidy up now, not during the next run, and wait until they have."""
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
            "SYNCER_HTTP__PORT": str(self.http_port),
            "SHOP_PGHOST": str(at.hostname),
            "SHOP_PGPORT": str(at.port),
            "SHOP_PGUSER": str(at.username),
            "SHOP_PGPASSWORD": str(at.password),
            "SHOP_PGDATABASE": at.path.lstrip("/"),
        }

    @property
    def config(self) -> Config:
        return schema.load(ROOT / "config" / "syncer.yaml", environ=self.environ)

    def loaded(self, model: str) -> LoadedModel:
        settings = self.config
        [found] = loader.declared(settings, [model])
        return loader.load_model(settings, found)

    def popen(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Begin a command of the syncer, as a user would type it; what it says goes to the end of a file."""
        with log.open("ab") as output:
            command = [sys.executable, "-m", "syncer", *arguments]
            return subprocess.Popen(command, cwd=ROOT, env=self.environ, stdout=output, stderr=output)

    def syncer(self, *arguments: str) -> None:
        """Run a command to its end. Raises Failed if its exit status is not 0."""
        log = self.log(arguments[0])
        if self.popen(*arguments, log=log).wait(_LIMIT):
            raise Failed(f"syncer {' '.join(arguments)} failed; it said:\n{tail(log)}")

    def log(self, name: str) -> Path:
        return self.stack.home / f"{name}.log"

    def reset(self) -> None:
        """As if the syncer had never run here. None may be running."""
        self._runs += 1
        for index in self.ask("GET", "/_cat/indices?h=index&format=json"):
            self.ask("DELETE", f"/{index['index']}")
        with redis.from_url(self.stack.redis) as client:
            client.flushall()
        self._forget_events()

    def _forget_events(self) -> None:
        """Else the next syncer would begin with those of the last ten minutes."""
        if ends := self.ends(self.partitions(self.change_topics)):
            for future in self._admin.delete_records(ends).values():
                future.result(30)

    # -- Kafka and Elasticsearch --------------------------------------------------------------------

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.stack.kafka, "log_level": 0})

    @cached_property
    def _consumer(self) -> Consumer:
        settings = {"bootstrap.servers": self.stack.kafka, "group.id": "bench-looks", "log_level": 0}
        return Consumer(settings)

    def close(self) -> None:
        """Before the servers stop; else the clients would tell at length that they are gone."""
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
        """The same with their end offsets."""
        found = []
        for partition in partitions:
            marks: Any = self._consumer.get_watermark_offsets(partition, timeout=30)
            found.append(TopicPartition(partition.topic, partition.partition, marks[1]))
        return found

    def records(self, partitions: Sequence[TopicPartition]) -> int:
        """How many records were ever written to them."""
        return sum(partition.offset for partition in self.ends(partitions))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request to Elasticsearch; its answer, None when there is no such thing."""
        headers = {"content-type": "application/json"}
        data = orjson.dumps(body) if body is not None else None
        answer = self.elasticsearch.request(method, self.stack.elasticsearch + path, body=data, headers=headers)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Failed(f"{method} {path}: {answer.status} {answer.data[:500]!r}")
        return orjson.loads(answer.data)

    def documents(self, index: str) -> int:
        """How many there are, as of now."""
        self.ask("POST", f"/{index}/_refresh")
        return int(self.ask("GET", f"/{index}/_count")["count"])

    def no_dead_letters(self) -> None:
        """Raises Failed if the syncer refused anything since the last reset."""
        topics = [t for t in self._admin.list_topics(timeout=30).topics if t.endswith(".dlq")]
        if letters := self.records(self.partitions(topics)):
            raise Failed(f"{letters} dead letters in {', '.join(topics)}")


@contextmanager
def opened(sizes: Sizes, say: Any) -> Iterator[Arena]:
    """Start the servers, fill the shop, apply the connector; everything is gone at the end."""
    home = ROOT / f".devstack-bench-{os.getpid()}"
    stack = devstack.start(home, ephemeral=True, echo=say)
    arena = Arena(stack, sizes)
    try:
        began = time.monotonic()
        arena.make_shop()
        say(f"the shop has {sizes.orders:,} orders ({time.monotonic() - began:.1f} s)")
        arena.syncer("connectors", "apply", "--yes")
        yield arena
    finally:
        arena.close()
        for log in home.glob("*.log"):
            log.unlink()
        stack.remove()


def tail(log: Path, characters: int = 3000) -> str:
    return log.read_text(errors="replace")[-characters:]


def versions(arena: Arena) -> Mapping[str, str]:
    """Of the servers, as they say themselves, and of the connector."""
    from devstack import downloads

    return {**arena.stack.versions(), "debezium": downloads.pins()["debezium"]}
