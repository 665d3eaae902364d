"""Combines the parts of a trace to one report. The package docstring has the order of the reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from syncer.errors import Fatal, SyncerError
from syncer.operations.trace.pipeline import TracedPipeline
from syncer.operations.trace.report import Rendered, Report, TracedChange
from syncer.operations.trace.root import TracedRoot
from syncer.operations.trace.sinks import TracedSinks
from syncer.operations.verify import seconds_since_backfill
from syncer.pacing import SystemTime
from syncer.registry.records import HighestClock, Registration
from syncer.registry.registry import Registry
from syncer.registry.state import StateSnapshot

_KAFKA_TIMEOUT = 3.0  # seconds
_STATE_MAX_AGE = 5.0  # seconds


class Trace:
    """Looks at one document, as often as the caller wants.

    root: the error if PostgreSQL did not answer.
    id: the document's id.
    since, most, progress: see `ChangeTopics`.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        root: TracedRoot | SyncerError,
        id: str,
        *,
        since: float,
        most: int,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._registry, self._model, self._root, self._id = registry, model, root, id
        self._pipeline = TracedPipeline(registry, since=since, most=most, progress=progress)
        self._sinks = TracedSinks(registry.config, root.loaded) if isinstance(root, TracedRoot) else None
        self._time = SystemTime()
        self._max_age = 0.0

    def look(self) -> Report:
        """Returns everything that is known now. Raises Fatal if the read model has never run."""
        report, missing = Report(self._model, self._id), dict[str, SyncerError]()
        values = self._state(missing)
        known = values.registration(self._model) if values else None
        if values and not known:
            raise Fatal(
                "there is nothing to trace: the read model has never run", where=self._model, hint="syncer backfill"
            )
        if values and known:
            report = self._from_kafka(report, values, known, missing)
        if isinstance(self._root, TracedRoot):
            report = self._compared(report, self._root, values, known, missing)
        else:
            missing["PostgreSQL"] = self._root
        return replace(report, missing=missing)

    def _state(self, missing: dict[str, SyncerError]) -> StateSnapshot | None:
        try:
            self._registry.backend.ping(_KAFKA_TIMEOUT)
            values = self._registry.state.load(self._max_age)
        except SyncerError as error:
            missing["Kafka"] = error
            return None
        self._max_age = _STATE_MAX_AGE
        return values

    def _from_kafka(
        self, report: Report, values: StateSnapshot, known: Registration, missing: dict[str, SyncerError]
    ) -> Report:
        """Steps 1 and 2."""
        if isinstance(self._root, TracedRoot):
            try:
                report = self._pipeline.add_changes(report, self._root, known)
            except SyncerError as error:
                missing["changes"] = error
        try:
            return self._pipeline.add_reports(report, values, known)
        except SyncerError as error:
            missing["Kafka"] = error
            return report

    def _compared(
        self,
        report: Report,
        root: TracedRoot,
        values: StateSnapshot | None,
        known: Registration | None,
        missing: dict[str, SyncerError],
    ) -> Report:
        """Steps 3 and 4."""
        contents = self._sinks.read(known, report.id) if self._sinks and known else {}
        missing |= {sink: content for sink, content in contents.items() if isinstance(content, SyncerError)}
        rendered = None
        try:
            rendered = root.render(self._time.now_ms())
        except SyncerError as error:
            missing["PostgreSQL"] = error
        partials = root.loaded.compiled.partials is not None
        changes = _with_visibility(report.changes, rendered)
        report = replace(report, rendered=rendered, changes=changes, partials=partials)
        if not (self._sinks and known and values):
            return report
        age = seconds_since_backfill(values, known, self._time.now_ms())
        clock = values.get(HighestClock.key(known.id))
        return replace(
            report,
            stores=self._sinks.compare(contents, rendered, report.id, age),
            same_history=rendered is None or clock is None or clock.identity == rendered.identity,
        )

    def close(self) -> None:
        """Closes the connections to the sinks."""
        if self._sinks:
            self._sinks.close()


def _with_visibility(changes: Sequence[TracedChange], rendered: Rendered | None) -> list[TracedChange]:
    """Adds whether the snapshot sees the transaction of each change."""

    def visible(change: TracedChange) -> bool | None:
        xid = change.found.change.txid
        return None if xid is None or rendered is None else not rendered.snapshot.unseen([xid])

    return [replace(change, visible=visible(change)) for change in changes]
