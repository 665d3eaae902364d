"""How fast `syncer backfill` is: beside what the servers it reads from and writes to can do at best."""

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
_LOOK_EVERY = 0.03


class Sample(NamedTuple):
    """at: monotonic seconds. documents: in the sink. cpu: seconds of the syncer's process."""

    at: float
    documents: int
    cpu: float


class Timed(NamedTuple):
    """One run of the command."""

    rate: float
    """Documents a second from the first to the last."""
    whole: float
    """The same over the whole command."""
    cpu_us: float
    """µs a document, from the first to the last."""
    peak: int
    spent: Spent


def measure(arena: Arena, report: Report, say: Callable[[str], None]) -> None:
    count = arena.scalar("SELECT count(*) FROM orders WHERE status <> 'draft'")
    path = "/orders-000001/_stats/indexing?filter_path=_all.primaries.indexing.index_total"

    def written() -> int:
        told = arena.ask("GET", path)
        return int(told["_all"]["primaries"]["indexing"]["index_total"]) if told else 0

    timed = []
    for _ in range(arena.sizes.repetitions):
        arena.reset()
        arena.settle()
        timed.append(run(arena, "orders", count, written))
        say(f"backfill: {timed[-1].rate:,.0f} documents/s; {timed[-1].spent}")
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
        Figure(STEP, "the whole command", [t.whole for t in timed], "documents/s"),
        Figure(STEP, "CPU of the syncer", [t.cpu_us for t in timed], "µs/document", note="without its start"),
        timed[-1].spent.figure(STEP, "CPU of all, for the whole command"),
        Figure(STEP, "peak memory of the syncer", [t.peak / 2**20 for t in timed], "MiB"),
    )


def run(arena: Arena, model: str, count: int, written: Callable[[], int]) -> Timed:
    """Run the command to its end. written: how many documents the sink has. Raises Failed if it fails."""
    log = arena.log(f"backfill-{model}")
    began = time.monotonic()
    process = arena.popen("backfill", model, log=log)
    shares = Shares(arena, process.pid)
    samples, peak = [Sample(began, 0, 0.0)], 0
    while not _ended(process.pid):
        documents = written()
        samples.append(Sample(time.monotonic(), documents, machine.cpu_seconds(process.pid)))
        peak = max(peak, machine.peak_bytes(process.pid))
        time.sleep(_LOOK_EVERY)
    ended = time.monotonic()
    spent = shares.spent(count)
    if process.wait():
        raise Failed(f"syncer backfill {model} failed; it said:\n{tail(log)}")
    samples.append(Sample(ended, written(), samples[-1].cpu))
    first = next(s for s in samples if s.documents)
    last = next(s for s in samples if s.documents >= count)
    if last.documents != count or last.at <= first.at:
        raise Failed(f"{last.documents} documents were written instead of {count}, or all at once")
    after_first = count - first.documents
    return Timed(
        after_first / (last.at - first.at),
        count / (ended - began),
        (last.cpu - first.cpu) * 1e6 / after_first,
        peak,
        spent,
    )


def _ended(pid: int) -> bool:
    """Whether the process has ended, without taking its exit status (then its CPU time would be gone)."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
