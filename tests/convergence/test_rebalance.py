"""Tests a member of a consumer group while its partitions move to another member and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
from confluent_kafka import Producer

from devstack import Stack
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.consumer import KafkaSource
from syncer.kafka.group_offsets import GroupOffsets
from tests.harness import Names
from tests.harness.waiting import remaining

PARTITIONS = 4


class Group:
    """A topic and a consumer group that reads it."""

    def __init__(self, stack: Stack, names: Names) -> None:
        self.settings: dict[str, Any] = {"bootstrap.servers": stack.kafka, "session.timeout.ms": 6000}
        self.topic = names("topic")
        self.admin = KafkaAdmin(self.settings, partitions=PARTITIONS, replication_factor=1)
        self.admin.create([self.topic], {})
        self._offsets = GroupOffsets(self.settings)
        self._producer = Producer({"bootstrap.servers": stack.kafka, "linger.ms": 0})

    def member(self) -> KafkaSource:
        return KafkaSource(self.settings, self.topic, [self.topic], name="model")

    def produce(self) -> None:
        """Writes one record to each partition."""
        for partition in range(PARTITIONS):
            self._producer.produce(self.topic, b"x", partition=partition)
        self._producer.flush()

    def uncommitted(self) -> dict[Any, Any]:
        ends = self.admin.ends([self.topic])
        committed = self._offsets.committed(self.topic, ends)
        return {p: (committed.get(p), end) for p, end in ends.items() if committed.get(p) != end}


@pytest.fixture
def group(stack: Stack, names: Names) -> Group:
    return Group(stack, names)


def poll_until(condition: Callable[[], bool], *members: KafkaSource) -> None:
    for _ in remaining(time.monotonic() + 20, 0.0):
        for member in members:
            member.poll(0.02, 100, 1 << 20)
        if condition():
            return
    raise AssertionError("the condition was not met in time")


def test_a_partition_that_was_revoked_during_a_pause_is_read_after_it_returns(group: Group) -> None:
    one = group.member()
    poll_until(lambda: len(one.progress()) == PARTITIONS, one)
    other = group.member()
    for _ in remaining(time.monotonic() + 20, 0.02):  # busy: only the heartbeat keeps its membership
        one.heartbeat()
        other.poll(0.02, 100, 1 << 20)
        if other.progress() and len(one.progress()) + len(other.progress()) == PARTITIONS:
            break
    assert other.progress()
    poll_until(lambda: True, one)  # continues with its remaining partitions
    other.close()
    poll_until(lambda: len(one.progress()) == PARTITIONS, one)
    group.produce()
    poll_until(lambda: all(position == 1 for position, _ in one.progress().values()), one)
    one.close()


def test_offsets_rejected_during_a_rebalance_are_committed_after_it(group: Group) -> None:
    """Later records must not be necessary: there may be none."""
    stop = Event()

    def work() -> None:
        member = group.member()
        while not stop.is_set():
            records = member.poll(0.02, 1, 1 << 20)
            member.commit({r.position[:2]: r.position.offset + 1 for r in records}, wait=False)
        member.close()

    worker = Thread(target=work)
    worker.start()
    try:
        for _ in range(4):
            other = group.member()
            for left in remaining(time.monotonic() + 1.0, 0.02):  # while the member joins and leaves
                other.poll(0.0, 100, 1 << 20)
                if left > 0.5:
                    group.produce()
            other.close()
            for _ in remaining(time.monotonic() + 20, 0.05):
                if not group.uncommitted():
                    break
            assert not group.uncommitted()
    finally:
        stop.set()
        worker.join()
