"""Defines every metric in one table. The Prometheus objects and `docs/metrics.md` are generated from it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGES = ("decode", "route", "resolve", "render", "durable", "write", "commit")
OPERATIONS = ("c", "u", "d", "r", "t")
ERRORS = ("retry", "reject", "fatal")
LOSSES = ("deletes", "documents")
REFRESHES = ("altered", "identity", "lost documents", "resumed", "truncate")
STATES = ("starting", "running", "waiting", "failed", "stopped")
BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Spec:
    """Describes one metric. Its attribute in `Metrics` has the same name without `syncer_` and `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    unit: str
    help: str

    @property
    def attribute(self) -> str:
        return self.name.removeprefix("syncer_").removesuffix("_total")

    def make(self, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
        text = self.help.replace("\n", " ")  # Prometheus shows the help of a metric on one line
        if self.kind == "counter":
            return Counter(self.name, text, self.labels, registry=registry)
        if self.kind == "gauge":
            return Gauge(self.name, text, self.labels, registry=registry)
        return Histogram(self.name, text, self.labels, registry=registry, buckets=BUCKETS)


TABLE: tuple[Spec, ...] = (
    Spec(
        "syncer_lag_seconds",
        "gauge",
        ("model",),
        "seconds",
        "Age of the oldest change that is not in every sink; 0 when none is pending. It grows while the read model"
        " waits or has failed. It compares the time of PostgreSQL with the time of this host.\n"
        "It includes the change events and work items in the partitions of this process. The work items are fan-outs,"
        " and renders after altered tables or lost documents. It also includes the connector: a canary message counts"
        " if it has not arrived after 2 s.\n"
        "It does not include: changes of the last `watch.interval` that the connector has not delivered; backfills;"
        " sweeps that are not due; dead letters; the time until Elasticsearch refreshes an index.",
    ),
    Spec(
        "syncer_lag_records",
        "gauge",
        ("model", "lane"),
        "records",
        "Records in Kafka that are not committed yet. Lanes: `changes` (change events), `work` (fan-outs, sweeps),"
        " `backfill` (key ranges).",
    ),
    Spec(
        "syncer_model_state",
        "gauge",
        ("model", "state"),
        "0 or 1",
        f"1 for the current state of the read model, 0 for the others: {', '.join(STATES)}.",
    ),
    Spec(
        "syncer_stage_duration_seconds",
        "histogram",
        ("model", "stage"),
        "seconds",
        f"Time that a batch spends in each stage: {', '.join(STAGES)}. In `durable`, the batch waits until PostgreSQL"
        " has flushed the transactions that its snapshot saw.",
    ),
    Spec(
        "syncer_batches_total",
        "counter",
        ("model", "lane"),
        "batches",
        "Batches that were started, by lane: `changes` (change events), `work` or `backfill` (work items).",
    ),
    Spec(
        "syncer_events_total",
        "counter",
        ("model", "op"),
        "events",
        "Change events received, by Debezium's `op`: c create, u update, d delete, r read, t truncate.",
    ),
    Spec(
        "syncer_events_skipped_total",
        "counter",
        ("model", "reason"),
        "events",
        "Change events that needed no render. Reason `unused`: no column changed that the read model uses.",
    ),
    Spec(
        "syncer_dirty_roots_total",
        "counter",
        ("model",),
        "documents",
        "Documents that change events marked as dirty (to be rendered again). A document counts once per batch.",
    ),
    Spec(
        "syncer_renders_skipped_total",
        "counter",
        ("model",),
        "documents",
        "Dirty documents that were not rendered again, because their last render already contains the changes.",
    ),
    Spec(
        "syncer_documents_total",
        "counter",
        ("model", "sink", "outcome"),
        "documents",
        "Documents by the outcome of their write: written, deleted, stale (the sink had the same or a newer version),"
        " retried (rendered again later), rejected (a dead letter was written).",
    ),
    Spec(
        "syncer_bulk_request_max_bytes",
        "gauge",
        ("model", "sink"),
        "bytes",
        "Current maximum size of a request to Elasticsearch. It starts at `max_bulk_bytes`, is halved when the server"
        " is overloaded (429, 413, 503, a timeout), and grows again when the server accepts requests.",
    ),
    Spec(
        "syncer_breaker_open",
        "gauge",
        ("model", "sink"),
        "0 or 1",
        "1 while the circuit breaker stops the read model: the sink has rejected `dead_letters.max_consecutive`"
        " documents in a row. It closes when the sink accepts a document.",
    ),
    Spec(
        "syncer_sink_losses_total",
        "counter",
        ("model", "sink", "kind"),
        "losses",
        "Times that a sink may have lost acknowledged writes, after a restart, failover or flush. Kind `deletes`:"
        " it may have"
        " forgotten deletes, and the syncer runs a sweep. Kind `documents`: the syncer also renders all documents"
        " again.",
    ),
    Spec(
        "syncer_readers_elsewhere",
        "gauge",
        ("model", "sink"),
        "0 or 1",
        "1 while the alias of the sink was moved or removed by hand, so that readers do not see the index that the"
        " syncer"
        " updates.",
    ),
    Spec(
        "syncer_full_refreshes_total",
        "counter",
        ("model", "reason"),
        "refreshes",
        "Times that the syncer started a render of all documents by itself. Reasons: `altered` (tables changed"
        " without change events), `identity` (a replica identity was too weak), `lost documents` (by a sink),"
        " `resumed` (the connector may have lost rows), `truncate` (of a table below the root).",
    ),
    Spec(
        "syncer_gate_waits_total",
        "counter",
        ("model",),
        "batches",
        "Batches that waited at the gate: the first snapshot did not see all transactions of the batch.",
    ),
    Spec(
        "syncer_gate_wait_seconds",
        "histogram",
        ("model",),
        "seconds",
        "Time that a batch waited at the gate.",
    ),
    Spec(
        "syncer_errors_total",
        "counter",
        ("model", "kind"),
        "errors",
        "Errors by kind: retry (a server is unreachable or busy), reject (a dead letter was written), fatal (the read"
        " model stopped).",
    ),
    Spec(
        "syncer_dead_letters",
        "gauge",
        ("model",),
        "documents and records",
        "Open dead letters. The count stops at 100,000. `syncer dlq list` shows them.",
    ),
    Spec(
        "syncer_slot_retained_bytes",
        "gauge",
        ("slot",),
        "bytes",
        "WAL that PostgreSQL retains for the replication slot. NaN while PostgreSQL does not answer.",
    ),
    Spec(
        "syncer_slot_active",
        "gauge",
        ("slot",),
        "0 or 1",
        "1 while a connector reads the slot that the connector definition names. 0 also while PostgreSQL does not"
        " answer.",
    ),
    Spec(
        "syncer_slot_lost",
        "gauge",
        ("slot",),
        "0 or 1",
        "1 if the slot does not exist, or its WAL was removed. Changes are lost then.",
    ),
    Spec(
        "syncer_connector_running",
        "gauge",
        ("connector",),
        "0 or 1",
        "1 while Kafka Connect reports that the connector and its task run. 0 also while Kafka Connect does not"
        " answer.",
    ),
    Spec(
        "syncer_publication_findings",
        "gauge",
        ("publication",),
        "findings",
        "Reasons why the publication does not send every change of the read models' tables. NaN while PostgreSQL does"
        " not answer.",
    ),
    Spec(
        "syncer_canary_age_seconds",
        "gauge",
        ("prefix",),
        "seconds",
        "Age of the oldest canary message that was committed to PostgreSQL's WAL and has not arrived through Kafka."
        " The daemon sends one every `watch.interval`.",
    ),
    Spec(
        "syncer_stream_breaks",
        "gauge",
        ("prefix",),
        "breaks",
        "Times that the syncer detected the loss of changes before they reached Kafka.",
    ),
    Spec(
        "syncer_build_info",
        "gauge",
        ("version", "python"),
        "1",
        "Always 1. The labels are the versions of the syncer and of Python.",
    ),
)


def markdown() -> str:
    """Returns the text of `docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "`syncer run` serves these metrics at `/metrics` in the text format of Prometheus. Each daemon exports its own",
        "values. [architecture.md](architecture.md#words) defines words such as *fan-out*, *sweep*, *gate* and",
        "*canary*. The label `model` is the name of the read model, and `prefix` is `kafka.topic_prefix`.",
        "",
        "This file is generated from `syncer/telemetry/table.py`. A test fails if the file is out of date.",
        "To update it, run `python -m syncer.telemetry.metrics > docs/metrics.md`.",
        "",
        "| metric | kind | labels | unit |",
        "| --- | --- | --- | --- |",
    ]
    for spec in TABLE:
        labels = ", ".join(f"`{label}`" for label in spec.labels)
        lines.append(f"| [`{spec.name}`](#{spec.name}) | {spec.kind} | {labels} | {spec.unit} |")
    buckets = ", ".join(f"{bucket:g}" for bucket in BUCKETS)
    lines += ["", f"The histograms have these buckets, in seconds: {buckets}.", ""]
    for spec in TABLE:
        lines += [f"## {spec.name}", ""]
        for paragraph in spec.help.split("\n"):
            lines += [*textwrap.wrap(paragraph, 118, break_on_hyphens=False), ""]
    return "\n".join(lines)
