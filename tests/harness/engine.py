"""Runs the pipeline on a real PostgreSQL. Source, work queue and sink are in memory, so tests see every step."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from syncer.clock import Clock
from syncer.config.schema import load as load_config
from syncer.document import Batch, Outcome
from syncer.events import Position, TableName, WorkItem
from syncer.pipeline.decode import encode_item
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.ports import Record, Sink
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.harness import Database
from tests.harness.memory_sink import Connection, MemorySink, Settings, Store

SCHEMA = """
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL, note text NOT NULL DEFAULT '');
CREATE INDEX ON orders (customer_id);
ALTER TABLE customers REPLICA IDENTITY FULL;
ALTER TABLE orders REPLICA IDENTITY FULL;
INSERT INTO customers VALUES (1, 'Ada'), (2, 'Grace')"""
ORDERS = """
name: orders
root: {table: public.orders}
document: {note: note, customer: {one: public.customers, on: {id: customer_id}, value: name}}
sink: {memory: {}}
"""
EXPECTED = """
SELECT o.id::text, json_build_object('note', o.note, 'customer', c.name)
  FROM orders o LEFT JOIN customers c ON c.id = o.customer_id"""


class MemoryTopic:
    """Implements `ports.Source` with one partition in memory.

    at: the offset of the next record. committed: the offset that the group has committed.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.records: list[Record] = []
        self.at = self.committed = self.heartbeats = 0

    def add(self, value: bytes) -> None:
        self.records.append(Record(Position(self.topic, 0, len(self.records)), b"", value))

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        found = self.records[self.at : self.at + max_records]
        self.at += len(found)
        return found

    def commit(self, next_offsets: Mapping[tuple[str, int], int], *, wait: bool) -> None:
        self.committed = next_offsets.get((self.topic, 0), self.committed)

    def heartbeat(self) -> None:
        self.heartbeats += 1

    def progress(self) -> dict[tuple[str, int], tuple[int, int]]:
        return {(self.topic, 0): (self.at, len(self.records))}

    def close(self) -> None:
        """Rewinds to the committed offset, where the next consumer begins."""
        self.at = self.committed


class MemoryWorkQueue(MemoryTopic):
    """Implements `ports.WorkTopic`, and the source of the lane that reads it."""

    def put(self, item: WorkItem) -> None:
        self.add(encode_item(item))

    def flush(self) -> None:
        """Does nothing: every record is written immediately."""


class MemoryDeadLetters:
    """Implements `ports.DeadLetters` in memory.

    written: ids and positions of all dead letters so far. open: the version of each document that is still rejected.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.open: dict[str, int] = {}

    def document(self, id: str, version: int, reason: str) -> None:
        self.written.append(id)
        self.open[id] = max(version, self.open.get(id, 0))

    def record(self, record: Record, reason: str) -> None:
        self.written.append(str(record.position))

    def accepted(self, ids: Iterable[str], version: int) -> None:
        self.accepted_partials((id, version) for id in ids)

    def accepted_partials(self, versions: Iterable[tuple[str, int]]) -> None:
        for id, version in versions:
            if self.open.get(id, version + 1) <= version:
                del self.open[id]

    def flush(self) -> None:
        """Does nothing: every record is written immediately."""


class RecordingSink(MemorySink):
    """Records every batch. `on_write` may return another outcome than the memory sink."""

    def __init__(self, store: Store, model: Any) -> None:
        super().__init__(Settings(), Connection(), model=model, store=store)
        self.batches: list[Batch] = []
        self.on_write: Callable[[Batch], Outcome | None] = lambda batch: None

    def write(self, batch: Batch, timeout: float = 30.0) -> Outcome:
        self.batches.append(batch)
        return self.on_write(batch) or super().write(batch, timeout)


class Engine:
    """Holds one read model and the objects that its lanes need. Tests add the events, with real transaction ids."""

    def __init__(self, database: Database, folder: Path, declaration: str = ORDERS) -> None:
        self.database, self.folder = database, folder
        (folder / "models").mkdir(parents=True)
        (folder / "models" / "model.yaml").write_text(declaration)
        self.config = load_config(
            environ={
                "SYNCER_MODELS": str(folder / "models"),
                "SYNCER_POSTGRES__DSN": database.dsn,
                "SYNCER_KAFKA__BOOTSTRAP_SERVERS": "nowhere:1",
                "SYNCER_KAFKA__TOPIC_PREFIX": "here",
            }
        )
        self.compiled = loader.load_model(self.config, loader.load_declared(self.config)[0]).compiled
        self.changes, self.work, self.dead_letters = MemoryTopic("here"), MemoryWorkQueue("work"), MemoryDeadLetters()
        self.store = Store()
        self.sink = RecordingSink(self.store, self.compiled)
        self.sink.prepare()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry).for_model("orders")
        self.clock = Clock(1)
        self.stop = threading.Event()
        self.opened: list[SnapshotReader] = []

    def rows(self, **arguments: Any) -> SnapshotReader:
        """Opens a snapshot reader. arguments: override the connection arguments of the configuration."""
        self.opened.append(SnapshotReader(self.config.postgres.arguments() | arguments, self.compiled))
        return self.opened[-1]

    def lane(
        self,
        source: MemoryTopic | None = None,
        sinks: Sequence[Sink] = (),
        *,
        topic_of: Callable[[TableName], str] = str,
        **limits: Any,
    ) -> Lane:
        """Builds a lane. Its source is `changes` by default. limits: override those of `Limits`."""
        source = source or self.changes
        return Lane(
            self.compiled,
            source,
            self.rows(),
            sinks or [self.sink],
            clock=self.clock,
            work=self.work,
            dead_letters=self.dead_letters,
            observer=LaneObserver("changes" if source is self.changes else "work", self.metrics),
            limits=Limits(**{"commit_interval": 0.0, "gate_timeout": 0.2, **limits}),
            stop=self.stop,
            topic_of=topic_of,
        )

    @contextmanager
    def running(self, lane: Lane) -> Iterator[list[BaseException]]:
        """Runs a lane in a thread and stops it at the end. Yields a list, which gets the error of the lane."""
        ended: list[BaseException] = []

        def run() -> None:
            try:
                lane.run()
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield ended
        finally:
            self.stop.set()
            thread.join(20)
            assert not thread.is_alive()
            self.stop.clear()

    def drain(self, *lanes: Lane) -> None:
        """Steps each lane until its source has no more records and its writer is idle."""
        for lane in lanes:
            source: Any = lane.source
            while source.at < len(source.records) or lane.writer.busy:
                lane.step()
            lane.step()

    def execute(self, *statements: str) -> int:
        """Runs statements in one transaction. Returns the transaction id."""
        with self.database.connect(autocommit=False) as session:
            for statement in statements:
                session.execute(statement.encode())
            row = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row
        return int(row[0])

    def add_event(self, txid: int | None, table: str, op: str = "u", **images: Any) -> None:
        """Adds an event in the format of Debezium. images: `before` and `after`."""
        source = {"schema": "public", "table": table, "txId": txid, "ts_ms": 1}
        event = {"op": op, "before": images.get("before"), "after": images.get("after"), "source": source}
        self.changes.add(json.dumps(event).encode())

    def close(self) -> None:
        for rows in self.opened:
            rows.close()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"model": "orders", **labels})

    def documents(self) -> dict[str, Any]:
        return {id: json.loads(body) for id, body in self.sink.read(list(self.sink.ids())).items()}

    def expected(self) -> dict[str, Any]:
        return dict(self.database.query(EXPECTED))
