"""Measures a large transaction, from its commit until every sink has acknowledged it.

It also measures the limit of the servers: Debezium alone writes D events per second to Kafka. If a document needs k
events, and all servers share the cores, the document takes at least k/D + 1/R + 1/U. `limits.py` measures R and U.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import orjson
import psycopg

from bench import limits, machine
from bench.arena import Arena, Failed
from bench.daemon import Daemon, Shares, Spent, following, wait
from bench.report import Figure, Report
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry.loader import LoadedModel

STEP = "streaming"
PROTOTYPE = 16_000.0
"""Documents per second of an early prototype on two cores (16,000 to 19,000)."""
_COMPARED = 50
"""The number of last changed documents that are compared. They come from all partitions."""


@dataclass(frozen=True, slots=True)
class Load:
    """One statement and its effect. ids: the changed roots, without duplicates, in the order of their events."""

    statement: str
    table: str
    events: int
    ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class ChunkedQuery:
    """The measurements of one load.

    seconds: from the commit until all sinks acknowledged it.
    in_kafka: seconds from the commit until all events were in Kafka.
    """

    seconds: float
    in_kafka: float
    cpu: float
    rendered: int
    spent: Spent


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    loaded = arena.loaded("orders")
    loads = (("roots", roots(arena)), ("children", children(arena)))
    alone = {}
    for what, load in loads:
        echo(f"{what}: Debezium alone")
        alone[what] = limits.steady(arena, partial(delivered, arena, load), echo)
    with following(arena, "orders") as daemon:
        documents = _Elasticsearch(arena, loaded)
        for what, load in loads:
            limits.warm_up(arena, partial(rate, arena, daemon, load, documents), echo)
            machine.reset_peak(daemon.pid)
            runs = []
            for _ in range(arena.sizes.repetitions):
                runs.append(run(arena, daemon, load, documents))
                echo(f"{what}: {len(load.ids) / runs[-1].seconds:,.0f} documents/s; {runs[-1].spent}")
            report.add(Figure(STEP, f"{load.events:,} updated {what}: Debezium alone (D)", alone[what], "events/s"))
            limit = combined(report, load, median(alone[what]))
            add(report, STEP, f"{load.events:,} updated {what}", load, runs, limit)
            rates = [len(load.ids) / r.seconds for r in runs]
            compared = f"{what}: compared with a prototype on another machine"
            report.add(Figure(STEP, compared, rates, "documents/s", "prototype", PROTOTYPE, "≥ 1.0"))
            report.add(_memory(daemon, what))
        arena.no_dead_letters()
        arena.syncer("verify", "orders")


def roots(arena: Arena) -> Load:
    """Updates a column of orders."""
    ids = arena.sql("SELECT id FROM orders WHERE status <> 'draft' ORDER BY id LIMIT %s", arena.sizes.roots)
    statement = (
        f"UPDATE orders SET note = 'changed at ' || clock_timestamp() WHERE status <> 'draft' AND id <= {ids[-1][0]}"
    )
    return Load(statement, "orders", len(ids), [str(id) for (id,) in ids])


def children(arena: Arena) -> Load:
    """Updates a column of order items. The document of an order has several items."""
    rows = arena.sql(
        "SELECT i.order_id, i.line FROM order_items i JOIN orders o ON o.id = i.order_id"
        " WHERE o.status <> 'draft' ORDER BY i.order_id, i.line LIMIT %s",
        arena.sizes.children,
    )
    order, line = rows[-1]
    statement = (
        "UPDATE order_items i SET quantity = 1 + quantity % 4 FROM orders o"
        f" WHERE o.id = i.order_id AND o.status <> 'draft' AND (i.order_id, i.line) <= ({order}, {line})"
    )
    return Load(statement, "order_items", len(rows), [str(id) for id in dict.fromkeys(o for o, _ in rows)])


def combined(report: Report, load: Load, delivered: float) -> float:
    """Returns the limit in documents per second, if Debezium, PostgreSQL and Elasticsearch share the cores.

    Returns 0 if the limits were not measured.
    """
    rendered, taken = (report.value(limits.STEP, name) for name in (limits.R, limits.U))
    if not rendered or not taken:
        return 0.0
    return 1 / (load.events / len(load.ids) / delivered + 1 / rendered + 1 / taken)


def delivered(arena: Arena, load: Load) -> float:
    """Returns events per second, from the commit until all events are in Kafka."""
    topics = arena.partitions([f"shop.public.{load.table}"])
    goal = arena.records(topics) + load.events
    arena.sql(load.statement)
    committed = time.monotonic()
    return load.events / (wait(lambda: arena.records(topics) >= goal, "all events are in Kafka") - committed)


def run(arena: Arena, daemon: Daemon, load: Load, in_sync: Callable[[Sequence[str]], bool]) -> ChunkedQuery:
    """Runs a load and measures it. in_sync: returns whether the sink has the expected documents for these ids."""
    arena.settle()
    topics = arena.partitions([f"shop.public.{load.table}"])
    goal = arena.records(topics) + load.events
    written = daemon.count("syncer_documents_total")
    shares, cpu = Shares(arena, daemon.pid), machine.cpu_seconds(daemon.pid)
    with psycopg.connect(arena.dsn, autocommit=True) as connection:
        changed = connection.execute(load.statement.encode()).rowcount
        committed = time.monotonic()
    if changed != load.events:
        raise Failed(f"{changed} rows were updated instead of {load.events}")
    in_kafka = wait(lambda: arena.records(topics) >= goal, "all events are in Kafka")
    last = load.ids[-_COMPARED:]
    done = wait(lambda: daemon.idle() and in_sync(last), "all documents are in the sink")
    cpu, spent = machine.cpu_seconds(daemon.pid) - cpu, shares.spent(len(load.ids))
    rendered = round(daemon.count("syncer_documents_total") - written)
    if rendered < len(load.ids):
        raise Failed(f"{rendered} documents were written, although {len(load.ids)} changed")
    return ChunkedQuery(done - committed, in_kafka - committed, cpu, rendered, spent)


def rate(arena: Arena, daemon: Daemon, load: Load, in_sync: Callable[[Sequence[str]], bool]) -> float:
    """Returns the documents per second of one run."""
    return len(load.ids) / run(arena, daemon, load, in_sync).seconds


def add(report: Report, step: str, what: str, load: Load, runs: Sequence[ChunkedQuery], limit: float = 0.0) -> None:
    """Adds the figures of one load. limit: the highest possible documents per second, or 0 if unknown."""
    documents, events = len(load.ids), load.events
    more = runs[-1].rendered / documents
    note = f"{documents:,} documents, each written {more:.2f} times"
    report.add(
        Figure(
            step,
            what,
            [documents / r.seconds for r in runs],
            "documents/s",
            "limits, sharing the cores: 1 / (k/D + 1/R + 1/U)" if limit else "",
            limit,
            "",
            note,
        ),
        Figure(
            step,
            f"{what}: events",
            [events / r.seconds for r in runs],
            "events/s",
            "until all events are in Kafka",
            events / sorted(r.in_kafka for r in runs)[len(runs) // 2],
        ),
        Figure(step, f"{what}: commit to last document", [r.seconds for r in runs], "s"),
        Figure(step, f"{what}: CPU of the syncer", [r.cpu * 1e6 / events for r in runs], "µs/event"),
        Figure(step, f"{what}: CPU of the syncer", [r.cpu * 1e6 / documents for r in runs], "µs/document"),
        runs[-1].spent.figure(step, f"{what}: CPU of all processes"),
    )


def _memory(daemon: Daemon, what: str) -> Figure:
    peak = machine.peak_bytes(daemon.pid) / 2**20
    return Figure(STEP, f"{what}: peak memory of the syncer", [peak], "MiB")


class _Elasticsearch:
    """Compares documents in Elasticsearch with those that PostgreSQL renders now."""

    def __init__(self, arena: Arena, loaded: LoadedModel) -> None:
        self._arena, self._loaded = arena, loaded

    def __call__(self, ids: Sequence[str]) -> bool:
        found = self._arena.request("POST", "/orders/_mget", {"ids": list(ids)})
        return {doc["_id"]: doc.get("_source") for doc in found["docs"]} == rendered(self._arena, self._loaded, ids)


def rendered(arena: Arena, loaded: LoadedModel, ids: Sequence[str]) -> dict[str, Any]:
    """Renders the expected documents, and parses them."""
    return {id: body and orjson.loads(body) for id, body in bodies(arena, loaded, ids).items()}


def bodies(arena: Arena, loaded: LoadedModel, ids: Sequence[str]) -> dict[str, bytes | None]:
    """Renders the expected documents as JSON text. None: there is none."""
    rows = SnapshotReader(arena.config.postgres.arguments(), loaded.compiled)
    try:
        with rows.view() as view:
            return {row.asked: row.body for row in view.render([(i,) for i in ids])}
    finally:
        rows.close()
