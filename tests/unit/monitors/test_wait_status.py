"""Tests the record of a read model in one daemon, and how `syncer status` combines the records of several daemons.

A record is saved when its state lasts, renewed regularly, and removed when the daemon shuts down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from syncer.errors import Retry
from syncer.monitors.wait_status import StatusRecord, alive, combine_reports
from syncer.operations.status import _Reading
from syncer.registry.records import Process, ProcessReport
from syncer.registry.state import State, StateSnapshot

HERE = Process("a1", "one.example", 7, started_ms=0)
THERE = Process("b2", "two.example", 8, started_ms=1)


def reports(values: Mapping[str, Mapping[str, Any]], model: str) -> list[ProcessReport]:
    return StateSnapshot(values).reports(model)


class Daemon:
    """A daemon that updates its record once a second, and the records that it has saved."""

    def __init__(self, process: Process = HERE) -> None:
        self.saved: list[tuple[str, Mapping[str, Any] | None]] = []
        self.values: dict[str, Mapping[str, Any]] = {}
        self.unreachable = False
        self.record = StatusRecord("orders", process, State(self))
        self.now = 0.0

    def prepare(self) -> None:
        pass

    def load_since(self, moment: float) -> Mapping[str, Mapping[str, Any]]:
        return self.load()

    def load(self, max_age: float = 0.0) -> Mapping[str, Mapping[str, Any]]:
        return self.values

    def save(self, key: str, value: Mapping[str, Any] | None) -> None:
        if self.unreachable:
            raise Retry("Kafka is unreachable")
        self.saved.append((key, value))
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value

    def update(self, state: str, reason: str = "", seconds: int = 1) -> list[tuple[str, str]]:
        """Returns state and reason of the records that are saved within the given number of seconds."""
        before = len(self.saved)
        for _ in range(seconds):
            self.now += 1
            self.record.update(state, reason, self.now, int(self.now * 1000))
        return [(value["state"], value["reason"]) for _, value in self.saved[before:] if value]


def test_a_state_that_lasts_is_saved_and_replaced() -> None:
    daemon = Daemon()
    assert daemon.update("starting") == [("starting", "")]
    assert daemon.update("running") == [("running", "")], "the state `running` is saved at once"
    assert daemon.update("waiting", "busy", 4) == []
    assert daemon.update("waiting", "busy", 2) == [("waiting", "busy")]
    assert daemon.update("running", "", 6) == [("running", "")]
    assert list(daemon.values) == ["orders/process/a1"]


def test_a_state_that_does_not_last_is_not_saved() -> None:
    daemon = Daemon()
    daemon.update("running")
    saved = [one for _ in range(20) for one in (*daemon.update("waiting", "busy", 2), *daemon.update("running", "", 2))]
    assert {state for state, _ in saved} == {"running"}


def test_a_failure_is_saved_at_once() -> None:
    daemon = Daemon()
    daemon.update("running")
    assert daemon.update("failed", "a wrong password") == [("failed", "a wrong password")]
    assert daemon.update("running") == [("running", "")]


def test_a_record_is_renewed_even_if_nothing_changes() -> None:
    daemon = Daemon()
    assert len(daemon.update("running", "", 60)) == 4
    [one] = reports(daemon.values, "orders")
    assert alive(one, 60_000) and one.since_ms == 1000 and not alive(one, one.at_ms + 45_000)


def test_a_reason_that_contains_a_duration_is_not_a_new_reason_each_time() -> None:
    daemon = Daemon()
    daemon.update("waiting", "late for 0 s")
    saved = [one for n in range(1, 31) for one in daemon.update("waiting", f"late for {n} s")]
    assert len(saved) == 2, "it was renewed"
    assert daemon.update("waiting", "another", 5) == [("waiting", "another")]


def test_saving_a_record_is_retried() -> None:
    daemon = Daemon()
    daemon.unreachable = True
    with pytest.raises(Retry):
        daemon.update("running")
    daemon.unreachable = False
    assert daemon.update("running") == [("running", "")]


def test_a_daemon_that_shuts_down_leaves_no_record() -> None:
    daemon = Daemon()
    daemon.record.end()
    assert daemon.saved == []
    daemon.update("running")
    daemon.record.end()
    assert daemon.values == {}


def test_the_record_of_a_killed_daemon_is_removed_by_a_daemon_that_started_later() -> None:
    """A daemon that ran already keeps it for one hour, so that it is reported."""
    dead, witness = Daemon(), Daemon(THERE)
    dead.update("running", "", 60)
    at_ms = reports(dead.values, "orders")[0].at_ms
    for later, left in ((44_000, 1), (46_000, 1), (3_600_000, 1), (3_601_000, 0)):
        witness.values = dict(dead.values)
        witness.record.tidy(StateSnapshot(witness.values), at_ms + later)
        assert len(witness.values) == left, later
    follower = Daemon(replace(THERE, started_ms=at_ms + 1))
    follower.values = dict(dead.values)
    follower.record.tidy(StateSnapshot(dict(follower.values)), at_ms + 44_000)
    assert len(follower.values) == 1, "it may still be alive"
    follower.record.tidy(StateSnapshot(dict(follower.values)), at_ms + 46_000)
    assert follower.values == {}


def test_other_keys_of_the_topic_are_not_read_as_records() -> None:
    daemon = Daemon()
    daemon.update("running")
    assert reports({**daemon.values, "orders/1/clock": {"clock": 5}, "orders": {"epoch": 1}}, "orders")
    assert reports(daemon.values, "order") == reports(daemon.values, "orders2") == []


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ([], ""),
        (["running", "failed"], "running"),
        (["failed", "running"], "running"),
        (["failed", "waiting"], "waiting"),
        (["failed", "failed"], "failed"),
        (["starting", "failed"], "starting"),
    ],
)
def test_a_read_model_runs_if_one_daemon_delivers(states: list[str], state: str) -> None:
    all_reports = [ProcessReport(p, s, 0, "", 0) for p, s in zip((HERE, THERE), states, strict=False)]
    assert combine_reports(all_reports, 1000)[0] == state


def test_the_daemon_that_fails_is_named_alongside_one_that_delivers() -> None:
    """Once, a second daemon with a wrong password made every read model `failed`, although the first delivered."""
    all_reports = [ProcessReport(HERE, "running", 0, "", 0), ProcessReport(THERE, "failed", 0, "a wrong password", 0)]
    assert combine_reports(all_reports, 1000) == (
        "running",
        ["the daemon on two.example, pid 8 has failed: a wrong password"],
    )
    assert combine_reports(all_reports[1:], 1000) == ("failed", ["a wrong password"])


def test_a_killed_daemon_is_reported() -> None:
    state, reasons = combine_reports([ProcessReport(HERE, "failed", 0, "a wrong password", 0)], 60_000)
    assert state == ""
    assert reasons == [
        "the daemon on one.example, pid 7 was killed, or cannot reach Kafka: its last report is 60 s old"
    ]


@pytest.mark.parametrize(("silent", "gone"), [(0.5, False), (16.0, False), (21.0, True)])
def test_a_daemon_without_consumers_counts_as_killed_after_20_s_without_a_report(silent: float, gone: bool) -> None:
    """A daemon that reopens its read model has no consumers for some seconds, and continues to report."""
    daemon = Daemon()
    daemon.update("running", seconds=60)
    now_ms = round(1000 * daemon.now)
    reading = object.__new__(_Reading)
    reading.said = reports(daemon.values, "orders")
    reading.now_ms = max(one.at_ms for one in reading.said) + round(1000 * silent)
    assert now_ms and bool(reading._killed()) is gone
