"""Passes the events of one lane to the metrics, the log, `/status` and the heartbeats of `/livez`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from syncer.document import Outcome
from syncer.errors import Reject
from syncer.runtime.heartbeats import Heartbeats
from syncer.telemetry.metrics import ModelMetrics

_REFRESHES = {
    "truncate": "a table was truncated",
    "identity": "updates do not contain the old row: they were logged under a replica identity weaker than FULL",
}
"""The full refreshes that a lane starts, and the reason of each."""

log = structlog.get_logger()


class LaneObserver:
    """Implements `ports.Observer` for one lane.

    Two heartbeats belong to a lane. The lane itself beats when it waits or reports its lag. A write runs on a thread
    of its own while the lane goes on, so it has a heartbeat of its own.

    siblings: the lanes of the same kind, including this one. Their lags in records are added up.
    """

    def __init__(self, lane: str, metrics: ModelMetrics, heartbeats: Heartbeats | None = None) -> None:
        self.lane, self.metrics = lane, metrics
        self.siblings: Sequence[LaneObserver] = [self]
        self.reason = ""
        self.last_error = ""
        self.records = 0
        self._oldest: float | None = None
        self._stages: dict[str, None] = {}
        table = heartbeats or Heartbeats()
        self._write = table.add(self._describe_write)
        self._progress = table.add(self._describe)
        self._progress.start()

    def close(self) -> None:
        """Ends the heartbeats, once the lane has ended."""
        self._write.end()
        self._progress.end()

    def _describe(self, seconds: float) -> str:
        stages = ", ".join(list(self._stages))  # a copy, because a write changes the table on its own thread
        where = f" (in stage {stages})" if stages else ""
        return f"{self.metrics.name}: lane {self.lane} has made no progress for {seconds:.0f} s{where}"

    def _describe_write(self, seconds: float) -> str:
        return f"{self.metrics.name}: lane {self.lane}: a sink has not answered for {seconds:.0f} s"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._stages[name] = None
        if name == "write":
            self._write.start()
        try:
            with self.metrics.stage(name):
                yield
        finally:
            self._stages.pop(name, None)
            if name == "write":
                self._write.end()

    def events(self, by_op: Mapping[str, int], skipped: int) -> None:
        self.metrics.batch(self.lane)
        self.metrics.events(by_op, skipped)

    def dirty(self, roots: int, shown: int) -> None:
        self.metrics.dirty(roots, shown)

    def refresh(self, reason: str) -> None:
        self.metrics.refresh(reason)
        if why := _REFRESHES.get(reason):
            log.warning("re-rendering all documents", model=self.metrics.name, lane=self.lane, why=why)

    def gate(self, seconds: float) -> None:
        self.metrics.gate(seconds)

    def waiting(self, reason: str) -> None:
        self._progress.beat()
        if reason and reason != self.reason:
            self.last_error = reason
            self.metrics.error("retry")
            log.warning("lane is waiting", model=self.metrics.name, lane=self.lane, reason=reason)
        elif self.reason and not reason:
            log.info("lane continues", model=self.metrics.name, lane=self.lane)
        self.reason = reason

    def written(self, sink: str, outcome: Outcome) -> None:
        self.metrics.written(sink, outcome)

    def rejected(self, error: Reject) -> None:
        self.last_error = str(error)
        self.metrics.error("reject")
        log.error("dead letter written", model=self.metrics.name, lane=self.lane, error=error)

    def lag(self, records: int, seconds: float) -> None:
        self._progress.beat()
        self.records, self._oldest = records, time.monotonic() - seconds if seconds else None
        self.metrics.lag(self.lane, sum(o.records for o in self.siblings))

    @property
    def seconds(self) -> float:
        """Age of the oldest unacknowledged change. It also grows while the lane is in a long call."""
        oldest = self._oldest
        return 0.0 if oldest is None else time.monotonic() - oldest
