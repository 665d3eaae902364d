"""Backfill: the root table cut into key ranges, handed out through the read model's work topic.

Each range is rendered by the same code as a change, under its own snapshot and so its own version: it may
overlap with streaming as it likes. Where it is lives in Kafka (the group's offsets on the work topic), so a
killed backfill goes on where it was, on any machine, and several processes share it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import NamedTuple

from syncer.clock import split_version
from syncer.config.schema import Config
from syncer.declaration.model import Model
from syncer.errors import Fatal, Reject
from syncer.events import Key, WorkItem
from syncer.monitors.table_alterations import TableAlterations
from syncer.pacing import Waiter
from syncer.pipeline.visibility import plan_durably
from syncer.pipeline.work_items import range_items
from syncer.ports import DeadLetter, Overflow, View
from syncer.postgres.fingerprint import Tables
from syncer.postgres.publication import wait_for_open_transactions
from syncer.postgres.session import connect
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.registry.names import Names
from syncer.registry.records import BackfillRun, Registration, StateSlot
from syncer.registry.registry import Registry
from syncer.runtime.supervisor import ModelSupervisor
from syncer.telemetry.metrics import Metrics

_SAMPLE = 200
_LOOK_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is. roots: a close estimate, whole ranges times their size."""

    phase: str
    """`waiting`, `planning`, `rendering`, `done`."""
    roots: int
    total: int
    note: str = ""


class Filled(NamedTuple):
    """A backfill that is done."""

    run: BackfillRun
    refused: int
    """Documents that this run could not write, in whichever process: each of them has a dead letter."""


class Backfill:
    """One read model's backfill.

    rate: documents per second over all processes that work on it; None for as fast as it goes.
    sweep: remove documents, too, whose rows went without an event (a partition detached or truncated).
    slot: of the generation in force, or of the one that a resync builds.
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

    def run(self, metrics: Metrics, workers: int, report: Callable[[Progress], None], *, again: bool = False) -> Filled:
        """Until every root has been rendered and acknowledged. Raises Fatal if a worker had to stop.

        again: start anew although an earlier run is unfinished.
        """
        loaded = loader.load_checked(self.config, self.model)
        begun = self.registry.open(loaded.compiled, self.slot)
        names, key = begun.names, BackfillRun.key(begun.registration.id)
        alterations = TableAlterations(self.config, self.registry, begun.registration, names, loaded)
        alterations.note_first(new=not begun.built)
        run = self.registry.state.load().get(key)
        if run is None or not run.planned or run.finished_ms or again:
            run = self.plan(loaded, names, report)
            self.registry.state.save(key, run)
        else:
            report(Progress("rendering", 0, run.roots, "going on where an earlier run stopped"))
        unit = ModelSupervisor(
            self.config,
            self.model,
            self.registry,
            metrics.for_model(self.model.name),
            work_only=True,
            workers=workers,
            slot=self.slot,
        )
        unit.start()
        try:
            self._watch(unit, names, run, report)
        finally:
            unit.stop()
            unit.join()
        run = replace(run, finished_ms=time.time_ns() // 1_000_000)
        self.registry.state.save(key, run)
        report(Progress("done", run.roots, run.roots))
        return Filled(run, self._refused(begun.registration, names, run))

    def _refused(self, registration: Registration, names: Names, run: BackfillRun) -> int:
        """Open letters that were written since the run began, about documents of its generation and about
        its own work items."""
        own = (f"{names.work_topic}/", f"{names.backfill_topic}/")

        def counts(letter: DeadLetter) -> bool:
            if letter.subject.kind == "record":
                return letter.subject.name.startswith(own)
            return letter.version == 0 or split_version(letter.version)[0] == registration.epoch

        letters = self.registry.dead_letters(self.model.name).read()
        return sum(letter.position.offset >= run.letters and counts(letter) for letter in letters)

    def plan(self, loaded: loader.LoadedModel, names: Names, report: Callable[[Progress], None]) -> BackfillRun:
        """Hand out the ranges. Before that, every transaction that is open now has to end: one that changed
        a table before it joined the publication leaves no event."""
        with connect(self.config.postgres.arguments()) as connection:
            wait_for_open_transactions(connection, progress=lambda note: report(Progress("waiting", 0, 0, str(note))))
        report(Progress("planning", 0, 0))
        run_id, started_ms = uuid.uuid4().hex[:12], time.time_ns() // 1_000_000
        work = self.registry.backfill_queue(names)
        begins, letters = work.ends(), self.registry.dead_letters(self.model.name).end()
        if self.sweep:
            work.put(WorkItem("sweep", "backfill", run_id))
        with self._rows(loaded) as rows:
            with rows.view() as view:
                size = self._range_size(view)
            if self.rate:  # a range is rendered at once, and waited for after: about one a second
                size = max(1, min(size, round(self.rate / len(begins))))
            seconds = size * len(begins) / self.rate if self.rate else 0.0
            rest: list[Key] = []

            def plan(view: View) -> Iterator[WorkItem]:
                last: WorkItem | None = None
                for items, last in enumerate(range_items(view, size, "backfill", run_id, seconds=seconds), 1):
                    yield last
                    if items % 100 == 0:
                        report(Progress("planning", items * size, 0))
                if last and last.high:
                    rest.extend(view.keys_in_range(last.low, last.high))

            planned = plan_durably(rows, plan, Waiter())
        for item in planned:
            work.put(item)
        work.flush()
        roots = max(len(planned) - 1, 0) * size + len(rest)
        return BackfillRun(run_id, True, len(planned), roots, started_ms, begins, work.ends(), letters=letters)

    def _watch(self, unit: ModelSupervisor, names: Names, run: BackfillRun, report: Callable[[Progress], None]) -> None:
        ranges, work = self.registry.backfill_queue(names), self.registry.work_queue(names)
        while True:
            if unit.state == "failed" and (error := unit.failure):
                raise Fatal(f"the backfill stopped: {error.what}", where=error.where, why=error.why, hint=error.hint)
            left = ranges.left(run.ends, run.begins)
            roots = run.roots * (run.records - left) // max(run.records, 1)
            if not left and not (self.sweep and work.left()):  # a sweep hands its work to the other queue
                return
            report(Progress("rendering", roots, run.roots, unit.status()["reason"]))
            time.sleep(_LOOK_EVERY)

    def _range_size(self, view: View) -> int:
        """Roots a range: fewer when documents are large, so that a range fits in memory."""
        keys = view.first_keys(_SAMPLE)
        limit = self.config.pipeline.chunk_bytes
        try:
            rows = view.render(keys, limit) if keys else []
            roots, size = len(rows), sum(len(row.body or b"") for row in rows)
        except Overflow as over:
            roots, size = over.roots, over.size
        except Reject:  # a row that cannot be rendered says nothing of the others' size
            roots, size = 0, 0
        most = self.config.backfill.range_documents
        return max(1, min(most, limit * roots // size)) if size else most

    def _rows(self, loaded: loader.LoadedModel) -> closing[SnapshotReader]:
        """Raises Retry if the tables are not those that were compiled."""
        tables = Tables(loaded.name, loaded.fingerprint, lambda: loader.revalidate(self.config, loaded))
        arguments = self.config.postgres.arguments()
        return closing(SnapshotReader(arguments, loaded.compiled, tables=tables, statement_timeout=3600))
