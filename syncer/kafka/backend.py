"""Implements `ports.Backend`: the syncer keeps everything that it must not forget in Kafka."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from syncer.config.schema import Config
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.change_log import KafkaChangeLog
from syncer.kafka.dead_letters import KafkaDeadLetterStore
from syncer.kafka.group_offsets import GroupOffsets
from syncer.kafka.producer import KafkaProducer
from syncer.kafka.reader import TopicReader
from syncer.kafka.state_store import KafkaStateStore
from syncer.kafka.work_queue import KafkaWorkQueue


class KafkaBackend:
    """Implements `ports.Backend`. All that it makes shares one admin client, one producer, and one reader of offsets.

    Raises Fatal if a setting in `kafka.properties` is wrong.
    """

    def __init__(self, config: Config) -> None:
        self.settings: dict[str, Any] = {
            "bootstrap.servers": config.kafka.bootstrap_servers,
            "client.id": "syncer",
            "log_level": 2,  # librdkafka's own lines are no log entries of the syncer; errors arrive as exceptions
            **config.kafka.properties,
        }
        self.admin = KafkaAdmin(
            self.settings,
            partitions=config.kafka.partitions,
            replication_factor=config.kafka.replication_factor,
        )
        self.reader = TopicReader(self.settings, self.admin)
        self.producer = KafkaProducer(self.settings)
        self.offsets = GroupOffsets(self.settings)
        self.changes = KafkaChangeLog(self.settings, self.admin, self.reader, self.offsets)
        self.state = KafkaStateStore(self.admin, self.reader, self.producer, config.kafka.state_topic)

    def work_queue(self, name: str) -> KafkaWorkQueue:
        return KafkaWorkQueue(self.settings, self.admin, self.reader, self.producer, self.offsets, name)

    def dead_letters(self, name: str) -> KafkaDeadLetterStore:
        return KafkaDeadLetterStore(self.admin, self.reader, self.producer, name)

    def ids(self, names: Collection[str]) -> dict[str, str]:
        return self.admin.ids(names)

    def ping(self, timeout: float) -> None:
        self.admin.existing(timeout)
