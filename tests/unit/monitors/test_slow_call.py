"""Tests the report of a call that a server has not answered for some seconds."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from syncer.monitors.slow_call import SLOW, SlowCall
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from syncer.telemetry.spec import STAGES


class Clock:
    """Seconds that a test sets. `wall` are seconds since the Unix epoch."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000 + self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def write(clock: Clock) -> SlowCall:
    return SlowCall(clock.monotonic, clock.wall)


def test_only_a_slow_write_is_reported(clock: Clock, write: SlowCall) -> None:
    assert write.reason == ""
    with write.write("redis:x"):
        clock.now += SLOW - 0.1
        assert write.reason == ""
        clock.now += 0.1
        assert write.reason == "waiting for sink redis:x: it has not answered a write since 2023-11-14T22:15:00Z"
        clock.now += 60
        assert write.reason.endswith("since 2023-11-14T22:15:00Z"), "the text does not change with each second"
    assert write.reason == ""


def test_a_write_that_fails_has_ended(clock: Clock, write: SlowCall) -> None:
    def fail() -> None:
        with write.write("redis:x"):
            clock.now += 60
            raise OSError("closed")

    with pytest.raises(OSError, match="closed"):
        fail()
    assert write.reason == ""


def test_stages_that_wait_for_postgresql_are_reported(clock: Clock, write: SlowCall) -> None:
    for stage in STAGES:
        with write.stage(stage):
            clock.now += SLOW
            waits = stage in ("snapshot", "resolve", "render", "durable")
            assert write.reason.startswith("waiting for PostgreSQL: ") == waits, stage
    with write.stage("snapshot"):
        clock.now += SLOW
        assert write.reason == "waiting for PostgreSQL: no snapshot, or no lock on a table, since 2023-11-14T22:15:40Z"


def test_the_reason_of_the_lane_itself_comes_first(clock: Clock) -> None:
    observer = LaneObserver("changes", Metrics(CollectorRegistry()).for_model("orders"))
    observer._sink = SlowCall(clock.monotonic, clock.wall)
    with observer.writing("redis:x"):
        assert observer.wait_reason == ""
        clock.now += SLOW
        assert observer.wait_reason.startswith("waiting for sink redis:x")
        observer.waiting("Redis is loading its data")
        assert observer.wait_reason == "Redis is loading its data"
        observer.waiting("")
        assert observer.wait_reason.startswith("waiting for sink redis:x")
    assert observer.wait_reason == ""
