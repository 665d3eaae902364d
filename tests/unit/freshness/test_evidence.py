"""Which offsets count as acknowledged: those of this process's lanes, and those that other processes commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Event
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from syncer.errors import Fatal, Retry
from syncer.freshness.evidence import Evidence
from syncer.pacing import SystemTime, poll_until
from syncer.ports import DurableSink, Partition
from syncer.registry.records import Generation

T = TypeVar("T")
ONE, TWO, WORK = ("orders", 0), ("orders", 1), ("work", 0)


class Groups:
    """The offsets that other processes have committed. Counts the questions."""

    def __init__(self, committed: dict[Partition, int] | None = None) -> None:
        self.offsets, self.asked = committed or {}, 0

    def committed(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        self.asked += 1
        return {partition: offset for partition, offset in self.offsets.items() if partition in partitions}


class Clock(SystemTime):
    """A clock that a test sets. Work ends at once, on the caller's thread."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def run_in_background(self, name: str, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        return future


def evidence(
    groups: Groups,
    reached: dict[Partition, int],
    sinks: Sequence[DurableSink] = (),
    registry: Any = None,
    time: SystemTime | None = None,
    tables: Any = None,
) -> Evidence:
    registration: Any = SimpleNamespace(model="orders", id=Generation("orders", 1))
    names: Any = SimpleNamespace(changes=("orders",), work_topics=("work", "backfill"))
    return Evidence(
        registry,
        registration,
        names,
        tables,
        sinks,
        tokens=dict,
        reached=lambda: reached,
        watch=lambda partitions: None,
        committed=groups.committed,
        dead_letters=lambda: 0,
        in_place=False,
        time=time,
        lookup_levels=1,
    )


def test_the_lanes_of_this_process_need_no_question_to_kafka() -> None:
    groups = Groups()
    assert evidence(groups, {ONE: 7, TWO: 5}).acknowledged({ONE: 7, TWO: 4}) == {ONE: 7, TWO: 5}
    assert groups.asked == 0


def test_other_processes_are_known_by_their_commits() -> None:
    groups = Groups({TWO: 9, WORK: 3})
    found = evidence(groups, {ONE: 7}).acknowledged({ONE: 7, TWO: 9, WORK: 3})
    assert found == {ONE: 7, TWO: 9, WORK: 3}


def test_the_higher_of_both_counts() -> None:
    """A partition that moved to another process was acknowledged here before, and there since."""
    groups = Groups({ONE: 5, TWO: 9})
    assert evidence(groups, {ONE: 7, TWO: 2}).acknowledged({ONE: 8, TWO: 9}) == {ONE: 7, TWO: 9}


def test_a_partition_that_nobody_has_reached_is_not_acknowledged() -> None:
    assert evidence(Groups(), {ONE: 7}).acknowledged({ONE: 7, TWO: 1})[TWO] == 0


def test_kafka_is_not_asked_again_at_once() -> None:
    groups = Groups()
    one = evidence(groups, {})
    one.acknowledged({ONE: 1})
    asked = groups.asked
    one.acknowledged({ONE: 1})
    assert groups.asked == asked == 1


def test_a_coordinator_that_does_not_answer_does_not_block_the_caller() -> None:
    """One thread serves all read models."""
    answer = Event()

    class Slow(Groups):
        def committed(self, partitions: Collection[Partition]) -> dict[Partition, int]:
            answer.wait(30)
            return super().committed(partitions)

    one = evidence(Slow({ONE: 5}), {})
    began = time.monotonic()
    assert one.acknowledged({ONE: 5}) == {ONE: 0}
    assert time.monotonic() - began < 5
    answer.set()
    assert poll_until(lambda: one.acknowledged({ONE: 5}) == {ONE: 5}, timeout=10, interval=0.01)


def test_an_error_of_kafka_is_raised_once() -> None:
    class Broken(Groups):
        def committed(self, partitions: Collection[Partition]) -> dict[Partition, int]:
            raise Retry("cannot read the group's offsets")

    one = evidence(Broken(), {})
    with pytest.raises(Retry):
        poll_until(lambda: one.acknowledged({ONE: 5}) and False, timeout=10, interval=0.01)
    assert one.acknowledged({ONE: 5}) == {ONE: 0}


def test_an_unexpected_answer_of_a_sink_is_an_error_of_this_read_model() -> None:
    """Any other exception would end the thread that serves all read models."""

    def durability() -> None:
        raise ValueError("not enough values to unpack")

    sink: Any = SimpleNamespace(name="elasticsearch", durability=durability)
    one = evidence(Groups(), {}, [sink])
    with pytest.raises(Fatal, match="not enough values"):
        poll_until(lambda: one.confirmation(lambda _: ""), timeout=10, interval=0.01)


class Asked:
    """A server that is down until a test says otherwise. Counts the requests."""

    def __init__(self) -> None:
        self.requests, self.down = 0, True

    def __call__(self, *_: object) -> Any:
        self.requests += 1
        if self.down:
            raise Retry("cannot connect")
        return Values()


class Values:
    """The state topic of a read model whose generation 1 is active."""

    def registration(self, model: str, slot: object = None) -> Any:
        return SimpleNamespace(generation=1)

    def get(self, key: object) -> None:
        return None

    def switch(self, leaving: object) -> None:
        return None


@pytest.mark.parametrize("which", ["sink", "state topic"])
def test_a_server_that_is_down_is_asked_less_and_less_often(which: str) -> None:
    """The monitor calls 50 times a second while a candidate waits for its confirmation, and for hours in an outage."""
    server, clock = Asked(), Clock()
    sink: Any = SimpleNamespace(name="redis", durability=server if which == "sink" else Values)
    state = SimpleNamespace(load_since=server if which == "state topic" else lambda _: Values())
    tables: Any = SimpleNamespace(fingerprint=None)
    one = evidence(Groups(), {}, [sink], SimpleNamespace(state=state), clock, tables)

    def call(seconds: float) -> list[object]:
        """Calls 50 times a second. Returns the confirmations."""
        found = []
        for _ in range(round(50 * seconds)):
            clock.seconds += 0.02
            with suppress(Retry):
                found.append(one.confirmation(lambda _: ""))
        return [one for one in found if one]

    assert call(60) == []
    assert server.requests in range(30, 36), "after 0.1, 0.2, 0.4, 0.8, 1.6 s, then every 2 s"
    server.down = False
    assert call(2.1), "the first answer counts, at most 2 s later"
    server.down, server.requests = True, 0
    call(0.2)
    assert server.requests == 2, "the next outage begins with the shortest pause again"
