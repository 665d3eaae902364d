"""Implements `syncer resync`: rebuilds a read model while readers use the current one."""

from __future__ import annotations

import click
from prometheus_client import CollectorRegistry

from syncer.cli import output
from syncer.cli.backfill import describe, echo_rejected, interruptible, load_options
from syncer.cli.context import Context, command, confirm, yes_option
from syncer.cli.progress import Progress
from syncer.operations import resync as engine
from syncer.operations.backfill import Progress as Step
from syncer.quantities import counted
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.telemetry.metrics import Metrics


@command(
    "resync",
    """
    syncer resync orders
    syncer resync orders --yes --workers 4
    """,
    exits={
        0: "rebuilt, and readers use the new documents",
        1: "the same, but some documents were rejected",
        130: "stopped by SIGTERM or Ctrl-C",
    },
)
@click.argument("model")
@load_options
@yes_option
@click.pass_context
def resync(
    ctx: click.Context, context: Context, model: str, workers: int | None, rate: float | None, yes: bool
) -> None:
    """Write all documents of a read model again.

    Run it after you changed a declaration (except its min_interval), after PostgreSQL was restored or replaced, or when
    Kafka deleted changes before they were processed. A daemon that stops for such a reason prints this command.

    In Elasticsearch and PostgreSQL, the command fills a new index or table. When that is in sync, the command switches
    the alias or the view to it. In Redis and Kafka, the command overwrites the documents in place. If a resync was
    interrupted, run the same command again to start from the beginning.

    A document is rejected if a sink refuses it or PostgreSQL cannot render it. Each rejected
    document gets a dead letter with the reason.
    """
    config = context.config
    [found] = loader.load_declared(config, [model])
    confirm(f"Rebuild {model}?", yes)
    registry, metrics = open_registry(config), Metrics(CollectorRegistry())
    with (
        interruptible("the resync is not finished; run the same command again to restart it"),
        Progress("document") as progress,
    ):

        def report(step: Step) -> None:
            progress.update(model, step.roots, step.total, describe(step), unit=step.unit)

        run, obsolete, rejected = engine.resync(
            config, found, registry, metrics, workers or config.backfill.workers, report, rate=rate
        )
        seconds = (run.finished_ms - run.started_ms) / 1000
        progress.echo(f"{model}: rebuilt, {counted(run.roots, run.unit)} in {seconds:,.1f} s")
        echo_rejected(progress, model, rejected, run.unit)
        if obsolete:
            progress.echo(f"  no longer updated, safe to delete when no reader uses them: {', '.join(obsolete)}")
    if rejected:
        ctx.exit(output.FINDING)
