"""Renders all documents of a read model, in key ranges of the root table.

The ranges are work items in the backfill topic of the read model. Daemons and backfill processes consume them with the
code that also processes changes. Each range has its own snapshot and so its own version. Therefore a backfill may run
at the same time as streaming, in any order.

Progress is stored in Kafka, as the consumer group's offsets on the backfill topic. So a killed backfill continues where
it stopped, on any machine, and several processes can share it.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import psycopg

from syncer.clock import split_version
from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal, Reject
from syncer.events import Key, WorkItem
from syncer.monitors.table_alterations import TableAlterations
from syncer.pacing import Waiter, poll_until
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items
from syncer.ports import DeadLetter, Overflow, View
from syncer.postgres.fingerprint import Tables
from syncer.postgres.publication import wait_for_open_transactions
from syncer.postgres.session import classify_error, connect
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.registry.names import Names
from syncer.registry.records import BackfillRun, Registration, StateSlot
from syncer.registry.registry import Registry
from syncer.runtime.role import backfill_worker
from syncer.runtime.supervisor import ModelSupervisor
from syncer.telemetry.metrics import Metrics

_SAMPLE_ROWS = 200
"""Documents that are rendered to estimate their size."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """Describes the progress of a backfill.

    roots: a close estimate, the number of finished ranges times their size.
    unit: what is counted, `document` or `partial`.
    """

    phase: str
    """`waiting`, `planning`, `rendering` or `done`."""
    roots: int
    total: int
    note: str = ""
    unit: str = "document"


class BackfillResult(NamedTuple):
    """Holds the result of a finished backfill."""

    run: BackfillRun
    rejected: int
    """Number of documents or partials that were rejected during this run, by any process. Each has a dead letter."""


class Backfill:
    """Runs the backfill of one read model.

    rate: limit in documents per second, over all processes that share the work; None for no limit.
    sweep: also delete documents whose rows disappeared without an event (a partition was detached or truncated).
    slot: the generation to fill, the active one or the one that a resync builds.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        registry: Registry,
        *,
        rate: float | None = None,
        sweep: bool = False,
        slot: StateSlot = StateSlot.ACTIVE,
    ) -> None:
        self.config, self.model, self.registry, self.rate = config, model, registry, rate
        self.sweep, self.slot = sweep, slot

    def run(
        self, metrics: Metrics, workers: int, report: Callable[[Progress], None], *, restart: bool = False
    ) -> BackfillResult:
        """Returns when every root has been rendered and the sinks have acknowledged the documents.

        workers: number of ranges that this process renders concurrently.
        report: called with the progress, several times per second.
        restart: start from the beginning even if an earlier run is unfinished.
        Raises Fatal if a worker had to stop.
        """
        loaded = loader.load_checked(self.config, self.model)
        begun = self.registry.open(loaded.compiled, self.slot)
        names, key = begun.names, BackfillRun.key(begun.registration.id)
        alterations = TableAlterations(self.config, self.registry, begun.registration, names, loaded)
        alterations.save_initial_state(new=not begun.built)
        run = self.registry.state.load().get(key)
        if run is None or not run.planned or run.finished_ms or restart:
            complete = run is not None and (run.complete or bool(run.finished_ms))
            run = replace(self.plan(loaded, names, report), complete=complete)
            self.registry.state.save(key, run)
        else:
            report(Progress("rendering", 0, run.roots, "continuing an earlier run", run.unit))
        supervisor = ModelSupervisor(
            self.config,
            self.model,
            self.registry,
            metrics.for_model(self.model.name),
            role=backfill_worker(workers, self.slot),
        )
        supervisor.start()
        try:
            self._wait(supervisor, names, run, report)
        finally:
            supervisor.stop()
            supervisor.join()
        run = replace(run, finished_ms=time.time_ns() // 1_000_000, complete=True)
        self.registry.state.save(key, run)
        report(Progress("done", run.roots, run.roots, unit=run.unit))
        return BackfillResult(run, self._rejected(begun.registration, names, run))

    def _rejected(self, registration: Registration, names: Names, run: BackfillRun) -> int:
        """Counts open dead letters since the start of the run, about documents of its generation or its work items."""
        own = tuple(f"{topic}/" for topic in names.work_topics)

        def counts(letter: DeadLetter) -> bool:
            if letter.subject.kind == "record":
                return letter.subject.name.startswith(own)
            return letter.version == 0 or split_version(letter.version)[0] == registration.epoch

        letters = self.registry.dead_letters(self.model.name).read()
        return sum(letter.position.offset >= run.letters and counts(letter) for letter in letters)

    def plan(self, loaded: loader.LoadedModel, names: Names, report: Callable[[Progress], None]) -> BackfillRun:
        """Produces the key ranges to the backfill topic.

        Before that, waits until every transaction that is open now has ended. If such a transaction changed a table
        before the table joined the publication, that change has no event.
        """
        unit = "partial" if loaded.compiled.partials else "document"
        try:
            with connect(self.config.postgres.arguments()) as connection:
                wait_for_open_transactions(
                    connection, progress=lambda note: report(Progress("waiting", 0, 0, str(note), unit))
                )
        except psycopg.Error as error:
            raise classify_error(error, "cannot wait for open transactions", where="postgres.dsn") from error
        report(Progress("planning", 0, 0, unit=unit))
        run_id, started_ms = uuid.uuid4().hex[:12], time.time_ns() // 1_000_000
        work = self.registry.backfill_queue(names)
        begins, letters = work.ends(), self.registry.dead_letters(self.model.name).end()
        if self.sweep:
            work.put(WorkItem("sweep", "backfill", run_id))
        with self._rows(loaded) as rows:
            with rows.view() as view:
                size = self._range_size(view)
            if self.rate:  # the pause comes after a range, so a range should take about one second
                size = max(1, min(size, round(self.rate / len(begins))))
            seconds = size * len(begins) / self.rate if self.rate else 0.0
            rest: list[Key] = []

            def plan(view: View) -> Iterator[WorkItem]:
                last: WorkItem | None = None
                for items, last in enumerate(range_items(view, size, "backfill", run_id, seconds=seconds), 1):
                    yield last
                    if items % 100 == 0:
                        report(Progress("planning", items * size, 0, unit=unit))
                if last and last.high:
                    rest.extend(view.keys_in_range(last.low, last.high))

            planned = plan_durably(rows, plan, Waiter())
        for item in planned:
            work.put(item)
        work.flush()
        roots = max(len(planned) - 1, 0) * size + len(rest)
        return BackfillRun(
            run_id, True, len(planned), roots, started_ms, begins, work.ends(), letters=letters, unit=unit
        )

    def _wait(
        self, supervisor: ModelSupervisor, names: Names, run: BackfillRun, report: Callable[[Progress], None]
    ) -> None:
        """Returns when all ranges, and the work of the sweep, are committed. Raises Fatal if the worker failed."""
        ranges, work = self.registry.backfill_queue(names), self.registry.work_queue(names)

        def finished() -> bool:
            if supervisor.state == "failed" and (error := supervisor.failure):
                raise Fatal(f"the backfill stopped: {error.what}", where=error.where, why=error.why, hint=error.hint)
            left = ranges.left(run.ends, run.begins)
            roots = run.roots * (run.records - left) // max(run.records, 1)
            if not left and not (self.sweep and work.left()):  # a sweep produces its items to the work queue
                return True
            report(Progress("rendering", roots, run.roots, supervisor.status()["reason"], run.unit))
            return False

        poll_until(finished, timeout=math.inf, interval=_POLL_SECONDS)

    def _range_size(self, view: View) -> int:
        """Returns the number of roots per range: fewer if documents are large, so that a range fits in memory."""
        keys = view.first_keys(_SAMPLE_ROWS)
        limit = self.config.pipeline.chunk_bytes
        try:
            rows = view.render(keys, limit) if keys else []
            roots, size = len(rows), sum(len(row.body or b"") for row in rows)
        except Overflow as over:
            roots, size = over.roots, over.size
        except Reject:  # the size of the other documents is unknown
            roots, size = 0, 0
        maximum = self.config.backfill.range_documents
        return max(1, min(maximum, limit * roots // size)) if size else maximum

    def _rows(self, loaded: loader.LoadedModel) -> closing[SnapshotReader]:
        """Returns a reader of the rows. It raises Retry if the tables are no longer those that were compiled."""
        tables = Tables(loaded.name, loaded.fingerprint, lambda: loader.revalidate(self.config, loaded))
        arguments = self.config.postgres.arguments()
        return closing(SnapshotReader(arguments, loaded.compiled.rendered, tables=tables, statement_timeout=3600))
