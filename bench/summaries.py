"""Measures the second read model, a summary for each customer in Redis. It has fewer measurements than orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson
import redis

from bench import backfill, limits, streaming
from bench.arena import Arena, Failed
from bench.daemon import following
from bench.report import Figure, Report

STEP = "summaries"
MODEL = "customer_summaries"


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    arena.reset()
    loaded, count = arena.loaded(MODEL), arena.scalar("SELECT count(*) FROM customers")
    rendered = limits.rendering(arena, loaded, limits.ranges(arena, loaded), echo)
    with redis.from_url(arena.stack.redis) as client:

        def written() -> int:
            # Each document has a second key for its version, and the sink has a few keys of metadata.
            return min(int(client.dbsize()) // 2, count)

        def in_sync(ids: Sequence[str]) -> bool:
            found = client.mget([f"customer:{id}:summary" for id in ids])
            expected = streaming.rendered(arena, loaded, ids)
            return [text and orjson.loads(text) for text in found] == [expected[id] for id in ids]

        timed = []
        for _ in range(arena.sizes.repetitions):
            arena.reset()
            arena.settle()
            timed.append(backfill.run(arena, MODEL, count, written))
            echo(f"backfill: {timed[-1].rate:,.0f} documents/s; {timed[-1].spent}")
        report.add(
            Figure(STEP, "PostgreSQL renders (R)", rendered, "documents/s"),
            Figure(
                STEP,
                f"backfill of {count:,} summaries",
                [t.rate for t in timed],
                "documents/s",
                "R",
                sorted(rendered)[len(rendered) // 2],
            ),
            timed[-1].spent.figure(STEP, "backfill: CPU of all processes, whole command"),
        )
        with following(arena, MODEL) as daemon:
            load = _load(arena)
            runs = [streaming.run(arena, daemon, load, in_sync) for _ in range(arena.sizes.repetitions)]
            streaming.add(report, STEP, f"{load.events:,} updated orders", load, runs)
            arena.no_dead_letters()
            arena.syncer("verify", MODEL)


def _load(arena: Arena) -> streaming.Load:
    """Changes the status of many orders. Summaries include drafts."""
    rows = arena.sql("SELECT id, customer_id FROM orders ORDER BY id LIMIT %s", arena.sizes.roots)
    last = {str(customer): order for order, customer in rows}
    if not last:
        raise Failed("there are no orders")
    statement = (
        "UPDATE orders SET status = CASE status WHEN 'paid' THEN 'shipped' ELSE 'paid' END::order_status"
        f" WHERE id <= {rows[-1][0]}"
    )
    return streaming.Load(statement, "orders", len(rows), sorted(last, key=lambda customer: last[customer]))
