"""Implements `syncer resync`: rebuilds a read model while readers use the current one."""

from __future__ import annotations

import click
from prometheus_client import CollectorRegistry

from syncer.cli import output
from syncer.cli.backfill import describe, echo_rejected, interruptible
from syncer.cli.context import Context, command, confirm, yes_option
from syncer.cli.progress import Progress
from syncer.operations import resync as engine
from syncer.operations.backfill import Progress as Step
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
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="NUMBER",
    show_default="setting backfill.workers",
    help="Number of key ranges that are rendered concurrently.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="NUMBER",
    show_default="no limit",
    help="Limit in documents per second.",
)
@yes_option
@click.pass_context
def resync(
    ctx: click.Context, context: Context, model: str, workers: int | None, rate: float | None, yes: bool
) -> None:
    """Rebuild a read model while readers use the current documents.

    Run it after you changed a declaration, after PostgreSQL was restored or replaced, or when Kafka deleted changes
    before they were processed. A daemon that stops for such a reason prints this command.

    In Elasticsearch, the command fills a new index. It switches the alias when the index is in sync.
    In Redis, it overwrites the keys in place. An interrupted resync does not change the Elasticsearch alias. Run the
    same command again to start from the beginning.

    A document is rejected if a sink refuses it or PostgreSQL cannot render it. Each rejected
    document gets a dead letter with the reason.
    """
    config = context.config
    [found] = loader.declared(config, [model])
    confirm(f"Rebuild {model}?", yes)
    registry, metrics = open_registry(config), Metrics(CollectorRegistry())
    with (
        interruptible("the resync is not finished; run the same command again to restart it"),
        Progress("documents") as progress,
    ):

        def report(step: Step) -> None:
            progress.update(model, step.roots, step.total, describe(step))

        run, obsolete, rejected = engine.resync(
            config, found, registry, metrics, workers or config.backfill.workers, report, rate=rate
        )
        seconds = (run.finished_ms - run.started_ms) / 1000
        progress.echo(f"{model}: rebuilt, {output.counted(run.roots, 'document')} in {seconds:,.1f} s")
        echo_rejected(progress, model, rejected)
        if obsolete:
            progress.echo(f"  no longer updated, safe to delete when no reader uses them: {', '.join(obsolete)}")
    if rejected:
        ctx.exit(output.FINDING)
