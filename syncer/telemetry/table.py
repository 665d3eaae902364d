"""Defines every metric in one table. The Prometheus objects and `docs/metrics.md` are generated from it.

The metrics of the pipeline are in `pipeline_table.py`.
"""

from __future__ import annotations

import textwrap

from syncer.telemetry.pipeline_table import PIPELINE
from syncer.telemetry.spec import BUCKETS, Spec

TABLE: tuple[Spec, ...] = (
    *PIPELINE,
    Spec(
        "syncer_refresh_requests_total",
        "counter",
        ("model", "status"),
        "requests",
        "Requests to refresh documents now, by the HTTP status of their response.",
    ),
    Spec(
        "syncer_refreshed_documents_total",
        "counter",
        ("model",),
        "documents",
        "Documents that requests refreshed.",
    ),
    Spec(
        "syncer_refresh_duration_seconds",
        "histogram",
        ("model",),
        "seconds",
        "Time from a request to refresh documents to its response, including refused requests.",
    ),
    Spec(
        "syncer_push_clients",
        "gauge",
        ("model",),
        "clients",
        "Clients that receive the changes of the read model from this process now"
        " ([push](freshness.md#push-changes-to-a-browser-or-service)).",
    ),
    Spec(
        "syncer_push_events_total",
        "counter",
        ("model",),
        "events",
        "Changes of documents that were sent to clients. A change counts once for each client.",
    ),
    Spec(
        "syncer_push_events_conflated_total",
        "counter",
        ("model",),
        "events",
        "Changes that a client did not receive, because the same document changed again before the client had read"
        " the earlier change.",
    ),
    Spec(
        "syncer_push_clients_dropped_total",
        "counter",
        ("model", "reason"),
        "clients",
        "Clients whose stream ended with `must-refetch`, so that they have to fetch all documents again. Reasons:"
        " `slow` (too many changed documents wait for the client), `gap` (changes that the client missed are no longer"
        " in the topic). It does not count clients that were disconnected because they did not read for"
        " `http.request_timeout`: they can resume.",
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
        " The daemon sends one every `freshness.interval`.",
    ),
    Spec(
        "syncer_stream_breaks",
        "gauge",
        ("prefix",),
        "breaks",
        "Times that the syncer detected the loss of changes before they reached Kafka.",
    ),
    Spec(
        "syncer_export_rows_total",
        "counter",
        ("model",),
        "rows",
        "Rows that `syncer export` appended to its table. The metrics of the export are served by that command only"
        " (`--metrics-port`).",
    ),
    Spec(
        "syncer_export_commits_total",
        "counter",
        ("model",),
        "commits",
        "Commits of `syncer export`. Each one creates at least one file.",
    ),
    Spec(
        "syncer_export_conflicts_total",
        "counter",
        ("model",),
        "commits",
        "Commits of `syncer export` that were repeated, because another process had committed to the table.",
    ),
    Spec(
        "syncer_export_lag_records",
        "gauge",
        ("model",),
        "records",
        "Records of the documents topic that are not in the table of `syncer export` yet.",
    ),
    Spec(
        "syncer_export_lag_seconds",
        "gauge",
        ("model",),
        "seconds",
        "Age of the oldest record that `syncer export` holds in memory; 0 if there is none.",
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
        "`syncer run` and `syncer serve` serve these metrics at `/metrics` in the text format of Prometheus. Each",
        "process exports its own values. [architecture.md](architecture.md#words) defines words such as *fan-out*,",
        "*sweep*, *gate* and *canary*. The label `model` is the name of the read model, and `prefix` is",
        "`kafka.topic_prefix`.",
        "",
        "This file is generated from `syncer/telemetry/`. A test fails if the file is out of date.",
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
