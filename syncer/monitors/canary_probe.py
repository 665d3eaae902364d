"""Commits the canary's messages to PostgreSQL's log and reads them from Kafka; see `monitors/canary.py`.

The state topic keeps the last message whose commit was acknowledged, and the offsets from which to look for it. The
next process expects that message before any message of its own.
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
    """Sends and reads the canary messages of one process. For one thread, except for `late`."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.topic = f"{registry.config.kafka.topic_prefix}.message"
        self._key = CanaryPosition.key(registry.config.kafka.topic_prefix)
        self._canary = Canary(secrets.token_hex(6))
        self._next: dict[Partition, int] = {}
        self._stream: Stream | None = None
        self._missing_since = 0.0

    @property
    def age(self) -> float:
        """Seconds since the commit of the oldest message that had not arrived at the last read; 0 if none."""
        return self._canary.age(time.monotonic())

    def late(self) -> float:
        """Returns the seconds for which the connector has not delivered; 0 while messages arrive.

        That is the age of the oldest message that was missing when the topic was last read. For any thread.
        """
        missing_since = self._missing_since
        return time.monotonic() - missing_since if missing_since else 0.0

    def check(self, connection: psycopg.Connection[Any], stream: Stream) -> float:
        """Reads the messages that have arrived, then sends another one. Returns `age`.

        stream: as saved in the state topic; a proof of loss begins another stream.
        Raises psycopg.Error or Retry when a server is unreachable. The next call does what this one could not.
        """
        if self._stream is None or self._stream.number != stream.number:
            self._begin(stream)
        self.read()
        self._send(connection)
        return self.age

    def _begin(self, stream: Stream) -> None:
        """Starts to read where the last saved message can be.

        If Kafka has removed that part of the topic, or has another topic of that name, the message is not expected.
        """
        changes = self.registry.changes
        changes.create([self.topic], partitions=1)
        begins, ends = changes.begins([self.topic]), changes.ends([self.topic])
        saved = self.registry.state.load().get(self._key)
        start = _start(self.topic, saved) if saved else {}
        there = all(p in ends and begins[p] <= offset <= ends[p] for p, offset in start.items())
        self._canary.forget()
        self._missing_since, self._next = 0.0, ends
        if saved and saved.stream == stream.number and there:
            self._next = start
            ago = max(0.0, time.time() - saved.since_ms / 1000) if saved.since_ms else 0.0
            self._canary.committed(CanaryMessage(saved.series, saved.number), time.monotonic() - ago)
        self._stream = stream

    def _send(self, connection: psycopg.Connection[Any]) -> None:
        """Commits a message, then saves it. If the process dies in between, no process expects the message."""
        message = self._canary.next()
        begun = self._stream.number if self._stream else 0
        start = {number: offset for (_, number), offset in self._next.items()}
        emit(connection, CANARY_PREFIX, str(message))
        self._canary.committed(message, time.monotonic())
        since_ms = round((time.time() - self.age) * 1000)
        self.registry.state.save(self._key, CanaryPosition(message.series, message.number, begun, start, since_ms))

    def read(self) -> None:
        """Reads the messages that have arrived, if any is expected. Raises Retry when Kafka is unreachable."""
        if not self.age:
            return
        read_at = time.monotonic()
        start = {p: self._next.get(p, 0) for p in self.registry.changes.ends([self.topic])}
        for record in self.registry.changes.read(self.topic, start):
            topic, partition, offset = record.position
            self._next[topic, partition] = offset + 1
            message = canary.read(record.value)
            lost = self._canary.arrived(message) if message else []
            if lost and self._stream:
                why = f"message {lost[0]} was committed to PostgreSQL's log before {message}, and did not arrive"
                log.error("changes were lost", why=why)
                self._stream = self.registry.broken(why, self._stream, slot=self._stream.slot)
        self._missing_since = self._canary.missing_since(read_at)


def _start(topic: str, saved: CanaryPosition) -> dict[Partition, int]:
    """Returns the offset in each partition from which to look for the saved message."""
    return {(topic, number): offset for number, offset in saved.start.items()}


def undelivered(registry: Registry, values: StateSnapshot) -> float:
    """Returns the seconds for which the connector has not delivered, for a process that sends no messages.

    That is the age of the oldest message that a daemon has saved and that is not in the topic; 0 if there is none.
    values: of the state topic. Raises Retry when Kafka is unreachable.
    """
    prefix = registry.config.kafka.topic_prefix
    topic, stream = f"{prefix}.message", values.get(Stream.key(prefix)) or Stream()
    saved = values.get(CanaryPosition.key(prefix))
    if not saved or not saved.since_ms or saved.stream != stream.number:
        return 0.0
    start, ends = _start(topic, saved), registry.changes.ends([topic])
    if not all(p in ends and offset <= ends[p] for p, offset in start.items()):
        return 0.0
    age = time.time() - saved.since_ms / 1000
    arrived = (canary.read(record.value) for record in registry.changes.read(topic, start))
    return age if age >= canary.ON_ITS_WAY and CanaryMessage(saved.series, saved.number) not in arrived else 0.0


class RoundTripCheck:
    """Checks whether a connector that was just started delivers a message that is committed now.

    If it does, it delivers every change before that message, too. For one thread. connection: in autocommit.
    """

    def __init__(self, registry: Registry, connection: psycopg.Connection[Any]) -> None:
        self._changes, self._connection = registry.changes, connection
        self._topic = f"{registry.config.kafka.topic_prefix}.message"
        self._message = CanaryMessage(secrets.token_hex(6), 0)
        self._changes.create([self._topic], partitions=1)
        self._next = self._changes.ends([self._topic])

    def has_arrived(self) -> bool:
        """Returns whether one of the messages has arrived. Commits another one if not.

        A slot does not deliver messages that were committed before its creation, and the connector may create it at
        any moment. Raises psycopg.Error or Retry when a server is unreachable.
        """
        for record in self._changes.read(self._topic, self._next):
            topic, partition, offset = record.position
            self._next[topic, partition] = offset + 1
            message = canary.read(record.value)
            if message and message.series == self._message.series:
                return True
        self._message = CanaryMessage(self._message.series, self._message.number + 1)
        emit(self._connection, CANARY_PREFIX, str(self._message))
        return False
