"""Implements `syncer verify`: compares every document of every sink with PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

import click
from prometheus_client import CollectorRegistry

from syncer.cli import output
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.cli.progress import Progress
from syncer.errors import Fatal
from syncer.operations.one_off import OneOffRun
from syncer.operations.repair import repair as repair_documents
from syncer.operations.verify import Report, Verify, seconds_since_backfill
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.records import Registration, Verification
from syncer.registry.registry import Registry
from syncer.telemetry.metrics import Metrics


@command(
    "verify",
    """
    syncer verify
    syncer verify orders --patience 5
    syncer verify --repair
    syncer verify --json | jq -r '.[].differing[]'
    """,
    exits={0: "all documents are equal", 1: "there are differences, or readers use another index"},
)
@models_argument
@click.option(
    "--patience",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=30,
    show_default=True,
    help="Time in which a difference may disappear before it is reported.",
)
@click.option("--repair", is_flag=True, help="Repair all differences, then compare these documents again.")
@click.option(
    "--keys",
    "shown",
    type=click.IntRange(0),
    metavar="NUMBER",
    default=10,
    show_default=True,
    help="Number of document ids to print per list.",
)
@as_json
@click.pass_context
def verify(
    ctx: click.Context,
    context: Context,
    models: Sequence[str],
    patience: float,
    repair: bool,
    shown: int,
    as_json: bool,
) -> None:
    """Compare every document in the sinks with PostgreSQL.

    Run it after a restore, after a manual change in a sink, or regularly as a check. It works while the read models are
    in use. The command compares a difference again until it disappears, or until the time --patience has passed.

    \b
    missing     a document that should be in the sink
    differing   a document with other content than PostgreSQL renders
    orphaned    a document in the sink whose row does not exist, or is excluded by `where`
    expired     a Redis document that its `expire` setting removed; this is not a difference

    Without --repair, no document is changed. --repair renders missing, differing and orphaned documents again, and
    writes or deletes them in the sinks. It works with or without a running daemon.

    `syncer status` and the page of the daemon show the result and its age.
    """
    registry = open_registry(context.config)
    registered = registry.state.load()
    reports: list[Report] = []
    results: list[tuple[Registration, Verification]] = []
    with Progress("document") as progress:
        for loaded in loader.load_models(context.config, models):
            known = registered.registration(loaded.name)
            if known is None:
                raise Fatal(
                    "there is nothing to verify: the read model has never run",
                    where=loaded.name,
                    hint="syncer backfill",
                )
            rendered = seconds_since_backfill(registered, known, time.time_ns() // 1_000_000)
            began = time.time_ns() // 1_000_000
            found = _verify(registry, loaded, known, patience, progress, rendered=rendered, repair=repair)
            results.append((known, _result(found, began)))
            reports += found
    if as_json:
        output.echo_json([asdict(report) | {"equal": report.equal} for report in reports])
    else:
        _echo_reports(reports, shown, repaired=repair)
    for known, result in results:  # after the output, because Kafka may have become unreachable
        registry.state.save(Verification.key(known.id), result)
    if not all(report.equal for report in reports):
        ctx.exit(output.FINDING)


def _result(reports: Sequence[Report], began_ms: int) -> Verification:
    """Returns the result over all sinks, for `syncer status` and the page."""
    documents = sum(report.documents for report in reports)
    return Verification(began_ms, documents, sum(len(report.wrong) for report in reports))


def _verify(
    registry: Registry,
    loaded: loader.LoadedModel,
    known: Registration,
    patience: float,
    progress: Progress,
    *,
    rendered: float,
    repair: bool,
) -> list[Report]:
    """Compares one read model with each of its sinks, and repairs the differences if `repair` is set.

    known: the registration of the read model. rendered: see `Verify`.
    """
    config = registry.config
    rows = SnapshotReader(
        config.postgres.arguments(), loaded.compiled, statement_timeout=config.postgres.statement_timeout
    )
    sinks = loader.build_sinks(config, loaded, epoch=known.epoch, generation=known.generation, built=True)
    # The number of groups is not known before they are read.
    total = 0 if loaded.compiled.group else loaded.catalog.tables[loaded.compiled.root].rows_estimate
    name = ""

    def show_progress(done: int) -> None:
        progress.update(name, done, max(total, done))

    with ExitStack() as closing:
        closing.callback(rows.close)
        for sink in sinks:
            closing.callback(sink.close)
        verify = Verify(loaded.compiled, rows, patience=patience, rendered=rendered, progress=show_progress)
        reports = []
        readers_elsewhere = loader.readers_elsewhere(config, loaded.model, known.generation)
        for sink in sinks:
            name = sink.name
            reports.append(report := verify(sink))
            report.readers = str(readers_elsewhere.get(sink.name.partition(":")[0]) or "")
            progress.update(name, report.documents, report.documents)
        wrong = {id for report in reports for id in report.wrong}
        if not (repair and wrong):
            return reports
        metrics = Metrics(CollectorRegistry()).for_model(loaded.name)
        with OneOffRun(config, loaded.model, registry, metrics, tolerant=True) as run:
            repair_documents(run, wrong, {id for report in reports for id in report.orphaned})
        repaired = [verify.again(sink, report) for sink, report in zip(sinks, reports, strict=True)]
        for before, after in zip(reports, repaired, strict=True):
            after.readers, after.expired = before.readers, before.expired
        return repaired


_HEADINGS = {"failing": "cannot be rendered"}


def _echo_reports(reports: Sequence[Report], shown: int, *, repaired: bool) -> None:
    expired = any(report.expired for report in reports)
    rows = [
        (
            r.sink,
            f"{r.documents:,}",
            *([r.repaired] if repaired else []),
            *([r.expired] if expired else []),
            len(r.missing),
            len(r.differing),
            len(r.orphaned),
            "DIFFERENT" if r.wrong else "equal",
        )
        for r in reports
    ]
    headers = [
        "sink",
        "documents",
        *(["repaired"] if repaired else []),
        *(["expired"] if expired else []),
        "missing",
        "differing",
        "orphaned",
        "",
    ]
    output.table(headers, rows, right=range(1, len(headers) - 1))
    for report in reports:
        for kind in ("missing", "differing", "orphaned", "failing"):
            if ids := getattr(report, kind):
                more = f" and {len(ids) - shown:,} more" if len(ids) > shown else ""
                listed = ", ".join(id or "(empty)" for id in ids[:shown])
                output.echo(f"{report.sink}: {_HEADINGS.get(kind, kind)}: {listed}{more}")
        if report.readers:
            output.echo(report.readers)
    if not any(report.wrong for report in reports):
        return
    if repaired:
        output.echo("→ rejected documents: syncer dlq list; pending work: syncer status")
    else:
        output.echo("→ pending work and dead letters: syncer status")
        output.echo("→ to write these documents again: syncer verify --repair")
