"""Measures `syncer backfill`, and compares it with the limits of PostgreSQL and Elasticsearch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from bench import limits, machine
from bench.arena import Arena, Failed, tail
from bench.daemon import Shares, Spent
from bench.report import Figure, Report

STEP = "backfill"
RATE = "orders into Elasticsearch, first to last document"
_POLL_INTERVAL = 0.03


class Sample(NamedTuple):
    """One observation. at: monotonic seconds. documents: number in the sink. cpu: CPU seconds of the syncer."""

    at: float
    documents: int
    cpu: float


class Timed(NamedTuple):
    """The measurements of one run of the command."""

    rate: float
    """Documents per second between the first document and the last."""
    whole_rate: float
    """Documents per second over the whole command."""
    cpu_us: float
    """CPU time of the syncer in µs per document, between the first document and the last."""
    peak: int
    spent: Spent


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    count = arena.scalar("SELECT count(*) FROM orders WHERE status <> 'draft'")
    path = "/orders-000001/_stats/indexing?filter_path=_all.primaries.indexing.index_total"

    def written() -> int:
        stats = arena.request("GET", path)
        return int(stats["_all"]["primaries"]["indexing"]["index_total"]) if stats else 0

    timed = []
    for _ in range(arena.sizes.repetitions):
        arena.reset()
        arena.settle()
        timed.append(run(arena, "orders", count, written))
        echo(f"backfill: {timed[-1].rate:,.0f} documents/s; {timed[-1].spent}")
        if (found := arena.documents("orders")) != count:
            raise Failed(f"the index has {found} documents instead of {count}")
        arena.no_dead_letters()
    arena.syncer("verify", "orders")
    combined = report.value(limits.STEP, limits.COMBINED)
    report.add(
        Figure(
            STEP,
            RATE,
            [t.rate for t in timed],
            "documents/s",
            "both limits, sharing the cores",
            combined,
            "≥ 0.8" if combined else "",
        ),
        Figure(STEP, "the whole command", [t.whole_rate for t in timed], "documents/s"),
        Figure(
            STEP, "CPU of the syncer", [t.cpu_us for t in timed], "µs/document", note="without the start of the process"
        ),
        timed[-1].spent.figure(STEP, "CPU of all processes, whole command"),
        Figure(STEP, "peak memory of the syncer", [t.peak / 2**20 for t in timed], "MiB"),
    )


def run(arena: Arena, model: str, count: int, written: Callable[[], int]) -> Timed:
    """Runs the command to its end and measures it.

    count: the expected number of documents.
    written: returns the number of documents in the sink.
    Raises Failed if the command fails or writes another number of documents.
    """
    log = arena.log(f"backfill-{model}")
    began = time.monotonic()
    process = arena.popen("backfill", model, log=log)
    shares = Shares(arena, process.pid)
    samples, peak = [Sample(began, 0, 0.0)], 0
    while not _ended(process.pid):
        documents = written()
        samples.append(Sample(time.monotonic(), documents, machine.cpu_seconds(process.pid)))
        peak = max(peak, machine.peak_bytes(process.pid))
        time.sleep(_POLL_INTERVAL)
    ended = time.monotonic()
    spent = shares.spent(count)
    if process.wait():
        raise Failed(f"syncer backfill {model} failed. Its output:\n{tail(log)}")
    samples.append(Sample(ended, written(), samples[-1].cpu))
    first = next(s for s in samples if s.documents)
    last = next(s for s in samples if s.documents >= count)
    if last.documents != count or last.at <= first.at:
        raise Failed(f"{last.documents} documents were written instead of {count}, or all between two polls")
    after_first = count - first.documents
    return Timed(
        after_first / (last.at - first.at),
        count / (ended - began),
        (last.cpu - first.cpu) * 1e6 / after_first,
        peak,
        spent,
    )


def _ended(pid: int) -> bool:
    """Returns whether the process has ended. Does not reap it, because /proc would then lose its CPU time."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
