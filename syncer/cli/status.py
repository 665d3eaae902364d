"""`syncer status`: how far behind each read model is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from syncer import load
from syncer.cli import output
from syncer.cli.context import Context, as_json, command, models_argument
from syncer.config import Config
from syncer.connect import Status
from syncer.connectors import connect, find_definition
from syncer.declaration import model
from syncer.errors import SyncerError
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
        for line in source_lines(config):
            output.say(line)
    if any(one.state == "failed" for one in statuses):
        ctx.exit(output.FINDING)


def _row(one: ModelStatus) -> list[object]:
    lag = "?" if one.lag_seconds is None else f"{one.lag_seconds:,.1f} s"
    error = one.last_error.replace("\n", " ")
    return [
        one.model, one.state, lag, f"{one.lag_records:,}", f"{one.work_records:,}", one.dead_letters,
        one.backfill, error,
    ]  # fmt: skip


def source_lines(config: Config) -> list[str]:
    """Whether changes arrive at all; a read model that is told nothing has no lag. A line for the connector
    and one for the slot, none where Kafka Connect is not configured."""
    if not config.connect.url:
        return []
    try:
        definition = find_definition(config)
        state = connect(config).status(definition.name)
        lines = [f"connector {definition.name}: {_connector(state)}"]
        slot = definition.config.get("slot.name", "")
        with load.reading(config) as connection:
            row = connection.execute(_SLOT, (slot,)).fetchone()
    except SyncerError as error:
        return [f"source: {error.what}: {error.why}".replace("\n", " ")]
    if row is None:
        missing = "it does not exist, so changes do not arrive → syncer connectors apply, syncer resync"
        return [*lines, f"slot {slot}: {missing}"]
    active, status, behind = row
    return [*lines, f"slot {slot}: {'' if active else 'not '}active, {behind}, WAL {status}"]


def _connector(state: Status | None) -> str:
    if state is None:
        return "it is not there → syncer connectors apply"
    return "running" if state.running else f"NOT RUNNING → syncer check: {state.failure[:120]}"


_SLOT = """
SELECT active, wal_status, pg_catalog.pg_size_pretty(
           pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), confirmed_flush_lsn)) || ' behind'
  FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"""
