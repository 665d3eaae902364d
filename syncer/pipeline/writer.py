"""Stages 7 and 8, write and commit: one piece is with the sinks while the lane prepares the next.

What a sink could not take is rendered again, never sent again: a document rendered long ago may be older
than a delete that its sink has forgotten. For the same reason a piece that waited too long is not sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace

from syncer.document import Batch, Outcome
from syncer.errors import Fatal, Retry
from syncer.pacing import Waiter
from syncer.pipeline.circuit_breaker import Breaker
from syncer.ports import Observer, Record, WritableSink


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Documents of one snapshot on their way to the sinks, and the records that they settle."""

    batch: Batch
    snapshot_at: float
    """When its snapshot was taken, monotonic seconds."""
    records: Sequence[Record] = ()
    """Done when this piece and all before it are: the last piece of a batch carries the batch's records."""
    committed_ms: int = 0
    """Commit time of the newest change among them."""


LATE = "they are rendered again"

Answers = list[tuple[str, Outcome]]
"""Of each sink that a piece was sent to, by name."""


class Writer:
    """max_age: seconds after its snapshot at which nothing of a piece is sent any more.

    again: renders ids anew, piece by piece. done: told of each piece that every sink has acknowledged.
    refused: called with sink, id, version and reason of each document that a sink will never take.
    newer: told the highest version that a sink had instead of ours. breaker: stops the lane when a sink
    refuses document after document.
    """

    def __init__(
        self,
        name: str,
        sinks: Sequence[WritableSink],
        *,
        max_age: float,
        again: Callable[[list[str]], Iterable[WriteBatch]],
        done: Callable[[WriteBatch], None],
        refused: Callable[[str, str, int, str], None],
        newer: Callable[[int], None],
        breaker: Breaker,
        wait: Waiter,
        observer: Observer,
    ) -> None:
        self.sinks, self.max_age = sinks, max_age
        self._again, self._done, self._refused, self._newer = again, done, refused, newer
        self._wait, self._observer, self._breaker = wait, observer, breaker
        self._name = f"{name}-write"
        self._under_way: tuple[WriteBatch, Future[Answers]] | None = None
        self._slowest = ("", 0.0)
        """The sink that took longest in the last write, and how long: seconds."""

    @property
    def busy(self) -> bool:
        return self._under_way is not None

    def send(self, piece: WriteBatch) -> None:
        """Hand a piece over; returns when the one before it is settled."""
        self.settle()
        if (id := self._breaker.probe(piece.batch)) is not None:
            alone, rest = piece.batch.split(id)
            probe = replace(piece, batch=alone, records=())
            self._under_way = probe, self._begin(probe)
            self.settle()
            piece = replace(piece, batch=rest)
        if piece.batch:
            self._under_way = piece, self._begin(piece)
        else:
            self._done(piece)

    def settle(self) -> None:
        """Wait for the piece under way, and render again what was not written until all of it is.

        Raises what a sink raised as Fatal, Fatal of the breaker, and Stopped when told to stop while
        something is left.
        """
        if self._under_way is None:
            return
        piece, future = self._under_way
        answers = self._wait.result(future)
        self._under_way = None
        left = self._take(piece, answers)
        back_off = self._wait.back_off(0.05, 5.0)
        while left:
            back_off()
            left = [id for p in self._again(left) for id in self._take(p, self._wait.result(self._begin(p)))]
        self._observer.waiting("")
        self._done(piece)

    def close(self) -> None:
        """Finish what is under way, but do not insist: what fails now is repeated by whoever goes on."""
        if self._under_way is not None:
            piece, future = self._under_way
            self._under_way = None
            with suppress(Fatal):  # of the breaker
                if future.exception() is None and not self._take(piece, future.result()):
                    self._done(piece)

    def _begin(self, piece: WriteBatch) -> Future[Answers]:
        return self._wait.time.run_in_background(self._name, lambda: self._write(piece))

    def _write(self, piece: WriteBatch) -> Answers:
        """To every sink; a sink that is unavailable makes the whole piece one to render again."""
        answers: Answers = []
        now, before = self._wait.time.monotonic, self._slowest
        self._slowest = ("", 0.0)
        with self._observer.stage("write"):
            for sink in self.sinks:
                began = now()
                timeout = piece.snapshot_at + self.max_age - began
                if timeout <= 0:
                    reason = self._late(began - piece.snapshot_at, max(self._slowest, before, key=lambda s: s[1]))
                    answers.append((sink.name, Outcome(retry=piece.batch.ids(), retry_reason=reason)))
                    break
                try:
                    outcome = sink.write(piece.batch, timeout)
                except Retry as error:
                    outcome = Outcome(retry=piece.batch.ids(), retry_reason=str(error))
                self._slowest = max(self._slowest, (sink.name, now() - began), key=lambda s: s[1])
                self._observer.written(sink.name, outcome)
                answers.append((sink.name, outcome))
        return answers

    def _late(self, age: float, slowest: tuple[str, float]) -> str:
        """Why a piece is not sent. age: seconds."""
        sink, seconds = slowest
        took = f"{sink} took {seconds:.0f} s for a write" if sink else "rendering took so long"
        error = Retry(
            f"documents were rendered {age:.0f} s ago, which is longer than pipeline.max_age"
            f" ({self.max_age:g} s): {LATE}",
            why=took,
            hint="write less at a time (pipeline.chunk_documents), or raise pipeline.max_age",
        )
        return str(error)

    def _take(self, piece: WriteBatch, answers: Answers) -> list[str]:
        """Report refusals; return the distinct ids that are to be rendered again. Raises Fatal of the
        breaker before anything is reported: then no dead letter is written, and the piece is never done."""
        for sink, outcome in answers:
            self._breaker.judge(sink, piece.batch, outcome)
        again: dict[str, None] = {}
        for sink, outcome in answers:
            for refusal in outcome.rejected:
                self._refused(sink, refusal.id, piece.batch.version, refusal.reason)
            self._newer(outcome.newest_version)
            again |= dict.fromkeys(outcome.retry)
            if outcome.retry:
                self._observer.waiting(outcome.retry_reason)
        return list(again)
