"""The records of the topic as a `ports.DocumentLog`: a member of a consumer group of its own.

The committed offset of a partition is the one that the order lane checks next. Its metadata is the offset from which
the next reader has to begin, so that it knows all versions of the last window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from syncer.errors import Fatal, SyncerError
from syncer.kafka import membership
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.errors import classify_error
from syncer.ports import LogEntry, LogStart, Partition
from syncer.sinks.kafka import records
from syncer.sinks.target import Target

_ANSWER = 30.0  # seconds


class TopicLog:
    """Implements `ports.DocumentLog`.

    window: see `ports.DocumentLog`. begin: returns where a group without offsets begins, by partition.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topic: str,
        group: str,
        admin: KafkaAdmin,
        target: Target,
        *,
        window: float,
        begin: Callable[[], dict[int, int]],
    ) -> None:
        self.window, self._begin, self._target = window, begin, target
        self._topic, self._admin = topic, admin
        self._starts: dict[Partition, LogStart] = {}
        self._committed: dict[Partition, LogStart] = {}
        """The last commit of each assigned partition."""
        self._failure: KafkaException | SyncerError | None = None
        """An error that a callback reported."""
        self._consumer = Consumer({**membership.SETTINGS, **settings, "group.id": group, "on_commit": self._on_commit})
        self._membership = membership.Membership(self._consumer)
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def poll(self, timeout: float, max_entries: int) -> list[LogEntry]:
        self._membership.resume()
        if self._membership.refused:
            self.commit({}, wait=False)
        try:
            first = self._consumer.poll(timeout)
            messages = [first, *self._consumer.consume(max_entries - 1, 0)] if first is not None else []
            self._raise_failure()
            found = [message for message in messages if self._passed(message)]
        except KafkaException as error:
            raise classify_error(f"cannot read topic {self._topic}", error) from error
        return [LogEntry(one.position, one.id, one.version, one.at_ms) for one in records.read(found)]

    def _passed(self, message: Message) -> bool:
        if (error := message.error()) is not None:
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise Fatal(
                    "records of documents were deleted before their order was checked",
                    where=self._target.name,
                    why=f"{error.str()} [{error.name()}]",
                    hint=self._target.resync,
                )
            raise KafkaException(error)
        self._membership.next[self._topic, message.partition() or 0] = (message.offset() or 0) + 1
        return True

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def starts(self) -> Mapping[Partition, LogStart]:
        return self._starts

    def commit(self, next_offsets: Mapping[Partition, LogStart], *, wait: bool) -> None:
        """See `ports.DocumentLog.commit`. Leaves out partitions that now belong to another member.

        Also commits what a rebalance refused before.
        """
        self._committed |= {p: start for p, start in next_offsets.items() if p in self._starts}
        now = {*next_offsets, *self._membership.refused} & self._committed.keys()
        self._membership.refused.clear()
        offsets = [
            TopicPartition(*partition, start.checked, str(start.offset))
            for partition, start in self._committed.items()
            if partition in now
        ]
        if not offsets:
            return
        try:
            self._membership.commit(offsets, wait=wait)
        except KafkaException as error:
            raise classify_error("cannot commit offsets", error) from error

    def heartbeat(self) -> None:
        """See `ports.Source.heartbeat`. Raises an error of the topic: no later poll reports it again."""
        try:
            if (message := self._membership.heartbeat()) is not None:
                self._passed(message)
        except KafkaException as error:
            raise classify_error("cannot stay in the group", error) from error

    def progress(self) -> dict[Partition, tuple[int, int]]:
        """See `ports.DocumentLog.progress`. The end offsets are those of the last fetch."""
        return self._membership.progress()

    def close(self) -> None:
        self._consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Begins at the start of the window before the committed offset; without one, at `begin`.

        Keeps an error for `poll`, and assigns nothing then: the client cannot pass on every error of a callback.
        """
        try:
            starts = self._find_starts(consumer, partitions) if partitions else {}
            ends = self._admin.ends([self._topic]) if starts else {}
        except (KafkaException, SyncerError) as error:
            self._failure, starts, ends = error, {}, {}
        self._starts |= {(self._topic, number): start for number, start in starts.items()}
        assigned = [TopicPartition(self._topic, number, start.offset) for number, start in starts.items()]
        self._membership.assign(assigned, ends)

    def _find_starts(self, consumer: Consumer, partitions: list[TopicPartition]) -> dict[int, LogStart]:
        known = consumer.committed(partitions, timeout=_ANSWER)
        starts = {
            one.partition: LogStart(int(one.metadata or one.offset), one.offset) for one in known if one.offset >= 0
        }
        if len(starts) < len(known):
            found = self._begin()
            for one in known:  # a partition that was added is read from its beginning; the sink refuses the topic
                begin = found.get(one.partition, 0)
                starts.setdefault(one.partition, LogStart(begin, begin))
        return starts

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in self._membership.revoke(partitions):
            self._starts.pop(partition, None)
            self._committed.pop(partition, None)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if failed := self._membership.committed(error, partitions):
            self._failure = KafkaException(failed)
