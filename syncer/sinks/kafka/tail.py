"""Reads a topic from given offsets on, up to a given end or as it grows. Joins no consumer group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from syncer.errors import Retry
from syncer.kafka.errors import classify_error
from syncer.sinks.kafka import records
from syncer.sinks.kafka.records import Written

_AT_ONCE = 2000  # messages


class TopicTail:
    """One reader. For one thread at a time. start: partition → the first offset to read."""

    def __init__(self, settings: Mapping[str, Any], topic: str, start: Mapping[int, int]) -> None:
        self.topic = topic
        self.next = dict(start)
        """The next offset of each partition."""
        self._consumer = Consumer(
            {
                **settings,
                "group.id": "syncer-documents",  # required by the client; nothing is committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 500,
                "fetch.queue.backoff.ms": 20,
                "queued.max.messages.kbytes": 32_768,
            }
        )
        self._consumer.assign([TopicPartition(topic, number, offset) for number, offset in start.items()])

    def read(self, ends: Mapping[int, int], timeout: float) -> Iterator[Written]:
        """Yields the next records until all before `ends` are read, and perhaps some after them.

        Raises Retry if the end is not reached within `timeout` seconds. The next call continues there.
        """
        deadline = time.monotonic() + timeout
        while any(self.next.get(number, 0) < end for number, end in ends.items()):
            if time.monotonic() > deadline:
                raise Retry(f"topic {self.topic} could not be read in {timeout:.0f} s", hint="is Kafka up?")
            yield from self.poll(0.1)

    def poll(self, timeout: float) -> list[Written]:
        """Returns the next records. Waits up to `timeout` seconds for the first."""
        first = self._poll(timeout)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(_AT_ONCE, 0)]
        return list(records.read([message for message in messages if self._passed(message)]))

    def _poll(self, timeout: float) -> Message | None:
        try:
            return self._consumer.poll(timeout)
        except KafkaException as error:
            raise classify_error(f"cannot read topic {self.topic}", error) from error

    def _passed(self, message: Message) -> bool:
        """Moves the next offset past a message. Returns whether it is a record."""
        error, number, offset = message.error(), message.partition() or 0, message.offset() or 0
        if error is None:
            self.next[number] = offset + 1
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self.next[number] = max(offset, self.next.get(number, 0))
            return False
        raise classify_error(f"cannot read topic {self.topic}", KafkaException(error))

    def close(self) -> None:
        self._consumer.close()
