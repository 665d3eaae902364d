"""Measures one row that changes 1,000 times a second, with `min_interval` and without."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import psycopg
import redis

from bench import machine, tables
from bench.arena import Arena, Failed
from bench.daemon import following, wait
from bench.latency import percentile
from bench.report import Figure, Report

STEP = "hot"
RATE, PER_TRANSACTION = 1000, 10
"""Changes per second, and in one transaction."""
INTERVAL = 0.2
_SCHEMA = "CREATE TABLE public.counters (id bigint PRIMARY KEY, changes bigint NOT NULL)"
_MODELS = {
    name: f"name: {name}\nroot: {{table: public.counters}}\n{interval}document: {{changes: changes}}\n"
    f'sink:\n  redis: {{key: "{name}:{{id}}"}}\n'
    for name, interval in (("each_change", ""), ("seldom", f"min_interval: {INTERVAL * 1000:g}ms\n"))
}
_WHAT = {"each_change": "without min_interval", "seldom": f"min_interval {INTERVAL * 1000:g} ms"}


class Run(NamedTuple):
    """One run. writes: of the document. late: seconds from each change until `GET` returned it or a later one."""

    changes: int
    rate: float
    writes: float
    cpu: float
    """Seconds."""
    late: list[float]


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    runs = {}
    with tables.added(arena, _SCHEMA, lambda one: one.execute("INSERT INTO counters VALUES (1, 0)"), _MODELS):
        for model in _MODELS:
            runs[model] = run = _run(arena, model)
            echo(f"{_WHAT[model]}: {run.changes:,} changes at {run.rate:,.0f}/s, {run.writes:,.0f} writes")
    for model, run in runs.items():
        compared = model == "seldom"
        others = runs["each_change"]
        what, against = _WHAT[model], _WHAT["each_change"] if compared else ""
        report.add(
            Figure(
                STEP,
                f"writes to Redis, {what}",
                [run.writes * run.rate / run.changes],
                "writes/s",
                "one in an interval" if compared else "",
                1 / INTERVAL if compared else 0.0,
                "≤ 1.2" if compared else "",
                f"{run.changes:,} changes of one row at {run.rate:,.0f}/s; the last value arrived",
            ),
            Figure(
                STEP,
                f"CPU of the syncer, {what}",
                [run.cpu * 1e6 / run.changes],
                "µs/change",
                against,
                others.cpu * 1e6 / others.changes if compared else 0.0,
            ),
            Figure(STEP, f"change to GET, {what}, p99", [percentile(run.late, 99)], "s"),
        )


def _run(arena: Arena, model: str) -> Run:
    with (
        following(arena, model) as daemon,
        redis.from_url(arena.stack.redis) as client,
        psycopg.connect(arena.dsn, autocommit=True) as connection,
    ):
        written, cpu = daemon.count("syncer_documents_total"), machine.cpu_seconds(daemon.pid)
        [(before,)] = connection.execute("SELECT changes FROM counters").fetchall()
        committed, seen, began = list[float](), list[tuple[float, int]](), time.monotonic()
        while (now := time.monotonic()) < began + arena.sizes.write_seconds:
            with connection.pipeline(), connection.transaction():
                for _ in range(PER_TRANSACTION):
                    connection.execute("UPDATE counters SET changes = changes + 1 WHERE id = 1")
            committed.append(time.monotonic())
            seen.append((time.monotonic(), _value(client, model)))
            time.sleep(max(0.0, began + len(committed) * PER_TRANSACTION / RATE - time.monotonic()))
        rate = len(committed) * PER_TRANSACTION / (now - began)
        last = before + len(committed) * PER_TRANSACTION
        wait(lambda: _value(client, model) == last, f"{model}:1 has the last value {last}", 60)
        seen.append((time.monotonic(), last))
        wait(daemon.idle, "the daemon is idle")
        written = daemon.count("syncer_documents_total") - written
        cpu = machine.cpu_seconds(daemon.pid) - cpu
        arena.no_dead_letters()
        arena.syncer("verify", model)
    return Run(last - before, rate, written, cpu, _late(committed, seen, before))


def _late(committed: list[float], seen: list[tuple[float, int]], before: int) -> list[float]:
    late, position = [], 0
    for number, at in enumerate(committed, 1):
        while seen[position][1] < before + number * PER_TRANSACTION:
            position += 1
        late.append(max(0.0, seen[position][0] - at))
    return late


def _value(client: Any, model: str) -> int:
    text = client.get(f"{model}:1")
    if text is None:
        raise Failed(f"{model}:1 has no document")
    return int(orjson.loads(text)["changes"])
