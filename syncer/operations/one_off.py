"""Work that a command does itself, at once: a lane over a list instead of a topic.

For what an operator asks for and waits for: the replay of dead letters, the repair of documents. It is the
daemon's code, so everything holds that holds there, beside running daemons or without any. If it is
interrupted, nothing is lost: whatever was to be mended is still told as wrong, and the same command begins
anew. Only what is too large for one batch (a truncate, a fan-out to many thousands) goes to the work topic.
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
from syncer.pacing import Stopped
from syncer.pipeline.decode import encode_work
from syncer.pipeline.offsets import Partition
from syncer.pipeline.work_items import key_items
from syncer.ports import Record
from syncer.registry.registry import Registry
from syncer.runtime.lane_observer import LaneObserver
from syncer.runtime.opening import ModelOpener
from syncer.telemetry.metrics import ModelMetrics


class ListSource:
    """`ports.Source` of these records, one at a time; sets `done` when all that was polled is settled."""

    def __init__(self, records: Sequence[Record], done: threading.Event) -> None:
        self._left = iter(records)
        self._done = done
        self._dry = False

    def poll(self, timeout: float, max_records: int, max_bytes: int) -> list[Record]:
        records = list(islice(self._left, 1))
        if not records and self._dry:  # a lane settles what is under way when a poll brings nothing
            self._done.set()
        self._dry = not records
        return records

    def commit(self, next_offsets: Mapping[Partition, int], *, wait: bool) -> None:
        """What is not done is still told as wrong."""

    def heartbeat(self) -> None:
        """There is no group to stay in."""

    def progress(self) -> Mapping[Partition, tuple[int, int]]:
        return {}

    def close(self) -> None:
        """Nothing to close."""


class _Quiet(LaneObserver):
    """What is refused is told by the command, at its end."""

    def rejected(self, error: Reject) -> None:
        self.metrics.error("reject")


class OneOffRun:
    """Runs in the caller's thread. `opened` may be used in its `with` block, and not after it.

    Raises Fatal or Retry where a read model would stop or wait with them.
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
        """tolerant: go on however many documents the sinks refuse."""
        self.config, self.metrics, self._tolerant = config, metrics, tolerant
        self._opening = ModelOpener(config, model, registry, metrics)
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> OneOffRun:
        self.opened = self._opening.open(self._closing)
        if self._tolerant:
            self.opened.breaker.tolerate()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def render(self, keys: Iterable[Key], reason: str) -> None:
        """Render these roots, until every sink has acknowledged or refused them."""
        topic, size = self.opened.names.work_topic, self.config.pipeline.chunk_documents
        items = enumerate(key_items(keys, size, reason))
        self.handle([Record(Position(topic, 0, at), None, encode_work(item)) for at, item in items])

    def handle(self, records: Sequence[Record]) -> None:
        """Take these records as if their topics gave them, one after the other."""
        if not records:
            return
        done = threading.Event()
        source, observer = ListSource(records, done), _Quiet("work", self.metrics)
        lane = self.opened.lane(source, observer, done, items=True)
        with contextlib.suppress(Stopped):
            lane.run()
