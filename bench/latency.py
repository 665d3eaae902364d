"""Measures the latency of a write: from its commit in the client until a GET by id returns it.

The client (`client.py`) is a separate process. For a sample of its writes, this process sends a GET to Elasticsearch
every 2 ms. The sample is small, so that the requests do not take CPU time from the measured processes.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import urllib3

from bench import machine
from bench.arena import ROOT, Arena, Failed
from bench.daemon import Daemon, Shares, following, wait
from bench.report import Figure, Report

STEP = "latency"
RATE = 500.0
PROTOTYPE = 28.0
"""Milliseconds: the p50 of an early prototype on two cores. Its p95 was 36 ms."""
_SAMPLES_PER_SECOND = 10.0
_POLL_INTERVAL = 0.002
_READERS = 4
_PATIENCE = 10.0

Sample = tuple[int, str, float]


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    with following(arena, "orders") as daemon:
        _write(arena, arena.sizes.write_seconds / 4)
        wait(daemon.idle, "the daemon is idle")
        arena.settle()
        machine.reset_peak(daemon.pid)
        events, documents = _counts(daemon)
        shares, cpu = Shares(arena, daemon.pid), machine.cpu_seconds(daemon.pid)
        seen, rate = _write(arena, arena.sizes.write_seconds)
        wait(daemon.idle, "the daemon is idle")
        cpu = (machine.cpu_seconds(daemon.pid) - cpu) * 1e6
        events, documents = (now - before for now, before in zip(_counts(daemon), (events, documents), strict=True))
        spent = shares.spent(round(documents))
        peak = machine.peak_bytes(daemon.pid) / 2**20
        arena.no_dead_letters()
        arena.syncer("verify", "orders")
    echo(f"measured {len(seen)} writes at {rate:.0f} writes/s; {spent}")
    what = f"commit to GET by id at {RATE:.0f} writes/s"
    reference = {50: PROTOTYPE, 95: 36.0}
    for percent in (50, 95, 99):
        known = reference.get(percent, 0.0)
        report.add(
            Figure(
                STEP,
                f"{what}, p{percent}",
                [percentile(seen, percent) * 1000],
                "ms",
                "prototype" if known else "",
                known,
                "≤ 1.0" if known else "",
                f"{len(seen)} samples, {rate:.0f} writes/s" if percent == 50 else "",
            )
        )
    report.add(
        Figure(STEP, "CPU of the syncer", [cpu / events], "µs/event"),
        Figure(STEP, "CPU of the syncer", [cpu / documents], "µs/document"),
        spent.figure(STEP, "CPU of all processes"),
        Figure(STEP, "peak memory of the syncer", [peak], "MiB"),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest value that is not exceeded by the given percentage of all values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


def _counts(daemon: Daemon) -> tuple[float, float]:
    return daemon.count("syncer_events_total"), daemon.count("syncer_documents_total")


def _write(arena: Arena, seconds: float) -> tuple[list[float], float]:
    """Runs the client. Returns the latencies of the sample in seconds, and the achieved rate."""
    options = {"dsn": arena.dsn, "rate": RATE, "seconds": seconds, "every": round(RATE / _SAMPLES_PER_SECOND)}
    command = [
        sys.executable,
        "-m",
        "bench.client",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    client = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    waiting = queue.SimpleQueue[Sample | None]()
    seen: list[float] = []
    errors: list[BaseException] = []
    readers = [threading.Thread(target=_read, args=(arena, waiting, seen, errors)) for _ in range(_READERS)]
    for reader in readers:
        reader.start()
    last: Any = {}
    try:
        for line in client.stdout or ():
            last = orjson.loads(line)
            if isinstance(last, list):
                waiting.put((last[0], last[1], last[2]))
    finally:
        for _ in readers:
            waiting.put(None)
        for reader in readers:
            reader.join()
        if client.wait() or errors:
            raise errors[0] if errors else Failed("the client failed")
    rate = last["writes"] / last["seconds"]
    if rate < 0.95 * RATE:
        raise Failed(f"the client reached only {rate:.0f} of {RATE:.0f} writes/s. Stop other programs and run it again")
    return seen, rate


def _read(
    arena: Arena, waiting: queue.SimpleQueue[Sample | None], seen: list[float], errors: list[BaseException]
) -> None:
    """Takes writes from the queue, and polls each until Elasticsearch returns it. Runs in a thread."""
    host, port = arena.stack.server("elasticsearch").address.split(":")
    pool = urllib3.HTTPConnectionPool(host, int(port), timeout=_PATIENCE, retries=False)
    while (sample := waiting.get()) is not None:
        id, value, committed = sample
        try:
            while True:
                answer = pool.request("GET", f"/orders/_doc/{id}?filter_path=_source.note").data
                now = time.monotonic()
                if orjson.loads(answer).get("_source", {}).get("note") == value:
                    seen.append(now - committed)
                    break
                if now - committed > _PATIENCE:
                    raise Failed(f"order {id} does not have the note {value!r} after {_PATIENCE:.0f} s")
                time.sleep(max(_POLL_INTERVAL, (now - committed) / 20))
        except BaseException as error:
            errors.append(error)
            return
