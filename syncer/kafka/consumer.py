"""Implements `ports.GroupSource`: a consumer in the read model's own group.

`auto.offset.reset` is `error`. Any other value skips records that Kafka has deleted, and would lose changes without
an error. If the group has no offset for a partition, the partition is newer than the read model, and the consumer
begins at offset 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from syncer.errors import Fatal, Retry, SyncerError
from syncer.kafka.errors import UNREACHABLE
from syncer.kafka.reader import position_of
from syncer.ports import Partition, Record

_MAX_CONSUME = 1000  # records
_HEARTBEAT_AFTER = 5.0  # seconds without a poll
_OFFSET_INVALID = -1001


class KafkaSource:
    """One member of a consumer group. For one thread, except `is_assigned`.

    settings: of librdkafka, including `bootstrap.servers`.
    name: the read model, for messages.
    """

    def __init__(self, settings: Mapping[str, Any], group: str, topics: Sequence[str], *, name: str) -> None:
        self._name = name
        self._group = group
        self._error: SyncerError | None = None
        """An error that a callback reported. The next poll raises it, unless that poll returns records."""
        self._next: dict[Partition, int] = {}
        """Assigned partition → the next offset to poll."""
        self._ends: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        """The last offset that was sent to Kafka, acknowledged or not."""
        self._retry: set[Partition] = set()
        """Partitions whose last commit a rebalance rejected."""
        self._paused = False
        self._polled = time.monotonic()
        self._consumer = Consumer(
            {
                "auto.offset.reset": "error",
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": 10_000,  # a killed process keeps its partitions for this time
                "heartbeat.interval.ms": 1000,
                "fetch.wait.max.ms": 500,
                "fetch.queue.backoff.ms": 20,
                "queued.min.messages": 20_000,
                "queued.max.messages.kbytes": 32_768,
                "topic.metadata.refresh.interval.ms": 30_000,
                "log_level": 4,
                **settings,
                "group.id": group,
                "error_cb": self._on_error,
                "on_commit": self._on_commit,
            }
        )
        self._consumer.subscribe(list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke)

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        """See `ports.Source.poll`."""
        try:
            return self._poll(timeout, max_records, max_bytes)
        except KafkaException as error:
            raise self._to_error(error.args[0], "cannot read change events") from error

    def _poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        self._polled = time.monotonic()
        if self._paused:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False
        if self._retry:
            self.commit({}, wait=False)
        records: list[Record] = []
        size = 0
        first = self._consumer.poll(timeout)
        messages = [first] if first is not None else []
        while messages:
            for message in messages:
                record = self._record(message)
                if record is not None:
                    records.append(record)
                    size += len(record.value or b"")
            left = min(max_records - len(records), _MAX_CONSUME)
            if left <= 0 or size >= max_bytes:
                break
            # `consume` waits the whole time-out for a full batch. With 0 it returns the records that are there.
            messages = self._consumer.consume(left, 0)
        if self._error is not None and not records:
            error, self._error = self._error, None
            raise error
        return records

    def commit(self, next_offsets: Mapping[Partition, int], *, wait: bool) -> None:
        """See `ports.Source.commit`. Leaves out partitions that now belong to another member."""
        offsets = {p: offset for p, offset in next_offsets.items() if p in self._next}
        self._committed |= offsets
        offsets |= {p: self._committed[p] for p in self._retry}
        self._retry.clear()
        if not offsets:
            return
        partitions = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        try:
            if wait:
                self._consumer.commit(offsets=partitions, asynchronous=False)
            else:
                self._consumer.commit(offsets=partitions, asynchronous=True)
        except KafkaException as error:
            if error.args[0].code() not in _REBALANCED:
                raise self._to_error(error.args[0], "cannot commit offsets") from error

    def heartbeat(self) -> None:
        """See `ports.Source.heartbeat`. Pauses the partitions and polls, which keeps the membership.

        Does so only after some seconds without a poll, because a pause discards the records that were fetched ahead.
        """
        if time.monotonic() - self._polled < _HEARTBEAT_AFTER:
            return
        try:
            self._heartbeat()
        except KafkaException as error:
            raise self._to_error(error.args[0], "cannot stay in the group") from error

    def _heartbeat(self) -> None:
        assignment = self._consumer.assignment()
        if assignment:
            self._consumer.pause(assignment)
            self._paused = True
        message = self._consumer.poll(0)
        if message is not None:  # it was in the queue before the pause: read it again after the pause
            if message.error() is None:
                self._consumer.seek(TopicPartition(*position_of(message)))
            else:
                self._record(message)

    def progress(self) -> dict[Partition, tuple[int, int]]:
        """See `ports.Source.progress`. The end offsets are those of the last fetch."""
        result = {}
        for (topic, partition), position in self._next.items():
            ends: Any = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            high = ends[1] if ends else 0
            end = self._ends[topic, partition] = max(high, self._ends.get((topic, partition), 0))
            result[topic, partition] = (position, max(end, position))
        return result

    def is_assigned(self, partition: Partition) -> bool:
        """See `ports.GroupSource.is_assigned`."""
        return partition in self._next

    def close(self) -> None:
        self._consumer.close()

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        if error is not None:
            found = self._to_error(error, "cannot read change events", message)
            if isinstance(found, Fatal):
                raise found
            self._error = found
            return None
        at = position_of(message)
        self._next[at.topic, at.partition] = at.offset + 1
        return Record(at, message.key(), message.value())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            known = consumer.committed(partitions, timeout=30) if partitions else []
        except KafkaException as error:
            raise self._to_error(error.args[0], "cannot read the group's offsets") from error
        for partition in known:
            if partition.offset == _OFFSET_INVALID:
                partition.offset = 0
            self._next[partition.topic, partition.partition] = partition.offset
            self._ends[partition.topic, partition.partition] = _end(consumer, partition)
        consumer.incremental_assign(known)
        # A partition that was revoked during a pause is still paused when it comes back.
        consumer.resume(known)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._next.pop((partition.topic, partition.partition), None)
            self._ends.pop((partition.topic, partition.partition), None)
            self._committed.pop((partition.topic, partition.partition), None)
            self._retry.discard((partition.topic, partition.partition))
        consumer.incremental_unassign(partitions)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Handles the results of asynchronous commits.

        Commits again what a rebalance rejected, if the partition is still assigned: no later commit may come.
        """
        for partition in partitions:
            failed = error or partition.error
            if failed is not None and failed.code() not in _REBALANCED:
                self._error = self._to_error(failed, "cannot commit offsets")
            elif failed is not None and (partition.topic, partition.partition) in self._committed:
                self._retry.add((partition.topic, partition.partition))

    def _on_error(self, error: KafkaError) -> None:
        """Keeps an error that librdkafka reports outside of messages.

        Ignores errors of a single broker: librdkafka reconnects, and other brokers may be up.
        """
        if error.fatal() or error.code() in {KafkaError._ALL_BROKERS_DOWN, *_DENIED}:
            self._error = self._to_error(error, "the connection to Kafka failed")

    def _to_error(self, error: KafkaError, what: str, message: Message | None = None) -> SyncerError:
        where = f"group {self._group}"
        if message is not None and message.topic():
            where = f"{message.topic()}, partition {message.partition()}"
        code, why = error.code(), f"{error.str()} [{error.name()}]"
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            return Fatal(
                "Kafka no longer has the records that come next: this read model has lost changes",
                where=where,
                why=why,
                hint=f"syncer resync {self._name}",
            )
        if code in _DENIED:
            return Fatal(what, where=where, why=why, hint="see kafka.properties (credentials, ACLs)")
        hint = "is Kafka up? see kafka.bootstrap_servers" if code in UNREACHABLE else ""
        return Retry(what, where=where, why=why, hint=hint)


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    """Returns the partition's end offset, so that a backlog shows as lag before its first record is polled.

    Returns 0 if no broker answers, as in the rebalance that a restarting broker causes.
    """
    try:
        ends: Any = consumer.get_watermark_offsets(TopicPartition(partition.topic, partition.partition), timeout=5)
    except KafkaException:
        return 0
    return int(ends[1]) if ends else 0


_REBALANCED = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._NO_OFFSET,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError.FENCED_INSTANCE_ID,
}
"""The partitions may belong to another member now. It begins at the last committed offset, so this is harmless."""
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}
