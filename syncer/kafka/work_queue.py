"""Implements `ports.WorkQueue` with a topic and a consumer group of the same name."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

from syncer.events import WorkItem
from syncer.kafka.admin import MAX_BYTES, KafkaAdmin
from syncer.kafka.change_log import WEEK_MS, read_backlog
from syncer.kafka.consumer import KafkaSource
from syncer.kafka.group_offsets import GroupOffsets
from syncer.kafka.producer import DeliveryTracker, KafkaProducer
from syncer.kafka.reader import TopicReader
from syncer.pipeline.decode import encode_item
from syncer.ports import Backlog, ends_of, not_committed, records_left

CONFIG = {"retention.ms": str(WEEK_MS), "max.message.bytes": str(MAX_BYTES)}
"""Of the topic."""


class KafkaWorkQueue:
    """Implements `ports.WorkQueue`. Items go to the partitions in turn: a few large ones are work for all lanes."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        admin: KafkaAdmin,
        reader: TopicReader,
        producer: KafkaProducer,
        offsets: GroupOffsets,
        topic: str,
    ) -> None:
        self.topic = topic
        self._settings, self._admin, self._reader, self._producer = settings, admin, reader, producer
        self._offsets = offsets
        self._tracker = DeliveryTracker(producer)
        self._turns = itertools.count(time.monotonic_ns() // 1000)  # not all begin at the same partition
        self._partitions = 0

    def create(self) -> None:
        self._admin.create([self.topic], CONFIG)

    def put(self, item: WorkItem) -> None:
        if not self._partitions:
            self._partitions = self._producer.partitions(self.topic)
        self._tracker.put(self.topic, None, encode_item(item), partition=next(self._turns) % self._partitions)

    def flush(self) -> None:
        self._tracker.flush()

    def begins(self) -> dict[int, int]:
        return {number: offset for (_, number), offset in self._admin.begins([self.topic]).items()}

    def ends(self) -> dict[int, int]:
        ends = ends_of([self.topic], self._admin.ends([self.topic]))
        return {number: offset for (_, number), offset in ends.items()}

    def left(self, ends: Mapping[int, int] | None = None, begins: Mapping[int, int] | None = None) -> int:
        ends = self.ends() if ends is None else ends
        committed = self._offsets.committed(self.topic, [(self.topic, number) for number in ends])
        return records_left(ends, {number: offset for (_, number), offset in committed.items()}, begins)

    def backlog(self, first: int) -> list[Backlog]:
        ends = self._admin.ends([self.topic])
        waiting = not_committed(ends, self._offsets.committed(self.topic, ends))
        return read_backlog(self._reader, waiting, first)

    def source(self, *, name: str) -> KafkaSource:
        return KafkaSource(self._settings, self.topic, [self.topic], name=name)
