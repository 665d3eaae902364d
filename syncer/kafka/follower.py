"""Implements `ports.Follower`: reads topics as they grow, without a consumer group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from syncer.kafka.errors import classify_error
from syncer.kafka.reader import position_of
from syncer.ports import Partition, Record

_MAX_RECORDS = 500


class KafkaFollower:
    """Follows partitions from given offsets. For one thread. settings: of librdkafka.

    Reads only committed records: an offset in an aborted transaction of Kafka Connect proves nothing.
    """

    def __init__(self, settings: Mapping[str, Any], start: Mapping[Partition, int]) -> None:
        self._consumer = Consumer(
            {
                "fetch.wait.max.ms": 500,
                "log_level": 2,
                **settings,
                "group.id": "syncer-follower",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in start.items()])

    def poll(self, timeout: float) -> list[Record]:
        """See `ports.Follower.poll`."""
        try:
            first = self._consumer.poll(timeout)
            messages = [first, *self._consumer.consume(_MAX_RECORDS, 0)] if first is not None else []
        except KafkaException as error:
            raise classify_error("cannot follow a topic", error) from error
        records = []
        for message in messages:
            failure = message.error()
            if failure is None:
                records.append(Record(position_of(message), message.key(), message.value()))
            elif failure.code() not in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                raise classify_error(f"cannot follow topic {message.topic()}", KafkaException(failure))
        return records

    def close(self) -> None:
        """See `ports.Follower.close`."""
        self._consumer.close()
