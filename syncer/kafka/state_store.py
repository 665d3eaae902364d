"""What a read model must not forget, in a compacted Kafka topic: the syncer keeps no state of its own.

Keys of the topic, each written by one party:

    MODEL              `Registration`: epoch, generation, where it began         registering, resync
    MODEL/next         the one that a resync is building; empty if none is        resync
    MODEL/N/clock      history and highest clock that generation N has seen       the daemon
    MODEL/N/backwards  that this clock ran backwards: only a resync ends that     whoever noticed
    MODEL/N/sinks      its sinks have been made                                   the daemon
    MODEL/N/memory     what its sinks' memory hung on when last asked           the daemon
    MODEL/N/breaker    its sinks that refuse document after document              the daemon, backfill
    MODEL/N/shape      what its documents rest on besides rows                    the daemon
    MODEL/N/weak       a token for each time that a replica identity was too weak    whoever noticed
    MODEL/N/outgrown   what its sinks were not built for; empty when nothing      the daemon
    MODEL/N/reader     of the connector's slot, as last compared                  the daemon
    MODEL/N/refresh    the last time that all documents were rendered again       the daemon
    MODEL/N/backfill   its backfill under way or last done                        backfill
    MODEL/process/ID   what one daemon says of it, and when (`monitors/wait_status.py`)         that daemon
    ~PREFIX            `Stream`: of the connector with this topic.prefix          the daemon, connectors
    ~PREFIX/canary     the last message of a canary, and where to look for it     the daemon
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from syncer.clock import Beginning, Snapshot
from syncer.kafka.admin import KafkaAdmin
from syncer.kafka.producer import DeliveryTracker, KafkaProducer

_CONFIG = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "segment.ms": "3600000"}


@dataclass(frozen=True, slots=True)
class Registration:
    """How a read model began. Written before its first event is read."""

    model: str
    hash: str
    """Of the declaration that its documents are rendered from."""
    epoch: int
    generation: int
    starts: Mapping[str, Mapping[str, int]]
    """Topic → partition (as text) → the offset it began at."""
    registered_ms: int
    stream: int = 0
    """`Stream.number` at that time: a higher one means that changes were lost since."""
    topics: Mapping[str, str] = field(default_factory=dict)
    """The ids of its topics: another one under the same name does not go on where this one ended."""
    snapshot: str = ""
    """Of PostgreSQL at that time, as its text."""
    snapshot_ms: int = 0
    """When it was taken, by PostgreSQL's clock."""

    @property
    def beginning(self) -> Beginning | None:
        return Beginning(Snapshot.parse(self.snapshot), self.snapshot_ms) if self.snapshot else None

    def key(self, what: str) -> str:
        """The topic's key for something of this generation."""
        return f"{self.model}/{self.generation}/{what}"


@dataclass(frozen=True, slots=True)
class BackfillRun:
    """A backfill: what was asked for and how far the handing out of its ranges got."""

    run: str
    planned: bool
    """All its items are in the work topic."""
    items: int
    roots: int
    started_ms: int
    begins: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    """Partition of the work topic (as text) → the offset of its first item, and after its last."""
    finished_ms: int = 0
    letters: int = 0
    """The end of the dead-letter topic when it began: letters from this offset on are its own."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What is known of a connector's stream of changes as a whole."""

    number: int = 0
    """How often it was broken: changes before the last break may never have arrived."""
    why: str = ""
    """What the last break was known by."""
    at_ms: int = 0
    slot: str = ""
    """The replication slot, once it was seen since the last break: that it is not there then is a break."""


class StateStore:
    """Reads the whole topic, which is small: a few records a read model."""

    def __init__(self, topics: KafkaAdmin, writing: KafkaProducer, topic: str) -> None:
        self._topics, self._writing, self._topic = topics, writing, topic
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, Any]] = {}
        self._read = 0.0

    def load(self, max_age: float = 0.0) -> dict[str, dict[str, Any]]:
        """The last value of every key, as of at most `max_age` seconds ago: all read models of a process look
        at it now and then, and one reading serves them all. With `max_age`, nobody waits for another one
        longer than a second: Kafka may be away."""
        if not self._lock.acquire(timeout=1.0 if max_age and self._values else -1):
            return self._values
        try:
            if not self._values or time.monotonic() - self._read > max_age:
                self._values, self._read = self._load(), time.monotonic()
            return self._values
        finally:
            self._lock.release()

    def _load(self) -> dict[str, dict[str, Any]]:
        self._topics.create([self._topic], _CONFIG, partitions=1)
        return self.read()

    def read(self) -> dict[str, dict[str, Any]]:
        """The last value of every key, as of now; the topic is not made if it is not there."""
        values: dict[str, dict[str, Any]] = {}
        for record in self._topics.read_all(self._topic):
            if record.key is not None and record.value:
                values[record.key.decode()] = orjson.loads(record.value)
            elif record.key is not None:
                values.pop(record.key.decode(), None)
        return values

    def save(self, key: str, value: Mapping[str, Any] | Registration | BackfillRun | Stream | None) -> None:
        """None removes the key. Durable when this returns. Raises Retry otherwise."""
        fields = asdict(value) if isinstance(value, Registration | BackfillRun | Stream) else value
        outbox = DeliveryTracker(self._writing)
        outbox.put(self._topic, key.encode(), None if fields is None else orjson.dumps(dict(fields)))
        outbox.flush()
        self._read = 0.0
