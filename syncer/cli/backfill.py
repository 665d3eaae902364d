"""Implements `syncer backfill`: renders all documents, in key ranges that Kafka distributes to processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click
from prometheus_client import CollectorRegistry

from syncer.cli import output
from syncer.cli.context import Context, F, command, models_argument
from syncer.cli.progress import Progress
from syncer.operations.backfill import Backfill
from syncer.operations.backfill import Progress as Step
from syncer.quantities import counted
from syncer.registry import loader
from syncer.registry.backends import open_registry
from syncer.telemetry.metrics import Metrics


def load_options(function: F) -> F:
    """Adds the options that limit the load of a command that renders all documents: `workers` and `rate`."""
    workers = click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="NUMBER",
        show_default="setting backfill.workers",
        help="Number of key ranges that this process renders concurrently.",
    )
    rate = click.option(
        "--rate",
        type=click.FloatRange(0, min_open=True),
        metavar="NUMBER",
        show_default="no limit",
        help="Limit in documents per second, over all processes. With partials: in partials per second.",
    )
    return workers(rate(function))


@command(
    "backfill",
    """
    syncer backfill
    syncer backfill orders --workers 4
    syncer backfill orders --rate 2000       at most 2,000 documents per second
    """,
    exits={
        0: "all documents were written",
        1: "finished, but some documents were rejected",
        130: "stopped by SIGTERM or Ctrl-C",
    },
)
@models_argument
@load_options
@click.option(
    "--sweep",
    is_flag=True,
    help="Also delete documents whose rows disappeared without a change event, as in a detached partition.",
)
@click.option("--restart", is_flag=True, help="Start from the beginning even if an earlier backfill is unfinished.")
@click.pass_context
def backfill(
    ctx: click.Context,
    context: Context,
    models: Sequence[str],
    workers: int | None,
    rate: float | None,
    restart: bool,
    sweep: bool,
) -> None:
    """Write all documents once, from the current rows in PostgreSQL.

    Run it after `syncer connectors apply`, before the first `syncer run` or alongside it. Read models are filled
    one after the other. Without arguments, all of them are filled.

    The backfill first waits until all transactions that are open now have ended. It writes to the sinks, and it
    stores its progress in Kafka. You can stop it at any time. Run the same command again to continue, even on
    another machine. Several processes that run the same command share the work.

    A document is rejected if a sink refuses it or PostgreSQL cannot render it. Each rejected
    document gets a dead letter with the reason.
    """
    config = context.config
    found = loader.load_declared(config, models)
    registry, metrics, rejected = open_registry(config), Metrics(CollectorRegistry()), 0
    with interruptible("run the same command again to continue"), Progress("document") as progress:
        for model in found:

            def report(step: Step, name: str = model.name) -> None:
                progress.update(name, step.roots, step.total, describe(step), unit=step.unit)

            done = Backfill(config, model, registry, rate=rate, sweep=sweep).run(
                metrics, workers or config.backfill.workers, report, restart=restart
            )
            seconds = (done.run.finished_ms - done.run.started_ms) / 1000
            progress.echo(f"{model.name}: done, {counted(done.run.roots, done.run.unit)} in {seconds:,.1f} s")
            echo_rejected(progress, model.name, done.rejected, done.run.unit)
            rejected += done.rejected
    if rejected:
        ctx.exit(output.FINDING)


def echo_rejected(progress: Progress, model: str, rejected: int, unit: str) -> None:
    """Prints how many documents or partials were rejected, and the command that shows the reasons.

    unit: `document` or `partial`.
    """
    if rejected:
        progress.echo(f"{model}: {counted(rejected, f'{unit} was', f'{unit}s were')} rejected")
        progress.echo(f"  → syncer dlq list {model}")


_NOTES = {"waiting": "waiting for open transactions", "planning": "planning key ranges"}


def describe(step: Step) -> str:
    """Returns the text that is shown next to the numbers of a step."""
    return step.note or _NOTES.get(step.phase, "")


@contextmanager
def interruptible(next_step: str) -> Iterator[None]:
    """Ends the command with exit code 130 on Ctrl-C or SIGTERM. Work items that were already produced stay in Kafka."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        output.echo(f"stopped; {next_step}", err=True)
        raise click.exceptions.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
