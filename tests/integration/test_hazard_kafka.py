"""Kafka loses state: offsets are missing, expire, or belong to a recreated topic."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from devstack import Stack
from syncer.errors import Fatal
from syncer.kafka.consumer import KafkaSource
from syncer.kafka.group_offsets import GroupOffsets
from tests.harness.system import System
from tests.harness.waiting import until

FIRST = (
    "INSERT INTO {schema}.customers VALUES (1, 'Ada')",
    "INSERT INTO {schema}.orders (id, customer_id) SELECT n, 1 FROM generate_series(1, 5) n",
)
CHANGE = "UPDATE {schema}.orders SET status = status || '!'"
HOUR_MS = 3_600_000


@pytest.fixture
def admin(stack: Stack) -> AdminClient:
    return AdminClient({"bootstrap.servers": stack.kafka})


def fill_and_stop(system: System) -> None:
    """Fills a read model, checks that it is in sync, and stops the daemon."""
    system.run("backfill", system.orders)
    daemon = system.start(system.orders)
    system.execute(*FIRST)
    system.until_in_sync(system.orders)
    until(lambda: daemon.metric("syncer_lag_records") == 0)
    daemon.stop()


def settings(stack: Stack) -> dict[str, str]:
    return {"bootstrap.servers": stack.kafka}


def make(system: System, name: str, partitions: int) -> str:
    topic = f"{system.prefix}.{name}"
    system.kafka_admin().create([topic], {}, partitions=partitions)
    return topic


def polled(source: KafkaSource) -> list[bytes | None]:
    """Returns the first records that arrive."""
    try:
        records = until(lambda: source.poll(0.5, 100, 1 << 20))
    finally:
        source.close()
    return [record.value for record in records]


def test_hazard_18_an_idle_partition_starts_at_its_end(stack: Stack, system: System) -> None:
    """Kafka returns -1 for the offset at a time after the last record of a partition.

    The syncer uses the end offset instead and commits it at once. Records that arrive before the first poll are not
    missed.
    """
    topic = system.topic("orders")
    system.kafka_admin().create([topic], {}, partitions=2)
    producer = Producer(settings(stack))
    now = time.time_ns() // 1_000_000
    for partition, age in ((0, HOUR_MS), (1, HOUR_MS), (1, 1000)):
        producer.produce(topic, b"null", partition=partition, timestamp=now - age)
    assert producer.flush(10) == 0
    assert system.kafka_admin().ends([topic], at_ms=now - 600_000)[topic, 0] == -1
    system.run("backfill", system.orders)
    starts = system.state_store().load()[f"{system.orders}/1/registration"]["starts"]
    assert starts[topic] == {"0": 1, "1": 1}
    assert system.committed(f"{system.prefix}.{system.orders}.1", topic) == {(topic, 0): 1, (topic, 1): 1}


def test_hazard_19_a_partition_added_later_is_read_from_its_start(
    stack: Stack, system: System, admin: AdminClient
) -> None:
    topic = make(system, "growing", 1)
    group = f"{system.prefix}.growing"
    GroupOffsets({"bootstrap.servers": stack.kafka}).commit(group, {(topic, 0): 0})
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(10)
    until(lambda: system.kafka_admin().existing()[topic] == 2)
    producer = Producer(settings(stack))
    producer.produce(topic, b"early", partition=1)
    assert producer.flush(10) == 0
    assert polled(KafkaSource(settings(stack), group, [topic], name="growing")) == [b"early"]


def test_hazard_19_records_deleted_before_they_were_read_are_reported(
    stack: Stack, system: System, admin: AdminClient
) -> None:
    """The partition was added later, and its first records are deleted already."""
    topic = make(system, "trimmed", 1)
    producer = Producer(settings(stack))
    for value in (b"gone", b"there"):
        producer.produce(topic, value, partition=0)
    assert producer.flush(10) == 0
    [deleted] = admin.delete_records([TopicPartition(topic, 0, 1)]).values()
    deleted.result(10)
    with pytest.raises(Fatal, match="no longer has the records") as error:
        polled(KafkaSource(settings(stack), f"{system.prefix}.trimmed", [topic], name="orders"))
    assert error.value.hint == "syncer resync orders"


def test_hazard_19_expired_offsets_restart_at_the_start_of_the_read_model(system: System, admin: AdminClient) -> None:
    """The read model looks new, but the state topic shows that it is not."""
    fill_and_stop(system)
    groups = [f"{system.prefix}.{system.orders}.1{lane}" for lane in ("", ".work", ".backfill")]
    until(lambda: not any(system.kafka_admin().members(group) for group in groups))
    for deleted in admin.delete_consumer_groups(groups).values():
        deleted.result(10)
    system.execute(CHANGE)
    daemon = system.start(system.orders)
    system.until_in_sync(system.orders)
    assert system.state_store().load()[f"{system.orders}/1/registration"]["generation"] == 1
    assert daemon.metric("syncer_events_total") >= 11  # all events since the start of the read model


@pytest.mark.parametrize("running", [True, False], ids=["daemon runs", "daemon is down"])
def test_hazard_19_a_topic_recreated_under_its_name_is_detected(
    stack: Stack, system: System, admin: AdminClient, running: bool
) -> None:
    """The new topic has as many records as before, so offsets alone would not reveal it."""
    fill_and_stop(system)
    topic = system.topic("orders")
    ends = system.kafka_admin().ends([topic])
    daemon = system.start(system.orders) if running else None
    admin.delete_topics([topic])[topic].result(10)
    until(lambda: topic not in system.kafka_admin().existing())
    system.kafka_admin().create([topic], {}, partitions=len(ends))
    producer = Producer(settings(stack))
    for (_, partition), end in ends.items():
        for _ in range(end):
            producer.produce(topic, b"null", partition=partition)
    assert producer.flush(10) == 0
    daemon = daemon or system.start(system.orders, ready=False)
    reason = daemon.until_reason(system.orders, "failed")
    assert f"topic {topic}: a topic was deleted and created again" in reason
    assert f"syncer resync {system.orders}" in reason
    system.run("resync", system.orders, "--yes")
    daemon.until_ready()
    system.execute(CHANGE)
    system.until_in_sync(system.orders)
