"""Implements `ports.StateStore` with a compacted topic of one partition."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from syncer.errors import Retry, SyncerError
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.producer import DeliveryTracker, KafkaProducer
from syncer.kafka.reader import PartitionTail, TopicReader
from syncer.ports import Partition, Record

_CONFIG = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": "3600000"}
_READ_AGAIN = 300.0
"""Seconds after which the whole topic is read again. So a load misses a record for at most this time, even if a broker
lost records and others took their offsets. Compaction removes a tombstone after a day (Kafka's default), so a process
that had not read for longer would keep the value that the tombstone removed."""

Values = dict[str, dict[str, Any]]


class _Failure(NamedTuple):
    """A read that failed."""

    began: float
    ended: float
    error: SyncerError


class KafkaStateStore:
    """Implements `ports.StateStore`. Reads the topic once, and then only the records that were added."""

    def __init__(self, admin: KafkaAdmin, reader: TopicReader, producer: KafkaProducer, topic: str) -> None:
        self._admin, self._reader, self._producer, self._topic = admin, reader, producer, topic
        self._lock = threading.Lock()
        self._values: Values = {}
        self._next: dict[Partition, int] = {}
        self._tail: PartitionTail | None = None
        """Reads what is new. A new consumer for each load would take longer than the load."""
        self._id = ""
        """Of the topic that was read. Empty if it did not exist."""
        self._loaded_at = self._read_whole_at = 0.0
        self._stale = True
        self._failure: _Failure | None = None
        """The last read, if it failed."""

    def load(self, max_age: float = 0.0) -> Values:
        """See `ports.StateStore.load`. The caller must not change the result."""
        called = time.monotonic()
        if not self._lock.acquire(timeout=1.0 if max_age and self._values else -1):
            return self._values
        try:
            return self._loaded(called, since=called - max_age)
        finally:
            self._lock.release()

    def load_since(self, moment: float) -> Values:
        """See `ports.StateStore.load_since`. The caller must not change the result."""
        called = time.monotonic()
        with self._lock:
            return self._loaded(called, since=moment)

    def _loaded(self, called: float, since: float) -> Values:
        """Returns the values of a read that began at this time or later. The caller holds the lock.

        called: when the caller began to wait for the lock. A read that failed while it waited fails for it, too.
        Otherwise each of many waiting callers would repeat a read of up to 30 s, one after the other.
        """
        if not self._stale and self._values and self._loaded_at >= since:
            return self._values
        failed = self._failure
        if failed is not None and since <= failed.began and called <= failed.ended:
            raise failed.error
        began = time.monotonic()
        self._stale, self._failure = False, None
        try:
            self._update()
        except BaseException as error:
            self._stale = True
            if isinstance(error, SyncerError):
                self._failure = _Failure(began, time.monotonic(), error)
            raise
        return self._values

    def prepare(self) -> None:
        """See `ports.StateStore.prepare`."""
        self._admin.create([self._topic], _CONFIG, partitions=1)

    def _update(self) -> None:
        now = time.monotonic()
        id, ends = self._id_and_ends()
        if id and not ends:  # a broker that just started may not know all topics yet
            raise Retry(
                f"topic {self._topic} exists, but a broker does not list it",
                hint="check that Kafka is up and kafka.bootstrap_servers is correct",
            )
        lost = any(ends.get(partition, 0) < offset for partition, offset in self._next.items())
        whole = id != self._id or lost or now - self._read_whole_at > _READ_AGAIN
        if whole:
            start, values = dict[Partition, int](), Values()
        else:
            start, values = self._next, dict(self._values)  # another thread may iterate over the old ones
        has_more = any(end > start.get(partition, 0) for partition, end in ends.items())
        records, following = self._read(start, ends) if has_more else ([], start)
        for record in records:
            if record.key is not None and record.value:
                values[record.key.decode()] = orjson.loads(record.value)
            elif record.key is not None:
                values.pop(record.key.decode(), None)
        self._id, self._next, self._values, self._loaded_at = id, following, values, now
        self._read_whole_at = now if whole else self._read_whole_at

    def _id_and_ends(self) -> tuple[str, dict[Partition, int]]:
        """Returns the id and the ends of the topic. Callers of a refresh wait for this, so it is usually one answer."""
        if self._id:
            id, end = self._admin.id_and_end(self._topic)
            if end is not None:
                return id, {(self._topic, 0): end}
        ends = self._admin.ends([self._topic])
        return self._admin.ids([self._topic]).get(self._topic, ""), ends

    def _read(
        self, start: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> tuple[list[Record], dict[Partition, int]]:
        """Returns the records from `start` up to `ends`, and the offsets after them."""
        if self._tail is not None and self._tail.next != start:
            self._close_tail()
        if self._tail is None:
            self._tail = self._reader.tail(dict.fromkeys(ends, 0) | dict(start))
        try:
            return self._tail.read(ends), dict(self._tail.next)
        except BaseException:
            self._close_tail()
            raise

    def _close_tail(self) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()

    def save(self, key: str, value: Mapping[str, Any] | None) -> None:
        """See `ports.StateStore.save`. Creates the topic if it does not exist."""
        if not self._id:
            self.prepare()
        tracker = DeliveryTracker(self._producer)
        tracker.put(self._topic, key.encode(), None if value is None else orjson.dumps(dict(value)))
        tracker.flush()
        self._stale = True
