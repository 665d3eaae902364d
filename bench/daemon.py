"""`syncer run` as a process of its own, and what can be seen of it from outside."""

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
_LOOK_EVERY = 0.05


class Daemon:
    """A running one. Asking it costs it a little: not more often than needed."""

    def __init__(self, arena: Arena, models: Sequence[str]) -> None:
        self.arena, self.models = arena, models
        self._log = arena.log("run")
        self._process = arena.popen("run", *models, log=self._log)
        self.pid = self._process.pid
        self._http = urllib3.HTTPConnectionPool("127.0.0.1", arena.http_port, timeout=10.0, retries=False)

    def get(self, path: str) -> bytes:
        """Raises Failed when it has ended, or does not answer 200."""
        if self._process.poll() is not None:
            raise Failed(f"the daemon ended; it said:\n{tail(self._log)}")
        answer = self._http.request("GET", path)
        if answer.status != 200:
            raise Failed(f"{path} answers {answer.status}: {answer.data.decode()}")
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
        """Whether no record waits that the daemon knows of. Raises Failed when a read model has stopped."""
        models: dict[str, Any] = orjson.loads(self.get("/status"))["models"]
        for name, told in models.items():
            if told["state"] in ("failed", "stopped") or told["last_error"]:
                raise Failed(f"{name}: {told['state']} {told['last_error']}")
        return not any(told["lag_records"] or told["work_records"] for told in models.values())

    def count(self, metric: str, **labels: str) -> float:
        """The sum of a counter over all label values that are not given."""
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
    """A daemon for these read models, which are filled before; with nothing left to do."""
    arena.reset()
    arena.settle()
    arena.syncer("backfill", *models)
    daemon = Daemon(arena, models)
    try:
        daemon.wait_ready()
        wait(daemon.idle, "the daemon has nothing to do")
        yield daemon
    finally:
        daemon.stop()


def wait(done: Callable[[], bool], what: str, seconds: float = 600.0) -> float:
    """Until it is so; the moment (monotonic seconds) at which it was seen. Raises Failed after so long."""
    end = time.monotonic() + seconds
    while True:
        now = time.monotonic()
        if done():
            return now
        if now > end:
            raise Failed(f"not within {seconds:.0f} s: {what}")
        time.sleep(_LOOK_EVERY)


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the cores' time went, µs a document: to each server, the syncer and the bench itself."""

    by: Mapping[str, float]
    elsewhere: float
    """The share of all cores that programs of others used meanwhile."""

    def figure(self, step: str, what: str) -> Figure:
        """One row: all of them, and each."""
        return Figure(step, what, [sum(self.by.values())], "µs/document", note=self.told())

    def told(self) -> str:
        each = sorted(((us, name) for name, us in self.by.items() if us >= 0.5), reverse=True)
        return ", ".join(f"{name} {us:.0f}" for us, name in each)

    def __str__(self) -> str:
        return f"µs each: {self.told()}; {self.elsewhere:.0%} of the cores used by others"


class Shares:
    """Watches where the cores' time goes from now on."""

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
        """Since this was made. The arena remembers how much of the machine others had."""
        now, whole = self._now()
        ours = {name: now[name] - before for name, before in self._before.items()}
        capacity = (time.monotonic() - self._began) * machine.cores()
        elsewhere = max(0.0, whole - self._machine - sum(ours.values())) / capacity
        self._arena.elsewhere.append(elsewhere)
        return Spent({name: seconds * 1e6 / documents for name, seconds in ours.items()}, elsewhere)
