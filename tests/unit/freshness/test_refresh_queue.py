"""Callers, the queue, and a lane of the pipeline over it. The sink is in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from syncer.clock import Clock, version
from syncer.document import Row
from syncer.errors import Fatal, Retry
from syncer.events import Key
from syncer.freshness.refresh_queue import RefreshQueue, RefreshSource, Ticket, rejected
from syncer.pipeline.circuit_breaker import CircuitBreaker
from syncer.pipeline.lane import Lane
from syncer.pipeline.limits import Limits
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics
from tests.contracts.sinks import compiled
from tests.harness.memory_sink import MemorySink
from tests.unit.pipeline.test_lane import SNAPSHOT, EveryKey, Letters, NoRecords


class Rows(EveryKey):
    """Counts the renders. Waits in each render until the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.rendered: list[list[str]] = []
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def render(self, keys: Any, most: int = 0) -> list[Row]:
        self.rendered.append([id for (id,) in keys])
        self.begun.release()
        assert self.go.acquire(timeout=10)
        return [Row(id, id, b"no object" if id == "bad" else b'{"n":2}') for (id,) in keys]


class Running:
    """A lane that runs on a thread of its own."""

    def __init__(self, sink: MemorySink | None = None) -> None:
        self.queue, self.rows, self.letters, self.stop = RefreshQueue(2), Rows(), Letters(), threading.Event()
        self.source = RefreshSource(self.queue, "work", 0, self.letters)
        self.sink = sink or MemorySink(model=compiled("things"))
        self.lane = Lane(
            compiled("things"),
            self.source,
            self.rows,
            [self.sink],
            clock=Clock(1),
            work=NoRecords(),
            dead_letters=self.source,
            observer=LaneObserver("refresh", Metrics(CollectorRegistry()).for_model("things")),
            limits=Limits(commit_interval=0.0),
            stop=self.stop,
            breaker=CircuitBreaker("things", 0),
        )

    def run(self) -> None:
        try:
            self.lane.run()
        except Exception as error:
            self.source.fail(error if isinstance(error, Fatal) else Retry(repr(error)))


@contextmanager
def running(sink: MemorySink | None = None) -> Iterator[Running]:
    made = Running(sink)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.stop.set()
        made.rows.go.release(100)
        thread.join()


def keys(*ids: str) -> list[Key]:
    return [(id,) for id in ids]


def ended(ticket: Ticket) -> Ticket:
    assert ticket.done.wait(10)
    return ticket


def test_a_caller_gets_the_version_when_the_sink_has_the_document() -> None:
    with running() as lane:
        lane.rows.go.release()
        ticket = ended(lane.queue.submit(keys("1")))
        assert ticket.renders[("1",)].version == version(1, SNAPSHOT.clock)
        assert lane.sink.store.documents["1"] == (version(1, SNAPSHOT.clock), b'{"n":2}')


def test_equal_keys_share_one_render_that_begins_after_both_callers_arrived() -> None:
    with running() as lane:
        first = lane.queue.submit(keys("1"))
        assert lane.rows.begun.acquire(timeout=10)
        second, third = lane.queue.submit(keys("1")), lane.queue.submit(keys("1"))
        lane.rows.go.release()
        ended(first)
        assert not second.done.is_set(), "the render had begun before the second caller arrived"
        lane.rows.go.release()
        ended(second)
        ended(third)
        assert lane.rows.rendered == [["1"], ["1"]]


def test_a_caller_with_many_keys_waits_for_several_batches() -> None:
    with running() as lane:
        lane.rows.go.release(2)
        assert len(ended(lane.queue.submit(keys("1", "2", "3"))).renders) == 3
        assert sorted(map(len, lane.rows.rendered)) == [1, 2]


def test_only_the_caller_of_a_refused_document_gets_its_reason() -> None:
    with running() as lane:
        one = lane.queue.submit(keys("0"))
        assert lane.rows.begun.acquire(timeout=10)
        good, bad = lane.queue.submit(keys("1")), lane.queue.submit(keys("bad"))
        lane.rows.go.release(2)
        assert not rejected(ended(good).renders) and not rejected(ended(one).renders)
        [(id, reason)] = rejected(ended(bad).renders)
        assert id == "bad" and reason
        assert [letter for letter, _ in lane.letters.written] == ["bad"]


def test_only_the_caller_of_a_refused_document_with_partials_gets_its_reason() -> None:
    queue, letters = RefreshQueue(10), Letters()
    source = RefreshSource(queue, "work", 0, letters, lambda id: id.partition("|")[0])
    good, bad = queue.submit(keys("1")), queue.submit(keys("bad"))
    [record] = source.poll(0, 10, 1000)
    source.document("bad|7", 1, "a field is wrong")
    source.commit({("work", 0): record.position.offset + 1}, wait=True)
    assert not rejected(ended(good).renders)
    assert rejected(ended(bad).renders) == [("bad", "a field is wrong")]
    assert letters.written == [("bad|7", "a field is wrong")]


def test_an_error_that_ends_the_lane_reaches_its_callers() -> None:
    class Broken(MemorySink):
        def write(self, batch: Any, timeout: float = 30.0) -> Any:
            raise Fatal("the index is gone")

    with running(Broken(model=compiled("things"))) as lane:
        lane.rows.go.release()
        error = ended(lane.queue.submit(keys("1"))).error
        assert isinstance(error, Fatal) and error.what == "the index is gone"


def test_a_closed_queue_refuses_waiting_and_later_callers() -> None:
    queue, error = RefreshQueue(10), Retry("closed")
    before = queue.submit(keys("1"))
    queue.close(error)
    assert ended(before).error is ended(queue.submit(keys("2"))).error is error
    assert queue.take(0) == {}


def test_keys_that_nobody_waits_for_are_not_rendered() -> None:
    queue = RefreshQueue(10)
    first, second = queue.submit(keys("1", "2")), queue.submit(keys("2"))
    queue.abandon(first)
    assert queue.take(0) == {("2",): [second]}


def test_a_lane_gives_up_a_batch_when_all_of_its_callers_have_gone() -> None:
    queue = RefreshQueue(10)
    source = RefreshSource(queue, "work", 0, Letters())
    first, second = queue.submit(keys("1")), queue.submit(keys("1"))
    assert len(source.poll(0, 1, 1)) == 1 and source.poll(0, 1, 1) == []
    queue.abandon(first)
    source.heartbeat()
    queue.abandon(second)
    with pytest.raises(Retry, match="all callers"):
        source.heartbeat()


def test_a_request_without_keys_is_done_at_once() -> None:
    assert ended(RefreshQueue(10).submit([])).renders == {}


def test_a_refused_document_under_an_equal_key_concerns_every_caller() -> None:
    """A numeric key may be 1.0 in the request and 1.00 in the row. Then the rejection names an id nobody asked for."""
    queue = RefreshQueue(10)
    source = RefreshSource(queue, "work", 0, Letters())
    ticket = queue.submit(keys("1.0"))
    source.poll(0, 1, 1)
    source.document("1.00", 5, "no")
    source.accepted(iter(["1.0"]), 5)
    source.commit({("work", 0): 2}, wait=True)
    assert rejected(ended(ticket).renders) == [("1.0", "no")]
