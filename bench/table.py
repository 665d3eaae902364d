"""Measures the order history in a table of PostgreSQL, against what a database does alone.

The limits run on the server of the shop, with one session each:

    INSERT … SELECT                               the same rows and indexes, from the tables of the shop
    REFRESH MATERIALIZED VIEW CONCURRENTLY        a view of the same rows, after the same update
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial

import psycopg

from bench import backfill, limits, machine, streaming
from bench.arena import ROOT, Arena, Failed
from bench.daemon import following
from bench.report import Figure, Report
from syncer.document import Batch
from syncer.operations.comparison import same
from syncer.ports import Sink
from syncer.registry import loader
from syncer.registry.loader import LoadedModel

STEP = "table"
MODEL = "user_order_summaries"
INSERT = "INSERT … SELECT of the same rows"
REFRESH = "REFRESH MATERIALIZED VIEW CONCURRENTLY"
_ROWS = """
SELECT o.id::text AS _id, 1::bigint AS _version, NULL::timestamptz AS _deleted_at, o.customer_id AS user_id,
       o.id AS order_id, o.placed_at, o.status::text AS status, t.total, t.item_count, t.first_item_name
  FROM public.orders o CROSS JOIN LATERAL (
       SELECT sum(i.quantity * i.unit_price)::numeric(12,2) AS total, count(*) AS item_count,
              (array_agg(p.name ORDER BY i.line))[1] AS first_item_name
         FROM public.order_items i JOIN public.products p ON p.id = i.product_id WHERE i.order_id = o.id) t
 WHERE o.status <> 'draft'"""
_SETUP = f"""
DROP SCHEMA IF EXISTS alone CASCADE;
CREATE SCHEMA alone;
CREATE TABLE alone.history (_id text COLLATE "C" PRIMARY KEY, _version bigint NOT NULL, _deleted_at timestamptz,
    user_id bigint, order_id bigint, placed_at timestamptz, status text, total numeric(12,2), item_count bigint,
    first_item_name text);
CREATE INDEX ON alone.history (user_id, placed_at DESC, order_id DESC) WHERE _deleted_at IS NULL;
CREATE MATERIALIZED VIEW alone.refreshed AS {_ROWS};
CREATE UNIQUE INDEX ON alone.refreshed (_id);
CREATE INDEX ON alone.refreshed (user_id, placed_at DESC, order_id DESC)"""
_FEW = 100


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    with _examples(arena):
        arena.reset()
        loaded = arena.loaded(MODEL)
        count = arena.scalar("SELECT count(*) FROM orders WHERE status <> 'draft'")
        for statement in _SETUP.split(";\n"):
            arena.sql(statement)
        inserted = limits.steady(arena, lambda: count / _insert(arena, count), echo)
        batches = list(limits.batches(arena, loaded, limits.ranges(arena, loaded)))
        alone = limits.steady(arena, lambda: count / _write(arena, loaded, batches, count), echo)
        limit = sorted(inserted)[len(inserted) // 2]
        report.add(
            Figure(STEP, INSERT, inserted, "documents/s", note="one session"),
            Figure(STEP, "the sink alone", alone, "documents/s", INSERT, limit, "", f"{machine.cores()} sessions"),
        )
        _backfill(arena, report, echo, count, limit)
        _streaming(arena, report, echo, loaded, count)
        arena.sql("DROP SCHEMA alone CASCADE")
        arena.reset()


def _backfill(arena: Arena, report: Report, echo: Callable[[str], None], count: int, limit: float) -> None:
    with psycopg.connect(arena.reads, autocommit=True) as connection:

        def written() -> int:
            table = f"read.{MODEL}_000001"
            if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
                return 0
            row = connection.execute(f"SELECT count(*) FROM {table} WHERE _deleted_at IS NULL".encode()).fetchone()
            return int(row[0]) if row else 0

        timed = []
        for _ in range(arena.sizes.repetitions):
            arena.reset()
            arena.settle()
            timed.append(backfill.run(arena, MODEL, count, written))
            echo(f"backfill: {timed[-1].rate:,.0f} documents/s; {timed[-1].spent}")
    what = f"backfill of {count:,} orders"
    report.add(
        Figure(STEP, what, [one.rate for one in timed], "documents/s", INSERT, limit),
        timed[-1].spent.figure(STEP, "backfill: CPU of all processes, whole command"),
    )


def _streaming(arena: Arena, report: Report, echo: Callable[[str], None], loaded: LoadedModel, count: int) -> None:
    few, many = _load(arena, _FEW), _load(arena, arena.sizes.roots)
    refreshed = {len(load.ids): _refreshed(arena, load, echo) for load in (few, many)}
    with following(arena, MODEL) as daemon, closing(_sink(arena, loaded)) as sink:
        in_sync = partial(_in_sync, arena, loaded, sink)
        for load in (few, many):
            runs = [streaming.run(arena, daemon, load, in_sync) for _ in range(arena.sizes.repetitions)]
            what = f"{load.events:,} updated orders"
            streaming.add(report, STEP, what, load, runs)
            seconds, whole = [run.seconds for run in runs], sorted(refreshed[len(load.ids)])
            note = f"both with {count:,} rows"
            report.add(
                Figure(STEP, f"{what}: commit to last row", seconds, "s", REFRESH, whole[len(whole) // 2], "", note),
            )
        arena.no_dead_letters()
        arena.syncer("verify", MODEL)


def _load(arena: Arena, count: int) -> streaming.Load:
    """Changes the status of orders, which the table shows."""
    ids = [id for (id,) in arena.sql("SELECT id FROM orders WHERE status <> 'draft' ORDER BY id LIMIT %s", count)]
    statement = (
        "UPDATE orders SET status = CASE status WHEN 'paid' THEN 'shipped' ELSE 'paid' END::order_status"
        f" WHERE status <> 'draft' AND id <= {ids[-1]}"
    )
    return streaming.Load(statement, "orders", len(ids), list(map(str, ids)))


def _insert(arena: Arena, count: int) -> float:
    arena.sql("TRUNCATE alone.history")
    began = time.monotonic()
    arena.sql(f"INSERT INTO alone.history {_ROWS}")
    seconds = time.monotonic() - began
    if (found := arena.scalar("SELECT count(*) FROM alone.history")) != count:
        raise Failed(f"INSERT … SELECT wrote {found} rows instead of {count}")
    return seconds


def _write(arena: Arena, loaded: LoadedModel, batches: Sequence[Batch], count: int) -> float:
    """Writes rendered documents to a new table, as the lanes of the syncer do. Returns the seconds."""
    arena.reset()
    with closing(_sink(arena, loaded)) as sink, ThreadPoolExecutor(machine.cores()) as pool:
        sink.prepare()
        began = time.monotonic()
        written = sum(outcome.written for outcome in pool.map(sink.write, batches))
        seconds = time.monotonic() - began
    if written != count:
        raise Failed(f"the sink wrote {written} documents instead of {count}")
    return seconds


def _refreshed(arena: Arena, load: streaming.Load, echo: Callable[[str], None]) -> list[float]:
    """Returns the seconds of each refresh after the update."""
    found = []
    for _ in range(arena.sizes.repetitions):
        arena.sql(load.statement)
        arena.settle()
        began = time.monotonic()
        arena.sql("REFRESH MATERIALIZED VIEW CONCURRENTLY alone.refreshed")
        found.append(time.monotonic() - began)
        echo(f"{REFRESH}: {found[-1]:.2f} s")
    return found


def _sink(arena: Arena, loaded: LoadedModel) -> Sink:
    [sink] = loader.build_sinks(arena.config, loaded, epoch=1, generation=1)
    return sink


def _in_sync(arena: Arena, loaded: LoadedModel, sink: Sink, ids: Sequence[str]) -> bool:
    found = sink.read(ids)
    wanted = streaming.bodies(arena, loaded, ids)
    return all(body is not None and same(sink.normalize(body), found.get(id)) for id, body in wanted.items())


@contextmanager
def _examples(arena: Arena) -> Iterator[None]:
    """Lets the syncer use the folder of the examples."""
    arena.settings["SYNCER_MODELS"] = str(ROOT / "readmodels" / "order_history")
    try:
        yield
    finally:
        del arena.settings["SYNCER_MODELS"]
