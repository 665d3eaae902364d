"""A documents topic in memory, which fails and is created again on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from syncer.clock import version
from syncer.config.schema import PushSettings
from syncer.errors import Retry
from syncer.freshness.refused import Refused
from syncer.ports import DocumentTopic, DocumentWrite, TopicState
from syncer.telemetry.metrics import Metrics, PushMetrics

PARTITIONS = 2


class MemoryTopic:
    """Implements `ports.DocumentTopic`."""

    name, window = "memory:orders", 60.0

    def __init__(self) -> None:
        self.id, self.retention, self.error = "first", 3600.0, ""
        self.lossy = "cleanup.policy=compact"
        self.begins = dict.fromkeys(range(PARTITIONS), 0)
        self.readers = 0
        """How many were opened."""
        self._writes: dict[int, list[DocumentWrite]] = {number: [] for number in range(PARTITIONS)}
        self._changed = threading.Condition()
        self._clock = 0

    def write(self, key: str, document: Any, clock: int = 0) -> None:
        """Appends a document; None for a delete. clock: without it, a new one."""
        with self._changed:
            self._clock += 1
            number = sum(key.encode()) % len(self.begins)
            writes, body = self._writes[number], None if document is None else orjson.dumps(document)
            writes.append(
                DocumentWrite(
                    number,
                    self.begins[number] + len(writes),
                    key,
                    version(1, clock or self._clock),
                    body,
                    int(time.time() * 1000),
                )
            )
            self._changed.notify_all()

    def delete_records(self) -> None:
        """Deletes all records, as an operator can. Later offsets continue."""
        with self._changed:
            for number, writes in self._writes.items():
                self.begins[number] += len(writes)
                writes.clear()

    def lose_last(self, partition: int, count: int) -> None:
        """Loses the last records of a partition, as a topic does whose newest replica is lost."""
        with self._changed:
            del self._writes[partition][-count:]

    def add_partition(self) -> None:
        with self._changed:
            number = len(self.begins)
            self.begins[number], self._writes[number] = 0, []

    def create_again(self) -> None:
        with self._changed:
            self.id += " again"
            self.begins = dict.fromkeys(range(PARTITIONS), 0)
            self._writes = {number: [] for number in range(PARTITIONS)}

    def state(self) -> TopicState:
        self.check()
        with self._changed:
            ends = {number: begin + len(self._writes[number]) for number, begin in self.begins.items()}
            return TopicState(self.id, dict(self.begins), ends, self.retention, self.lossy)

    def at_time(self, at_ms: int) -> dict[int, int]:
        self.check()
        with self._changed:
            return {
                number: next((one.offset for one in writes if one.at_ms >= at_ms), self.begins[number] + len(writes))
                for number, writes in self._writes.items()
            }

    def reader(self, start: Mapping[int, int]) -> _Reader:
        self.readers += 1
        return _Reader(self, start)

    def check(self) -> None:
        if self.error:
            raise Retry(self.error, where=self.name)

    def read(self, start: Mapping[int, int], timeout: float) -> list[DocumentWrite]:
        with self._changed:
            found = self._behind(start)
            if not found:
                self._changed.wait(timeout)
                found = self._behind(start)
            return found

    def _behind(self, start: Mapping[int, int]) -> list[DocumentWrite]:
        return [
            one for number, writes in self._writes.items() for one in writes if one.offset >= start.get(number, 1 << 62)
        ][:100]


class _Reader:
    """Implements `ports.DocumentReader`."""

    def __init__(self, topic: MemoryTopic, start: Mapping[int, int]) -> None:
        self._topic, self.next = topic, dict(start)

    def poll(self, timeout: float) -> list[DocumentWrite]:
        self._topic.check()
        found = self._topic.read(self.next, timeout)
        for one in found:
            self.next[one.partition] = one.offset + 1
        return found

    def close(self) -> None:
        pass


class MemoryDocuments:
    """Implements `serving.services.DocumentTopics`: `orders` has a topic, `plain` has none."""

    def __init__(self, **settings: int) -> None:
        self.settings = PushSettings(**settings)
        self.orders = MemoryTopic()
        self.registry = CollectorRegistry()
        self._metrics = Metrics(self.registry)

    def metrics(self, model: str) -> PushMetrics:
        return self._metrics.for_push(model)

    def metric(self, name: str, **labels: str) -> float:
        """Returns the value of a metric of `orders`."""
        return self.registry.get_sample_value(f"syncer_push_{name}", {"model": "orders", **labels}) or 0.0

    def topic(self, model: str) -> DocumentTopic:
        if model == "orders":
            return self.orders
        if model == "plain":
            raise Refused(HTTPStatus.CONFLICT, "no Kafka sink")
        raise Refused(HTTPStatus.NOT_FOUND, "it does not exist")
