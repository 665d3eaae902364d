"""How the offsets of a group are read while its coordinator moves. `test_group_offsets.py` of the integration tests
does the same with a broker that restarts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

import syncer
from syncer.errors import Fatal, Retry
from syncer.kafka import group_offsets
from syncer.kafka.group_offsets import GroupOffsets
from tests.harness.faulty_broker import OFFSET_COMMIT, OFFSET_FETCH, FaultyBroker, faulty_broker

COMMITTED = {("orders", 0): 7}
MOVES = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)


@pytest.fixture(scope="module")
def broker() -> Iterator[FaultyBroker]:
    """A broker with a group `orders` that has committed."""
    with faulty_broker() as broker:
        producer = Producer({"bootstrap.servers": broker.address})
        producer.produce("orders", b"x")
        assert producer.flush(10) == 0
        member = Consumer({"bootstrap.servers": broker.address, "group.id": "orders"})
        member.commit(offsets=[TopicPartition("orders", 0, 7)], asynchronous=False)
        member.close()
        yield broker


@pytest.fixture
def offsets(broker: FaultyBroker) -> Iterator[GroupOffsets]:
    offsets = GroupOffsets({"bootstrap.servers": broker.address})
    yield offsets
    offsets.close()


@pytest.mark.parametrize("error", MOVES)
def test_a_group_whose_coordinator_moves_is_read(broker: FaultyBroker, offsets: GroupOffsets, error: int) -> None:
    """librdkafka's admin client ends the process at NOT_COORDINATOR and COORDINATOR_NOT_AVAILABLE."""
    assert offsets.committed("orders", COMMITTED) == COMMITTED
    broker.fail(OFFSET_FETCH, error, error)
    assert offsets.committed("orders", COMMITTED) == COMMITTED


def test_partitions_without_an_offset_are_left_out(offsets: GroupOffsets) -> None:
    assert offsets.committed("orders", [("orders", 0), ("orders", 1)]) == COMMITTED
    assert offsets.committed("another", COMMITTED) == {}
    assert offsets.committed("orders", []) == {}


def test_a_coordinator_that_keeps_moving_is_an_error(
    broker: FaultyBroker, offsets: GroupOffsets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_offsets, "_DEADLINE", 0.0)
    broker.fail(OFFSET_FETCH, KafkaError.NOT_COORDINATOR, KafkaError.NOT_COORDINATOR)
    for _ in range(2):
        with pytest.raises(Retry, match="cannot read the offsets of group orders"):
            offsets.committed("orders", COMMITTED)
    assert offsets.committed("orders", COMMITTED) == COMMITTED


def test_a_group_that_may_not_be_read_needs_an_operator(broker: FaultyBroker, offsets: GroupOffsets) -> None:
    broker.fail(OFFSET_FETCH, KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(Fatal, match="cannot read the offsets of group orders"):
        offsets.committed("orders", COMMITTED)


def test_a_consumer_that_was_not_used_for_long_is_closed(
    offsets: GroupOffsets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each resync has groups of its own, so a daemon would collect consumers."""
    offsets.committed("orders", COMMITTED)
    monkeypatch.setattr(group_offsets, "_IDLE", 0.0)
    offsets.committed("another", COMMITTED)
    assert list(offsets._free) == ["another"]


@pytest.mark.parametrize("error", MOVES)
def test_offsets_are_set_although_the_coordinator_moves(
    broker: FaultyBroker, offsets: GroupOffsets, error: int
) -> None:
    broker.fail(OFFSET_COMMIT, error)
    offsets.commit("customers", {("orders", 0): 3})
    assert offsets.committed("customers", COMMITTED) == {("orders", 0): 3}


def test_a_group_that_does_not_exist_has_no_offsets_and_can_be_set_later(
    broker: FaultyBroker, offsets: GroupOffsets
) -> None:
    broker.fail(OFFSET_FETCH, KafkaError.GROUP_ID_NOT_FOUND)
    assert offsets.committed("new", COMMITTED) == {}
    broker.fail(OFFSET_COMMIT, KafkaError.GROUP_ID_NOT_FOUND)
    with pytest.raises(Retry, match="cannot set the offsets of group new"):
        offsets.commit("new", COMMITTED)


def test_a_consumer_that_is_used_during_the_close_is_closed_afterwards(offsets: GroupOffsets) -> None:
    with offsets._reader("orders") as reader:
        offsets.close()
        assert reader.committed(list(COMMITTED)) == COMMITTED
    assert offsets._free == {}
    with pytest.raises(RuntimeError, match="closed"):
        reader._consumer.poll(0)


def test_requests_that_can_end_the_process_are_not_used() -> None:
    """They look for the coordinator of a group in librdkafka's admin client."""
    names = ("list", "alter", "delete")
    calls = re.compile(rf"\.({'|'.join(names)})_consumer_group(s|_offsets)\(")
    files = Path(syncer.__file__).parent.rglob("*.py")
    assert [file for file in files if calls.search(file.read_text())] == []


def test_no_module_of_the_daemon_asks_a_group_for_its_members() -> None:
    """The request looks for the coordinator, too. A command that it ends can be run again."""
    root = Path(syncer.__file__).parent
    callers = {str(file.relative_to(root)) for file in root.rglob("*.py") if ".members(" in file.read_text()}
    assert callers == {"operations/status.py"}
