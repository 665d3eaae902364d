"""What each daemon says of a read model, for `syncer status`, which may be asked where no daemon is reached.

Every daemon has a record of its own for each read model in the state topic: its state, the reason, its host
and pid. It renews the record every 15 s and removes it when it ends in order. So one daemon's failure is not
another's, and a record that was not renewed for 45 s is of a daemon that was killed, or that cannot reach
Kafka. Such a record stays, so that it is reported, until a daemon has started since, or for an hour.

Only a state that lasts is written: a sink that is busy for a moment is no news. A failure is written at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from syncer.errors import SyncerError
from syncer.registry.records import Key, Process, ProcessReport
from syncer.registry.registry import Registry
from syncer.registry.state import State, StateSnapshot

_LASTS = 4.5  # seconds
_RENEWED = 15.0
_HOLDS_MS, _KEPT_MS = 45_000, 3_600_000
_LOOK_EVERY = 1.0
_NUMBER = re.compile(r"\d+")


def this_process() -> Process:
    return Process(secrets.token_hex(4), socket.gethostname(), os.getpid(), time.time_ns() // 1_000_000)


def alive(report: ProcessReport, now_ms: int) -> bool:
    """Whether it still holds."""
    return now_ms - report.at_ms < _HOLDS_MS


class Reports:
    """Of one read model in one process. A save that fails is repeated by the next look."""

    def __init__(self, model: str, process: Process, records: State) -> None:
        self.model, self.process, self._records = model, process, records
        self._state, self._since = "", 0.0
        self._written: tuple[str, str] | None = None
        self._at = 0.0

    def look(self, state: str, reason: str, now: float, now_ms: int) -> None:
        """state, reason: as they are at this moment. now: seconds of a clock that only grows. now_ms: since
        the epoch."""
        if state != self._state:
            self._state, self._since = state, now
        if self._written is not None:
            before, why = self._written
            if now - self._since < _LASTS and {state, before} == {"running", "waiting"}:
                state, reason = before, why
            # A reason that says how long it has lasted is not another one each time.
            again = _LASTS if _same(reason) != _same(why) else _RENEWED
            if state == before and now - self._at < again:
                return
        since_ms = now_ms - round(1000 * (now - self._since))
        key, report = self._key(self.process), ProcessReport(self.process, state, since_ms, reason, now_ms)
        self._records.save(key, report)
        self._written, self._at = (state, reason), now

    def tidy(self, values: StateSnapshot, now_ms: int) -> None:
        """Remove what killed daemons left, if it was before this one started, or long ago."""
        for one in values.reports(self.model):
            if alive(one, now_ms):
                continue
            if one.at_ms < self.process.started_ms or now_ms - one.at_ms > _KEPT_MS:
                self._records.save(self._key(one.process), None)

    def end(self) -> None:
        """The process ends in order."""
        if self._written is not None:
            self._records.save(self._key(self.process), None)
            self._written = None

    def _key(self, process: Process) -> Key[ProcessReport]:
        return ProcessReport.key(self.model, process.id)


def _same(reason: str) -> str:
    return _NUMBER.sub("", reason)


class Reporter(Protocol):
    """A read model in this process (`runtime/supervisor.py`)."""

    def status(self) -> Mapping[str, Any]: ...


class Reporting:
    """Writes the reports of a daemon, on a thread of its own: Kafka may take long to answer."""

    def __init__(self, registry: Registry, units: Mapping[str, Reporter]) -> None:
        self._records, process = registry.state, this_process()
        self._units = {Reports(name, process, self._records): unit for name, unit in units.items()}
        self._tidied = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporting", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """Removes the records, once the read models have stopped. Waits for `timeout` seconds at most."""
        self._stop.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_EVERY):
            with contextlib.suppress(SyncerError):  # Kafka is away: the lanes say so
                self._look(time.monotonic(), time.time_ns() // 1_000_000)
        with contextlib.suppress(SyncerError):
            for reports in self._units:
                reports.end()

    def _look(self, now: float, now_ms: int) -> None:
        for reports, unit in self._units.items():
            status = unit.status()
            reports.look(status["state"], status["reason"], now, now_ms)
        if now - self._tidied > _RENEWED:
            values, self._tidied = self._records.load(_RENEWED), now
            for reports in self._units:
                reports.tidy(values, now_ms)


def tell(all_said: Sequence[ProcessReport], now_ms: int) -> tuple[str, list[str]]:
    """What all daemons together say of a read model: its state, and the reasons, the most important first.

    It is running if one of them delivers; whoever fails beside it is named. Empty if no daemon says anything.
    """
    living = [one for one in all_said if alive(one, now_ms)]
    state = next((word for word in _ORDER if any(one.state == word for one in living)), "")
    reasons = []
    for one in sorted(living, key=lambda one: (one.state != state, one.process.started_ms)):
        if one.reason and one.state == state:
            reasons.append(one.reason)
        elif one.reason or one.state == "failed":
            reasons.append(f"{one.process} {_VERBS.get(one.state, one.state)}: {one.reason}")
    for one in all_said:
        if not alive(one, now_ms):
            ago = (now_ms - one.at_ms) / 1000
            reasons.append(f"{one.process} was killed, or cannot reach Kafka: no sign of it for {ago:,.0f} s")
    return state, list(dict.fromkeys(reasons))


_ORDER = ("running", "waiting", "starting", "failed", "stopped")
_VERBS = {"failed": "has failed", "waiting": "is waiting"}
