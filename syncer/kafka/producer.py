"""Writes records durably.

All read models and lanes of a process share one producer. Each has its own `DeliveryTracker`, so that a delivery
failure reaches the lane that relies on the record, and no other.
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
    """librdkafka's producer. Any thread may use it. settings: of librdkafka."""

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
        self.client = Producer(self._settings)

    def replace_client(self) -> None:
        """Creates another client. After an error that librdkafka calls fatal, a client rejects every record."""
        self.client = Producer(self._settings)

    def partitions(self, topic: str) -> int:
        """Returns the number of partitions, at least 1."""
        try:
            return max(1, len(self.client.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions))
        except KafkaException as error:
            raise classify_error(f"cannot read the partitions of topic {topic}", error) from error


class DeliveryTracker:
    """The records that one writer has sent and that Kafka has not acknowledged yet.

    For one thread. Delivery reports may arrive on any thread.
    """

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._lock = threading.Lock()
        self._unacknowledged = 0
        self._failed = ""
        """Why a delivery failed."""

    def put(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, str] | None = None,
        partition: int = -1,
    ) -> None:
        """Queues a record. Waits while the producer's queue is full.

        value: None for a tombstone.
        partition: −1 for the partition that the key decides.
        """
        fields: Any = [(name, text.encode()) for name, text in (headers or {}).items()]
        with self._lock:
            self._unacknowledged += 1
        try:
            while True:
                try:
                    self._producer.client.produce(
                        topic, value, key, partition, on_delivery=self._delivered, headers=fields
                    )
                    break
                except BufferError:
                    self._producer.client.poll(0.1)
        except KafkaException as error:
            with self._lock:
                self._unacknowledged -= 1
            if error.args[0].fatal():
                self._producer.replace_client()
            raise classify_error(f"cannot write to topic {topic}", error) from error
        self._producer.client.poll(0)

    def flush(self) -> None:
        """Returns when all records are durable.

        Raises Retry if one of them is not. The caller then puts all of them again; some may arrive twice.
        """
        deadline = time.monotonic() + _TIMEOUT
        while self._unacknowledged and not self._failed and time.monotonic() < deadline:
            self._producer.client.poll(0.05)
        if self._unacknowledged or self._failed:
            why = self._failed or f"{self._unacknowledged} of them in {_TIMEOUT:.0f} s"
            self._failed = ""
            raise Retry("Kafka did not acknowledge records", where="Kafka", why=why)

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        with self._lock:
            self._unacknowledged -= 1
            if error is not None:
                self._failed = f"{error.str()} [{error.name()}]"
