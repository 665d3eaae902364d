"""Implements `ports.ChangeLog` with Debezium's topics and the read models' consumer groups."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from syncer.errors import Fatal
from syncer.kafka.admin import MAX_BYTES, KafkaAdmin
from syncer.kafka.consumer import KafkaSource
from syncer.kafka.follower import KafkaFollower
from syncer.kafka.group_offsets import GroupOffsets
from syncer.kafka.reader import TopicReader, position_of
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

    def __init__(
        self, settings: Mapping[str, Any], admin: KafkaAdmin, reader: TopicReader, offsets: GroupOffsets
    ) -> None:
        self._settings, self._admin, self._reader = settings, admin, reader
        self.begins, self.ends, self.known_ends = admin.begins, admin.ends, admin.known_ends
        self.committed, self.commit, self.members = offsets.committed, offsets.commit, admin.members

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

    def settings(self, topic: str) -> dict[str, str] | None:
        return self._admin.configs(topic) if topic in self._admin.existing() else None

    def left(self, group: str, ends: Mapping[Partition, int]) -> int:
        return records_left(ends, self.committed(group, ends))

    def backlog(self, group: str, topics: Collection[str], first: int = 1) -> list[Backlog]:
        ends = self.ends(topics)
        waiting = not_committed(ends, self.committed(group, ends))
        return read_backlog(self._reader, waiting, first)

    def read(self, topic: str, start: Mapping[Partition, int]) -> list[Record]:
        return self._reader.read_all(topic, start)

    def follow(self, start: Mapping[Partition, int]) -> KafkaFollower:
        return KafkaFollower(self._settings, start)

    def between(self, start: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[tuple[Record, int]]:
        for message in self._reader.between(start, ends):
            at: Partition = (message.topic() or "", message.partition() or 0)
            if (message.offset() or 0) < ends[at]:
                yield Record(position_of(message), message.key(), message.value()), message.timestamp()[1]

    def source(self, group: str, topics: Sequence[str], *, name: str) -> KafkaSource:
        return KafkaSource(self._settings, group, topics, name=name)


def read_backlog(reader: TopicReader, waiting: Mapping[Partition, tuple[int, int]], first: int) -> list[Backlog]:
    """Reads up to `first` records of each partition in which records wait. Leaves out those that came later."""
    records = reader.first({partition: begin for partition, (begin, _) in waiting.items()}, first) if waiting else {}
    return [
        Backlog(begin, end, [one for one in records[partition] if one.position.offset < end])
        for partition, (begin, end) in waiting.items()
    ]
