"""Processes a list of records inside a command: a lane that reads a list instead of a topic.

The replay of dead letters and the repair of documents use it, because the operator waits for their result. The lane is
the code of the daemon, so it gives the same guarantees, with or without running daemons.

An interrupted run loses nothing. The dead letters stay open, and `syncer verify` still reports the differences. The
same command starts again. Work that is too large for one batch (a truncate, a fan-out to many thousands of documents)
goes to the work topic.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Reject
from syncer.events import Key, Position
from syncer.pacing import Stopped, Waiter
from syncer.pipeline.decode import encode_item
from syncer.pipeline.offsets import Partition
from syncer.pipeline.work_items import key_items
from syncer.ports import Record
from syncer.registry.registry import Registry
from syncer.runtime.lane_observer import LaneObserver
from syncer.runtime.opening import ModelOpener
from syncer.telemetry.metrics import ModelMetrics


class ListSource:
    """Implements `ports.Source` over a list. Returns one record per poll, and sets `done` when all are acknowledged."""

    def __init__(self, records: Sequence[Record], done: threading.Event) -> None:
        self._remaining = iter(records)
        self._done = done
        self._was_empty = False

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        records = list(islice(self._remaining, 1))
        if not records and self._was_empty:  # after an empty poll, a lane finishes the records that it has
            self._done.set()
        self._was_empty = not records
        return records

    def commit(self, next_offsets: Mapping[Partition, int], *, wait: bool) -> None:
        """Does nothing: an interrupted command starts again with the records that are still open."""

    def heartbeat(self) -> None:
        """Does nothing: there is no consumer group."""

    def progress(self) -> Mapping[Partition, tuple[int, int]]:
        return {}

    def close(self) -> None:
        """Does nothing: a list needs no closing."""


class _QuietObserver(LaneObserver):
    """Counts rejections without logging them, because the command prints them at its end."""

    def rejected(self, error: Reject) -> None:
        self.metrics.error("reject")


class OneOffRun:
    """Runs a lane in the caller's thread. `opened` is valid within the `with` block.

    Raises Fatal where the daemon would stop the read model, and Retry where it would wait and try again.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        registry: Registry,
        metrics: ModelMetrics,
        *,
        tolerant: bool = False,
    ) -> None:
        """tolerant: continue regardless of how many documents the sinks reject."""
        self.config, self.metrics, self._tolerant = config, metrics, tolerant
        self._opening = ModelOpener(config, model, registry, metrics)
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> OneOffRun:
        self.opened = self._opening.open(self._closing, Waiter())
        if self._tolerant:
            self.opened.breaker.tolerate()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def render(self, keys: Iterable[Key], reason: str) -> None:
        """Renders these roots. Returns when every sink has acknowledged or rejected them."""
        topic, size = self.opened.names.work_topic, self.config.pipeline.chunk_documents
        items = enumerate(key_items(keys, size, reason))
        self.handle([Record(Position(topic, 0, at), None, encode_item(item)) for at, item in items])

    def handle(self, records: Sequence[Record]) -> None:
        """Processes these records one after the other, as if they came from their topics."""
        if not records:
            return
        done = threading.Event()
        source, observer = ListSource(records, done), _QuietObserver("work", self.metrics)
        lane = self.opened.lane(source, observer, done, items=True)
        with contextlib.suppress(Stopped):
            lane.run()
