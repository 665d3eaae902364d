"""Measures push: from the commit of a write until the clients have received the change.

100 clients receive every change, as dashboards do. 1,000 clients receive the changes of some documents each, as the
users of a shop do. Both connect to `syncer run`, and then to `syncer serve`. All clients are in one process
(`push_clients.py`), whose CPU time the report has: if it needs a whole core, the figures are its own limit.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import orjson

from bench import machine, streaming
from bench.arena import ROOT, Arena, Failed
from bench.daemon import Daemon, Shares, following, wait
from bench.latency import RATE, percentile
from bench.report import Figure, Report

STEP = "push"
_MODEL, _EVERY = "orders_pushed", 10
_CASES = (("100 clients, all changes", 100, False), ("1,000 clients, some documents each", 1000, True))
_IDLE_CLIENTS = 1000
_GOAL = 150.0
"""Milliseconds: the p99 with 100 clients."""
_SETTINGS = {
    "SYNCER_PUSH__MAX_CLIENTS": "2000",
    "SYNCER_HTTP__MAX_CONNECTIONS": "2100",
    "SYNCER_HTTP__REQUESTS_PER_SECOND": "10000",
}


def measure(arena: Arena, report: Report, echo: Callable[[str], None]) -> None:
    seconds = arena.sizes.write_seconds / 3
    with _model(arena), following(arena, _MODEL) as daemon, _serving(arena) as served:
        _write(arena, arena.sizes.write_seconds / 4)
        wait(daemon.idle, "the daemon is idle")
        for name, server in (("run", daemon), ("serve", served)):
            for what, clients, by_key in _CASES:
                arena.settle()
                run = _run(arena, server, clients, seconds, by_key=by_key)
                wait(daemon.idle, "the daemon is idle")
                title = f"syncer {name}, {what}"
                echo(f"{title}: p99 {percentile(run.seen, 99) * 1000:.0f} ms, {run.note}")
                for percent in (50, 99):
                    goal = percent == 99 and clients == 100
                    report.add(
                        Figure(
                            STEP,
                            f"{title}: commit to client, p{percent}",
                            [percentile(run.seen, percent) * 1000],
                            "ms",
                            "goal" if goal else "",
                            _GOAL if goal else 0.0,
                            "≤ 1.0" if goal else "",
                            run.note if percent == 50 else "",
                        )
                    )
        _idle_clients(arena, daemon, report, echo)
        arena.no_dead_letters()


def _idle_clients(arena: Arena, daemon: Daemon, report: Report, echo: Callable[[str], None]) -> None:
    """Measures how much 1,000 clients that receive nothing slow down a large transaction. The two kinds take turns."""
    load = streaming.roots(arena)
    rates: dict[int, list[float]] = {0: [], _IDLE_CLIENTS: []}
    for _ in range(arena.sizes.repetitions):
        for clients, seen in rates.items():
            with _receiving(daemon, [], [["none"]] * clients):
                seen.append(len(load.ids) / streaming.run(arena, daemon, load, lambda _: True).seconds)
            echo(f"{clients:,} idle clients: {seen[-1]:,.0f} documents/s")
    what = f"{load.events:,} updated roots with {_IDLE_CLIENTS:,} idle clients"
    report.add(
        Figure(STEP, what, rates[_IDLE_CLIENTS], "documents/s", "without clients", median(rates[0]), "≥ 0.97"),
    )


class _Run:
    """seen: seconds from commit to client, of the sample. note: rates and CPU, for the report."""

    def __init__(self, seen: list[float], note: str) -> None:
        self.seen, self.note = seen, note


def _run(arena: Arena, server: Daemon, clients: int, seconds: float, *, by_key: bool) -> _Run:
    rows = arena.sql("SELECT id FROM orders WHERE status <> 'draft' ORDER BY md5(id::text)")  # as bench/client.py
    ids = [str(id) for (id,) in rows][: round(RATE * seconds)]
    keys = [ids[number::clients] if by_key else [] for number in range(clients)]
    with _receiving(server, ids[::_EVERY], keys) as receiver:
        assert receiver.stdin and receiver.stdout
        shares = Shares(arena, server.pid)
        before = [machine.cpu_seconds(pid) for pid in (server.pid, receiver.pid)]
        commits, rate, took = _write(arena, seconds)
        wait(server.idle, "the server has read everything")
        spent = [machine.cpu_seconds(pid) - cpu for pid, cpu in zip((server.pid, receiver.pid), before, strict=True)]
        spent_by_all = shares.spent(len(ids))
        expected = len(commits) * (1 if by_key else clients)
        receiver.stdin.write(orjson.dumps({"arrivals": expected}) + b"\n")
        receiver.stdin.flush()
        found = orjson.loads(receiver.stdout.readline())
    seen = [time - commits[key] for key, times in found["arrived"].items() for time in times if key in commits]
    if len(seen) < expected:
        raise Failed(f"only {len(seen)} of {expected} sampled changes arrived")
    share, receiving = (cpu / took for cpu in spent)
    note = f"{rate:.0f} writes/s, {found['received'] / took:,.0f} changes/s received"
    note += f"; CPU: server {share:.0%}, clients {receiving:.0%} of a core"
    return _Run(seen, f"{note}; other programs {spent_by_all.elsewhere:.0%} of all cores")


@contextmanager
def _receiving(server: Daemon, sample: list[str], keys: list[list[str]]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `push_clients.py`: a client for each list of keys. Yields it when all clients are connected."""
    command = [sys.executable, "-m", "bench.push_clients", "--url", f"{server.url}/models/{_MODEL}/changes"]
    receiver = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert receiver.stdin and receiver.stdout
    try:
        receiver.stdin.write(orjson.dumps({"sample": sample, "keys": keys}) + b"\n")
        receiver.stdin.flush()
        if not receiver.stdout.readline():
            raise Failed("the clients could not connect")
        yield receiver
    finally:
        receiver.kill()
        receiver.wait()


def _write(arena: Arena, seconds: float) -> tuple[dict[str, float], float, float]:
    """Runs the writing application. Returns the commit times of the sample, the rate and the duration."""
    options = {"dsn": arena.dsn, "rate": RATE, "seconds": seconds, "every": _EVERY}
    command = [sys.executable, "-m", "bench.client", *(f"--{name}={value}" for name, value in options.items())]
    *samples, last = map(
        orjson.loads, subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.splitlines()
    )
    return {str(id): committed for id, _, committed in samples}, last["writes"] / last["seconds"], last["seconds"]


@contextmanager
def _model(arena: Arena) -> Iterator[None]:
    """Declares the orders again, with a documents topic as their only sink."""
    folder = arena.stack.home / "push"
    folder.mkdir()
    head, _, _ = (ROOT / "readmodels" / "orders.yaml").read_text().partition("\nsink:")
    text = head.replace("name: orders\n", f"name: {_MODEL}\n", 1)
    (folder / "orders.yaml").write_text(f"{text}\nsink: {{kafka: {{topic: {_MODEL}}}}}\n")
    arena.settings = _SETTINGS | {"SYNCER_MODELS": str(folder)}
    try:
        yield
    finally:
        arena.settings = {}


@contextmanager
def _serving(arena: Arena) -> Iterator[Daemon]:
    served = Daemon(arena, [_MODEL], command="serve")
    try:
        served.wait_ready()
        yield served
    finally:
        served.stop()
