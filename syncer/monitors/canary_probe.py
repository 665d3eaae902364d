"""Sends the canary's messages on their way and looks for them where they come out; see `monitors/canary.py`.

What is noted in the state topic is a message that is committed for certain, and where to look for it: whoever
comes next expects it before any of his own.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import psycopg
import structlog

from syncer.checks.connector import CANARY_PREFIX
from syncer.monitors import canary
from syncer.monitors.canary import Canary, CanaryMessage
from syncer.ports import Partition
from syncer.postgres.wal import emit
from syncer.registry.records import CanaryPosition, Stream
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot

log = structlog.get_logger()


class CanaryProbe:
    """One process's canary. For one thread."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.topic = f"{registry.config.kafka.topic_prefix}.message"
        self._key = CanaryPosition.key(registry.config.kafka.topic_prefix)
        self._canary = Canary(secrets.token_hex(6))
        self._next: dict[Partition, int] = {}
        self._stream: Stream | None = None
        self._missing = 0.0

    @property
    def age(self) -> float:
        """Seconds that the oldest message has been on its way, as of the last reading; 0 if none is."""
        return self._canary.age(time.monotonic())

    def late(self) -> float:
        """Seconds for which the connector has not delivered: the age of the oldest message that had not come
        when it was looked for. 0 while messages come. Any thread may ask."""
        missing = self._missing
        return time.monotonic() - missing if missing else 0.0

    def look(self, connection: psycopg.Connection[Any], stream: Stream) -> float:
        """Take what has arrived, then send another; returns the seconds that the oldest message under way has
        taken until now. stream: as it is noted; a proof of loss begins another one.

        Raises psycopg.Error or Retry when a server is away; what it could not do it does the next time.
        """
        if self._stream is None or self._stream.number != stream.number:
            self._begin(stream)
        self.read()
        self._send(connection)
        return self.age

    def _begin(self, stream: Stream) -> None:
        """Read from where the message that was noted last can be. If Kafka has removed that part of the topic
        since, or the topic is another one, nothing can be said about it."""
        changes = self.registry.changes
        changes.create([self.topic], partitions=1)
        begins, ends = changes.begins([self.topic]), changes.ends([self.topic])
        noted = self.registry.state.load().get(self._key)
        start = _start(self.topic, noted) if noted else {}
        there = all(p in ends and begins[p] <= offset <= ends[p] for p, offset in start.items())
        self._canary.forget()
        self._missing, self._next = 0.0, ends
        if noted and noted.stream == stream.number and there:
            self._next = start
            ago = max(0.0, time.time() - noted.since_ms / 1000) if noted.since_ms else 0.0
            self._canary.committed(CanaryMessage(noted.series, noted.number), time.monotonic() - ago)
        self._stream = stream

    def _send(self, connection: psycopg.Connection[Any]) -> None:
        """Noted after it is committed: what is noted is expected for certain. If this process ends in
        between, nobody expects it."""
        mark = self._canary.next()
        begun = self._stream.number if self._stream else 0
        start = {number: offset for (_, number), offset in self._next.items()}
        emit(connection, CANARY_PREFIX, str(mark))
        self._canary.committed(mark, time.monotonic())
        since_ms = round((time.time() - self.age) * 1000)
        self.registry.state.save(self._key, CanaryPosition(mark.series, mark.number, begun, start, since_ms))

    def read(self) -> None:
        """Take what has arrived, if anything is expected. Raises Retry when Kafka is away."""
        if not self.age:
            return
        asked = time.monotonic()
        start = {p: self._next.get(p, 0) for p in self.registry.changes.ends([self.topic])}
        for record in self.registry.changes.read(self.topic, start):
            topic, partition, offset = record.position
            self._next[topic, partition] = offset + 1
            mark = canary.read(record.value)
            lost = self._canary.arrived(mark) if mark else []
            if lost and self._stream:
                why = f"message {lost[0]} was committed to PostgreSQL's log before {mark}, and did not come"
                log.error("changes were lost", why=why)
                self._stream = self.registry.broken(why, self._stream, slot=self._stream.slot)
        self._missing = self._canary.missing(asked)


def _start(topic: str, noted: CanaryPosition) -> dict[Partition, int]:
    """Where the message that was noted can be."""
    return {(topic, number): offset for number, offset in noted.start.items()}


def undelivered(registry: Registry, values: StateSnapshot) -> float:
    """Seconds for which the connector has not delivered, for a process that sends no messages: the age of the
    oldest one that a daemon noted and that is not in the topic. 0 if there is none.

    values: of the state topic. Raises Retry when Kafka is away."""
    prefix = registry.config.kafka.topic_prefix
    topic, stream = f"{prefix}.message", values.get(Stream.key(prefix)) or Stream()
    noted = values.get(CanaryPosition.key(prefix))
    if not noted or not noted.since_ms or noted.stream != stream.number:
        return 0.0
    start, ends = _start(topic, noted), registry.changes.ends([topic])
    if not all(p in ends and offset <= ends[p] for p, offset in start.items()):
        return 0.0
    age = time.time() - noted.since_ms / 1000
    came = (canary.read(record.value) for record in registry.changes.read(topic, start))
    return age if age >= canary.ON_ITS_WAY and CanaryMessage(noted.series, noted.number) not in came else 0.0


class RoundTripCheck:
    """Whether a connector that was just started sends what is committed now, and so all before it. For one
    thread. connection: in autocommit."""

    def __init__(self, registry: Registry, connection: psycopg.Connection[Any]) -> None:
        self._changes, self._connection = registry.changes, connection
        self._topic = f"{registry.config.kafka.topic_prefix}.message"
        self._mark = CanaryMessage(secrets.token_hex(6), 0)
        self._changes.create([self._topic], partitions=1)
        self._next = self._changes.ends([self._topic])

    def came(self) -> bool:
        """Whether one of its messages did; another one is committed until then: the slot may be made only
        now. Raises psycopg.Error or Retry when a server is away."""
        for record in self._changes.read(self._topic, self._next):
            topic, partition, offset = record.position
            self._next[topic, partition] = offset + 1
            mark = canary.read(record.value)
            if mark and mark.series == self._mark.series:
                return True
        self._mark = CanaryMessage(self._mark.series, self._mark.number + 1)
        emit(self._connection, CANARY_PREFIX, str(self._mark))
        return False
