"""Every metric, in one table: the Prometheus objects and `docs/metrics.md` are made from it.

`Metrics` holds the objects of one registry, which is passed around: there is no global one. A read model
asks once for its `ModelMetrics`, whose children are ready, so that counting costs about a microsecond.

    python -m syncer.telemetry.metrics > docs/metrics.md
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from syncer import __version__
from syncer.document import Outcome

STAGES = ("decode", "route", "resolve", "render", "durable", "write", "commit")
OPERATIONS = ("c", "u", "d", "r", "t")
ERRORS = ("retry", "reject", "fatal")
LOSSES = ("deletes", "documents")
REFRESHES = ("altered", "identity", "lost documents", "resumed", "truncate")
STATES = ("starting", "running", "waiting", "failed", "stopped")
BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric. The attribute of `Metrics` that holds it has the name without `syncer_` and `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    unit: str
    help: str

    @property
    def attribute(self) -> str:
        return self.name.removeprefix("syncer_").removesuffix("_total")

    def make(self, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
        if self.kind == "counter":
            return Counter(self.name, self.help, self.labels, registry=registry)
        if self.kind == "gauge":
            return Gauge(self.name, self.help, self.labels, registry=registry)
        return Histogram(self.name, self.help, self.labels, registry=registry, buckets=BUCKETS)


TABLE: tuple[Spec, ...] = (
    Spec(
        "syncer_lag_seconds",
        "gauge",
        ("model",),
        "seconds",
        "Age of the oldest change that is not in every sink; 0 when none waits. It covers the change events"
        " and the work items (fan-outs, renders of altered tables and of lost documents) in this process's"
        " partitions. It covers the connector: a message of the canary counts if it has not come after 2 s."
        " It grows while the read model waits or has failed. It does not cover: changes of the last"
        " `watch.interval` that the connector did not deliver, backfills, sweeps that are not due, dead"
        " letters, and the time until Elasticsearch refreshes an index. It compares PostgreSQL's clock with"
        " this host's.",
    ),
    Spec(
        "syncer_lag_records",
        "gauge",
        ("model", "lane"),
        "records",
        "Records in Kafka that are not settled yet; lane `changes`, `work` (fan-outs, sweeps), `backfill`.",
    ),
    Spec(
        "syncer_model_state",
        "gauge",
        ("model", "state"),
        "0 or 1",
        f"1 for the state that the read model is in: {', '.join(STATES)}.",
    ),
    Spec(
        "syncer_stage_seconds",
        "histogram",
        ("model", "stage"),
        "seconds",
        f"Time spent in a stage, a batch: {', '.join(STAGES)}. `durable`: until what a snapshot saw was"
        " on PostgreSQL's disk.",
    ),
    Spec("syncer_batches_total", "counter", ("model", "lane"), "batches", "Batches of events or work items begun."),
    Spec(
        "syncer_events_total",
        "counter",
        ("model", "op"),
        "events",
        "Change events seen, by Debezium's `op`: c create, u update, d delete, r read, t truncate.",
    ),
    Spec(
        "syncer_events_skipped_total",
        "counter",
        ("model", "reason"),
        "events",
        "Change events that needed no render; reason `unused`: no column changed that the read model uses.",
    ),
    Spec(
        "syncer_dirty_roots_total",
        "counter",
        ("model",),
        "documents",
        "Documents marked dirty by change events, duplicates within a batch counted once.",
    ),
    Spec(
        "syncer_renders_skipped_total",
        "counter",
        ("model",),
        "documents",
        "Dirty documents that were not rendered again: their last render shows these changes already.",
    ),
    Spec(
        "syncer_documents_total",
        "counter",
        ("model", "sink", "outcome"),
        "documents",
        "Documents by what the sink did: written, deleted, older (it had the same or a newer version),"
        " again (rendered anew later), refused (dead-lettered).",
    ),
    Spec(
        "syncer_bulk_bytes",
        "gauge",
        ("model", "sink"),
        "bytes",
        "Size of a request to Elasticsearch at most: `max_bulk_bytes`, halved when the server has too much"
        " to do (429, 413, 503, a time-out), and grown again while it has not.",
    ),
    Spec(
        "syncer_breaker_open",
        "gauge",
        ("model", "sink"),
        "0 or 1",
        "1 while the read model is stopped because the sink refused `dead_letters.max_consecutive` documents"
        " in a row, until the sink accepts one.",
    ),
    Spec(
        "syncer_sink_losses_total",
        "counter",
        ("model", "sink", "what"),
        "losses",
        "Times that a sink was found to have forgotten deletes or lost documents (restart, failover, flush):"
        " it is swept, or all is rendered again.",
    ),
    Spec(
        "syncer_readers_elsewhere",
        "gauge",
        ("model", "sink"),
        "0 or 1",
        "1 while readers of the sink see another index than the one that is kept in sync: its alias was"
        " moved or removed by hand.",
    ),
    Spec(
        "syncer_full_refreshes_total",
        "counter",
        ("model", "reason"),
        "refreshes",
        "Times that all documents were handed out to be rendered again without a command: tables were"
        " altered without change events, a replica identity was too weak, a sink lost documents, the"
        " connector resumed and may have lost rows, a table below the root was truncated.",
    ),
    Spec(
        "syncer_gate_waits_total",
        "counter",
        ("model",),
        "batches",
        "Batches whose transactions were not all visible to the first snapshot.",
    ),
    Spec("syncer_gate_wait_seconds", "histogram", ("model",), "seconds", "How long such batches waited."),
    Spec(
        "syncer_errors_total",
        "counter",
        ("model", "kind"),
        "errors",
        "Errors: retry (a server is away or busy), reject (dead-lettered), fatal (the read model stopped).",
    ),
    Spec(
        "syncer_dead_letters",
        "gauge",
        ("model",),
        "documents and records",
        "Dead letters that stand (at most 100,000 are counted): `syncer dlq list`.",
    ),
    Spec(
        "syncer_slot_bytes_behind",
        "gauge",
        ("slot",),
        "bytes",
        "WAL that PostgreSQL keeps for the replication slot; NaN while PostgreSQL does not answer.",
    ),
    Spec(
        "syncer_slot_active",
        "gauge",
        ("slot",),
        "0 or 1",
        "1 when a connector reads the slot of the definition; 0 also while PostgreSQL does not answer.",
    ),
    Spec(
        "syncer_slot_lost",
        "gauge",
        ("slot",),
        "0 or 1",
        "1 when the slot is not there, or the log that it needs is gone: changes are lost.",
    ),
    Spec(
        "syncer_connector_running",
        "gauge",
        ("connector",),
        "0 or 1",
        "1 when Kafka Connect says that the connector and its task run; 0 also while Kafka Connect does not answer.",
    ),
    Spec(
        "syncer_publication_findings",
        "gauge",
        ("publication",),
        "findings",
        "What keeps the publication from sending every change of the read models' tables: 0 when it does,"
        " NaN while PostgreSQL does not answer.",
    ),
    Spec(
        "syncer_canary_seconds",
        "gauge",
        ("prefix",),
        "seconds",
        "Age of the oldest message that was committed to PostgreSQL's log and has not come through Kafka."
        " One is sent every `watch.interval`.",
    ),
    Spec(
        "syncer_stream_breaks",
        "gauge",
        ("prefix",),
        "breaks",
        "How often changes of this topic prefix are known to have been lost before they reached Kafka.",
    ),
    Spec("syncer_build_info", "gauge", ("version", "python"), "1", "Always 1; the labels tell what runs."),
)


class Metrics:
    """The table's objects, registered in `registry`."""

    lag_seconds: Gauge
    lag_records: Gauge
    model_state: Gauge
    stage_seconds: Histogram
    batches: Counter
    events: Counter
    events_skipped: Counter
    dirty_roots: Counter
    renders_skipped: Counter
    documents: Counter
    bulk_bytes: Gauge
    breaker_open: Gauge
    sink_losses: Counter
    readers_elsewhere: Gauge
    full_refreshes: Counter
    gate_waits: Counter
    gate_wait_seconds: Histogram
    errors: Counter
    dead_letters: Gauge
    slot_bytes_behind: Gauge
    slot_active: Gauge
    slot_lost: Gauge
    connector_running: Gauge
    publication_findings: Gauge
    canary_seconds: Gauge
    stream_breaks: Gauge
    build_info: Gauge

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        for spec in TABLE:
            setattr(self, spec.attribute, spec.make(registry))
        self.build_info.labels(__version__, platform.python_version()).set(1)

    def for_model(self, name: str) -> ModelMetrics:
        return ModelMetrics(self, name)


class Timer:
    """`with` one: observes the seconds between, also when it ends in an error."""

    __slots__ = ("_began", "_child")

    def __init__(self, child: Histogram) -> None:
        self._child = child

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._child.observe(time.perf_counter() - self._began)


class ModelMetrics:
    """One read model's children. Its lanes and threads may share it: prometheus-client locks.

    What can be counted at all starts at 0, so that the first error is a rise that an alert can see.
    """

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.name, self._metrics = name, metrics
        self._stages = {stage: metrics.stage_seconds.labels(name, stage) for stage in STAGES}
        self._events = {op: metrics.events.labels(name, op) for op in OPERATIONS}
        self._errors = {kind: metrics.errors.labels(name, kind) for kind in ERRORS}
        self._refreshes = {reason: metrics.full_refreshes.labels(name, reason) for reason in REFRESHES}
        self._skipped = metrics.events_skipped.labels(name, "unused")
        self._dirty = metrics.dirty_roots.labels(name)
        self._shown = metrics.renders_skipped.labels(name)
        self._gate_waits = metrics.gate_waits.labels(name)
        self._gate_wait_seconds = metrics.gate_wait_seconds.labels(name)
        self._lag_seconds = metrics.lag_seconds.labels(name)
        self._documents: dict[tuple[str, str], Counter] = {}
        self.state("starting")

    def stage(self, name: str) -> Timer:
        """Times the block: `with m.stage("render"):`. One object a use, as threads overlap."""
        return Timer(self._stages[name])

    def batch(self, lane: str) -> None:
        self._metrics.batches.labels(self.name, lane).inc()

    def events(self, by_op: Mapping[str, int], skipped: int) -> None:
        """A batch of change events by `op`, and how many of them needed no render."""
        for op, count in by_op.items():
            self._events[op].inc(count)
        self._skipped.inc(skipped)

    def dirty(self, roots: int, shown: int) -> None:
        self._dirty.inc(roots)
        self._shown.inc(shown)

    def gate(self, seconds: float) -> None:
        self._gate_waits.inc()
        self._gate_wait_seconds.observe(seconds)

    def written(self, sink: str, outcome: Outcome) -> None:
        counts: Iterable[tuple[str, int]] = (
            ("written", outcome.written),
            ("deleted", outcome.deleted),
            ("older", outcome.stale),
            ("again", len(outcome.retry)),
            ("refused", len(outcome.rejected)),
        )
        for name, count in counts:
            child = self._documents.get((sink, name))
            if child is None:
                child = self._metrics.documents.labels(self.name, sink, name)
                self._documents[sink, name] = child
            if count:
                child.inc(count)
        if outcome.request_bytes:
            self._metrics.bulk_bytes.labels(self.name, sink).set(outcome.request_bytes)

    def breaker(self, sink: str, open: bool) -> None:
        self._metrics.breaker_open.labels(self.name, sink).set(open)

    def lost(self, sink: str, what: str, times: int = 1) -> None:
        """what: one of `LOSSES`. times: 0 to be seen before the first."""
        self._metrics.sink_losses.labels(self.name, sink, what).inc(times)
        if what == "documents" and times:
            self.refresh("lost documents")

    def readers_elsewhere(self, sink: str, elsewhere: bool) -> None:
        self._metrics.readers_elsewhere.labels(self.name, sink).set(elsewhere)

    def refresh(self, reason: str) -> None:
        """All documents are rendered again; reason: one of `REFRESHES`."""
        self._refreshes[reason].inc()

    def error(self, kind: str) -> None:
        """kind: retry, reject or fatal."""
        self._errors[kind].inc()

    def dead_letters(self, standing: int) -> None:
        self._metrics.dead_letters.labels(self.name).set(standing)

    def lag(self, lane: str, records: int) -> None:
        self._metrics.lag_records.labels(self.name, lane).set(records)

    def lag_seconds(self, seconds: float) -> None:
        """Of all lanes together."""
        self._lag_seconds.set(seconds)

    def state(self, name: str) -> None:
        """name: one of `STATES`."""
        for state in STATES:
            self._metrics.model_state.labels(self.name, state).set(state == name)


def markdown() -> str:
    """The text of `docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "What `syncer run` serves at `/metrics`, in Prometheus' text format. Made from the table in",
        "`syncer/telemetry/metrics.py` by `python -m syncer.telemetry.metrics > docs/metrics.md`; a test",
        "keeps it current.",
        "",
        "| metric | kind | labels | unit | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for spec in TABLE:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        lines.append(f"| `{spec.name}` | {spec.kind} | {labels} | {spec.unit} | {spec.help} |")
    buckets = ", ".join(f"{bucket:g}" for bucket in BUCKETS)
    lines += ["", f"Histograms have these buckets (seconds): {buckets}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
