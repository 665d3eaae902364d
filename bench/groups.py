"""Measures one changed row in groups of 1,000 to a million rows, with partials and without.

The same totals of a device are declared twice: combined from partials, and as aggregates over the whole relation. A
reading is updated, and the time runs from its commit until `GET` returns the new total. The statement that renders it
is measured alone, too: with partials it reads one bucket, without them the whole group.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from statistics import median
from typing import Any

import psycopg
import redis

from bench import tables
from bench.arena import ROOT, Arena, Failed
from bench.daemon import following
from bench.latency import percentile
from bench.report import Figure, Report
from syncer.postgres.snapshot_reader import SnapshotReader

STEP = "groups"
GROUPS = {1: 1_000, 2: 10_000, 3: 100_000, 4: 1_000_000}
"""The number of readings of each device."""
_SMALL, _LARGE = 2, 4
"""The groups that the goal compares."""
_GOAL = "≤ 1.5"
_BUCKET = 5000
_TIMEOUT = 60.0
_POLL_INTERVAL = 0.001
_READ_MODEL = """
name: {name}
root: {{table: public.devices}}
relations:
  readings: {{many: public.readings, on: {{device_id: id}}{partials}}}
document:
  device: name
  readings: count(readings)
  errors: count(readings.error)
  total: sum(readings.temperature)
  average: avg(readings.temperature)
  highest: max(readings.temperature)
sink:
  redis: {{key: "{name}:{{id}}"}}
"""
_MODELS = {
    name: _READ_MODEL.format(name=name, partials=partials)
    for name, partials in (("partials", f", partials: {{by: number, size: {_BUCKET}}}"), ("whole_groups", ""))
}
_WHAT = {"partials": "with partials", "whole_groups": "without partials"}


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    with tables.added(arena, ROOT / "readmodels" / "devices" / "schema.sql", _fill, _MODELS):
        for model in _MODELS:
            rendered, seen = _measure_model(arena, model)
            for what, times in (("PostgreSQL renders", rendered), ("commit to GET", seen)):
                for device, size in GROUPS.items():
                    compared = model == "partials" and device == _LARGE
                    report.add(
                        Figure(
                            STEP,
                            f"{what}, one row of {size:,}, {_WHAT[model]}",
                            [seconds * 1000 for seconds in times[device]],
                            "ms",
                            f"one row of {GROUPS[_SMALL]:,}" if compared else "",
                            median(times[_SMALL]) * 1000 if compared else 0.0,
                            _GOAL if compared else "",
                        )
                    )
                echo(f"{what}, {_WHAT[model]}: " + ", ".join(_describe(size, times[d]) for d, size in GROUPS.items()))


def _fill(connection: psycopg.Connection[Any]) -> None:
    for device, size in GROUPS.items():
        connection.execute("INSERT INTO devices VALUES (%s, 'Device ' || %s, 'Berlin')", (device, device))
        connection.execute(
            "INSERT INTO readings SELECT %s, n, timestamptz '2026-01-01 00:00+00' + n * interval '1 second',"
            " 10 + n %% 1000 / 100.0, CASE WHEN n %% 50 = 0 THEN 'no answer' END FROM generate_series(1, %s) n",
            (device, size),
        )


def _measure_model(arena: Arena, model: str) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Returns the seconds of each render and of each change, by device."""
    rendered: dict[int, list[float]] = {device: [] for device in GROUPS}
    seen: dict[int, list[float]] = {device: [] for device in GROUPS}
    chosen = random.Random(1)
    with (
        following(arena, model),
        redis.from_url(arena.stack.redis) as client,
        psycopg.connect(arena.dsn, autocommit=True) as connection,
        closing(SnapshotReader(arena.config.postgres.arguments(), arena.loaded(model).compiled.rendered)) as reader,
    ):
        for _, device in itertools.product(range(arena.sizes.single_changes), GROUPS):
            number = chosen.randint(1, GROUPS[device])
            seen[device].append(_change(connection, client, f"{model}:{device}", device, number))
            key = (str(device), str(number // _BUCKET)) if model == "partials" else (str(device),)
            with reader.view() as view:
                began = time.monotonic()
                [row] = view.render([key])
                rendered[device].append(time.monotonic() - began)
            if row.body is None:
                raise Failed(f"the partial {key} has no rows")
        arena.no_dead_letters()
        arena.syncer("verify", model)
    return rendered, seen


def _change(connection: psycopg.Connection[Any], client: Any, key: str, device: int, number: int) -> float:
    """Changes one reading. Returns the seconds from its commit until the document has the new total."""
    expected = _total(client, key) + 1
    connection.execute(
        "UPDATE readings SET temperature = temperature + 1 WHERE device_id = %s AND number = %s", (device, number)
    )
    committed = time.monotonic()
    while _total(client, key) != expected:
        if time.monotonic() > committed + _TIMEOUT:
            raise Failed(f"{key} does not have the total {expected} after {_TIMEOUT:g} s: {client.get(key)!r}")
        time.sleep(_POLL_INTERVAL)
    return time.monotonic() - committed


def _total(client: Any, key: str) -> Decimal:
    return Decimal(json.loads(client.get(key), parse_float=Decimal)["total"])


def _describe(size: int, seconds: list[float]) -> str:
    return f"{size:,} rows {median(seconds) * 1000:.1f} ms (p95 {percentile(seconds, 95) * 1000:.1f} ms)"
