"""Keeps a consumer in its group: settings, assigned partitions, commits in a rebalance, heartbeats in long work."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from syncer.ports import Partition

_HEARTBEAT_AFTER = 5.0  # seconds without a poll

SETTINGS: Mapping[str, Any] = {
    "auto.offset.reset": "error",
    "enable.auto.commit": False,
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 10_000,  # a killed process keeps its partitions for this time
    "heartbeat.interval.ms": 1000,
    "fetch.wait.max.ms": 500,
    "fetch.queue.backoff.ms": 20,
    "queued.max.messages.kbytes": 32_768,
}
"""Of librdkafka, for every member of a group."""

REBALANCED = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._NO_OFFSET,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError.FENCED_INSTANCE_ID,
}
"""The partitions may belong to another member now. It begins at the last committed offset, so this is harmless."""


class Membership:
    """The membership of one consumer. For one thread."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._paused, self._polled = False, time.monotonic()
        self.next: dict[Partition, int] = {}
        """Assigned partition → the next offset to poll. The owner updates it."""
        self.refused: set[Partition] = set()
        """Assigned partitions whose last commit a rebalance refused. The owner sends it again: if the partition has no
        further records, no other commit comes."""
        self._ends: dict[Partition, int] = {}
        """Assigned partition → its highest known end offset."""

    def assign(self, partitions: list[TopicPartition], ends: Mapping[Partition, int]) -> None:
        """Begins to read partitions at their offsets, for the consumer's callback `on_assign`.

        ends: the end offsets as far as they are known, so that a backlog shows as lag before its first record is
        polled. Raises KafkaException.
        """
        for one in partitions:
            partition = one.topic, one.partition
            self.next[partition], self._ends[partition] = one.offset, ends.get(partition, 0)
        self._consumer.incremental_assign(partitions)
        # A partition that was revoked during a pause is still paused when it comes back.
        self._consumer.resume(partitions)

    def revoke(self, partitions: list[TopicPartition]) -> list[Partition]:
        """Forgets partitions, for the consumer's callback `on_revoke`. Returns them. Raises KafkaException."""
        revoked = [(one.topic, one.partition) for one in partitions]
        for partition in revoked:
            self.next.pop(partition, None)
            self._ends.pop(partition, None)
            self.refused.discard(partition)
        self._consumer.incremental_unassign(partitions)
        return revoked

    def committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> KafkaError | None:
        """Handles the result of an asynchronous commit, for the consumer's callback `on_commit`.

        Returns an error that no rebalance caused.
        """
        found = None
        for one in partitions:
            failed = error or one.error
            if failed is not None and failed.code() not in REBALANCED:
                found = failed
            elif failed is not None and (one.topic, one.partition) in self.next:
                self.refused.add((one.topic, one.partition))
        return found

    def resume(self) -> None:
        """Ends the pause of a heartbeat. To be called before each poll."""
        self._polled = time.monotonic()
        if self._paused:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False

    def heartbeat(self) -> Message | None:
        """Pauses the partitions and polls, which keeps the membership.

        Does so only after some seconds without a poll, because a pause discards the records that were fetched ahead.
        A record that was in the queue before the pause is read again after the pause.
        Returns a message that is an error or the end of a partition. Raises KafkaException.
        """
        if time.monotonic() - self._polled < _HEARTBEAT_AFTER:
            return None
        if assignment := self._consumer.assignment():
            self._consumer.pause(assignment)
            self._paused = True
        message = self._consumer.poll(0)
        if message is None or message.error() is not None:
            return message
        self._consumer.seek(TopicPartition(message.topic() or "", message.partition() or 0, message.offset() or 0))
        return None

    def commit(self, offsets: list[TopicPartition], *, wait: bool) -> None:
        """Commits offsets. Ignores that a rebalance refuses them. Raises KafkaException.

        wait: for the answer. Otherwise the consumer's callback `on_commit` has it.
        """
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            if error.args[0].code() not in REBALANCED:
                raise

    def progress(self) -> dict[Partition, tuple[int, int]]:
        """Returns the next offset of each assigned partition, and its end offset at the last fetch."""
        found = {}
        for partition, position in self.next.items():
            fetched: Any = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
            end = self._ends[partition] = max(fetched[1] if fetched else 0, self._ends.get(partition, 0))
            found[partition] = position, max(end, position)
        return found
