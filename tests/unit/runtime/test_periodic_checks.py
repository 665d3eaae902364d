"""Tests that a background task runs once at a time, reports its error, and releases its resources."""

from __future__ import annotations

from threading import Event

import pytest

from syncer.errors import Retry
from syncer.runtime.heartbeats import Heartbeats
from syncer.runtime.periodic_checks import BackgroundTask, Outage


def test_a_task_runs_once_at_a_time_and_raises_its_error_once() -> None:
    task, go_on, closed = BackgroundTask("orders", "test", Heartbeats()), Event(), Event()

    def fail() -> None:
        assert go_on.wait(10)
        raise KeyError("its error")

    assert task.ready() and task.heartbeat.silence == 0.0
    task.begin(fail)
    task.at_end(closed.set)
    assert not task.ready() and task.heartbeat.silence > 0.0
    assert not closed.is_set(), "its resources are closed after its end"
    go_on.set()
    assert closed.wait(10)
    assert task.heartbeat.silence == 0.0
    with pytest.raises(KeyError, match="its error"):
        task.ready()
    assert task.ready(), "the error is raised once"


def test_the_resources_of_a_task_that_never_ran_are_closed_at_once() -> None:
    closed = Event()
    BackgroundTask("orders", "test", Heartbeats()).at_end(closed.set)
    assert closed.is_set()


def test_a_task_that_does_not_end_is_reported_as_stalled() -> None:
    heartbeats, go_on = Heartbeats(limit=-1.0), Event()
    task = BackgroundTask("orders", "tables", heartbeats)

    def hang() -> None:
        go_on.wait(10)

    task.begin(hang)
    assert heartbeats.stalled() == ["orders: the check of tables has made no progress for 0 s"]
    go_on.set()


def test_only_an_outage_that_lasts_is_raised() -> None:
    outage, error = Outage(), Retry("cannot list topics")
    outage.failed(error, 100.0)
    outage.failed(error, 110.0)
    outage.ended()
    outage.failed(error, 120.0)
    outage.failed(error, 130.0)
    with pytest.raises(Retry, match="cannot list topics"):
        outage.failed(error, 136.0)
