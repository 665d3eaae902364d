"""Measures the read models of the example `devices`: a backfill, and readings of 1,000 devices at two rates.

The goal is for 10,000 readings a second. If the cores cannot do that, the lower rate shows the staleness without a
backlog.

`demo/readings.py` is the application. One device sends 40 % of the readings. For every commit, and for some devices,
the time runs until the store shows the newest reading of the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from bench import machine, tables
from bench.arena import ROOT, Arena, Failed, tail
from bench.daemon import Shares, running, wait
from bench.latency import percentile
from bench.report import Figure, Report
from demo import staleness
from demo.readings import HOT

STEP = "telemetry"
DEVICES, RATES = 1000, (10_000, 2_000)
_HOURS_PER_MILLION = 72
"""The time that a million readings of the backfill cover."""
_WATCHED = [HOT, *range(50, DEVICES + 1, 50)]
_FOLDER = ROOT / "readmodels" / "devices"
_GOAL = 1.0
"""Seconds: the p99 of the staleness."""
_POLL_INTERVAL = 0.02

Commits = Sequence[tuple[float, Mapping[str, int]]]
Read = Callable[[Sequence[str]], Sequence[staleness.Document | None]]


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    count = arena.sizes.readings
    hours = max(3, count * _HOURS_PER_MILLION // 1_000_000)
    fill = tables.run_script(_FOLDER / "rows.sql", devices=DEVICES, readings=count, hours=hours)
    with tables.added(arena, _FOLDER / "schema.sql", fill, _FOLDER):
        for model in ("device_totals", "device_hours"):
            took, peak = _backfill(arena, model)
            echo(f"backfill of {model}: {count:,} readings in {took:.1f} s")
            documents = arena.scalar(_COUNTS[model])
            note = f"{took:.1f} s for {documents:,} documents; peak memory of the syncer {peak / 2**20:.0f} MiB"
            report.add(
                Figure(STEP, f"backfill of {model}, {count:,} readings", [count / took], "readings/s", note=note)
            )
            for rate in RATES:
                _stream(arena, report, echo, model, rate)


_COUNTS = {
    "device_totals": "SELECT count(*) FROM devices",
    "device_hours": "SELECT count(*) FROM"
    " (SELECT 1 FROM readings GROUP BY device_id, date_trunc('hour', taken_at, 'UTC')) groups",
}


def _backfill(arena: Arena, model: str) -> tuple[float, int]:
    """Runs `syncer backfill`. Returns the seconds of the whole command, and its peak memory in bytes."""
    arena.reset()
    arena.settle()
    log, began, peak = arena.log(f"backfill-{model}"), time.monotonic(), 0
    process = arena.popen("backfill", model, log=log)
    while process.poll() is None:
        peak = max(peak, machine.peak_bytes(process.pid))
        time.sleep(_POLL_INTERVAL)
    if process.returncode:
        raise Failed(f"syncer backfill {model} failed. Its output:\n{tail(log)}")
    return time.monotonic() - began, peak


def _stream(arena: Arena, report: Report, echo: Callable[[str], None], model: str, rate: int) -> None:
    with running(arena, model) as daemon, redis.from_url(arena.stack.redis) as client:
        ids, read = _reader(arena, client, model)
        shares, cpu = Shares(arena, daemon.pid), machine.cpu_seconds(daemon.pid)
        with staleness.Newest(ids, read, _POLL_INTERVAL) as newest:
            sent = staleness.send(arena.dsn, DEVICES, rate, arena.sizes.write_seconds)
            commits: Commits = sent.by_device() if model == "device_totals" else sent.commits
            newest.wait(staleness.last(commits), 300)
        cpu, spent = machine.cpu_seconds(daemon.pid) - cpu, shares.spent(sent.readings)
        wait(daemon.idle, "the daemon is idle")
        late = staleness.ages(commits, newest.seen)
        arena.no_dead_letters()
        arena.syncer("verify", model)
    reached, generator = sent.readings / sent.seconds, sent.cpu_seconds / sent.seconds
    what = f"{model} at {rate:,} readings/s"
    echo(f"{what}: reached {reached:,.0f}, staleness p50 {percentile(late, 50):.2f} s; {spent}")
    note = f"{len(late):,} samples of {len(ids)} documents; reached {reached:,.0f} readings/s"
    note += f"; generator {generator:.0%} of a core"
    report.add(
        Figure(STEP, f"{what}, commit to GET, p50", [percentile(late, 50)], "s", note=note),
        Figure(STEP, f"{what}, commit to GET, p99", [percentile(late, 99)], "s", "goal", _GOAL, "≤ 1.0"),
        Figure(STEP, f"{what}: CPU of the syncer", [cpu * 1e6 / sent.readings], "µs/reading"),
        Figure(STEP, f"{what}: CPU of all processes", [sum(spent.by.values())], "µs/reading", note=spent.describe()),
    )


def _reader(arena: Arena, client: Any, model: str) -> tuple[list[str], Read]:
    """Returns the ids of the watched documents, and a function that reads them."""
    if model == "device_totals":
        return [str(device) for device in _WATCHED], staleness.totals(client)
    now = datetime.now(UTC)
    hours = [f"{hour:%Y-%m-%d %H}:00:00+00" for hour in (now, now + timedelta(hours=1))]  # the run may cross an hour
    return [f"{device}|{hour}" for device in _WATCHED for hour in hours], lambda ids: _documents(arena, ids)


def _documents(arena: Arena, ids: Sequence[str]) -> list[staleness.Document | None]:
    found = arena.request("POST", "/device_hours/_mget?_source=newest", {"ids": list(ids)})
    return [document.get("_source") for document in found["docs"]]
