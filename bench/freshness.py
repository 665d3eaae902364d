"""Measures how long a caller waits for its own write, and the cost of the watermark.

An application writes at a steady rate (`client.py`). Meanwhile a caller updates an order, takes the token of its
transaction, and asks the daemon: to wait, to wait until searches find it, or to refresh the order. It sends the next
request when it has the answer.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import orjson
import psycopg

from bench import machine
from bench.arena import ROOT, Arena, Failed
from bench.daemon import Daemon, following, wait
from bench.latency import RATE, percentile
from bench.report import Figure, Report

STEP = "freshness"
_IDLE_SECONDS = 10.0
_GOALS = {"wait": (250.0, 1000.0), "wait, searchable": (0.0, 0.0), "refresh": (15.0, 50.0)}
"""Milliseconds: the goals for p50 and p99. 0: none."""


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    _cost(arena, report, echo)
    with following(arena, "orders") as daemon:
        wait(lambda: _staleness(daemon) is not None, "the daemon has a watermark")
        for name, call in (("wait", _wait), ("wait, searchable", _wait_searchable), ("refresh", _refresh)):
            seen = _under_load(arena, daemon, call)
            echo(f"{name}: {len(seen)} answers, p50 {percentile(seen, 50) * 1000:.0f} ms")
            for percent, goal in zip((50, 99), _GOALS[name], strict=True):
                value = percentile(seen, percent) * 1000
                compared = ("goal", goal, "≤ 1.0") if goal else ("", 0.0, "")
                what = f"{name} at {RATE:.0f} writes/s, p{percent}"
                report.add(Figure(STEP, what, [value], "ms", *compared, f"{len(seen)} answers"))


def _cost(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    """Compares the CPU of a daemon with one snapshot for the watermark a second, and with one an hour."""
    cpu: dict[str, dict[str, float]] = {}
    for every, interval in (("hour", "3600"), ("second", "1")):
        arena.settings = {"SYNCER_FRESHNESS__INTERVAL": interval}
        try:
            with following(arena, "orders") as daemon:
                idle = _cpu(daemon, lambda: time.sleep(_IDLE_SECONDS))  # the measurement itself: nothing is awaited
                cpu[every] = {"idle": idle, f"at {RATE:.0f} writes/s": _cpu(daemon, lambda: _writes(arena).wait())}
                wait(daemon.idle, "the daemon is idle")
        finally:
            arena.settings = {}
        echo(f"one watermark a {every}: CPU {cpu[every]}")
    for state, value in cpu["second"].items():
        what = f"CPU of a daemon, one watermark a second, {state}"
        report.add(Figure(STEP, what, [value], "% of a core", "one an hour", cpu["hour"][state]))


def _cpu(daemon: Daemon, use: Callable[[], object]) -> float:
    """Returns the daemon's CPU while `use` runs, in percent of a core."""
    before, began = machine.cpu_seconds(daemon.pid), time.monotonic()
    use()
    return (machine.cpu_seconds(daemon.pid) - before) / (time.monotonic() - began) * 100


def _writes(arena: Arena) -> subprocess.Popen[bytes]:
    """Starts the writing application."""
    options = {"dsn": arena.dsn, "rate": RATE, "seconds": arena.sizes.write_seconds, "every": 1 << 30}
    command = [sys.executable, "-m", "bench.client", *(f"--{name}={value}" for name, value in options.items())]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def _under_load(arena: Arena, daemon: Daemon, call: Callable[[Daemon, int, str], None]) -> list[float]:
    """Returns the seconds from the commit to the answer, of each request."""
    client = _writes(arena)
    seen: list[float] = []
    try:
        with psycopg.connect(arena.dsn) as connection:
            rows = connection.execute("SELECT id FROM orders WHERE status <> 'draft' ORDER BY id LIMIT 50").fetchall()
            connection.commit()
            while client.poll() is None:
                id = rows[len(seen) % len(rows)][0]
                connection.execute("UPDATE orders SET note = %s WHERE id = %s", (f"own {len(seen)}", id))
                [(xid,)] = connection.execute("SELECT pg_current_xact_id()::text").fetchall()
                connection.commit()
                committed = time.monotonic()
                call(daemon, id, f"x:{xid}")
                seen.append(time.monotonic() - committed)
    finally:
        if client.wait():
            raise Failed("the client failed")
    wait(daemon.idle, "the daemon is idle")
    return seen


def _wait(daemon: Daemon, id: int, token: str) -> None:
    daemon.get(f"/wait?model=orders&token={token}&timeout=30")


def _wait_searchable(daemon: Daemon, id: int, token: str) -> None:
    daemon.get(f"/wait?model=orders&token={token}&timeout=30&searchable=true")


def _refresh(daemon: Daemon, id: int, token: str) -> None:
    daemon.post("/models/orders/refresh", orjson.dumps({"keys": [str(id)], "token": token}))


def _staleness(daemon: Daemon) -> float | None:
    found: float | None = orjson.loads(daemon.get("/status?model=orders"))["staleness_seconds"]
    return found
