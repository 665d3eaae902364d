"""`syncer resync`: a read model built anew, beside the one that is read meanwhile."""

from __future__ import annotations

import click
from prometheus_client import CollectorRegistry

from syncer.cli import output
from syncer.cli.backfill import describe, interruptible, tell_refused
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
)
@click.argument("model")
@click.option("--workers", type=click.IntRange(1), help="Ranges at the same time.  [default: backfill.workers]")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many documents a second.")
@yes_option
@click.pass_context
def resync(
    ctx: click.Context, context: Context, model: str, workers: int | None, rate: float | None, yes: bool
) -> None:
    """Build a read model anew, in the next generation and epoch.

    The answer to a changed declaration, a restored or replaced PostgreSQL server, and changes that Kafka
    no longer has. In Elasticsearch the new index is read once it is complete; a Redis sink is rewritten in
    place.

    Exit code 1 if documents were refused, by a sink or because PostgreSQL cannot render them.
    """
    config = context.config
    [found] = loader.declared(config, [model])
    confirm(f"Build {model} anew?", yes)
    registry, metrics = open_registry(config), Metrics(CollectorRegistry())
    with (
        interruptible("the resync is not finished: the same command begins it anew"),
        Progress("documents") as progress,
    ):

        def report(step: Step) -> None:
            progress.update(model, step.roots, step.total, describe(step))

        run, left, refused = engine.resync(
            config, found, registry, metrics, workers or config.backfill.workers, report, rate=rate
        )
        seconds = (run.finished_ms - run.started_ms) / 1000
        progress.echo(f"{model}: built anew, {output.counted(run.roots, 'document')} in {seconds:,.1f} s")
        tell_refused(progress, model, refused)
        if left:
            progress.echo(f"  nobody keeps these in step any more; delete them when you like: {', '.join(left)}")
    if refused:
        ctx.exit(output.FINDING)
