"""What a read model must not forget, in a compacted Kafka topic: the syncer keeps no state of its own.

Keys of the topic, each written by one party:

    MODEL            `Registration`: where it began, epoch, generation            registering, resync
    MODEL/clock      history and highest clock seen                               the daemon
    MODEL/sinks      the generation whose sinks have been made                    the daemon
    MODEL/backfill   the run under way or last done                               backfill
    MODEL/error      the error that stopped it; empty when it runs                the daemon
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from syncer.sources.topics import Topics
from syncer.sources.writing import Outbox, Writing

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


@dataclass(frozen=True, slots=True)
class Run:
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


class State:
    """Reads the whole topic, which is small: a few records a read model."""

    def __init__(self, topics: Topics, writing: Writing, topic: str) -> None:
        self._topics, self._writing, self._topic = topics, writing, topic

    def load(self) -> dict[str, dict[str, Any]]:
        """The last value of every key."""
        self._topics.create([self._topic], _CONFIG, partitions=1)
        values: dict[str, dict[str, Any]] = {}
        for record in self._topics.read_all(self._topic):
            if record.key is not None:
                values[record.key.decode()] = orjson.loads(record.value) if record.value else {}
        return values

    def save(self, key: str, value: Mapping[str, Any] | Registration | Run) -> None:
        """Durable when this returns. Raises Retry otherwise."""
        fields = asdict(value) if isinstance(value, Registration | Run) else dict(value)
        outbox = Outbox(self._writing)
        outbox.put(self._topic, key.encode(), orjson.dumps(fields))
        outbox.flush()
