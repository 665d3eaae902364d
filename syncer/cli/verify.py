"""`syncer verify`: compares the sinks with PostgreSQL, document by document."""

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
from syncer.operations.repair import repair as mend
from syncer.operations.verify import Report, Verify
from syncer.postgres.snapshot_reader import SnapshotReader
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.registry.records import BackfillRun, Registration
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
)
@models_argument
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=30,
    show_default=True,
    help="Look again for so many seconds before a difference counts.",
)
@click.option("--repair", is_flag=True, help="Render what is wrong again, and compare it again.")
@click.option("--keys", "shown", type=click.IntRange(0), default=10, show_default=True, help="Show so many keys.")
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
    """Compare every document of every sink with what PostgreSQL says now.

    The read models may be in use meanwhile: what differs is looked at again until it is the same or patience
    is over. Exit code 1 if anything differs in the end, or if readers see another index than the one that is
    kept in sync. --repair mends documents that are missing, were edited or deleted by hand, or whose rows are
    gone, beside a daemon or without one. Documents of Redis that have expired (`expire`) are in order: they
    are counted, and not rendered again.
    """
    registry = open_registry(context.config)
    registered = registry.state.load()
    reports: list[Report] = []
    with Progress("documents") as progress:
        for loaded in loader.load_models(context.config, models):
            known = registered.registration(loaded.name)
            if known is None:
                raise Fatal("nothing to verify: it has never run", where=loaded.name, hint="syncer backfill")
            run = registered.get(BackfillRun.key(known.id))
            began_ms = run.started_ms if run and run.finished_ms else 0
            rendered = time.time() - began_ms / 1000 if began_ms else 0.0
            reports += _verify(registry, loaded, known, patience, progress, rendered=rendered, repair=repair)
    if as_json:
        output.echo_json([asdict(report) | {"equal": report.equal} for report in reports])
    else:
        _say(reports, shown, repaired=repair)
    if not all(report.equal for report in reports):
        ctx.exit(output.FINDING)


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
    """known: the read model's registration. rendered: see `Verify`."""
    config = registry.config
    rows = SnapshotReader(
        config.postgres.arguments(), loaded.compiled, statement_timeout=config.postgres.statement_timeout
    )
    sinks = loader.build_sinks(config, loaded, epoch=known.epoch, generation=known.generation, built=True)
    total = loaded.catalog.tables[loaded.compiled.root].rows_estimate
    name = ""

    def compared(done: int) -> None:
        progress.update(name, done, max(total, done))

    with ExitStack() as closing:
        closing.callback(rows.close)
        for sink in sinks:
            closing.callback(sink.close)
        verify = Verify(loaded.compiled, rows, patience=patience, rendered=rendered, progress=compared)
        reports = []
        misread = loader.misread(config, loaded.model, known.generation)
        for sink in sinks:
            name = sink.name
            reports.append(report := verify(sink))
            report.readers = str(misread.get(sink.name.partition(":")[0]) or "")
            progress.update(name, report.documents, report.documents)
        wrong = {id for report in reports for id in report.wrong}
        if not (repair and wrong):
            return reports
        metrics = Metrics(CollectorRegistry()).for_model(loaded.name)
        with OneOffRun(config, loaded.model, registry, metrics, tolerant=True) as errand:
            mend(errand, wrong)
        repaired = [verify.again(sink, report) for sink, report in zip(sinks, reports, strict=True)]
        for before, after in zip(reports, repaired, strict=True):
            after.readers, after.expired = before.readers, before.expired
        return repaired


_LISTS = {"failing": "cannot be rendered"}


def _say(reports: Sequence[Report], shown: int, *, repaired: bool) -> None:
    expired = any(report.expired for report in reports)
    rows = [
        (
            r.sink,
            f"{r.documents:,}",
            *([r.repaired] if repaired else []),
            *([r.expired] if expired else []),
            len(r.missing),
            len(r.differing),
            len(r.ghosts),
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
        "ghosts",
        "",
    ]
    output.table(headers, rows, right=range(1, len(headers) - 1))
    for report in reports:
        for what in ("missing", "differing", "ghosts", "failing"):
            if ids := getattr(report, what):
                more = f" and {len(ids) - shown:,} more" if len(ids) > shown else ""
                told = ", ".join(id or "(empty)" for id in ids[:shown])
                output.echo(f"{report.sink}: {_LISTS.get(what, what)}: {told}{more}")
        if report.readers:
            output.echo(report.readers)
    if not any(report.wrong for report in reports):
        return
    if repaired:
        output.echo("→ syncer dlq list tells what is refused, syncer status what waits")
    else:
        output.echo("→ syncer status tells whether something waits or was dead-lettered")
        output.echo("→ syncer verify --repair")
