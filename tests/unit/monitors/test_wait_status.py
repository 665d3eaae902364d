"""What a daemon says of a read model: written when it lasts, renewed, removed at its end. And what `syncer
status` makes of what several daemons say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from syncer.errors import Retry
from syncer.monitors.wait_status import Reports, alive, tell
from syncer.operations.status import _Reading
from syncer.registry.records import Process, ProcessReport
from syncer.registry.state import State, StateSnapshot

HERE = Process("a1", "one.example", 7, started_ms=0)
THERE = Process("b2", "two.example", 8, started_ms=1)


def said(values: Mapping[str, Mapping[str, Any]], model: str) -> list[ProcessReport]:
    return StateSnapshot(values).reports(model)


class Play:
    """A daemon that is looked at once a second, and what it has written."""

    def __init__(self, process: Process = HERE) -> None:
        self.saved: list[tuple[str, Mapping[str, Any] | None]] = []
        self.values: dict[str, Mapping[str, Any]] = {}
        self.away = False
        self.reports = Reports("orders", process, State(self))
        self.now = 0.0

    def load(self, max_age: float = 0.0) -> Mapping[str, Mapping[str, Any]]:
        return self.values

    def save(self, key: str, value: Mapping[str, Any] | None) -> None:
        if self.away:
            raise Retry("Kafka is away")
        self.saved.append((key, value))
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value

    def look(self, state: str, reason: str = "", seconds: int = 1) -> list[tuple[str, str]]:
        """State and reason of what is written within so many seconds."""
        before = len(self.saved)
        for _ in range(seconds):
            self.now += 1
            self.reports.look(state, reason, self.now, int(self.now * 1000))
        return [(value["state"], value["reason"]) for _, value in self.saved[before:] if value]


def test_a_state_that_lasts_is_written_and_taken_back() -> None:
    play = Play()
    assert play.look("starting") == [("starting", "")]
    assert play.look("running") == [("running", "")], "that it runs is no news to wait for"
    assert play.look("waiting", "busy", 4) == []
    assert play.look("waiting", "busy", 2) == [("waiting", "busy")]
    assert play.look("running", "", 6) == [("running", "")]
    assert list(play.values) == ["orders/process/a1"]


def test_a_state_that_comes_and_goes_is_not_written() -> None:
    play = Play()
    play.look("running")
    written = [one for _ in range(20) for one in (*play.look("waiting", "busy", 2), *play.look("running", "", 2))]
    assert {state for state, _ in written} == {"running"}


def test_a_failure_is_written_at_once() -> None:
    play = Play()
    play.look("running")
    assert play.look("failed", "a wrong password") == [("failed", "a wrong password")]
    assert play.look("running") == [("running", "")]


def test_a_record_is_renewed_also_when_nothing_changes() -> None:
    play = Play()
    assert len(play.look("running", "", 60)) == 4
    [one] = said(play.values, "orders")
    assert alive(one, 60_000) and one.since_ms == 1000 and not alive(one, one.at_ms + 45_000)


def test_a_reason_that_counts_seconds_is_not_another_one_each_time() -> None:
    play = Play()
    play.look("waiting", "late for 0 s")
    written = [one for n in range(1, 31) for one in play.look("waiting", f"late for {n} s")]
    assert len(written) == 2, "it was renewed"
    assert play.look("waiting", "another", 5) == [("waiting", "another")]


def test_a_record_that_could_not_be_written_is_tried_again() -> None:
    play = Play()
    play.away = True
    with pytest.raises(Retry):
        play.look("running")
    play.away = False
    assert play.look("running") == [("running", "")]


def test_a_daemon_that_ends_in_order_leaves_nothing() -> None:
    play = Play()
    play.reports.end()
    assert play.saved == []
    play.look("running")
    play.reports.end()
    assert play.values == {}


def test_what_a_killed_daemon_left_is_removed_by_one_that_started_since() -> None:
    """One that was there already leaves it, so that it is reported; but for an hour only."""
    dead, witness = Play(), Play(THERE)
    dead.look("running", "", 60)
    at_ms = said(dead.values, "orders")[0].at_ms
    for later, left in ((44_000, 1), (46_000, 1), (3_600_000, 1), (3_601_000, 0)):
        witness.values = dict(dead.values)
        witness.reports.tidy(StateSnapshot(witness.values), at_ms + later)
        assert len(witness.values) == left, later
    follower = Play(replace(THERE, started_ms=at_ms + 1))
    follower.values = dict(dead.values)
    follower.reports.tidy(StateSnapshot(dict(follower.values)), at_ms + 44_000)
    assert len(follower.values) == 1, "nobody knows yet that it was killed"
    follower.reports.tidy(StateSnapshot(dict(follower.values)), at_ms + 46_000)
    assert follower.values == {}


def test_other_read_models_and_what_else_is_in_the_topic_are_not_taken_for_reports() -> None:
    play = Play()
    play.look("running")
    assert said({**play.values, "orders/1/clock": {"clock": 5}, "orders": {"epoch": 1}}, "orders")
    assert said(play.values, "order") == said(play.values, "orders2") == []


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
def test_one_that_delivers_is_enough(states: list[str], state: str) -> None:
    all_said = [ProcessReport(p, s, 0, "", 0) for p, s in zip((HERE, THERE), states, strict=False)]
    assert tell(all_said, 1000)[0] == state


def test_the_daemon_that_fails_is_named_alongside_one_that_delivers() -> None:
    """Found: a second daemon with a wrong password made every read model `failed`; the first delivered."""
    all_said = [ProcessReport(HERE, "running", 0, "", 0), ProcessReport(THERE, "failed", 0, "a wrong password", 0)]
    assert tell(all_said, 1000) == ("running", ["the daemon on two.example, pid 8 has failed: a wrong password"])
    assert tell(all_said[1:], 1000) == ("failed", ["a wrong password"])


def test_a_killed_daemon_is_told_as_one() -> None:
    state, reasons = tell([ProcessReport(HERE, "failed", 0, "a wrong password", 0)], 60_000)
    assert state == ""
    assert reasons == ["the daemon on one.example, pid 7 was killed, or cannot reach Kafka: no sign of it for 60 s"]


@pytest.mark.parametrize(("silent", "gone"), [(0.5, False), (16.0, False), (21.0, True)])
def test_a_daemon_without_consumers_is_gone_once_it_is_silent(silent: float, gone: bool) -> None:
    """One that opens its read model again has none for some seconds, and goes on to report."""
    play = Play()
    play.look("running", seconds=60)
    now_ms = round(1000 * play.now)
    reading = object.__new__(_Reading)
    reading.said = said(play.values, "orders")
    reading.now_ms = max(one.at_ms for one in reading.said) + round(1000 * silent)
    assert now_ms and bool(reading._killed()) is gone
