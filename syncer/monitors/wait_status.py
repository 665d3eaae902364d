"""Publishes the state of each read model in each daemon. `syncer status` reads it without contacting a daemon.

Every daemon keeps one record per read model in the state topic: state, reason, host and pid. It renews the record
every 15 s, and removes it when it shuts down. So the failure of one daemon does not hide the state of another.

A record that was not renewed for 45 s belongs to a daemon that was killed, or that cannot reach Kafka. `syncer status`
reports it. It is removed by a daemon that started later, or after one hour.

Only a state that lasts is saved: a sink that is busy for a moment changes nothing. A failure is saved at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from syncer.errors import SyncerError
from syncer.monitors.background import BackgroundThread
from syncer.registry.records import Key, Process, ProcessReport
from syncer.registry.registry import Registry
from syncer.registry.state import State, StateSnapshot

_LASTS = 4.5  # seconds after which a changed state counts as lasting
_RENEW_EVERY = 15.0
_ALIVE_MS, _KEPT_MS = 45_000, 3_600_000
_CHECK_EVERY = 1.0
_NUMBER = re.compile(r"\d+")


def this_process() -> Process:
    """Returns the identity of this daemon."""
    return Process(secrets.token_hex(4), socket.gethostname(), os.getpid(), time.time_ns() // 1_000_000)


def alive(report: ProcessReport, now_ms: int) -> bool:
    """Returns whether the report was renewed recently, so that its daemon is alive."""
    return now_ms - report.at_ms < _ALIVE_MS


class StatusRecord:
    """Keeps the record of one read model in one process up to date. The next update repeats a save that failed."""

    def __init__(self, model: str, process: Process, records: State) -> None:
        self.model, self.process, self._records = model, process, records
        self._state, self._since = "", 0.0
        self._written: tuple[str, str] | None = None
        self._at = 0.0

    def update(self, state: str, reason: str, now: float, now_ms: int) -> None:
        """Saves the record if the state has lasted, or if the record has to be renewed.

        state, reason: the current ones.
        now: seconds of the monotonic clock. now_ms: ms since the epoch.
        """
        if state != self._state:
            self._state, self._since = state, now
        if self._written is not None:
            before, why = self._written
            if now - self._since < _LASTS and {state, before} == {"running", "waiting"}:
                state, reason = before, why
            # Numbers are ignored: a reason that contains a duration would be a new one each time.
            again = _LASTS if _without_numbers(reason) != _without_numbers(why) else _RENEW_EVERY
            if state == before and now - self._at < again:
                return
        since_ms = now_ms - round(1000 * (now - self._since))
        key, report = self._key(self.process), ProcessReport(self.process, state, since_ms, reason, now_ms)
        self._records.save(key, report)
        self._written, self._at = (state, reason), now

    def tidy(self, values: StateSnapshot, now_ms: int) -> None:
        """Removes the records of killed daemons, if they are older than this daemon or than one hour."""
        for one in values.reports(self.model):
            if alive(one, now_ms):
                continue
            if one.at_ms < self.process.started_ms or now_ms - one.at_ms > _KEPT_MS:
                self._records.save(self._key(one.process), None)

    def end(self) -> None:
        """Removes the record, because the process shuts down."""
        if self._written is not None:
            self._records.save(self._key(self.process), None)
            self._written = None

    def _key(self, process: Process) -> Key[ProcessReport]:
        return ProcessReport.key(self.model, process.id)


def _without_numbers(reason: str) -> str:
    return _NUMBER.sub("", reason)


class HasStatus(Protocol):
    """A read model in this process (`runtime/supervisor.py`)."""

    def status(self) -> Mapping[str, Any]: ...


class StatusReporter(BackgroundThread):
    """Saves the records of a daemon, on a thread of its own: Kafka may take long to answer.

    Stop it after the read models. It then removes the records.
    """

    def __init__(self, registry: Registry, models: Mapping[str, HasStatus]) -> None:
        super().__init__("status-reporter")
        self._records, self.process = registry.state, this_process()
        self._models = {StatusRecord(name, self.process, self._records): model for name, model in models.items()}
        self._tidied = 0.0

    def _run(self) -> None:
        while not self._stop.wait(_CHECK_EVERY):
            with contextlib.suppress(SyncerError):  # Kafka is unreachable: the lanes report it
                self._update(time.monotonic(), time.time_ns() // 1_000_000)
        with contextlib.suppress(SyncerError):
            for record in self._models:
                record.end()

    def _update(self, now: float, now_ms: int) -> None:
        for record, model in self._models.items():
            status = model.status()
            record.update(status["state"], status["reason"], now, now_ms)
        if now - self._tidied > _RENEW_EVERY:
            values, self._tidied = self._records.load(_RENEW_EVERY), now
            for record in self._models:
                record.tidy(values, now_ms)


def combine_reports(all_said: Sequence[ProcessReport], now_ms: int) -> tuple[str, list[str]]:
    """Combines the records of all daemons: returns the state of the read model, and the reasons by importance.

    The read model is running if one daemon delivers. The reasons name daemons that fail at the same time. The state is
    empty if no daemon is alive.
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
            reasons.append(f"{one.process} was killed, or cannot reach Kafka: its last report is {ago:,.0f} s old")
    return state, list(dict.fromkeys(reasons))


_ORDER = ("running", "waiting", "starting", "failed", "stopped")
_VERBS = {"failed": "has failed", "waiting": "is waiting"}
