"""What a lane tells, passed on: to the metrics, the log and `/status`; and whether the lane is alive."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from syncer.document import Outcome
from syncer.errors import Reject
from syncer.telemetry.metrics import ModelMetrics

_REFRESHES = {
    "truncate": "a table was truncated",
    "identity": "updates do not tell the old row: they were logged under a replica identity weaker than FULL",
}
"""Those that a lane begins, and why."""

log = structlog.get_logger()


class LaneObserver:
    """`ports.Observer` of one lane: passes on to the metrics, and keeps what `/status` tells.

    kin: those of the same kind, whose records are counted together; itself among them.
    """

    def __init__(self, lane: str, metrics: ModelMetrics) -> None:
        self.lane, self.metrics = lane, metrics
        self.siblings: Sequence[LaneObserver] = [self]
        self.reason = ""
        self.last_error = ""
        self.records = 0
        self._oldest: float | None = None
        self.progress = time.monotonic()
        self._begun: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._begun[name] = time.monotonic()
        try:
            with self.metrics.stage(name):
                yield
        finally:
            self._begun.pop(name, None)

    def stalled(self, after: float) -> str:
        """Why this lane is not alive; empty when it is. To wait for a server that is away is life, and told
        again and again. A call that never returns is not. after: seconds."""
        now, begun = time.monotonic(), dict(self._begun)
        if "write" in begun and now - begun["write"] > after:  # on a thread beside the lane's, which goes on
            return f"lane {self.lane}: a sink has not answered for {now - begun['write']:.0f} s"
        if now - self.progress > after:
            where = f" (in stage {', '.join(begun)})" if begun else ""
            return f"lane {self.lane} has made no progress for {now - self.progress:.0f} s{where}"
        return ""

    def events(self, by_op: Mapping[str, int], skipped: int) -> None:
        self.metrics.batch(self.lane)
        self.metrics.events(by_op, skipped)

    def dirty(self, roots: int, shown: int) -> None:
        self.metrics.dirty(roots, shown)

    def refresh(self, reason: str) -> None:
        self.metrics.refresh(reason)
        if why := _REFRESHES.get(reason):
            log.warning("all documents are rendered again", model=self.metrics.name, lane=self.lane, why=why)

    def gate(self, seconds: float) -> None:
        self.metrics.gate(seconds)

    def waiting(self, reason: str) -> None:
        self.progress = time.monotonic()
        if reason and reason != self.reason:
            self.last_error = reason
            self.metrics.error("retry")
            log.warning("waiting", model=self.metrics.name, lane=self.lane, reason=reason)
        elif self.reason and not reason:
            log.info("going on", model=self.metrics.name, lane=self.lane)
        self.reason = reason

    def written(self, sink: str, outcome: Outcome) -> None:
        self.metrics.written(sink, outcome)

    def rejected(self, error: Reject) -> None:
        self.last_error = str(error)
        self.metrics.error("reject")
        log.error("dead letter", model=self.metrics.name, lane=self.lane, error=error)

    def lag(self, records: int, seconds: float) -> None:
        self.progress = time.monotonic()
        self.records, self._oldest = records, self.progress - seconds if seconds else None
        self.metrics.lag(self.lane, sum(o.records for o in self.siblings))

    @property
    def seconds(self) -> float:
        """Age of the oldest change that is not settled. It grows also while the lane is in a long call."""
        oldest = self._oldest
        return 0.0 if oldest is None else time.monotonic() - oldest
