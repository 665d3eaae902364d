"""Implements `ports.GroupSource`: a consumer in the read model's own group.

`auto.offset.reset` is `error`. Any other value skips records that Kafka has deleted, and would lose changes without
an error. If the group has no offset for a partition, the partition is newer than the read model, and the consumer
begins at offset 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from syncer.errors import Fatal, Retry, SyncerError
from syncer.kafka import membership
from syncer.kafka.errors import UNREACHABLE
from syncer.kafka.reader import position_of
from syncer.ports import Partition, Record

_MAX_CONSUME = 1000  # records
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
        self._committed: dict[Partition, int] = {}
        """The last offset that Kafka holds or was sent, acknowledged or not."""
        self._consumer = Consumer(
            {
                **membership.SETTINGS,
                "enable.partition.eof": True,  # its offset is the position after the markers of Kafka's transactions
                "queued.min.messages": 20_000,
                "topic.metadata.refresh.interval.ms": 30_000,
                "log_level": 4,
                **settings,
                "group.id": group,
                "error_cb": self._on_error,
                "on_commit": self._on_commit,
            }
        )
        self._membership = membership.Membership(self._consumer)
        self._consumer.subscribe(list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke)

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        """See `ports.Source.poll`."""
        try:
            return self._poll(timeout, max_records, max_bytes)
        except KafkaException as error:
            raise self._to_error(error.args[0], "cannot read change events") from error

    def _poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        self._membership.resume()
        if self._membership.refused:
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
        offsets = {p: o for p, o in next_offsets.items() if p in self._membership.next and o != self._committed.get(p)}
        self._committed |= offsets
        offsets |= {p: self._committed[p] for p in self._membership.refused if p in self._committed}
        self._membership.refused.clear()
        if not offsets:
            return
        partitions = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        try:
            self._membership.commit(partitions, wait=wait)
        except KafkaException as error:
            raise self._to_error(error.args[0], "cannot commit offsets") from error

    def heartbeat(self) -> None:
        """See `ports.Source.heartbeat`."""
        try:
            if (message := self._membership.heartbeat()) is not None:
                self._record(message)
        except KafkaException as error:
            raise self._to_error(error.args[0], "cannot stay in the group") from error

    def progress(self) -> dict[Partition, tuple[int, int]]:
        """See `ports.Source.progress`. The end offsets are those of the last fetch."""
        return self._membership.progress()

    def is_assigned(self, partition: Partition) -> bool:
        """See `ports.GroupSource.is_assigned`."""
        return partition in self._membership.next

    def close(self) -> None:
        self._consumer.close()

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            end = position_of(message)
            if (known := self._membership.next.get((end.topic, end.partition))) is not None:
                self._membership.next[end.topic, end.partition] = max(end.offset, known)
            return None
        if error is not None:
            found = self._to_error(error, "cannot read change events", message)
            if isinstance(found, Fatal):
                raise found
            self._error = found
            return None
        at = position_of(message)
        self._membership.next[at.topic, at.partition] = at.offset + 1
        return Record(at, message.key(), message.value())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Keeps an error for `poll`, and assigns nothing then: the client cannot pass on every error of a callback."""
        try:
            known = consumer.committed(partitions, timeout=30) if partitions else []
        except KafkaException as error:
            self._error, known = self._to_error(error.args[0], "cannot read the group's offsets"), []
        ends: dict[Partition, int] = {}
        for one in known:
            if one.offset == _OFFSET_INVALID:
                one.offset = 0
            else:
                self._committed[one.topic, one.partition] = one.offset
            ends[one.topic, one.partition] = _end(consumer, one)
        self._membership.assign(known, ends)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in self._membership.revoke(partitions):
            self._committed.pop(partition, None)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if failed := self._membership.committed(error, partitions):
            self._error = self._to_error(failed, "cannot commit offsets")

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
            return Fatal(
                what, where=where, why=why, hint="check the credentials in kafka.properties and the ACLs in Kafka"
            )
        hint = "check that Kafka is up and kafka.bootstrap_servers is correct" if code in UNREACHABLE else ""
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


_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
}
