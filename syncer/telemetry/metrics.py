"""Creates the Prometheus objects of the table in `telemetry/table.py`, and counts events with them.

`Metrics` holds the objects of one registry. The registry is passed as an argument; there is no global one. Each read
model has one `ModelMetrics` with its labels already bound, so counting costs about a microsecond.

    python -m syncer.telemetry.metrics > docs/metrics.md
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Collection, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from syncer import __version__
from syncer.document import Outcome
from syncer.telemetry.spec import DROPS, ERRORS, OPERATIONS, REFRESHES, STAGES, STATES
from syncer.telemetry.table import TABLE, markdown


class Metrics:
    """Holds the Prometheus objects of the table, registered in `registry`."""

    lag_seconds: Gauge
    staleness_seconds: Gauge
    lag_records: Gauge
    model_state: Gauge
    stage_duration_seconds: Histogram
    batches: Counter
    events: Counter
    events_skipped: Counter
    dirty_roots: Counter
    renders_skipped: Counter
    documents: Counter
    documents_reordered: Counter
    roots_delayed: Counter
    tree_cycles: Counter
    bulk_request_max_bytes: Gauge
    breaker_open: Gauge
    sink_losses: Counter
    readers_elsewhere: Gauge
    full_refreshes: Counter
    gate_waits: Counter
    gate_wait_seconds: Histogram
    errors: Counter
    dead_letters: Gauge
    refresh_requests: Counter
    refreshed_documents: Counter
    refresh_duration_seconds: Histogram
    push_clients: Gauge
    push_events: Counter
    push_events_conflated: Counter
    push_clients_dropped: Counter
    slot_retained_bytes: Gauge
    slot_active: Gauge
    slot_lost: Gauge
    connector_running: Gauge
    publication_findings: Gauge
    canary_age_seconds: Gauge
    stream_breaks: Gauge
    export_rows: Counter
    export_commits: Counter
    export_conflicts: Counter
    export_lag_records: Gauge
    export_lag_seconds: Gauge
    build_info: Gauge

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        for spec in TABLE:
            setattr(self, spec.attribute, spec.make(registry))
        self.build_info.labels(__version__, platform.python_version()).set(1)

    def for_model(self, name: str) -> ModelMetrics:
        return ModelMetrics(self, name)

    def for_push(self, name: str) -> PushMetrics:
        return PushMetrics(self, name)


class Timer:
    """Measures the duration of a `with` block in seconds, even if the block raises an error."""

    __slots__ = ("_began", "_child")

    def __init__(self, child: Histogram) -> None:
        self._child = child

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._child.observe(time.perf_counter() - self._began)


class PushMetrics:
    """Holds the metrics of the clients that receive the changes of one read model, with its labels bound."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._clients = metrics.push_clients.labels(name)
        self._events = metrics.push_events.labels(name)
        self._conflated = metrics.push_events_conflated.labels(name)
        self._dropped = {reason: metrics.push_clients_dropped.labels(name, reason) for reason in DROPS}

    def joined(self) -> None:
        self._clients.inc()

    def left(self) -> None:
        self._clients.dec()

    def sent(self, events: int, conflated: int) -> None:
        """Counts changes that were handed to a client's connection, and those that later changes replaced before."""
        self._events.inc(events)
        self._conflated.inc(conflated)

    def dropped(self, reason: str) -> None:
        """Counts a client that has to fetch all documents again. reason: one of `DROPS`."""
        self._dropped[reason].inc()


class ModelMetrics:
    """Holds the metrics of one read model, with its labels bound. Any thread may use it: prometheus-client locks.

    Counters with known labels start at 0, so that an alert sees the first error as an increase.
    """

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.name, self._metrics = name, metrics
        self._stages = {stage: metrics.stage_duration_seconds.labels(name, stage) for stage in STAGES}
        self._events = {op: metrics.events.labels(name, op) for op in OPERATIONS}
        self._errors = {kind: metrics.errors.labels(name, kind) for kind in ERRORS}
        self._refreshes = {reason: metrics.full_refreshes.labels(name, reason) for reason in REFRESHES}
        self._events_skipped = metrics.events_skipped.labels(name, "unused")
        self._dirty = metrics.dirty_roots.labels(name)
        self._renders_skipped = metrics.renders_skipped.labels(name)
        self._reordered = metrics.documents_reordered.labels(name)
        self._delayed = metrics.roots_delayed.labels(name)
        self._tree_cycles = metrics.tree_cycles.labels(name)
        self._gate_waits = metrics.gate_waits.labels(name)
        self._gate_wait_seconds = metrics.gate_wait_seconds.labels(name)
        self._lag_seconds = metrics.lag_seconds.labels(name)
        self._documents: dict[tuple[str, str], Counter] = {}
        self.state("starting")

    def stage(self, name: str) -> Timer:
        """Measures a block: `with m.stage("render"):`. Every call returns a new object, because threads overlap."""
        return Timer(self._stages[name])

    def batch(self, lane: str) -> None:
        self._metrics.batches.labels(self.name, lane).inc()

    def events(self, by_op: Mapping[str, int], skipped: int) -> None:
        """Counts a batch of change events by `op`, and those of them that needed no render."""
        for op, count in by_op.items():
            self._events[op].inc(count)
        self._events_skipped.inc(skipped)

    def dirty(self, roots: int, skipped: int) -> None:
        self._dirty.inc(roots)
        self._renders_skipped.inc(skipped)

    def gate(self, seconds: float) -> None:
        self._gate_waits.inc()
        self._gate_wait_seconds.observe(seconds)

    def written(self, sink: str, outcome: Outcome) -> None:
        counts: Iterable[tuple[str, int]] = (
            ("written", outcome.written),
            ("deleted", outcome.deleted),
            ("stale", outcome.stale),
            ("retried", len(outcome.retry)),
            ("rejected", len(outcome.rejected)),
        )
        for name, count in counts:
            child = self._documents.get((sink, name))
            if child is None:
                child = self._metrics.documents.labels(self.name, sink, name)
                self._documents[sink, name] = child
            if count:
                child.inc(count)
        if outcome.request_bytes:
            self._metrics.bulk_request_max_bytes.labels(self.name, sink).set(outcome.request_bytes)

    def delayed(self, roots: int) -> None:
        self._delayed.inc(roots)

    def reordered(self, documents: int) -> None:
        self._reordered.inc(documents)

    def cycles(self, rows: int) -> None:
        self._tree_cycles.inc(rows)

    def breaker(self, sink: str, open: bool) -> None:
        self._metrics.breaker_open.labels(self.name, sink).set(open)

    def lost(self, sink: str, kind: str, times: int = 1) -> None:
        """Counts a loss. kind: one of `LOSSES`. times: 0 makes the series visible before the first loss."""
        self._metrics.sink_losses.labels(self.name, sink, kind).inc(times)
        if kind == "documents" and times:
            self.refresh("lost documents")

    def readers_elsewhere(self, sink: str, elsewhere: bool) -> None:
        self._metrics.readers_elsewhere.labels(self.name, sink).set(elsewhere)

    def refresh(self, reason: str) -> None:
        """Counts a render of all documents. reason: one of `REFRESHES`."""
        self._refreshes[reason].inc()

    def refreshed(self, status: int, documents: int, seconds: float) -> None:
        """Counts a request to refresh documents now. status: of its HTTP response."""
        self._metrics.refresh_requests.labels(self.name, str(int(status))).inc()
        self._metrics.refreshed_documents.labels(self.name).inc(documents)
        self._metrics.refresh_duration_seconds.labels(self.name).observe(seconds)

    def error(self, kind: str) -> None:
        """Counts an error. kind: one of `ERRORS`."""
        self._errors[kind].inc()

    def dead_letters(self, open: int) -> None:
        self._metrics.dead_letters.labels(self.name).set(open)

    def lag(self, lane: str, records: int) -> None:
        self._metrics.lag_records.labels(self.name, lane).set(records)

    def lag_seconds(self, seconds: float) -> None:
        """Sets the lag of all lanes together."""
        self._lag_seconds.set(seconds)

    def staleness(self, seconds: float | None) -> None:
        """Sets the greatest age of a document. None if it is unknown."""
        self._metrics.staleness_seconds.labels(self.name).set(math.nan if seconds is None else seconds)

    def state(self, name: str) -> None:
        """Sets the current state. name: one of `STATES`."""
        for state in STATES:
            self._metrics.model_state.labels(self.name, state).set(state == name)


def by_model(metric: Counter | Gauge, **labels: Collection[str]) -> dict[str, float]:
    """Returns the sum of a metric's series for each read model.

    labels: only series whose label has one of these values.
    """
    found: dict[str, float] = {}
    for sample in (sample for family in metric.collect() for sample in family.samples):
        if not sample.name.endswith("_created") and all(sample.labels[key] in any_ for key, any_ in labels.items()):
            found[sample.labels["model"]] = found.get(sample.labels["model"], 0.0) + sample.value
    return found


if __name__ == "__main__":
    print(markdown(), end="")
