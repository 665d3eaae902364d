"""Implements `ports.StateStore` with a compacted topic of one partition."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import orjson

from syncer.errors import Retry
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.producer import DeliveryTracker, KafkaProducer
from syncer.kafka.reader import TopicReader
from syncer.ports import Partition

_CONFIG = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": "3600000"}
_READ_AGAIN = 300.0
"""Seconds after which the whole topic is read again. So a load misses a record for at most this time, even if a broker
lost records and others took their offsets. Compaction removes a tombstone after a day (Kafka's default), so a process
that had not read for longer would keep the value that the tombstone removed."""

Values = dict[str, dict[str, Any]]


class KafkaStateStore:
    """Implements `ports.StateStore`. Reads the topic once, and then only the records that were added."""

    def __init__(self, admin: KafkaAdmin, reader: TopicReader, producer: KafkaProducer, topic: str) -> None:
        self._admin, self._reader, self._producer, self._topic = admin, reader, producer, topic
        self._lock = threading.Lock()
        self._values: Values = {}
        self._next: dict[Partition, int] = {}
        self._id = ""
        """Of the topic that was read. Empty if it did not exist."""
        self._loaded_at = self._read_whole_at = 0.0
        self._stale = True

    def load(self, max_age: float = 0.0) -> Values:
        """See `ports.StateStore.load`. The caller must not change the result."""
        if not self._lock.acquire(timeout=1.0 if max_age and self._values else -1):
            return self._values
        try:
            if self._stale or not self._values or time.monotonic() - self._loaded_at > max_age:
                self._stale = False
                self._update()
            return self._values
        except BaseException:
            self._stale = True
            raise
        finally:
            self._lock.release()

    def prepare(self) -> None:
        """See `ports.StateStore.prepare`."""
        self._admin.create([self._topic], _CONFIG, partitions=1)

    def _update(self) -> None:
        now, ends = time.monotonic(), self._admin.ends([self._topic])
        id = self._admin.ids([self._topic]).get(self._topic, "")
        if id and not ends:  # a broker that just started may not know all topics yet
            raise Retry(f"topic {self._topic} exists, but a broker does not list it", hint="is Kafka up?")
        lost = any(ends.get(partition, 0) < offset for partition, offset in self._next.items())
        whole = id != self._id or lost or now - self._read_whole_at > _READ_AGAIN
        if whole:
            start, values = dict[Partition, int](), Values()
        else:
            start, values = self._next, dict(self._values)  # another thread may iterate over the old ones
        following = dict(start)
        for record in self._reader.read_all(self._topic, start) if ends else []:
            topic, partition, offset = record.position
            following[topic, partition] = offset + 1
            if record.key is not None and record.value:
                values[record.key.decode()] = orjson.loads(record.value)
            elif record.key is not None:
                values.pop(record.key.decode(), None)
        self._id, self._next, self._values, self._loaded_at = id, following, values, now
        self._read_whole_at = now if whole else self._read_whole_at

    def save(self, key: str, value: Mapping[str, Any] | None) -> None:
        """See `ports.StateStore.save`. Creates the topic if it does not exist."""
        if not self._id:
            self.prepare()
        tracker = DeliveryTracker(self._producer)
        tracker.put(self._topic, key.encode(), None if value is None else orjson.dumps(dict(value)))
        tracker.flush()
        self._stale = True
