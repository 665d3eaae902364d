"""`syncer backfill`: renders every document, in ranges handed out through Kafka."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click
from prometheus_client import CollectorRegistry

from syncer.cli import output
from syncer.cli.context import Context, command, models_argument
from syncer.cli.progress import Progress
from syncer.operations.backfill import Backfill
from syncer.operations.backfill import Progress as Step
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.telemetry.metrics import Metrics


@command(
    "backfill",
    """
    syncer backfill
    syncer backfill orders --workers 4
    syncer backfill orders --rate 2000       at most 2,000 documents a second
    """,
)
@models_argument
@click.option("--workers", type=click.IntRange(1), help="Ranges at the same time.  [default: backfill.workers]")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="At most so many documents a second.")
@click.option(
    "--sweep",
    is_flag=True,
    help="Remove documents, too, whose rows went without an event (detached partitions).",
)
@click.option("--again", is_flag=True, help="Begin anew even if an earlier backfill is unfinished.")
@click.pass_context
def backfill(
    ctx: click.Context,
    context: Context,
    models: Sequence[str],
    workers: int | None,
    rate: float | None,
    again: bool,
    sweep: bool,
) -> None:
    """Fill the read models, one after the other, from what PostgreSQL has now.

    Safe beside a running daemon, and to be stopped at any time: the same command goes on where it was, also
    on another machine, and several of them share the work.

    Exit code 1 if documents were refused, by a sink or because PostgreSQL cannot render them.
    """
    config = context.config
    found = loader.declared(config, models)
    registry, metrics, refused = open_registry(config), Metrics(CollectorRegistry()), 0
    with interruptible("the same command goes on from here"), Progress("documents") as progress:
        for model in found:

            def report(step: Step, name: str = model.name) -> None:
                progress.update(name, step.roots, step.total, describe(step))

            done = Backfill(config, model, registry, rate=rate, sweep=sweep).run(
                metrics, workers or config.backfill.workers, report, again=again
            )
            seconds = (done.run.finished_ms - done.run.started_ms) / 1000
            documents = output.counted(done.run.roots, "document")
            progress.echo(f"{model.name}: done, {documents} in {seconds:,.1f} s")
            tell_refused(progress, model.name, done.refused)
            refused += done.refused
    if refused:
        ctx.exit(output.FINDING)


def tell_refused(progress: Progress, model: str, refused: int) -> None:
    """How many documents were not written, and where the reasons are."""
    if refused:
        were = "was" if refused == 1 else "were"
        progress.echo(f"{model}: {output.counted(refused, 'document')} {were} refused")
        progress.echo(f"  → syncer dlq list {model}")


_NOTES = {"waiting": "waiting for open transactions", "planning": "planning ranges"}


def describe(step: Step) -> str:
    """What is shown beside the numbers of a step."""
    return step.note or _NOTES.get(step.phase, "")


@contextmanager
def interruptible(how_to_go_on: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the command in order; the work that was handed out stays in Kafka."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        output.echo(f"stopped; {how_to_go_on}", err=True)
        raise click.exceptions.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
