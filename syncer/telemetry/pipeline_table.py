"""Defines the metrics of the pipeline: lag, stages, documents, sinks and errors."""

from __future__ import annotations

from syncer.telemetry.spec import STAGES, STATES, Spec

PIPELINE: tuple[Spec, ...] = (
    Spec(
        "syncer_lag_seconds",
        "gauge",
        ("model",),
        "seconds",
        "Age of the oldest change that is not in every sink yet; 0 when there is none. It does not say how old a"
        " document can be: `syncer_staleness_seconds` does. The lag grows while the read model"
        " waits or has failed. It compares the time of PostgreSQL with the time of this host.\n"
        "It includes the change events and work items in the partitions of this process. The work items are fan-outs,"
        " and renders after altered tables or lost documents. Canary messages show how far"
        " the connector is behind. The lag includes the age of a canary message that has not arrived after 2 s.\n"
        "It does not include: changes of the last seconds that the connector has not delivered; backfills; sweeps that"
        " are not due; dead letters; the time until Elasticsearch refreshes an index.",
    ),
    Spec(
        "syncer_staleness_seconds",
        "gauge",
        ("model",),
        "seconds",
        "How old a document of the read model can be: the time since the watermark's snapshot, by"
        " PostgreSQL's clock. Every transaction of that snapshot is in every sink. NaN while there is no watermark.\n"
        "Documents with an open dead letter are excluded (`syncer_dead_letters`), and so is the time until"
        " Elasticsearch refreshes an index.",
    ),
    Spec(
        "syncer_lag_records",
        "gauge",
        ("model", "lane"),
        "records",
        "Records in Kafka that are not committed yet. Lanes: `changes` (change events), `work` (fan-outs, sweeps),"
        " `backfill` (key ranges), `delayed` (roots that change often), `order` (documents in a Kafka sink's topic,"
        " whose order is not checked yet).",
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
        "Batches that were started, by lane: `changes` (change events), `work`, `backfill` or `delayed` (work items).",
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
        "Documents that change events marked as dirty (to be rendered again). A document counts once per batch. In a"
        " read model with partials, it counts partials.",
    ),
    Spec(
        "syncer_renders_skipped_total",
        "counter",
        ("model",),
        "documents",
        "Dirty documents that were not rendered again, because their last render already contains the changes. In a"
        " read model with partials, it counts partials.",
    ),
    Spec(
        "syncer_documents_total",
        "counter",
        ("model", "sink", "outcome"),
        "documents",
        "Documents by the outcome of their write: written, deleted, stale (the sink had the same or a newer version),"
        " retried (rendered again later), rejected (a dead letter was written). In a"
        " read model with partials, it counts partials.",
    ),
    Spec(
        "syncer_documents_reordered_total",
        "counter",
        ("model",),
        "documents",
        "Documents that were rendered again because an older version of them was appended last to the topic of a Kafka"
        " sink.",
    ),
    Spec(
        "syncer_roots_delayed_total",
        "counter",
        ("model",),
        "roots",
        "Dirty roots that were rendered later because they had been rendered within `min_interval`.",
    ),
    Spec(
        "syncer_tree_cycles_total",
        "counter",
        ("model",),
        "rows",
        "Changed rows of a tree (`up`) that are ancestors of themselves. The log names them. The paths of these rows,"
        " and of the rows below them, are cut at the first repeated row. `syncer check` searches for all cycles.",
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
)
