"""Implements `ports.ChangeLog` with Debezium's topics and the read models' consumer groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from syncer.errors import Fatal
from syncer.kafka.admin import MAX_BYTES, KafkaAdmin
from syncer.kafka.consumer import KafkaSource
from syncer.kafka.reader import TopicReader
from syncer.ports import Backlog, Partition, Record, not_committed, records_left

WEEK_MS = 7 * 24 * 3600 * 1000
CONFIG = {
    "retention.ms": str(WEEK_MS),
    "cleanup.policy": "delete",
    "max.message.bytes": str(MAX_BYTES),
}
"""Of the topics that `create` makes."""


class KafkaChangeLog:
    """Implements `ports.ChangeLog`. settings: of librdkafka."""

    def __init__(self, settings: Mapping[str, Any], admin: KafkaAdmin, reader: TopicReader) -> None:
        self._settings, self._admin, self._reader = settings, admin, reader
        self.begins, self.ends = admin.begins, admin.ends
        self.committed, self.commit, self.members = admin.committed, admin.commit, admin.members

    def missing(self, topics: Collection[str]) -> list[str]:
        return sorted(set(topics) - self._admin.existing().keys())

    def create(self, topics: Collection[str], *, partitions: int = 0) -> list[str]:
        return self._admin.create(topics, CONFIG, partitions=partitions)

    def require_uncompacted(self, topics: Collection[str]) -> None:
        for topic in topics:
            policy = self._admin.config(topic, "cleanup.policy") or ""
            if "compact" in policy:
                servers = self._settings["bootstrap.servers"]
                raise Fatal(
                    "a compacted topic loses the before-images of changes",
                    where=f"topic {topic}",
                    why=f"cleanup.policy={policy}",
                    hint=f"kafka-configs.sh --bootstrap-server {servers} --alter "
                    f"--topic {topic} --add-config cleanup.policy=delete",
                )

    def left(self, group: str, ends: Mapping[Partition, int]) -> int:
        return records_left(ends, self.committed(group))

    def backlog(self, group: str, topics: Collection[str], first: int = 1) -> list[Backlog]:
        waiting = not_committed(self.ends(topics), self.committed(group))
        return read_backlog(self._reader, waiting, first)

    def read(self, topic: str, start: Mapping[Partition, int]) -> list[Record]:
        return self._reader.read_all(topic, start)

    def source(self, group: str, topics: Sequence[str], *, name: str) -> KafkaSource:
        return KafkaSource(self._settings, group, topics, name=name)


def read_backlog(reader: TopicReader, waiting: Mapping[Partition, tuple[int, int]], first: int) -> list[Backlog]:
    """Reads up to `first` records of each partition in which records wait."""
    records = reader.first({partition: begin for partition, (begin, _) in waiting.items()}, first) if waiting else {}
    return [Backlog(begin, end, records[partition]) for partition, (begin, end) in waiting.items()]
