"""Tests which activities `/livez` reports as stalled."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from syncer.runtime import heartbeats as module
from syncer.runtime.heartbeats import Heartbeats
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics


class Time:
    """A monotonic clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_an_activity_stalls_only_between_start_and_end(clock: Time) -> None:
    table = Heartbeats(limit=10.0)
    heartbeat = table.add(lambda seconds: f"silent for {seconds:.0f} s")
    clock.now += 60
    assert table.stalled() == [] and heartbeat.silence == 0.0, "not started"
    heartbeat.start()
    clock.now += 10
    assert table.stalled() == []
    clock.now += 1
    assert table.stalled() == ["silent for 11 s"]
    heartbeat.beat()
    assert table.stalled() == []
    clock.now += 60
    heartbeat.end()
    heartbeat.end()
    assert table.stalled() == []
    heartbeat.beat()
    assert table.stalled() == [], "a beat does not start the activity again"


def test_an_activity_may_have_a_limit_of_its_own(clock: Time) -> None:
    table = Heartbeats(limit=10.0)
    for name, limit in (("short", None), ("long", 3600.0)):
        table.add(lambda seconds, name=name: name, limit=limit).start()  # type: ignore[misc]
    clock.now += 60
    assert table.stalled() == ["short"]
    clock.now += 3600
    assert table.stalled() == ["short", "long"]


def test_a_thread_that_has_ended_is_stalled() -> None:
    table, alive = Heartbeats(), [True]
    table.require_thread(lambda: alive[0], "the monitor has ended")
    assert table.stalled() == []
    alive[0] = False
    assert table.stalled() == ["the monitor has ended"]


def test_a_lane_that_waits_is_alive_and_a_write_that_never_returns_is_not(clock: Time) -> None:
    table = Heartbeats(limit=10.0)
    observer = LaneObserver("changes", Metrics(CollectorRegistry()).for_model("orders"), table)
    for _ in range(5):
        clock.now += 9
        observer.waiting("Elasticsearch is unreachable")
        assert table.stalled() == []
    with observer.stage("render"):
        clock.now += 11
        assert table.stalled() == ["orders: lane changes has made no progress for 11 s (in stage render)"]
    observer.lag(0, 0.0)
    with observer.stage("write"):
        clock.now += 9
        observer.waiting("")
        clock.now += 2
        assert table.stalled() == ["orders: lane changes: a sink has not answered for 11 s"]
    assert table.stalled() == []
    clock.now += 60
    observer.close()
    assert table.stalled() == []
