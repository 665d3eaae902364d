"""Reads the offsets of a group while its coordinator restarts."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial

import pytest

from devstack import Stack
from syncer.errors import Retry
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.consumer import KafkaSource
from syncer.kafka.group_offsets import GroupOffsets
from tests.harness import Names
from tests.harness.waiting import until


def test_offsets_can_be_read_while_the_coordinator_restarts(stack: Stack, names: Names) -> None:
    settings = {"bootstrap.servers": stack.kafka}
    admin, offsets = KafkaAdmin(settings, partitions=2, replication_factor=1), GroupOffsets(settings)
    topic, group = names("topic"), names("group")
    admin.create([topic], {})
    offsets.commit(group, {(topic, 0): 3})
    found: list[dict[tuple[str, int], int]] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            with suppress(Retry):  # while the broker is down
                found.append(offsets.committed(group, [(topic, 0), (topic, 1)]))

    def has_answered(times: int) -> bool:
        return len(found) > times

    pollers = [threading.Thread(target=poll) for _ in range(2)]
    for poller in pollers:
        poller.start()
    try:
        until(partial(has_answered, 100))
        assert admin.members(group) == 0, "a consumer that never subscribes is no member"
        for _ in range(2):
            stack.restart("kafka")
            known = len(found)
            until(partial(has_answered, known + 100))
        offsets.commit(group, {(topic, 0): 5, (topic, 1): 1})
        until(lambda: found[-1] == {(topic, 0): 5, (topic, 1): 1})
    finally:
        stop.set()
        for poller in pollers:
            poller.join()
        offsets.close()
    assert {tuple(sorted(one.items())) for one in found} == {
        (((topic, 0), 3),),
        (((topic, 0), 5), ((topic, 1), 1)),
    }, "an answer is right, also right after a restart"


def test_offsets_of_a_group_with_members_are_not_set(stack: Stack, names: Names) -> None:
    """Two processes may open a new read model at the same time. The second must not rewind the first."""
    settings = {"bootstrap.servers": stack.kafka}
    admin, offsets = KafkaAdmin(settings, partitions=1, replication_factor=1), GroupOffsets(settings)
    topic, group = names("topic"), names("group")
    admin.create([topic], {})
    offsets.commit(group, {(topic, 0): 0})
    member = KafkaSource(settings, group, [topic], name="orders")
    until(lambda: member.poll(0.1, 1, 1) or member.progress())
    assert admin.members(group) == 1
    with pytest.raises(Retry, match="the consumer group is in use"):
        offsets.commit(group, {(topic, 0): 7})
    member.close()
    assert offsets.committed(group, [(topic, 0)]) == {(topic, 0): 0}
    until(lambda: admin.members(group) == 0)
    offsets.commit(group, {(topic, 0): 7})
    assert offsets.committed(group, [(topic, 0)]) == {(topic, 0): 7}
    offsets.close()
