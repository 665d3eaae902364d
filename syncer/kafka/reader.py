"""Reads records without a consumer group: dead letters, state, and records that a group has not committed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from syncer.errors import Fatal, Retry
from syncer.events import Position
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.errors import classify_error
from syncer.ports import Partition, Record


class TopicReader:
    """Reads topics of the Kafka that `admin` administers. Any thread may use it. settings: of librdkafka."""

    def __init__(self, settings: Mapping[str, Any], admin: KafkaAdmin) -> None:
        self._settings, self._admin = dict(settings), admin

    def first(
        self, start: Mapping[Partition, int], each: int = 1, *, timeout: float = 5.0
    ) -> dict[Partition, list[Record]]:
        """Returns up to `each` records of every partition, from these offsets on.

        Returns fewer if they cannot be read within `timeout` seconds. Raises Fatal when Kafka denies access.
        """
        found: dict[Partition, list[Record]] = {partition: [] for partition in start}
        left, deadline = set(found), time.monotonic() + timeout
        consumer = self._reader()
        try:
            consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in start.items()])
            while left and time.monotonic() < deadline:
                for message in _available(consumer):
                    at: Partition = (message.topic() or "", message.partition() or 0)
                    if not _is_error(message) and at in left:
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
        Raises Retry if the end is not reached within `timeout` seconds, Fatal when Kafka denies access.
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
        deadline = time.monotonic() + timeout
        for messages, complete in self._read(first, ends):
            yield from messages
            if not complete and time.monotonic() > deadline:
                raise _late(topic, timeout)

    def between(
        self, start: Mapping[Partition, int], ends: Mapping[Partition, int], *, timeout: float = 10.0
    ) -> Iterator[Message]:
        """Yields the messages of several partitions from `start` up to `ends`, in order within each partition.

        Raises Retry if no message arrives for `timeout` seconds, Fatal when Kafka denies access.
        """
        deadline = time.monotonic() + timeout
        for messages, complete in self._read(start, ends):
            yield from messages
            if messages:
                deadline = time.monotonic() + timeout
            elif not complete and time.monotonic() > deadline:
                raise _late(", ".join(sorted({topic for topic, _ in start})), timeout)

    def _read(
        self, start: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> Iterator[tuple[list[Message], bool]]:
        """Yields the next messages, and whether all partitions are complete then. The messages may be none."""
        left = {p for p in start if ends.get(p, 0) > start[p]}
        if not left:
            return
        consumer = self._reader()
        try:
            consumer.assign([TopicPartition(t, p, start[t, p]) for t, p in left])
            while left:
                messages = []
                for message in _available(consumer):
                    at: Partition = (message.topic() or "", message.partition() or 0)
                    if not _is_error(message):
                        messages.append(message)
                        if (message.offset() or 0) + 1 >= ends[at]:
                            left.discard(at)
                    elif _is_end(message):
                        left.discard(at)
                yield messages, not left
        finally:
            consumer.close()

    def tail(self, start: Mapping[Partition, int]) -> PartitionTail:
        """Returns a reader that stays connected. start: the first offsets to read."""
        return PartitionTail(self._reader(), start)

    def _reader(self) -> Consumer:
        """Returns a consumer that joins no group: its partitions are assigned by hand."""
        settings = {**self._settings, "group.id": "syncer-reader", "enable.auto.commit": False}
        return Consumer({**settings, "auto.offset.reset": "earliest", "enable.partition.eof": True, "log_level": 2})


class PartitionTail:
    """Reads the records that are new since the last read, with one consumer. For one thread at a time."""

    def __init__(self, consumer: Consumer, start: Mapping[Partition, int]) -> None:
        self.next = dict(start)
        """The next offset of each partition."""
        self._consumer = consumer
        self._consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in start.items()])

    def read(self, ends: Mapping[Partition, int], *, timeout: float = 30.0) -> list[Record]:
        """Returns the records up to `ends`, and perhaps some after them.

        Raises Retry if the end is not reached within `timeout` seconds, Fatal when Kafka denies access. Then the reader
        has to be closed.
        """
        deadline, records = time.monotonic() + timeout, []
        while any(offset < ends.get(partition, 0) for partition, offset in self.next.items()):
            for message in _available(self._consumer):
                at = position_of(message)
                if not _is_error(message):
                    records.append(Record(at, message.key(), message.value()))
                    self.next[at.topic, at.partition] = at.offset + 1
                elif _is_end(message):  # the last records were removed
                    self.next[at.topic, at.partition] = max(at.offset, self.next[at.topic, at.partition])
            if time.monotonic() > deadline:
                raise _late(", ".join(sorted({topic for topic, _ in self.next})), timeout)
        return records

    def close(self) -> None:
        self._consumer.close()


def _available(consumer: Consumer) -> list[Message]:
    """Returns the next messages as soon as there is one. `consume` alone would wait for more."""
    first = consumer.poll(0.2)
    return [] if first is None else [first, *consumer.consume(500, 0)]


def _is_error(message: Message) -> bool:
    """Returns whether a message is no record: the end of its partition, or an error that the client tries again after.

    Raises Fatal when Kafka denies access: the client would repeat the request without end.
    """
    error = message.error()
    if error is None:
        return False
    failure = classify_error(f"cannot read topic {message.topic()}", KafkaException(error))
    if isinstance(failure, Fatal):
        raise failure
    return True


def _is_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def position_of(message: Message) -> Position:
    """Returns the position of a record.

    confluent-kafka types its parts as optional. A record without an error has them all.
    """
    return Position(message.topic() or "", message.partition() or 0, message.offset() or 0)


def _late(topics: str, timeout: float) -> Retry:
    return Retry(
        f"topic {topics} could not be read in {timeout:.0f} s",
        hint="check that Kafka is up and kafka.bootstrap_servers is correct",
    )
