"""Runs `syncer run` as a process, and measures the CPU time of all processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from bench import machine
from bench.arena import Arena, Failed, tail
from bench.report import Figure

_START = 60.0
_POLL_INTERVAL = 0.05


class Daemon:
    """A running daemon. Requests cost it CPU time, so callers should send few of them."""

    def __init__(self, arena: Arena, models: Sequence[str], command: str = "run") -> None:
        """command: `run`, or `serve` for the HTTP server alone."""
        self.arena, self.models = arena, models
        port = arena.http_port + (command != "run")
        self.url = f"http://127.0.0.1:{port}"
        self._log = arena.log(command)
        self._process = arena.popen(command, *models, log=self._log, SYNCER_HTTP__PORT=str(port))
        self.pid = self._process.pid
        self._http = urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=60.0, retries=False)

    def get(self, path: str) -> bytes:
        """Sends a GET request and returns the body. Raises Failed if the daemon has ended or the status is not 200."""
        return self._request("GET", path)

    def post(self, path: str, body: bytes) -> bytes:
        """Sends a POST request and returns the body. Raises Failed as `get` does."""
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        if self._process.poll() is not None:
            raise Failed(f"the daemon ended. Its output:\n{tail(self._log)}")
        answer = self._http.request(method, path, body=body)
        if answer.status != 200:
            raise Failed(f"{method} {path} returned {answer.status}: {answer.data.decode()}")
        return answer.data

    def wait_ready(self) -> None:
        end = time.monotonic() + _START
        while True:
            try:
                self.get("/readyz")
                return
            except (Failed, urllib3.exceptions.HTTPError) as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise Failed(f"the daemon is not ready: {error}\n{tail(self._log)}") from error
                time.sleep(0.1)

    def idle(self) -> bool:
        """Returns whether the daemon has no unprocessed records. Raises Failed if a read model has stopped."""
        models: dict[str, Any] = orjson.loads(self.get("/status"))["models"]
        for name, status in models.items():
            if status["state"] in ("failed", "stopped") or status.get("last_error"):
                raise Failed(f"{name}: {status['state']} {status['last_error']}")
        return not any(status.get("lag_records") or status.get("work_records") for status in models.values())

    def count(self, metric: str, **labels: str) -> float:
        """Returns the sum of all series of a metric that have these labels."""
        text = self.get("/metrics").decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric and labels.items() <= sample.labels.items()
        )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._http.close()


@contextmanager
def following(arena: Arena, *models: str) -> Iterator[Daemon]:
    """Yields an idle daemon for these read models, after a backfill."""
    arena.reset()
    arena.settle()
    arena.syncer("backfill", *models)
    with running(arena, *models) as daemon:
        yield daemon


@contextmanager
def running(arena: Arena, *models: str) -> Iterator[Daemon]:
    """Yields an idle daemon for these read models, whose backfill is done."""
    daemon = Daemon(arena, models)
    try:
        daemon.wait_ready()
        wait(daemon.idle, "the daemon is idle")
        yield daemon
    finally:
        daemon.stop()


def wait(done: Callable[[], bool], what: str, seconds: float = 600.0) -> float:
    """Waits for a condition. Returns the monotonic time of the check that was true.

    what: describes the condition. seconds: the timeout, after which it raises Failed.
    """
    end = time.monotonic() + seconds
    while True:
        now = time.monotonic()
        if done():
            return now
        if now > end:
            raise Failed(f"timeout after {seconds:.0f} s while waiting until {what}")
        time.sleep(_POLL_INTERVAL)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time per document: of each server, of the syncer and of the benchmark."""

    by: Mapping[str, float]
    """Microseconds per document, by the name of the process."""
    elsewhere: float
    """The share of all cores that other programs used during the measurement."""

    def figure(self, step: str, what: str) -> Figure:
        """Returns one row of the report: the sum, with each share as a note."""
        return Figure(step, what, [sum(self.by.values())], "µs/document", note=self.describe())

    def describe(self) -> str:
        """Lists the processes by CPU time, without those below 0.5 µs."""
        each = sorted(((us, name) for name, us in self.by.items() if us >= 0.5), reverse=True)
        return ", ".join(f"{name} {us:.0f}" for us, name in each)

    def __str__(self) -> str:
        return f"CPU µs/document: {self.describe()}; other programs used {self.elsewhere:.0%} of the cores"


class Shares:
    """Measures the CPU time of all processes from now on."""

    def __init__(self, arena: Arena, syncer: int) -> None:
        self._arena, self._began = arena, time.monotonic()
        self._pids = {name: arena.stack.pid(name) for name in arena.stack.running()} | {"syncer": syncer}
        self._before, self._machine = self._now()

    def _now(self) -> tuple[dict[str, float], float]:
        moment = machine.Moment()
        families = {name: moment.family(pid) for name, pid in self._pids.items()}
        families["bench"] = moment.family(os.getpid()).difference(*families.values())
        return {name: moment.cpu(family) for name, family in families.items()}, moment.machine

    def spent(self, documents: int) -> Spent:
        """Returns the CPU time per document since the start. Adds the share of other programs to the arena."""
        now, machine_seconds = self._now()
        used = {name: now[name] - before for name, before in self._before.items()}
        capacity = (time.monotonic() - self._began) * machine.cores()
        elsewhere = max(0.0, machine_seconds - self._machine - sum(used.values())) / capacity
        self._arena.elsewhere.append(elsewhere)
        return Spent({name: seconds * 1e6 / documents for name, seconds in used.items()}, elsewhere)
