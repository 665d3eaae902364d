"""The start offsets of a read model, and its group membership while it is busy, on real topics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from devstack import Stack
from syncer.config.schema import Config
from syncer.config.schema import load as load_config
from syncer.errors import Fatal
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.backend import KafkaBackend
from syncer.kafka.consumer import KafkaSource
from syncer.kafka.group_offsets import GroupOffsets
from syncer.registry import loader
from syncer.registry.registry import Registry
from tests.harness import Database, Names

MODEL = """
name: model
root: {table: public.root}
document: {id: id}
sink: {memory: {}}
"""
HOUR = 3_600_000


@pytest.fixture
def config(stack: Stack, database: Database, names: Names, tmp_path: Path) -> Config:
    database.execute("CREATE TABLE root (id int PRIMARY KEY)")
    (tmp_path / "model.yaml").write_text(MODEL)
    return load_config(
        environ={
            "SYNCER_MODELS": str(tmp_path),
            "SYNCER_POSTGRES__DSN": database.dsn,
            "SYNCER_KAFKA__BOOTSTRAP_SERVERS": stack.kafka,
            "SYNCER_KAFKA__TOPIC_PREFIX": names.prefix,
            "SYNCER_KAFKA__GROUP_PREFIX": names.prefix,
            "SYNCER_KAFKA__STATE_TOPIC": names("state"),
        }
    )


@pytest.fixture
def producer(stack: Stack) -> Iterator[Producer]:
    producer = Producer({"bootstrap.servers": stack.kafka, "linger.ms": 0})
    yield producer
    producer.flush()


def test_hazard_18_every_partition_has_a_start_offset_before_the_first_poll(
    config: Config, names: Names, producer: Producer
) -> None:
    """Kafka returns -1 for a time after the last record of a partition.

    Starting at `latest` on the first poll would skip records that arrive before it. So the syncer reads the end
    offsets first, then the offsets by time, and commits all of them.
    """
    backend = KafkaBackend(config)
    registry = Registry(config, backend)
    topic = f"{names.prefix}.public.root"
    backend.admin.create([topic], {}, partitions=3)
    now = time.time_ns() // 1_000_000
    for partition, age in ((0, HOUR), (0, HOUR), (1, HOUR), (1, 60_000), (1, 0)):
        producer.produce(topic, b"{}", partition=partition, timestamp=now - age)
    assert producer.flush(10) == 0
    assert registry.changes.ends([topic], at_ms=now - HOUR // 2) == {
        (topic, 0): -1,
        (topic, 1): 1,
        (topic, 2): -1,
    }
    opened = registry.open(loader.load_models(config)[0].compiled)
    expected = {(topic, 0): 2, (topic, 1): 1, (topic, 2): 0}
    assert opened.registration.starts == {topic: {str(p): offset for (_, p), offset in expected.items()}}
    assert registry.changes.committed(opened.names.group, expected) == expected
    for partition in range(3):
        producer.produce(topic, b"{}", partition=partition)
    assert producer.flush(10) == 0
    source = registry.changes.source(opened.names.group, [topic], name="model")
    read: set[tuple[int, int]] = set()
    wanted = {(0, 2), (1, 1), (1, 2), (1, 3), (2, 0)}
    deadline = time.monotonic() + 30
    while read != wanted and time.monotonic() < deadline:
        read |= {record.position[1:] for record in source.poll(0.2, 100, 1 << 20)}
    source.close()
    assert read == wanted


def test_hazard_08_a_compacted_topic_is_refused(config: Config, names: Names) -> None:
    """A compacted topic keeps only the last event of a key, and loses the root that a row was moved from."""
    backend = KafkaBackend(config)
    registry = Registry(config, backend)
    topic = f"{names.prefix}.public.root"
    backend.admin.create([topic], {"cleanup.policy": "compact,delete"}, partitions=1)
    with pytest.raises(Fatal, match="compacted topic loses the before-images") as error:
        registry.open(loader.load_models(config)[0].compiled)
    servers = config.kafka.bootstrap_servers
    assert error.value.hint.startswith(f"kafka-configs.sh --bootstrap-server {servers} --alter ")
    assert error.value.hint.endswith(f" --topic {topic} --add-config cleanup.policy=delete")
    assert registry.registered("model") is None


def test_hazard_20_a_busy_consumer_stays_in_its_group(stack: Stack, names: Names, producer: Producer) -> None:
    """The consumer is busy for longer than `max.poll.interval.ms`.

    Without polls, Kafka would evict it from its group.
    """
    settings: dict[str, Any] = {
        "bootstrap.servers": stack.kafka,
        "session.timeout.ms": 6000,
        "max.poll.interval.ms": 6000,
    }
    topics = KafkaAdmin(settings, partitions=1, replication_factor=1)
    topic = names("topic")
    topics.create([topic], {})
    for _ in range(2):
        producer.produce(topic, b"x")
    assert producer.flush(10) == 0
    source = KafkaSource(settings, names("group"), [topic], name="model")
    while not (first := source.poll(0.2, 1, 1 << 20)):
        pass
    busy_until = time.monotonic() + 8
    while time.monotonic() < busy_until:
        source.heartbeat()
        time.sleep(0.2)
    source.commit({(topic, 0): first[0].position.offset + 1}, wait=True)
    assert topics.members(names("group")) == 1
    assert GroupOffsets(settings).committed(names("group"), [(topic, 0)]) == {(topic, 0): 1}
    while not (second := source.poll(0.2, 1, 1 << 20)):
        pass
    assert second[0].position.offset == 1
    source.close()
