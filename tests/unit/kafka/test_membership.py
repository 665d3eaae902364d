"""A member of a group that does long work: it stays in the group, and reads every record once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, Producer, TopicPartition

from syncer.errors import Fatal
from syncer.kafka import membership
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.consumer import KafkaSource
from syncer.ports import Record
from syncer.sinks.kafka.log import TopicLog
from syncer.sinks.target import Target
from tests.harness.faulty_broker import OFFSET_COMMIT, FaultyBroker, faulty_broker
from tests.harness.waiting import until

RECORDS = [f"record {n}".encode() for n in range(5)]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyBroker]:
    """A broker with five records. Every heartbeat pauses the partitions."""
    monkeypatch.setattr(membership, "_HEARTBEAT_AFTER", 0.0)
    with faulty_broker() as broker:
        producer = Producer({"bootstrap.servers": broker.address})
        for record in RECORDS:
            producer.produce("orders", record, b"key", partition=0)
        assert producer.flush(10) == 0
        yield broker


def test_heartbeats_lose_and_repeat_no_record(broker: FaultyBroker) -> None:
    source = KafkaSource({"bootstrap.servers": broker.address}, "orders", ["orders"], name="orders")
    found: list[bytes | None] = []

    def poll() -> bool:
        found.extend(record.value for record in source.poll(0.1, 1, 1))
        for _ in range(3):
            source.heartbeat()
        return len(found) >= len(RECORDS)

    until(poll, lambda: found, seconds=30)
    assert found == RECORDS
    assert until(lambda: source.poll(0.1, 1, 1) == [] and source.progress()[("orders", 0)] == (5, 5))
    source.close()


def test_a_commit_that_a_rebalance_refused_is_sent_again(broker: FaultyBroker) -> None:
    """The partition has no further records. Without the commit, the next member would read these again."""
    settings = {"bootstrap.servers": broker.address}
    source = KafkaSource(settings, "orders", ["orders"], name="orders")
    found = list[Record]()

    def read() -> bool:
        found.extend(source.poll(0.1, 10, 1000))
        return len(found) == len(RECORDS)

    until(read, lambda: found, seconds=30)
    broker.fail(OFFSET_COMMIT, KafkaError.REBALANCE_IN_PROGRESS)
    source.commit({("orders", 0): len(RECORDS)}, wait=False)

    def committed() -> int:
        source.poll(0.1, 10, 1000)
        [partition] = source._consumer.committed([TopicPartition("orders", 0)], timeout=10)
        return partition.offset

    until(lambda: committed() == len(RECORDS), committed, seconds=30)
    source.close()


def test_an_error_that_a_heartbeat_receives_is_raised(broker: FaultyBroker) -> None:
    """The client reports it once. If the heartbeat dropped it, the lane would wait for records without a reason."""
    broker.fail_topic("orders", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    settings = {"bootstrap.servers": broker.address}
    target = Target("kafka:orders", "orders", "hash", 1, 1)
    admin = KafkaAdmin(settings, partitions=1, replication_factor=1)
    log = TopicLog(settings, "orders", "orders", admin, target, window=60.0, begin=dict)
    with pytest.raises(Fatal, match="cannot stay in the group") as caught:
        until(log.heartbeat, seconds=30)
    assert "ACLs" in caught.value.hint
    log.close()
