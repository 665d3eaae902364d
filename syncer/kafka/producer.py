"""Writing to our own topics, durably: work items here, `letters.py` and `state.py` theirs.

All read models and lanes of a process share one producer; each has an `DeliveryTracker` of its own, so that what
failed to arrive is told to the one who relies on it, and to no other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from syncer.errors import Retry
from syncer.kafka.admin import MAX_BYTES
from syncer.kafka.errors import classify_error

_TIMEOUT = 30.0


class KafkaProducer:
    """The producer. settings: of librdkafka."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = {
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "zstd",
            "linger.ms": 5,
            "message.max.bytes": MAX_BYTES,
            "log_level": 3,
            **settings,
        }
        self.producer = Producer(self._settings)

    def renew(self) -> None:
        """After an error that librdkafka calls fatal, the producer refuses everything."""
        self.producer = Producer(self._settings)

    def partitions(self, topic: str) -> int:
        try:
            return max(1, len(self.producer.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions))
        except KafkaException as error:
            raise classify_error(f"cannot ask for the partitions of {topic}", error) from error


class DeliveryTracker:
    """What one party has written and does not know to be durable yet. For one thread; the producer's calls
    about deliveries may come on any."""

    def __init__(self, writing: KafkaProducer) -> None:
        self._writing = writing
        self._lock = threading.Lock()
        self._under_way = 0
        self._failed = ""

    def put(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, str] | None = None,
        partition: int = -1,
    ) -> None:
        """Queue a record; waits while the queue is full. partition: −1 for one that the key decides."""
        fields: Any = [(name, text.encode()) for name, text in (headers or {}).items()]
        with self._lock:
            self._under_way += 1
        try:
            while True:
                try:
                    self._writing.producer.produce(
                        topic, value, key, partition, on_delivery=self._delivered, headers=fields
                    )
                    break
                except BufferError:
                    self._writing.producer.poll(0.1)
        except KafkaException as error:
            with self._lock:
                self._under_way -= 1
            if error.args[0].fatal():
                self._writing.renew()
            raise classify_error(f"cannot write to topic {topic}", error) from error
        self._writing.producer.poll(0)

    def flush(self) -> None:
        """Returns when all that was put is durable. Raises Retry when something is not: all of it is to be
        put again then (some of it may still arrive)."""
        deadline = time.monotonic() + _TIMEOUT
        while self._under_way and not self._failed and time.monotonic() < deadline:
            self._writing.producer.poll(0.05)
        if self._under_way or self._failed:
            why = self._failed or f"{self._under_way} after {_TIMEOUT:.0f} s"
            self._failed = ""
            raise Retry("records were not acknowledged by Kafka", where="Kafka", why=why)

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        with self._lock:
            self._under_way -= 1
            if error is not None:
                self._failed = f"{error.str()} [{error.name()}]"
