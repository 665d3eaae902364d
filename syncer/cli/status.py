"""`syncer status`: how far behind each read model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from syncer import load
from syncer.cli import output
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.declaration import model
from syncer.registry import Registry
from syncer.status import ModelStatus
from syncer.status import status as ask

HEADERS = ["model", "state", "lag", "records", "work items", "dead letters", "backfill", "last error"]


@command(
    "status",
    """
    syncer status
    syncer status orders
    syncer status --json | jq '.[] | select(.lag_seconds > 60)'
    """,
)
@models_argument
@as_json
@click.pass_context
def status(ctx: click.Context, context: Context, models: Sequence[str], as_json: bool) -> None:
    """Show state, lag and last error of each read model, as Kafka tells: no daemon is asked.

    lag: age of the oldest change that is not in every sink yet. Exit code 1 if a read model has failed.
    """
    config = context.config
    found = load.declared(config, models)
    statuses = ask(Registry(config), {m.name: model.tables(m) for m in found})
    if as_json:
        output.say_json([asdict(one) for one in statuses])
    else:
        output.table(HEADERS, map(_row, statuses), right=(2, 3, 4, 5))
    if any(one.state == "failed" for one in statuses):
        ctx.exit(output.FINDING)


def _row(one: ModelStatus) -> list[object]:
    lag = "?" if one.lag_seconds is None else f"{one.lag_seconds:,.1f} s"
    error = one.last_error.replace("\n", " ")
    return [
        one.model, one.state, lag, f"{one.lag_records:,}", f"{one.work_records:,}", one.dead_letters,
        one.backfill, error,
    ]  # fmt: skip
