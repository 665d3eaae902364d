"""Reads records without a consumer group: dead letters, state, and records that a group has not committed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from syncer.errors import Retry
from syncer.events import Position
from syncer.kafka.admin import KafkaAdmin
from syncer.ports import Partition, Record


class TopicReader:
    """Reads topics of the Kafka that `admin` administers. Any thread may use it. settings: of librdkafka."""

    def __init__(self, settings: Mapping[str, Any], admin: KafkaAdmin) -> None:
        self._settings, self._admin = dict(settings), admin

    def first(
        self, start: Mapping[Partition, int], each: int = 1, *, timeout: float = 5.0
    ) -> dict[Partition, list[Record]]:
        """Returns up to `each` records of every partition, from these offsets on.

        Returns fewer if they cannot be read within `timeout` seconds.
        """
        found: dict[Partition, list[Record]] = {partition: [] for partition in start}
        left, deadline = set(found), time.monotonic() + timeout
        consumer = self._reader()
        try:
            consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in start.items()])
            while left and time.monotonic() < deadline:
                for message in consumer.consume(500, 0.2):
                    at: Partition = (message.topic() or "", message.partition() or 0)
                    if message.error() is None and at in left:
                        found[at].append(Record(position_of(message), message.key(), message.value()))
                    if message.error() is not None or len(found[at]) == each:
                        left.discard(at)
        finally:
            consumer.close()
        return found

    def read_all(
        self,
        topic: str,
        start: Mapping[Partition, int] | None = None,
        *,
        limit: int = 0,
        timeout: float = 30.0,
    ) -> list[Record]:
        """Returns the records of a small topic, from `start` up to its current end.

        start: without it, the beginning. limit: at most that many records; 0 for all.
        Raises Retry if the end is not reached within `timeout` seconds.
        """
        records = []
        for message in self.messages(topic, start, timeout=timeout):
            records.append(Record(position_of(message), message.key(), message.value()))
            if len(records) == limit:
                break
        return records

    def messages(
        self, topic: str, start: Mapping[Partition, int] | None = None, *, timeout: float = 30.0
    ) -> Iterator[Message]:
        """As `read_all`, with the headers and times of the records. Yields them as they arrive."""
        ends = self._admin.ends([topic])
        first = start or dict.fromkeys(ends, 0)
        left = {p for p in first if ends.get(p, 0) > first[p]}
        if not left:
            return
        consumer = self._reader()
        deadline = time.monotonic() + timeout
        try:
            consumer.assign([TopicPartition(t, p, first[t, p]) for t, p in left])
            while left:
                if time.monotonic() > deadline:
                    raise Retry(f"topic {topic} could not be read in {timeout:.0f} s", hint="is Kafka up?")
                for message in consumer.consume(500, 0.2):
                    at: Partition = (message.topic() or "", message.partition() or 0)
                    error = message.error()
                    if error is None:
                        yield message
                        if (message.offset() or 0) + 1 >= ends[at]:
                            left.discard(at)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(at)
        finally:
            consumer.close()

    def _reader(self) -> Consumer:
        """Returns a consumer that joins no group: its partitions are assigned by hand."""
        settings = {**self._settings, "group.id": "syncer-reader", "enable.auto.commit": False}
        return Consumer({**settings, "auto.offset.reset": "earliest", "enable.partition.eof": True, "log_level": 2})


def position_of(message: Message) -> Position:
    """Returns the position of a record.

    confluent-kafka types its parts as optional. A record without an error has them all.
    """
    return Position(message.topic() or "", message.partition() or 0, message.offset() or 0)
