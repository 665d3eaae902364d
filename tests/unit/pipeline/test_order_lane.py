"""The order lane over a log in memory: what it hands over, commits and refuses."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event

import pytest
from prometheus_client import CollectorRegistry

from syncer.errors import Fatal, Retry
from syncer.events import Position, WorkItem
from syncer.pacing import Stopped
from syncer.pipeline.limits import Limits
from syncer.pipeline.order_lane import OrderLane
from syncer.ports import LogEntry, LogStart, Partition
from syncer.runtime.lane_observer import LaneObserver
from syncer.telemetry.metrics import Metrics

ZERO: Partition = ("t", 0)


class MemoryLog:
    """`ports.DocumentLog` over a list. One poll returns one list of entries."""

    window = 10.0

    def __init__(self, *polls: list[LogEntry]) -> None:
        self.polls = list(polls)
        self.assigned: dict[Partition, LogStart] = {ZERO: LogStart(0, 0)}
        self.committed: list[Mapping[Partition, LogStart]] = []
        self.next = 0
        self.closed = False

    def poll(self, timeout: float, max_entries: int) -> list[LogEntry]:
        found = self.polls.pop(0) if self.polls else []
        self.next = found[-1].position.offset + 1 if found else self.next
        return found

    def starts(self) -> Mapping[Partition, LogStart]:
        return self.assigned

    def commit(self, next_offsets: Mapping[Partition, LogStart], *, wait: bool) -> None:
        if next_offsets:
            self.committed.append(next_offsets)

    def heartbeat(self) -> None:
        """There is no group."""

    def progress(self) -> dict[Partition, tuple[int, int]]:
        return {ZERO: (self.next, self.next + sum(map(len, self.polls)))}

    def close(self) -> None:
        self.closed = True


class MemoryWork:
    """`ports.WorkTopic` in a list."""

    topic = "work"

    def __init__(self) -> None:
        self.items: list[WorkItem] = []
        self.fails = False

    def put(self, item: WorkItem) -> None:
        self.items.append(item)

    def flush(self) -> None:
        if self.fails:
            raise Retry("Kafka did not acknowledge records")


def entry(offset: int, id: str, version: int, at_ms: int = 1000) -> LogEntry:
    return LogEntry(Position(*ZERO, offset), id, version, at_ms)


@pytest.fixture
def work() -> MemoryWork:
    return MemoryWork()


def lane(log: MemoryLog, work: MemoryWork, *, columns: int = 1, registry: CollectorRegistry | None = None) -> OrderLane:
    metrics = Metrics(registry or CollectorRegistry()).for_model("orders")
    observer, limits = LaneObserver("order", metrics), Limits(commit_interval=0.0, chunk_documents=2)
    return OrderLane("orders", log, columns=columns, work=work, observer=observer, limits=limits, stop=Event())


def test_documents_with_an_older_version_last_are_handed_over_once(work: MemoryWork) -> None:
    registry = CollectorRegistry()
    entries = [entry(n, id, 9) for n, id in enumerate("abc")]
    late = [entry(3, "a", 8, 2000), entry(4, "b", 8, 1500), entry(5, "a", 7, 2500), entry(6, "c", 1, 2500)]
    order = lane(log := MemoryLog(entries, late), work, registry=registry)
    order.step()
    assert work.items == [] and log.committed == [{ZERO: LogStart(0, 3)}]
    order.step()
    assert [(one.kind, one.reason, one.keys, one.committed_ms) for one in work.items] == [
        ("keys", "order", (("a",), ("b",)), 1500),
        ("keys", "order", (("c",),), 1500),
    ]
    assert log.committed[1:] == [{ZERO: LogStart(0, 7)}]
    assert registry.get_sample_value("syncer_documents_reordered_total", {"model": "orders"}) == 3


def test_nothing_is_committed_before_the_work_is_durable(work: MemoryWork) -> None:
    order = lane(log := MemoryLog([entry(0, "a", 9), entry(1, "a", 8)]), work)
    work.fails = True
    with pytest.raises(Retry):
        order.run()
    assert log.committed == [] and log.closed


def test_a_stopped_lane_commits_what_it_has_checked(work: MemoryWork) -> None:
    order = lane(log := MemoryLog([entry(0, "a", 9)]), work)
    order.limits = Limits(commit_interval=100.0)
    order.step()
    order.wait = type(order.wait)(stop := Event())
    stop.set()
    with pytest.raises(Stopped):
        order.run()
    assert log.committed == [{ZERO: LogStart(0, 1)}] and log.closed


def test_a_partition_that_is_assigned_again_is_read_from_its_new_start(work: MemoryWork) -> None:
    """Another member may have checked further meanwhile, so there is no gap."""
    order = lane(log := MemoryLog([entry(0, "a", 9)], [entry(7, "a", 8)]), work)
    order.step()
    log.assigned = {ZERO: LogStart(7, 7)}
    order.step()
    assert work.items == []


def test_an_id_that_is_no_key_is_ignored(work: MemoryWork) -> None:
    order = lane(
        MemoryLog([entry(0, "a", 9), entry(1, "a", 0), entry(2, "a|b", 9), entry(3, "a|b", 0)]), work, columns=2
    )
    order.step()
    assert [one.keys for one in work.items] == [(("a", "b"),)]


def test_removed_records_stop_the_read_model(work: MemoryWork) -> None:
    order = lane(log := MemoryLog([entry(0, "a", 9), entry(5, "a", 8)]), work)
    with pytest.raises(Fatal) as caught:
        order.run()
    assert caught.value.hint == "syncer resync orders"
    assert caught.value.where == "t, partition 0"
    assert log.committed == [] and work.items == []


def test_records_before_the_start_are_no_lag(work: MemoryWork) -> None:
    log = MemoryLog([entry(0, "a", 1)], [entry(1, "a", 2)], [entry(2, "a", 3)])
    log.assigned = {ZERO: LogStart(0, 2)}
    order = lane(log, work)
    order.step()
    assert order.lag.seconds(order.time.now_ms()) < 60 and order.lag.records == 2
    order.step()
    order.step()
    order.step()
    assert (order.lag.seconds(order.time.now_ms()), order.lag.records) == (0.0, 0)
    assert log.committed[-1] == {ZERO: LogStart(0, 3)}


def test_entries_count_as_checked_once_their_work_is_durable(work: MemoryWork) -> None:
    order = lane(MemoryLog([entry(0, "a", 9), entry(1, "a", 8)]), work)
    work.fails = True
    with pytest.raises(Retry):
        order.step()
    assert order.checked == {}, "the document that came in the wrong order is not in the work topic"
    order = lane(MemoryLog([entry(0, "a", 9), entry(1, "a", 8)]), MemoryWork())
    order.step()
    assert order.checked == {ZERO: 2}
