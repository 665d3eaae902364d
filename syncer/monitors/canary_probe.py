"""Looks for canary messages (`monitors/canary.py`) on behalf of commands. The daemon uses `freshness/probe.py`."""

from __future__ import annotations

import secrets
import time
from typing import Any

import psycopg
import structlog

from syncer.checks.connector import CANARY_PREFIX
from syncer.monitors import canary
from syncer.monitors.canary import CanaryMessage
from syncer.ports import Partition
from syncer.postgres.wal import emit
from syncer.registry.records import CanaryPosition, Stream
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot

log = structlog.get_logger()


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
