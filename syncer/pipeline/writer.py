"""Stage 7, write: sends a batch to every sink in a separate thread, while the lane prepares the next batch.

The writer decides nothing. It returns the answers of the sinks (`Written`), and `lane.py` acts on them.

A document is written again only to the sinks that did not write it. So a slow sink cannot delay the others each time.

A document that a sink did not write is rendered again, never sent again: the sink may have forgotten a delete
that is newer than the document. For the same reason the writer does not send a batch that is older than
`Limits.max_age`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from syncer.document import Outcome
from syncer.errors import Retry
from syncer.pacing import Waiter
from syncer.pipeline.limits import LATE_HINT, Limits
from syncer.pipeline.write_batch import WriteBatch
from syncer.ports import Observer, WritableSink

LATE = "they are rendered again"
"""Part of the reason why a batch that is too old is not sent. The simulation counts these reasons."""

Outcomes = list[tuple[str, Outcome]]
"""The name of each sink that a batch was sent to, and its answer."""


@dataclass(frozen=True, slots=True)
class Written:
    """The answers of the sinks to one batch."""

    batch: WriteBatch
    outcomes: Outcomes

    @property
    def retry(self) -> dict[str, list[str]]:
        """The ids that each sink did not write now. Sinks that wrote all documents are left out."""
        return {sink: outcome.retry for sink, outcome in self.outcomes if outcome.retry}


class Writer:
    """Holds at most one batch under way.

    name: the read model's name. Each sink gets a batch in the order of `sinks`.
    """

    def __init__(
        self, name: str, sinks: Sequence[WritableSink], *, limits: Limits, wait: Waiter, observer: Observer
    ) -> None:
        self.sinks, self.limits = sinks, limits
        self._wait, self._observer = wait, observer
        self._name = f"{name}-write"
        self._under_way: tuple[WriteBatch, Future[Outcomes]] | None = None
        self._slowest = ("", 0.0)
        """The sink that took longest in the last write, and its time in seconds."""

    @property
    def busy(self) -> bool:
        """Whether a batch is under way."""
        return self._under_way is not None

    def start(self, batch: WriteBatch) -> None:
        """Starts to write a batch. No other batch may be under way."""
        self._under_way = batch, self._begin(batch, self.sinks)

    def finish(self) -> Written | None:
        """Waits for the batch under way. Returns None if there is none.

        Raises the Fatal of a sink. If it raises, the batch stays under way, for `close`.
        """
        if self._under_way is None:
            return None
        batch, future = self._under_way
        outcomes = self._wait.result(future)
        self._under_way = None
        return Written(batch, outcomes)

    def write(self, batch: WriteBatch, sinks: Collection[str]) -> Written:
        """Writes a batch that was rendered again to the sinks with these names, and waits.

        If it raises, nothing is left for `close`.
        """
        return Written(batch, self._wait.result(self._begin(batch, [one for one in self.sinks if one.name in sinks])))

    def close(self) -> Written | None:
        """Waits for the batch under way. Returns None if there is none, or if a sink raised."""
        if self._under_way is None:
            return None
        batch, future = self._under_way
        self._under_way = None
        return Written(batch, future.result()) if future.exception() is None else None

    def _begin(self, batch: WriteBatch, sinks: Sequence[WritableSink]) -> Future[Outcomes]:
        return self._wait.time.run_in_background(self._name, lambda: self._write(batch, sinks))

    def _write(self, batch: WriteBatch, sinks: Sequence[WritableSink]) -> Outcomes:
        """Sends a batch to each sink. If a sink is unreachable, all documents of the batch are to be retried."""
        outcomes: Outcomes = []
        now, before = self._wait.time.monotonic, self._slowest
        self._slowest = ("", 0.0)
        with self._observer.stage("write"):
            for sink in sinks:
                began = now()
                timeout = batch.snapshot_at + self.limits.max_age - began
                if timeout <= 0:
                    reason = self._late(began - batch.snapshot_at, max(self._slowest, before, key=lambda s: s[1]))
                    outcomes.append((sink.name, Outcome(retry=batch.documents.ids(), retry_reason=reason)))
                    continue
                try:
                    with self._observer.writing(sink.name):
                        outcome = sink.write(batch.documents, timeout)
                except Retry as error:
                    outcome = Outcome(retry=batch.documents.ids(), retry_reason=str(error))
                self._slowest = max(self._slowest, (sink.name, now() - began), key=lambda s: s[1])
                self._observer.written(sink.name, outcome)
                outcomes.append((sink.name, outcome))
        return outcomes

    def _late(self, age: float, slowest: tuple[str, float]) -> str:
        """Returns why a batch is not sent. age: seconds since its snapshot."""
        sink, seconds = slowest
        error = Retry(
            f"documents were rendered {age:.0f} s ago, which is longer than pipeline.max_age"
            f" ({self.limits.max_age:g} s): {LATE}",
            why=f"{sink} took {seconds:.0f} s for a write" if sink else "rendering took that long",
            hint=LATE_HINT,
        )
        return str(error)
