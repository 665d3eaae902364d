"""Implements `syncer export`: appends every version of the documents to a Delta table."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import click
from prometheus_client import CollectorRegistry, start_http_server

from syncer.cli import output
from syncer.cli.context import Context, as_json, command
from syncer.cli.progress import Progress
from syncer.errors import Fatal, Retry
from syncer.export.exporter import Batching
from syncer.export.exporter import Progress as Step
from syncer.operations.export import Export
from syncer.quantities import counted
from syncer.registry import loader
from syncer.telemetry.export_metrics import ExportMetrics
from syncer.telemetry.metrics import Metrics


@command(
    "export",
    """
    syncer export orders --to /var/lake/orders --check
    syncer export orders --to /var/lake/orders --until-caught-up       from cron, for example
    syncer export orders --to s3://lake/orders --metrics-port 9109     as a service
    """,
    exits={
        0: "stopped by SIGTERM or Ctrl-C, or caught up, or --check found nothing",
        3: "the topic, the table or the path cannot be used",
        4: "a server is unreachable; only with --until-caught-up or --check",
    },
)
@click.argument("model")
@click.option("--to", required=True, metavar="PATH|URL", help="The table: a folder, or for example s3://bucket/table.")
@click.option("--until-caught-up", is_flag=True, help="End when the table has all records that the topic has now.")
@click.option("--check", is_flag=True, help="Check the topic, the table and the location, and end.")
@click.option(
    "--batch-rows",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    metavar="NUMBER",
    help="Commit when this number of records is held in memory.",
)
@click.option(
    "--batch-seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Commit when this time has passed since the oldest record in memory was read.",
)
@click.option("--skip-gaps", is_flag=True, help="Report records that the topic no longer has, and continue after them.")
@click.option(
    "--new-topic",
    is_flag=True,
    help="Append the records of the new topic, after the old one was deleted and created again.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve Prometheus metrics on 127.0.0.1 at this port.",
)
@as_json
def export(
    context: Context,
    model: str,
    to: str,
    until_caught_up: bool,
    check: bool,
    batch_rows: int,
    batch_seconds: float,
    skip_gaps: bool,
    new_topic: bool,
    metrics_port: int | None,
    as_json: bool,
) -> None:
    """Append every version of the documents to a Delta table.

    DuckDB, Spark and Trino can read the table. The command reads the topic of the read model's Kafka sink, which needs
    cleanup_policy: delete. Each record becomes exactly one row. Without --until-caught-up, the command runs until
    SIGTERM or Ctrl-C. At the end, it commits the records that it holds in memory.

    One process per table is enough. No record is appended twice, even with several processes or after a process was
    frozen.

    The command connects to PostgreSQL once, for the types of the columns. The credentials of an object store come from
    environment variables, such as AWS_ACCESS_KEY_ID. docs/analytics.md describes the table and how to query it.
    """
    config = context.config
    [found] = loader.load_declared(config, [model])
    made = Export(config, found, to, new_topic=new_topic)
    made.prepare()
    if check:
        output.echo(f"{model}: can be exported to {made.location.uri}")
        return
    metrics = _metrics(metrics_port, model)
    with _until_signal() as stop, Progress("record") as progress:

        def report(step: Step) -> None:
            metrics.show(step.rows, step.commits, step.conflicts, step.lag_records, step.lag_seconds)
            if step.note:
                progress.echo(f"{model}: {step.note}")
            progress.update(model, step.records - step.lag_records, step.records, _lag(step))

        def failed(error: Retry) -> None:
            progress.echo(f"{model}: {error}\n  retrying")

        batching = Batching(batch_rows, batch_seconds)
        done = made.run(batching, stop, report, failed, until_caught_up=until_caught_up, skip_gaps=skip_gaps)
    if as_json:
        output.echo_json({name: value for name, value in vars(done).items() if name != "note"})
    else:
        rows, commits = counted(done.rows, "record"), counted(done.commits, "commit")
        lag = f", {counted(done.lag_records, 'record')} behind" if done.lag_records else ""
        output.echo(f"{model}: {rows} appended to {made.location.uri} in {commits}{lag}")


def _lag(step: Step) -> str:
    """Returns how far behind the table is. Empty if it is up to date, so that plain lines do not repeat."""
    return f"{step.lag_seconds:.0f} s behind" if step.lag_seconds >= 1 else ""


def _metrics(port: int | None, model: str) -> ExportMetrics:
    registry = CollectorRegistry()
    if port is not None:
        try:
            start_http_server(port, "127.0.0.1", registry)
        except OSError as error:
            hint = "choose another port with --metrics-port"
            raise Fatal("metrics cannot be served", where=f"127.0.0.1:{port}", why=str(error), hint=hint) from error
    return ExportMetrics(Metrics(registry), model)


@contextmanager
def _until_signal() -> Iterator[Event]:
    """Yields an event that SIGTERM and Ctrl-C set."""
    stop = Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
