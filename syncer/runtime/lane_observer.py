"""Passes the events of one lane to the metrics, the log, `/status` and the heartbeats of `/livez`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import structlog

from syncer.document import Outcome
from syncer.errors import Reject
from syncer.monitors.slow_call import SlowCall
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
        """Why the lane waits, as it reported itself; empty while it goes on."""
        self.last_error = ""
        self.records = 0
        self._oldest: float | None = None
        self._stages: dict[str, None] = {}
        table = heartbeats or Heartbeats()
        self._write = table.add(self._describe_write)
        self._sink, self._postgres = SlowCall(), SlowCall()
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
            with self.metrics.stage(name), self._postgres.stage(name):
                yield
        finally:
            self._stages.pop(name, None)
            if name == "write":
                self._write.end()

    def events(self, by_op: Mapping[str, int], skipped: int) -> None:
        self.metrics.batch(self.lane)
        self.metrics.events(by_op, skipped)

    def dirty(self, roots: int, skipped: int) -> None:
        self.metrics.dirty(roots, skipped)

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

    def writing(self, sink: str) -> AbstractContextManager[object]:
        return self._sink.write(sink)

    @property
    def wait_reason(self) -> str:
        """Returns why the lane waits, also for a server that does not answer. Empty while it goes on."""
        return self.reason or self._sink.reason or self._postgres.reason

    def written(self, sink: str, outcome: Outcome) -> None:
        self.metrics.written(sink, outcome)

    def rejected(self, error: Reject) -> None:
        """Reports a dead letter. The status does not repeat the id and the reason, which can quote personal data."""
        self.last_error = str(Reject(error.what, hint=f"syncer dlq list {self.metrics.name}"))
        self.metrics.error("reject")
        log.error("dead letter written", model=self.metrics.name, lane=self.lane, error=error)

    def delayed(self, roots: int) -> None:
        self.metrics.delayed(roots)

    def reordered(self, documents: int) -> None:
        self.metrics.reordered(documents)
        log.info("older versions came last, writing again", model=self.metrics.name, documents=documents)

    def cycles(self, relation: str, found: Sequence[str]) -> None:
        self.metrics.cycles(len(found))
        log.warning(
            "cycle in a tree: the path of each row on it or below it is cut at the first repeated row",
            model=self.metrics.name,
            relation=relation,
            cycle=found[0],
            changed_rows_on_cycles=len(found),
            hint="change the parent of one of these rows",
        )

    def lag(self, records: int, seconds: float) -> None:
        self._progress.beat()
        self.records, self._oldest = records, time.monotonic() - seconds if seconds else None
        self.metrics.lag(self.lane, sum(o.records for o in self.siblings))

    @property
    def seconds(self) -> float:
        """Age of the oldest unacknowledged change. It also grows while the lane is in a long call."""
        oldest = self._oldest
        return 0.0 if oldest is None else time.monotonic() - oldest
